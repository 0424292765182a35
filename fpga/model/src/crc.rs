//! CRC-32C as hardware computes it: every bit of the result is the XOR of some bits of what goes in. `fpga/rtl/crc32c.svh` is
//! generated from here, so that the matrices of both sides have one source.

use std::fmt::Write;

use dataplane_wire::checksum::crc32c_byte;

/// Moves `state` over `bytes`.
pub fn over(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, &byte| crc32c_byte(state, byte))
}

/// Moves `state` over `count` bytes of zeros.
pub fn over_zeros(state: u32, count: usize) -> u32 {
    (0..count).fold(state, |state, _| crc32c_byte(state, 0))
}

/// The state that `count` bytes of zeros turn into `state`: what the division shifted out is shifted in again.
pub fn back_over_zeros(state: u32, count: usize) -> u32 {
    (0..8 * count).fold(state, |state, _| match state >> 31 {
        0 => state << 1,
        _ => (state ^ POLYNOMIAL) << 1 | 1,
    })
}

/// Castagnoli's, least significant bit first (RFC 3720, section 12.1).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// A function of the include file.
struct Matrix {
    name: &'static str,
    what: &'static str,
    has_state: bool,
    data_bytes: usize,
    /// Zeros that follow the data.
    behind_bytes: usize,
}

const MATRICES: &[Matrix] = &[
    m("crc32c_step8", "moves a state over eight bytes", true, 8, 0),
    m("crc32c_step6", "moves a state over six bytes", true, 6, 0),
    m("crc32c_zero1", "moves a state over one zero", true, 0, 1),
    m("crc32c_zero2", "moves a state over two zeros", true, 0, 2),
    m("crc32c_zero4", "moves a state over four zeros", true, 0, 4),
    m("crc32c_zero8", "moves a state over eight zeros", true, 0, 8),
    m("crc32c_zero16", "moves a state over sixteen zeros", true, 0, 16),
    m("crc32c_zero32", "moves a state over 32 zeros", true, 0, 32),
    m("crc32c_zero64", "moves a state over 64 zeros", true, 0, 64),
    m(
        "crc32c_at36",
        "what two bytes add with 36 bytes behind them",
        false,
        2,
        36,
    ),
    m(
        "crc32c_at28",
        "what eight bytes add with 28 bytes behind them",
        false,
        8,
        28,
    ),
    m(
        "crc32c_at20",
        "what eight bytes add with 20 bytes behind them",
        false,
        8,
        20,
    ),
    m(
        "crc32c_at12",
        "what eight bytes add with 12 bytes behind them",
        false,
        8,
        12,
    ),
    m(
        "crc32c_at4",
        "what eight bytes add with 4 bytes behind them",
        false,
        8,
        4,
    ),
    m("crc32c_at0", "what the last four bytes add", false, 4, 0),
    m("crc32c_beat512", "what a beat of 64 bytes adds", false, 64, 0),
];

const fn m(name: &'static str, what: &'static str, has_state: bool, data_bytes: usize, behind_bytes: usize) -> Matrix {
    Matrix {
        name,
        what,
        has_state,
        data_bytes,
        behind_bytes,
    }
}

impl Matrix {
    /// What the input with this bit alone set becomes. The state, if there is one, stands above the data.
    fn column(&self, bit: usize) -> u32 {
        let mut data = vec![0; self.data_bytes];
        let mut state = 0;
        match bit.checked_sub(self.data_bytes * 8) {
            Some(bit) => state = 1 << bit,
            None => data[bit / 8] = 1 << (bit % 8),
        }
        over_zeros(over(state, &data), self.behind_bytes)
    }

    fn emit(&self, into: &mut String) {
        let data_bits = self.data_bytes * 8;
        let bits = data_bits + if self.has_state { 32 } else { 0 };
        let columns: Vec<u32> = (0..bits).map(|bit| self.column(bit)).collect();
        let (name, what) = (self.name, self.what);
        let (ports, input) = match (self.has_state, data_bits) {
            (true, 0) => ("input logic [31:0] s".to_owned(), "s"),
            (true, bits) => (
                format!("input logic [31:0] s, input logic [{}:0] d", bits - 1),
                "{s, d}",
            ),
            (false, bits) => (format!("input logic [{}:0] d", bits - 1), "d"),
        };
        writeln!(into, "// {name}: {what}.").expect("a string takes all");
        writeln!(into, "function automatic logic [31:0] {name}({ports});").expect("a string takes all");
        for row in 0..32 {
            let nibbles = (0..bits / 4).rev().map(|nibble| {
                let value = (0..4).fold(0, |value, bit| value | ((columns[nibble * 4 + bit] >> row) & 1) << bit);
                char::from_digit(value, 16).expect("below sixteen")
            });
            let mask: String = nibbles.collect();
            writeln!(into, "  {name}[{row}] = ^({input} & {bits}'h{mask});").expect("a string takes all");
        }
        into.push_str("endfunction\n\n");
    }
}

/// The text of `fpga/rtl/crc32c.svh`.
pub fn include_file() -> String {
    let mut text = "// CRC-32C (RFC 3720, section 12.1) as matrices of XOR, least significant bit first, byte 0 in the lowest lane. Generated\n\
        // from fpga/model/src/crc.rs: `WRITE=1 cargo test -p fpga-model crc` writes it anew.\n\n"
        .to_owned();
    // What a state of ones becomes, for messages of one known length.
    for (name, count) in [("Crc32cOnes20", 20), ("Crc32cOnes36", 36), ("Crc32cOnes46", 46)] {
        let value = over_zeros(!0, count);
        writeln!(
            text,
            "localparam logic [31:0] {name} = 32'h{value:08x};  // a state of ones, {count} zeros later"
        )
        .expect("a string takes all");
    }
    let value = back_over_zeros(!0, 2);
    writeln!(
        text,
        "localparam logic [31:0] Crc32cOnesBack2 = 32'h{value:08x};  // becomes ones, two zeros later"
    )
    .expect("a string takes all");
    text.push('\n');
    for (bytes, what) in [(4, "four"), (8, "eight")] {
        let top = 8 * bytes - 1;
        write!(
            text,
            "// Fields are numbers, most significant byte first; the matrices take {what} bytes as they lie.\n\
            function automatic logic [{top}:0] swap{bytes}(input logic [{top}:0] v);\n  \
            for (int n = 0; n < {bytes}; n++) swap{bytes}[8*n +: 8] = v[8*({}-n) +: 8];\nendfunction\n\n",
            bytes - 1
        )
        .expect("a string takes all");
    }
    for matrix in MATRICES {
        matrix.emit(&mut text);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn back_is_where_it_came_from() {
        assert_eq!(over_zeros(back_over_zeros(0x1234_5678, 7), 7), 0x1234_5678);
    }

    #[test]
    fn the_include_file_is_what_is_generated() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rtl/crc32c.svh");
        if env::var_os("WRITE").is_some() {
            fs::write(&path, include_file()).expect("the folder is there");
        }
        let found = fs::read_to_string(&path).expect("it is in the repository");
        assert!(
            found == include_file(),
            "fpga/rtl/crc32c.svh is not what crc.rs says: WRITE=1 cargo test -p fpga-model crc"
        );
    }
}
