//! `parse` and `emit` are each other's inverse, and any bytes are an answer.

use super::*;
use crate::wire::{NakCode, Syndrome};
use proptest::prelude::*;

fn syndromes() -> impl Strategy<Value = Syndrome> {
    prop_oneof![
        (0u8..32).prop_map(|credits| Syndrome::Ack { credits }),
        (0u8..32).prop_map(|timer| Syndrome::ReceiverNotReady { timer }),
        prop::sample::select(vec![
            NakCode::PsnSequence,
            NakCode::InvalidRequest,
            NakCode::RemoteAccess,
            NakCode::RemoteOperational
        ])
        .prop_map(Syndrome::Nak),
    ]
}

/// The headers that an opcode has, from numbers.
fn headers_of(opcode: Opcode, [a, b, c]: [u64; 3], word: u32, syndrome: Syndrome) -> Headers {
    let reth = Reth {
        address: a,
        rkey: b as u32,
        len_bytes: c as u32,
    };
    let aeth = Aeth {
        syndrome,
        msn: word & 0xff_ffff,
    };
    let atomic = AtomicEth {
        address: a,
        rkey: word,
        swap_or_add: b,
        compare: c,
    };
    use Opcode::*;
    match opcode {
        SendFirst | SendMiddle | SendLast | SendOnly | WriteMiddle | WriteLast | ReadResponseMiddle => Headers::None,
        SendLastImm | SendOnlyImm | WriteLastImm => Headers::Imm(word),
        SendLastInvalidate | SendOnlyInvalidate => Headers::Invalidate(word),
        WriteFirst | WriteOnly | ReadRequest => Headers::Reth(reth),
        WriteOnlyImm => Headers::RethImm(reth, word),
        ReadResponseFirst | ReadResponseLast | ReadResponseOnly | Acknowledge => Headers::Aeth(aeth),
        AtomicAcknowledge => Headers::AtomicAck(aeth, b),
        CompareSwap | FetchAdd => Headers::Atomic(atomic),
    }
}

fn bths() -> impl Strategy<Value = Bth> {
    any::<([u32; 2], u16, [bool; 4])>().prop_map(|([qp, psn], pkey, [ack_requested, solicited, fecn, becn])| Bth {
        dest_qp: QpNumber::new(qp),
        psn: Psn::new(psn),
        ack_requested,
        solicited,
        pkey,
        fecn,
        becn,
    })
}

proptest! {
    #[test]
    fn parse_undoes_emit(
        opcode in prop::sample::select(Opcode::ALL.to_vec()), bth in bths(), numbers: [u64; 3], word: u32,
        syndrome in syndromes(), mut payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        if !opcode.may_have_payload() {
            payload.clear();
        }
        let headers = headers_of(opcode, numbers, word, syndrome);
        let mut bytes = [0xaa; 128];
        let end = emit(opcode, &bth, &headers, payload.len(), &mut bytes, |into| into.copy_from_slice(&payload));
        let datagram = &bytes[..end + ICRC_BYTES];
        prop_assert_eq!(parse(datagram), Ok(Packet { opcode, bth, headers, payload: &payload }));
        // Whatever is cut off, the rest is not taken for the same packet.
        for len in 0..datagram.len() {
            let cut = parse(&datagram[..len]);
            prop_assert!(cut.is_err() || cut.is_ok_and(|packet| packet.payload.len() < payload.len()), "{} bytes", len);
        }
        bytes[field::FLAGS] |= 1;
        prop_assert_eq!(parse(&bytes[..end + ICRC_BYTES]), Err(Reject::Version));
    }

    #[test]
    fn any_bytes_are_an_answer(datagram in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&datagram);
    }

    #[test]
    fn what_is_understood_is_said_again_alike(
        number in 0u8..0x18, pad in 0u8..4, mut datagram in prop::collection::vec(any::<u8>(), 16..80),
    ) {
        datagram[field::OPCODE] = number;
        datagram[field::FLAGS] = pad << PAD_SHIFT;
        if let Ok(packet) = parse(&datagram) {
            let mut again = [0; 96];
            let end = emit(packet.opcode, &packet.bth, &packet.headers, packet.payload.len(), &mut again, |into| {
                into.copy_from_slice(packet.payload);
            });
            prop_assert_eq!(parse(&again[..end + ICRC_BYTES]), Ok(packet));
        }
    }
}

#[test]
fn padding_without_a_payload_is_refused() {
    let mut bytes = [0; 64];
    let bth = Bth::new(QpNumber::new(1), Psn::new(2));
    let end = emit(Opcode::SendOnly, &bth, &Headers::None, 0, &mut bytes, |_| {});
    assert_eq!(end, BTH_BYTES);
    bytes[field::FLAGS] |= 3 << PAD_SHIFT;
    assert_eq!(parse(&bytes[..end + ICRC_BYTES]), Err(Reject::Length));
}

#[test]
#[should_panic(expected = "are not the headers of")]
fn emit_refuses_headers_of_another_opcode() {
    let bth = Bth::new(QpNumber::new(1), Psn::new(2));
    emit(Opcode::SendOnly, &bth, &Headers::Imm(1), 0, &mut [0; 64], |_| {});
}
