//! The smallest object that a BPF loader accepts: an ELF file (elf(5)) with one function, in the section from whose name
//! the loader learns that it is an XDP program, and a licence.
//!
//! ```text
//!  header │ xdp: instructions │ license │ .symtab: nothing, the function │ .strtab: names │ section headers
//! ```

use super::Instruction;

/// The name of the function.
pub const FUNCTION: &str = "lesson";

/// EM_BPF.
const MACHINE_BPF: u16 = 247;
/// ET_REL: an object that was not linked.
const TYPE_RELOCATABLE: u16 = 1;
const HEADER_BYTES: u16 = 64;
const SECTION_HEADER_BYTES: u16 = 64;
const SYMBOL_BYTES: u64 = 24;

/// Section types.
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
/// Section flags.
const ALLOC: u64 = 2;
const EXECINSTR: u64 = 4;

/// Section numbers.
const XDP: u16 = 1;
const STRINGS: u16 = 4;

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    bytes: Vec<u8>,
    /// Of .symtab: the section with the names, and the number of the first symbol that is global.
    link: u32,
    info: u32,
    entry_bytes: u64,
}

impl Section {
    fn new(name: &'static str, kind: u32, flags: u64, bytes: Vec<u8>) -> Section {
        Section {
            name,
            kind,
            flags,
            bytes,
            link: 0,
            info: 0,
            entry_bytes: 0,
        }
    }
}

/// The object, in this machine's byte order. The licence is the instructions' own: they call no helper, so none is asked for.
pub fn object(instructions: &[Instruction]) -> Vec<u8> {
    let code: Vec<u8> = instructions
        .iter()
        .flat_map(|instruction| instruction.bytes())
        .collect();
    // All names in one table, behind the empty one.
    let names = ["xdp", "license", ".symtab", ".strtab", FUNCTION];
    let mut strings = vec![0];
    let mut name_at = Vec::new();
    for name in names {
        name_at.push(strings.len() as u32);
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let offset_of = |name: &str| name_at[names.iter().position(|known| *known == name).expect("in the list")];

    // st_name, st_info (STB_GLOBAL, STT_FUNC), st_other, st_shndx, st_value, st_size.
    let mut symbols = vec![0; SYMBOL_BYTES as usize];
    symbols.extend_from_slice(&offset_of(FUNCTION).to_ne_bytes());
    symbols.extend_from_slice(&[1 << 4 | 2, 0]);
    symbols.extend_from_slice(&XDP.to_ne_bytes());
    symbols.extend_from_slice(&0_u64.to_ne_bytes());
    symbols.extend_from_slice(&(code.len() as u64).to_ne_bytes());

    let sections = [
        Section::new("xdp", PROGBITS, ALLOC | EXECINSTR, code),
        Section::new("license", PROGBITS, ALLOC, b"Dual MIT/GPL\0".to_vec()),
        Section {
            link: STRINGS.into(),
            info: 1,
            entry_bytes: SYMBOL_BYTES,
            ..Section::new(".symtab", SYMTAB, 0, symbols)
        },
        Section::new(".strtab", STRTAB, 0, strings),
    ];

    let mut body = Vec::new();
    let mut table = vec![0; SECTION_HEADER_BYTES.into()];
    for section in &sections {
        body.resize(body.len().next_multiple_of(8), 0);
        let at = u64::from(HEADER_BYTES) + body.len() as u64;
        table.extend_from_slice(&offset_of(section.name).to_ne_bytes());
        table.extend_from_slice(&section.kind.to_ne_bytes());
        // Flags, address, place in the file, length.
        for number in [section.flags, 0, at, section.bytes.len() as u64] {
            table.extend_from_slice(&number.to_ne_bytes());
        }
        table.extend_from_slice(&section.link.to_ne_bytes());
        table.extend_from_slice(&section.info.to_ne_bytes());
        // Alignment, length of an entry.
        for number in [8, section.entry_bytes] {
            table.extend_from_slice(&number.to_ne_bytes());
        }
        body.extend_from_slice(&section.bytes);
    }
    body.resize(body.len().next_multiple_of(8), 0);
    let table_at = u64::from(HEADER_BYTES) + body.len() as u64;
    let mut object = header(table_at, sections.len() as u16 + 1);
    object.extend_from_slice(&body);
    object.extend_from_slice(&table);
    object
}

fn header(table_at: u64, sections_count: u16) -> Vec<u8> {
    // Magic, 64 bits, byte order (1: little-endian), version 1, padding.
    let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1 + u8::from(cfg!(target_endian = "big")), 1];
    header.resize(16, 0);
    header.extend_from_slice(&TYPE_RELOCATABLE.to_ne_bytes());
    header.extend_from_slice(&MACHINE_BPF.to_ne_bytes());
    header.extend_from_slice(&1_u32.to_ne_bytes());
    // Entry point, program headers (none of either), section headers.
    for number in [0, 0, table_at] {
        header.extend_from_slice(&number.to_ne_bytes());
    }
    header.extend_from_slice(&0_u32.to_ne_bytes());
    // Lengths and counts of headers; the section with the sections' names.
    for number in [HEADER_BYTES, 0, 0, SECTION_HEADER_BYTES, sections_count, STRINGS] {
        header.extend_from_slice(&number.to_ne_bytes());
    }
    assert_eq!(header.len(), usize::from(HEADER_BYTES));
    header
}
