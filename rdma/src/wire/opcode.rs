//! The BTH's first byte: which service, which operation, which part of its message, which headers follow (IBA §9.2,
//! table "OpCode field").

/// An operation of the reliable connection's, with the part of the message that the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Opcode {
    /// The first of several packets of a message for a posted receive.
    SendFirst = 0x00,
    /// Neither first nor last.
    SendMiddle = 0x01,
    /// The last.
    SendLast = 0x02,
    /// The last, with a word for the completion.
    SendLastImm = 0x03,
    /// First and last.
    SendOnly = 0x04,
    /// First and last, with a word for the completion.
    SendOnlyImm = 0x05,
    /// The first of several packets of a write into the responder's memory.
    WriteFirst = 0x06,
    /// Neither first nor last.
    WriteMiddle = 0x07,
    /// The last.
    WriteLast = 0x08,
    /// The last; consumes a posted receive, whose completion has the word.
    WriteLastImm = 0x09,
    /// First and last.
    WriteOnly = 0x0a,
    /// First and last; consumes a posted receive, whose completion has the word.
    WriteOnlyImm = 0x0b,
    /// Asks for the responder's memory.
    ReadRequest = 0x0c,
    /// The first of several packets of an answer to it.
    ReadResponseFirst = 0x0d,
    /// Neither first nor last; the only response without an AETH.
    ReadResponseMiddle = 0x0e,
    /// The last.
    ReadResponseLast = 0x0f,
    /// First and last.
    ReadResponseOnly = 0x10,
    /// Acknowledges, or says no.
    Acknowledge = 0x11,
    /// Answers an atomic operation with the value from before it.
    AtomicAcknowledge = 0x12,
    /// Compare and swap of 8 bytes.
    CompareSwap = 0x13,
    /// Fetch and add of 8 bytes.
    FetchAdd = 0x14,
    /// As [`Opcode::SendLast`]; asks that a key be invalidated.
    SendLastInvalidate = 0x16,
    /// As [`Opcode::SendOnly`]; asks that a key be invalidated.
    SendOnlyInvalidate = 0x17,
}

impl Opcode {
    /// All of them, in the order of their numbers.
    pub const ALL: [Opcode; 23] = [
        Opcode::SendFirst,
        Opcode::SendMiddle,
        Opcode::SendLast,
        Opcode::SendLastImm,
        Opcode::SendOnly,
        Opcode::SendOnlyImm,
        Opcode::WriteFirst,
        Opcode::WriteMiddle,
        Opcode::WriteLast,
        Opcode::WriteLastImm,
        Opcode::WriteOnly,
        Opcode::WriteOnlyImm,
        Opcode::ReadRequest,
        Opcode::ReadResponseFirst,
        Opcode::ReadResponseMiddle,
        Opcode::ReadResponseLast,
        Opcode::ReadResponseOnly,
        Opcode::Acknowledge,
        Opcode::AtomicAcknowledge,
        Opcode::CompareSwap,
        Opcode::FetchAdd,
        Opcode::SendLastInvalidate,
        Opcode::SendOnlyInvalidate,
    ];

    /// The opcode with this number, if it is one of the reliable connection's.
    pub fn from_number(number: u8) -> Option<Opcode> {
        Opcode::ALL.into_iter().find(|opcode| *opcode as u8 == number)
    }

    /// Whether a responder sends it, to the requester.
    pub const fn is_response(self) -> bool {
        matches!(
            self,
            Opcode::ReadResponseFirst
                | Opcode::ReadResponseMiddle
                | Opcode::ReadResponseLast
                | Opcode::ReadResponseOnly
                | Opcode::Acknowledge
                | Opcode::AtomicAcknowledge
        )
    }

    /// Whether a payload may follow the headers.
    pub const fn may_have_payload(self) -> bool {
        !matches!(
            self,
            Opcode::ReadRequest
                | Opcode::Acknowledge
                | Opcode::AtomicAcknowledge
                | Opcode::CompareSwap
                | Opcode::FetchAdd
        )
    }

    /// Bytes of the headers between BTH and payload.
    pub const fn headers_bytes(self) -> usize {
        match self {
            Opcode::SendFirst
            | Opcode::SendMiddle
            | Opcode::SendLast
            | Opcode::SendOnly
            | Opcode::WriteMiddle
            | Opcode::WriteLast
            | Opcode::ReadResponseMiddle => 0,
            Opcode::SendLastImm
            | Opcode::SendOnlyImm
            | Opcode::WriteLastImm
            | Opcode::SendLastInvalidate
            | Opcode::SendOnlyInvalidate
            | Opcode::ReadResponseFirst
            | Opcode::ReadResponseLast
            | Opcode::ReadResponseOnly
            | Opcode::Acknowledge => 4,
            Opcode::AtomicAcknowledge => 12,
            Opcode::WriteFirst | Opcode::WriteOnly | Opcode::ReadRequest => 16,
            Opcode::WriteOnlyImm => 20,
            Opcode::CompareSwap | Opcode::FetchAdd => 28,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_and_no_other_number_is_one() {
        for number in 0..=u8::MAX {
            match Opcode::from_number(number) {
                Some(opcode) => assert_eq!(opcode as u8, number),
                None => assert!(number == 0x15 || number > 0x17, "{number:#x} is an opcode"),
            }
        }
    }
}
