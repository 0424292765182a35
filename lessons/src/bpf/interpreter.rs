//! Runs a program's instructions on one packet where there is no BPF, and says where it would have read what is not the
//! packet's.
//!
//! It finds a bad read only on the packet that it is given. The verifier follows every path for every packet there can be, and
//! so proves that there is none. And it knows only the instructions of [`super`], on the values that the lesson needs.

use std::fmt;

use super::{
    ADD, ALU, ALU64, AND, DATA, DATA_END, END, EXIT, Instruction, JA, JEQ, JGT, JMP, JMP32, JNE, LDX, MEM, MOV, X,
};

/// More steps than this are a program without an end: every lesson's jumps lead down.
const STEPS_MAX: usize = 4096;

/// Why a run did not come to its end. `at` is the instruction's number, as in the verifier's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read that is not inside the packet.
    Packet {
        /// Which instruction.
        at: usize,
        /// The first byte read, from the packet's beginning.
        offset_bytes: i64,
        /// How many.
        read_bytes: usize,
        /// How many the packet has.
        packet_bytes: usize,
    },
    /// A register that nobody has written.
    Unwritten {
        /// Which instruction.
        at: usize,
        /// Which register.
        register: u8,
    },
    /// Not an instruction of the lesson, or on values with which it means nothing.
    Meaningless {
        /// Which instruction.
        at: usize,
        /// Its code.
        code: u8,
    },
    /// No exit: the program runs out at its end, or goes round for ever.
    NoExit,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Packet {
                at,
                offset_bytes,
                read_bytes,
                packet_bytes,
            } => write!(
                f,
                "{at}: invalid access to packet, off={offset_bytes} size={read_bytes}, of {packet_bytes} bytes; this is one \
                 packet, the verifier would refuse the program for all"
            ),
            Fault::Unwritten { at, register } => write!(f, "{at}: R{register} !read_ok: nobody has written it"),
            Fault::Meaningless { at, code } => write!(f, "{at}: code {code:#04x} means nothing here"),
            Fault::NoExit => f.write_str("the program does not come to an exit"),
        }
    }
}

/// What a register holds. A pointer remembers to what, as it does for the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Context,
    /// So many bytes after the packet's beginning.
    Packet(i64),
    PacketEnd,
}

/// Runs the program on `packet`; the result is what it left in R0.
///
/// # Errors
/// The first thing that went wrong.
pub fn interpret(program: &[Instruction], packet: &[u8]) -> Result<u64, Fault> {
    let mut registers = [None; 11];
    registers[1] = Some(Value::Context);
    let mut next = 0;
    for _ in 0..STEPS_MAX {
        let at = next;
        let instruction = *program.get(at).ok_or(Fault::NoExit)?;
        let Instruction { code, dst, src, .. } = instruction;
        let meaningless = Fault::Meaningless { at, code };
        let read = |register: u8| registers[usize::from(register)].ok_or(Fault::Unwritten { at, register });
        // What the second operand is.
        let operand = || match code & X {
            0 => Ok(Value::Number(i64::from(instruction.immediate) as u64)),
            _ => read(src),
        };
        next = at + 1;
        match code & 0x07 {
            LDX if code & 0xe0 == MEM => {
                let read_bytes = match code & 0x18 {
                    0x10 => 1,
                    0x08 => 2,
                    0x00 => 4,
                    _ => return Err(meaningless),
                };
                let value = load(read(src)?, instruction.offset, read_bytes, packet, at).ok_or(meaningless)??;
                registers[usize::from(dst)] = Some(value);
            }
            ALU if code & 0xf0 == END => {
                let Value::Number(number) = read(dst)? else {
                    return Err(meaningless);
                };
                let turned = match instruction.immediate {
                    16 => u64::from((number as u16).to_be()),
                    _ => return Err(meaningless),
                };
                registers[usize::from(dst)] = Some(Value::Number(turned));
            }
            ALU64 => {
                let value = match (code & 0xf0, operand()?) {
                    (MOV, value) => value,
                    (ADD, Value::Number(more)) => match read(dst)? {
                        Value::Number(number) => Value::Number(number.wrapping_add(more)),
                        Value::Packet(offset_bytes) => Value::Packet(offset_bytes.wrapping_add(more as i64)),
                        _ => return Err(meaningless),
                    },
                    (AND, Value::Number(mask)) => match read(dst)? {
                        Value::Number(number) => Value::Number(number & mask),
                        _ => return Err(meaningless),
                    },
                    _ => return Err(meaningless),
                };
                registers[usize::from(dst)] = Some(value);
            }
            JMP if code & 0xf0 == EXIT => match read(0)? {
                Value::Number(number) => return Ok(number),
                _ => return Err(meaningless),
            },
            class @ (JMP | JMP32) => {
                let jumps = match code & 0xf0 {
                    JA => true,
                    operation => {
                        let pair = comparable(read(dst)?, operand()?, packet).ok_or(meaningless)?;
                        let (left, right) = match class {
                            JMP32 => (u64::from(pair.0 as u32), u64::from(pair.1 as u32)),
                            _ => pair,
                        };
                        match operation {
                            JEQ => left == right,
                            JNE => left != right,
                            JGT => left > right,
                            _ => return Err(meaningless),
                        }
                    }
                };
                if jumps {
                    next = next.wrapping_add_signed(instruction.offset.into());
                }
            }
            _ => return Err(meaningless),
        }
    }
    Err(Fault::NoExit)
}

/// What stands at `base + offset`. `None`: there is nothing to be read there.
fn load(base: Value, offset: i16, read_bytes: usize, packet: &[u8], at: usize) -> Option<Result<Value, Fault>> {
    match (base, offset) {
        (Value::Context, DATA) => Some(Ok(Value::Packet(0))),
        (Value::Context, DATA_END) => Some(Ok(Value::PacketEnd)),
        (Value::Packet(start), offset) => {
            let offset_bytes = start.wrapping_add(offset.into());
            let bytes = usize::try_from(offset_bytes)
                .ok()
                .and_then(|start| packet.get(start..start.checked_add(read_bytes)?));
            Some(match bytes {
                Some(&[byte]) => Ok(Value::Number(byte.into())),
                Some(&[a, b]) => Ok(Value::Number(u16::from_ne_bytes([a, b]).into())),
                Some(&[a, b, c, d]) => Ok(Value::Number(u32::from_ne_bytes([a, b, c, d]).into())),
                _ => Err(Fault::Packet {
                    at,
                    offset_bytes,
                    read_bytes,
                    packet_bytes: packet.len(),
                }),
            })
        }
        _ => None,
    }
}

/// Two numbers, or two places in the packet as distances from its beginning.
fn comparable(left: Value, right: Value, packet: &[u8]) -> Option<(u64, u64)> {
    let place = |value| match value {
        Value::Packet(offset_bytes) => u64::try_from(offset_bytes).ok(),
        Value::PacketEnd => Some(packet.len() as u64),
        _ => None,
    };
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Some((left, right)),
        (left, right) => Some((place(left)?, place(right)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Reg::*, Size, add, assemble, exit, ja, jgt_reg, label, ldx, mov, mov_reg},
        *,
    };

    #[test]
    fn a_read_is_refused_from_the_first_byte_too_many() {
        let program = assemble(&[ldx(Size::W, R2, R1, DATA), ldx(Size::H, R0, R2, 12), exit()]);
        assert_eq!(interpret(&program, &[7; 14]), Ok(0x0707));
        assert_eq!(
            interpret(&program, &[7; 13]),
            Err(Fault::Packet {
                at: 1,
                offset_bytes: 12,
                read_bytes: 2,
                packet_bytes: 13
            })
        );
        let before = assemble(&[ldx(Size::W, R2, R1, DATA), ldx(Size::B, R0, R2, -1), exit()]);
        assert!(matches!(interpret(&before, &[7; 14]), Err(Fault::Packet { .. })));
    }

    #[test]
    fn a_checked_read_is_not() {
        let program = assemble(&[
            ldx(Size::W, R2, R1, DATA),
            ldx(Size::W, R3, R1, DATA_END),
            mov_reg(R4, R2),
            add(R4, 14),
            mov(R0, 99),
            jgt_reg(R4, R3, "short"),
            ldx(Size::B, R0, R2, 13),
            label("short"),
            exit(),
        ]);
        assert_eq!(interpret(&program, &[7; 14]), Ok(7));
        assert_eq!(interpret(&program, &[7; 13]), Ok(99));
        assert_eq!(interpret(&program, &[]), Ok(99));
    }

    #[test]
    fn programs_that_make_no_sense_are_told_so() {
        let run = |lines: &[super::super::Line]| interpret(&assemble(lines), &[0; 14]);
        assert_eq!(run(&[exit()]), Err(Fault::Unwritten { at: 0, register: 0 }));
        assert_eq!(run(&[mov(R0, 1)]), Err(Fault::NoExit));
        assert_eq!(run(&[label("round"), ja("round")]), Err(Fault::NoExit));
        // The context is no packet, and no result.
        assert!(matches!(
            run(&[ldx(Size::B, R0, R1, 30), exit()]),
            Err(Fault::Meaningless { at: 0, .. })
        ));
        assert!(matches!(
            run(&[mov_reg(R0, R1), exit()]),
            Err(Fault::Meaningless { at: 1, .. })
        ));
        // A place in the packet is no number to compare with one.
        let lines = [
            ldx(Size::W, R2, R1, DATA),
            mov(R0, 0),
            jgt_reg(R2, R0, "end"),
            label("end"),
            exit(),
        ];
        assert!(matches!(run(&lines), Err(Fault::Meaningless { at: 2, .. })));
    }
}
