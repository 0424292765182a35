//! Any bytes as the segments, wakes and writes that a flow sees: it never panics, never sends without end, acknowledges no more than was
//! sent, and always has a wake while something is outstanding.
#![no_main]

use dataplane_transports::{
    ControllerKind, EcnMode, Pacing, Receiver, ReceiverOptions, SackBlock, Segment, Sender, SenderOptions,
};
use dataplane_waist::Instant;
use libfuzzer_sys::fuzz_target;

/// What one step takes of the input.
const STEP_BYTES: usize = 16;
/// The property tests' bound on what one step may let go.
const SEGMENTS_MAX: u32 = 100_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, switches, ecn], steps)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let kind = ControllerKind::ALL[usize::from(kind) % ControllerKind::ALL.len()];
    let is_set = |bit: u8| switches >> bit & 1 == 1;
    let ecn = [EcnMode::Off, EcnMode::Classic, EcnMode::Dctcp][usize::from(ecn) % 3];
    let options = SenderOptions {
        sack: is_set(0),
        rack: is_set(1),
        tlp: is_set(2),
        frto: is_set(3),
        limited_transmit: is_set(4),
        prr: is_set(5),
        timestamps: is_set(6),
        pacing: if is_set(7) { Pacing::Window } else { Pacing::Off },
        ecn,
        ..SenderOptions::linux_2026()
    };
    let mut sender = Sender::new(&options, kind.build(&options));
    let mut receiver = Receiver::new(&ReceiverOptions {
        ecn,
        ..ReceiverOptions::linux_2026()
    });
    let mut now_ns = 0;
    for step in steps.chunks_exact(STEP_BYTES) {
        let number = |at: usize| u64::from(u16::from_le_bytes([step[at], step[at + 1]]));
        now_ns += number(2) << (step[1] % 16);
        let now = Instant::from_ns(now_ns);
        let mut segment = Segment {
            seq: number(4),
            ack: number(6),
            len_bytes: number(8) as u32 * u32::from(step[1] >> 7),
            window_bytes: (number(10) as u32) << (step[0] >> 4),
            timestamps: step[1] & 16 != 0,
            ts_ecr: number(12) as u32,
            ece: step[1] & 32 != 0,
            cwr: step[1] & 64 != 0,
            ..Segment::default()
        };
        for block in 0..u64::from(step[0] >> 2 & 3) {
            let start = number(10) + block * number(14);
            segment.push_sack(SackBlock {
                start,
                end: start + number(12),
            });
        }
        match step[0] & 3 {
            0 => sender.write(number(4)),
            1 => sender.on_wake(now),
            2 => receiver.on_segment(now, &segment, step[1] & 8 != 0),
            _ => sender.on_segment(now, &segment),
        }
        let mut sent_count = 0;
        while sender.poll_transmit(now).is_some() {
            sent_count += 1;
            assert!(sent_count < SEGMENTS_MAX, "it sends without end");
        }
        while receiver.poll_transmit(now).is_some() {}
        assert!(
            sender.outstanding_bytes() == 0 || sender.wake_at().is_some(),
            "outstanding, and no wake"
        );
        assert!(sender.acked_bytes() <= sender.sent_bytes());
    }
});
