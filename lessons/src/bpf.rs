//! The BPF instructions that lesson 5 uses, an assembler for them, and a program that is shown to the verifier and run: no
//! compiler for BPF is needed to meet the verifier.
//!
//! Numbers are those of include/uapi/linux/bpf.h and bpf_common.h. An instruction is 8 bytes:
//!
//! ```text
//!  0        1            2        4                8
//!  +--------+------+-----+--------+----------------+
//!  | code   | src  | dst | offset | immediate      |      one line of the verifier's log: "3: (25) if r2 > 7 goto …"
//!  +--------+------+-----+--------+----------------+      is instruction 3, code 0x25
//! ```

mod elf;
mod interpreter;

use std::sync::Once;

use ebpf_host::{Foreign, HostError, Verdict};

pub use interpreter::{Fault, interpret};

/// A register: R0 is the result, R1 at the beginning the context, R10 the stack (which no lesson uses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a register is its number")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How many bytes a load reads. They are read in the machine's own order: what the network wrote big-endian looks turned
/// round on most machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One byte.
    B = 0x10,
    /// Two bytes.
    H = 0x08,
    /// Four bytes.
    W = 0x00,
}

impl Size {
    /// As a number.
    pub const fn bytes(self) -> usize {
        match self {
            Size::B => 1,
            Size::H => 2,
            Size::W => 4,
        }
    }
}

/// Where a program finds the packet's beginning in its context (struct xdp_md, include/uapi/linux/bpf.h).
pub const DATA: i16 = 0;
/// Where it finds the packet's end: the first byte that is no longer the packet's.
pub const DATA_END: i16 = 4;

/// Let the packet go up the stack (enum xdp_action).
pub const XDP_PASS: i32 = 2;
/// Drop the packet.
pub const XDP_DROP: i32 = 1;

/// The lower three bits of a code.
const LDX: u8 = 0x01;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
/// A load from memory (BPF_MEM).
const MEM: u8 = 0x60;
/// The second operand is a register (BPF_X), not the immediate.
const X: u8 = 0x08;
/// Operations of ALU and ALU64.
const ADD: u8 = 0x00;
const AND: u8 = 0x50;
const MOV: u8 = 0xb0;
const END: u8 = 0xd0;
/// To big-endian (BPF_TO_BE).
const TO_BE: u8 = 0x08;
/// Operations of JMP.
const JA: u8 = 0x00;
const JEQ: u8 = 0x10;
const JGT: u8 = 0x20;
const JNE: u8 = 0x50;
const EXIT: u8 = 0x90;

/// struct bpf_insn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// As the kernel reads it, in this machine's byte order.
    pub fn bytes(self) -> [u8; 8] {
        // A bit field: which half of the byte comes first depends on the byte order too.
        let registers = match cfg!(target_endian = "big") {
            true => self.dst << 4 | self.src,
            false => self.src << 4 | self.dst,
        };
        let mut bytes = [self.code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.immediate.to_ne_bytes());
        bytes
    }
}

/// One line of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// An instruction that goes on to the next.
    Plain(Instruction),
    /// One that may go on at a label further down.
    Jump(Instruction, &'static str),
    /// A place to jump to. Takes no room.
    Label(&'static str),
}

const fn plain(code: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) -> Line {
    Line::Plain(Instruction {
        code,
        dst: dst as u8,
        src: src as u8,
        offset,
        immediate,
    })
}

const fn jump(code: u8, dst: Reg, src: Reg, immediate: i32, to: &'static str) -> Line {
    let Line::Plain(instruction) = plain(code, dst, src, 0, immediate) else {
        unreachable!()
    };
    Line::Jump(instruction, to)
}

/// `dst = *(src + offset)`
pub const fn ldx(size: Size, dst: Reg, src: Reg, offset: i16) -> Line {
    plain(LDX | MEM | size as u8, dst, src, offset, 0)
}

/// `dst = value`
pub const fn mov(dst: Reg, value: i32) -> Line {
    plain(ALU64 | MOV, dst, Reg::R0, 0, value)
}

/// `dst = src`
pub const fn mov_reg(dst: Reg, src: Reg) -> Line {
    plain(ALU64 | MOV | X, dst, src, 0, 0)
}

/// `dst += value`
pub const fn add(dst: Reg, value: i32) -> Line {
    plain(ALU64 | ADD, dst, Reg::R0, 0, value)
}

/// `dst &= value`
pub const fn and(dst: Reg, value: i32) -> Line {
    plain(ALU64 | AND, dst, Reg::R0, 0, value)
}

/// `dst` = its lower 16 bits, from the network's byte order to the machine's.
pub const fn be16(dst: Reg) -> Line {
    plain(ALU | END | TO_BE, dst, Reg::R0, 0, 16)
}

/// `goto to`
pub const fn ja(to: &'static str) -> Line {
    jump(JMP | JA, Reg::R0, Reg::R0, 0, to)
}

/// `if dst == value goto to`
pub const fn jeq(dst: Reg, value: i32, to: &'static str) -> Line {
    jump(JMP | JEQ, dst, Reg::R0, value, to)
}

/// `if dst != value goto to`. The immediate is extended with its sign to 64 bits.
pub const fn jne(dst: Reg, value: i32, to: &'static str) -> Line {
    jump(JMP | JNE, dst, Reg::R0, value, to)
}

/// `if the lower 32 bits of dst != value goto to`: for values whose highest bit may be set.
pub const fn jne32(dst: Reg, value: u32, to: &'static str) -> Line {
    jump(JMP32 | JNE, dst, Reg::R0, value as i32, to)
}

/// `if dst > src goto to`, without signs. How a packet's bounds are checked.
pub const fn jgt_reg(dst: Reg, src: Reg, to: &'static str) -> Line {
    jump(JMP | JGT | X, dst, src, 0, to)
}

/// `return r0`
pub const fn exit() -> Line {
    plain(JMP | EXIT, Reg::R0, Reg::R0, 0, 0)
}

/// A place to jump to.
pub const fn label(name: &'static str) -> Line {
    Line::Label(name)
}

/// Turns labels into distances.
///
/// # Panics
/// If a jump's label is not there exactly once, or more than 32,767 instructions away.
pub fn assemble(lines: &[Line]) -> Vec<Instruction> {
    // The number of the instruction that stands behind a label.
    let index_of = |name: &str| {
        let is_it = |line: &Line| matches!(line, Line::Label(label) if *label == name);
        let count = lines.iter().filter(|line| is_it(line)).count();
        assert_eq!(count, 1, "label {name:?} is there {count} times");
        let before = lines.iter().take_while(|line| !is_it(line));
        before.filter(|line| !matches!(line, Line::Label(_))).count()
    };
    let mut instructions = Vec::new();
    for line in lines {
        match *line {
            Line::Plain(instruction) => instructions.push(instruction),
            Line::Jump(instruction, to) => {
                // The distance counts from the instruction after the jump.
                let offset = index_of(to) as i64 - (instructions.len() as i64 + 1);
                instructions.push(Instruction {
                    offset: i16::try_from(offset).expect("a short program"),
                    ..instruction
                });
            }
            Line::Label(_) => {}
        }
    }
    instructions
}

/// A program, and the kernel's opinion of it where it may be asked.
#[derive(Debug)]
pub struct Program {
    instructions: Vec<Instruction>,
    in_kernel: Option<Foreign>,
}

impl Program {
    /// Shows the program to the verifier. Where this process may not do that, the reason is printed and the interpreter is left
    /// alone with it.
    ///
    /// # Errors
    /// The verifier refuses it: its words are in the error.
    pub fn load(lines: &[Line]) -> Result<Program, HostError> {
        let instructions = assemble(lines);
        let in_kernel = match Foreign::load(&elf::object(&instructions), elf::FUNCTION) {
            Ok(foreign) => Some(foreign),
            Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. })) => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    println!("skipped: the verifier and runs in the kernel; the interpreter is alone: {error}")
                });
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Program {
            instructions,
            in_kernel,
        })
    }

    /// Whether the verifier was asked.
    pub const fn is_verified(&self) -> bool {
        self.in_kernel.is_some()
    }

    /// What becomes of `frame`: by the interpreter, and by the kernel where the program is loaded.
    ///
    /// # Errors
    /// What the interpreter found, for this frame.
    ///
    /// # Panics
    /// If the kernel runs it and comes to another answer.
    pub fn run(&self, frame: &[u8]) -> Result<Verdict, Fault> {
        let verdict = interpret(&self.instructions, frame).map(|action| Verdict::new(action as u32))?;
        if let Some(in_kernel) = &self.in_kernel {
            let run = in_kernel.test_run(frame).expect("the kernel runs what it has verified");
            assert_eq!(run.verdict, verdict, "kernel and interpreter, on {frame:02x?}");
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::{Reg::*, *};

    #[test]
    fn instructions_are_encoded_as_a_compiler_does() {
        // What llvm-objdump prints of programs that clang and rustc made.
        let cases: [(Line, [u8; 8]); 9] = [
            (mov(R0, 2), [0xb7, 0, 0, 0, 2, 0, 0, 0]),
            (exit(), [0x95, 0, 0, 0, 0, 0, 0, 0]),
            (ldx(Size::W, R2, R1, DATA_END), [0x61, 0x12, 4, 0, 0, 0, 0, 0]),
            (ldx(Size::H, R5, R2, 36), [0x69, 0x25, 36, 0, 0, 0, 0, 0]),
            (ldx(Size::B, R5, R2, 23), [0x71, 0x25, 23, 0, 0, 0, 0, 0]),
            (mov_reg(R4, R2), [0xbf, 0x24, 0, 0, 0, 0, 0, 0]),
            (add(R4, 38), [0x07, 0x04, 0, 0, 38, 0, 0, 0]),
            (be16(R5), [0xdc, 0x05, 0, 0, 16, 0, 0, 0]),
            (and(R5, 0x3fff), [0x57, 0x05, 0, 0, 0xff, 0x3f, 0, 0]),
        ];
        if cfg!(target_endian = "big") {
            return;
        }
        for (line, bytes) in cases {
            assert_eq!(assemble(&[line])[0].bytes(), bytes, "{line:?}");
        }
    }

    #[test]
    fn jumps_count_from_the_next_instruction() {
        let program = assemble(&[
            jgt_reg(R4, R3, "pass"),
            label("drop"),
            mov(R0, XDP_DROP),
            exit(),
            label("pass"),
            mov(R0, XDP_PASS),
            exit(),
        ]);
        assert_eq!(program.len(), 5);
        assert_eq!(program[0].offset, 2);
    }

    #[test]
    #[should_panic(expected = "label \"nowhere\" is there 0 times")]
    fn a_label_that_is_missing_is_named() {
        assemble(&[ja("nowhere"), exit()]);
    }
}
