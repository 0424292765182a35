//! The switches of [`Ns3Ways`] and their like, one by one: the same acks, with the switch and without. That all of them together are
//! ns-3 is held by `bench/peers/ns3`.

use std::time::Duration;

use dataplane_transports::{
    AnyController, EcnMode, Ns3Ways, Phase, Receiver, ReceiverOptions, SackBlock, Segment, Sender, SenderOptions,
    controllers::{Dctcp, DctcpOptions, Growth, NewReno},
};
use dataplane_waist::Instant;

const MSS: u64 = 1_000;
const MS: u64 = 1_000_000;
const WINDOW: u64 = 10;

/// A sender with a window of ten segments, and what left it.
struct Driven {
    sender: Sender<AnyController>,
    now_ns: u64,
}

impl Driven {
    fn new(sack: bool, ns3: Ns3Ways, dctcp: DctcpOptions) -> Driven {
        let options = SenderOptions {
            mss_bytes: MSS as u32,
            initial_window_segments: WINDOW as u32,
            sack,
            ecn: EcnMode::Dctcp,
            rto_initial: Duration::from_millis(10),
            rto_min: Duration::from_millis(10),
            ns3,
            ..SenderOptions::default()
        };
        let controller = Dctcp::new(MSS as u32, WINDOW * MSS, dctcp);
        let mut sender = Sender::new(&options, controller.into());
        sender.write(1_000 * MSS);
        Driven { sender, now_ns: 0 }
    }

    /// What leaves now, by segments' numbers.
    fn sent(&mut self) -> Vec<u64> {
        let now = Instant::from_ns(self.now_ns);
        std::iter::from_fn(|| self.sender.poll_transmit(now))
            .map(|segment| segment.seq / MSS)
            .collect()
    }

    /// An ack of all below a segment, a tenth of a millisecond later, with one SACK block; answers what leaves then.
    fn ack(&mut self, to: u64, sacked: Option<(u64, u64)>, ece: bool) -> Vec<u64> {
        self.now_ns += MS / 10;
        let mut segment = Segment {
            ack: to * MSS,
            window_bytes: u32::MAX,
            ece,
            ..Segment::default()
        };
        if let Some((start, end)) = sacked {
            segment.push_sack(SackBlock {
                start: start * MSS,
                end: end * MSS,
            });
        }
        self.sender.on_segment(Instant::from_ns(self.now_ns), &segment);
        self.sent()
    }

    /// The timer fires.
    fn time_out(&mut self) -> Vec<u64> {
        let at = self.sender.wake_at().expect("a timer runs");
        self.now_ns = at.as_ns();
        self.sender.on_wake(at);
        self.sent()
    }

    /// The first segment is lost, three above it arrive.
    fn begin_recovery(&mut self) {
        assert_eq!(self.sent(), (0..WINDOW).collect::<Vec<_>>());
        for end in 2..=4 {
            self.ack(0, Some((1, end)), false);
        }
        assert_eq!(self.sender.phase(), Phase::Recovery);
    }
}

#[test]
fn a_mark_ends_recovery_or_does_not() {
    for (marks_end_recovery, phase, reductions_count) in [(true, Phase::Cwr, 1), (false, Phase::Recovery, 0)] {
        let ns3 = Ns3Ways {
            marks_end_recovery,
            ..Ns3Ways::default()
        };
        let mut driven = Driven::new(true, ns3, DctcpOptions::default());
        driven.begin_recovery();
        driven.ack(4, Some((5, 6)), true);
        assert_eq!(driven.sender.phase(), phase);
        assert_eq!(driven.sender.stats().ecn_reductions_count, reductions_count);
    }
}

#[test]
fn below_a_segment_one_leaves_or_none_before_the_timer() {
    for (waits_below_segment, at_once, at_timeout) in [(true, vec![], vec![1]), (false, vec![1], vec![1])] {
        let ns3 = Ns3Ways {
            waits_below_segment,
            marks_end_recovery: true,
            ..Ns3Ways::default()
        };
        let dctcp = DctcpOptions {
            window_min_segments: 0,
            ..DctcpOptions::default()
        };
        let mut driven = Driven::new(true, ns3, dctcp);
        driven.sent();
        // Slow start after a time-out; the first ack of it has a mark: half of one segment.
        assert_eq!(driven.time_out(), [0]);
        assert_eq!(driven.ack(1, None, true), at_once);
        assert_eq!(driven.time_out(), at_timeout);
    }
}

#[test]
fn a_partial_ack_sends_something_new_or_what_the_window_allows() {
    for (partial_ack_sends, sent_count) in [(true, 1), (false, 0)] {
        let ns3 = Ns3Ways {
            partial_ack_sends,
            ..Ns3Ways::default()
        };
        let mut driven = Driven::new(true, ns3, DctcpOptions::default());
        driven.begin_recovery();
        // Half of ten is the window, and eight are on their way yet: two of them left with the first duplicate acks.
        let before = driven.sender.sent_bytes();
        driven.ack(4, None, false);
        assert_eq!(driven.sender.sent_bytes() - before, sent_count * MSS);
        assert_eq!(driven.sender.in_flight_bytes(), (8 + sent_count) * MSS);
    }
}

#[test]
fn a_resent_segment_that_a_sack_names_is_in_flight_or_is_not() {
    for (resent_stays_in_flight, more) in [(true, MSS), (false, 0)] {
        let ns3 = Ns3Ways {
            resent_stays_in_flight,
            ..Ns3Ways::default()
        };
        let mut driven = Driven::new(true, ns3, DctcpOptions::default());
        assert_eq!(driven.sent().len() as u64, WINDOW);
        driven.time_out();
        // Segment 0 and, with the window of the next ack, 1 and 2 are sent again; 2 arrives and 1 does not.
        assert_eq!(driven.ack(1, None, false), [1, 2]);
        let before = driven.sender.in_flight_bytes();
        assert_eq!(before, 2 * MSS);
        driven.now_ns += 1;
        let mut segment = Segment {
            ack: MSS,
            window_bytes: u32::MAX,
            ..Segment::default()
        };
        segment.push_sack(SackBlock {
            start: 2 * MSS,
            end: 3 * MSS,
        });
        driven.sender.on_segment(Instant::from_ns(driven.now_ns), &segment);
        assert_eq!(driven.sender.in_flight_bytes(), MSS + more);
    }
}

#[test]
fn the_ack_that_ends_a_timeout_grows_the_window_or_does_not() {
    for timeout_ends_without_growth in [true, false] {
        let ns3 = Ns3Ways {
            timeout_ends_without_growth,
            ..Ns3Ways::default()
        };
        let mut driven = Driven::new(true, ns3, DctcpOptions::default());
        driven.sent();
        driven.time_out();
        driven.ack(WINDOW, None, false);
        assert_eq!(driven.sender.window_bytes() == MSS, timeout_ends_without_growth);
    }
}

#[test]
fn recovery_begins_with_a_duplicate_ack_or_with_what_is_lost() {
    for (recovers_on_dupacks, phase) in [(true, Phase::Open), (false, Phase::Recovery)] {
        let ns3 = Ns3Ways {
            recovers_on_dupacks,
            ..Ns3Ways::default()
        };
        let mut driven = Driven::new(true, ns3, DctcpOptions::default());
        driven.sent();
        // One ack says that three arrived above the first; the second segment is not lost, and it is the first duplicate ack.
        driven.ack(0, Some((1, 4)), false);
        assert_eq!(driven.sender.phase(), phase);
    }
}

#[test]
fn guesses_outlive_recovery_or_do_not() {
    for (keeps_guesses, is_front_resent) in [(true, true), (false, false)] {
        let ns3 = Ns3Ways {
            keeps_guesses,
            ..Ns3Ways::default()
        };
        let mut driven = Driven::new(false, ns3, DctcpOptions::default());
        driven.sent();
        for _ in 0..WINDOW + 4 {
            driven.ack(0, None, false);
        }
        assert_eq!(driven.sender.phase(), Phase::Recovery);
        let new_count = driven.sender.sent_bytes() / MSS - WINDOW;
        assert!(new_count > 0, "duplicate acks let new segments leave");
        // All that was sent before the recovery is there, two by limited transmit among it.
        let end = WINDOW + 2;
        let sent = driven.ack(end, None, false);
        assert_eq!(driven.sender.phase(), Phase::Open);
        assert_eq!(sent.contains(&end), is_front_resent, "{sent:?}");
    }
}

#[test]
fn a_mark_on_an_older_segment_counts_or_does_not() {
    for (marks_must_advance, is_echoed) in [(true, false), (false, true)] {
        let options = ReceiverOptions {
            mss_bytes: MSS as u32,
            ecn: EcnMode::Dctcp,
            marks_must_advance,
            ..ReceiverOptions::default()
        };
        let mut receiver = Receiver::new(&options);
        let mut echo = |number: u64| {
            let segment = Segment {
                seq: number * MSS,
                len_bytes: MSS as u32,
                ..Segment::default()
            };
            receiver.on_segment(Instant::from_ns(number), &segment, true);
            let acks: Vec<Segment> = std::iter::from_fn(|| receiver.poll_transmit(Instant::from_ns(number))).collect();
            acks.last().expect("each is acknowledged at once").ece
        };
        assert!(echo(0));
        assert!(echo(2));
        // What fills the hole.
        assert_eq!(echo(1), is_echoed);
    }
}

#[test]
fn a_window_grows_by_bytes_by_acks_or_by_whole_segments() {
    use dataplane_transports::{AckSample, Controller};
    // Four and a half segments, above the threshold: after four segments Linux's has grown, after five that of bytes.
    let grown_after = |growth: Growth| {
        let mut reno = NewReno::new(MSS as u32, 9 * MSS).with_growth(growth);
        reno.on_congestion(&dataplane_transports::LossSample {
            in_flight_bytes: 9 * MSS,
            ..Default::default()
        });
        let before = reno.window_bytes();
        assert_eq!(before, 4_500);
        let ack = AckSample {
            acked_bytes: MSS,
            is_window_limited: true,
            ..AckSample::default()
        };
        let mut acks_count = 1;
        reno.on_ack(&ack);
        let grows_at_once = reno.window_bytes() > before;
        while reno.window_bytes() < before + MSS {
            reno.on_ack(&ack);
            acks_count += 1;
        }
        (grows_at_once, acks_count)
    };
    assert_eq!(grown_after(Growth::Segments), (false, 4));
    assert_eq!(grown_after(Growth::Bytes), (false, 5));
    // 1000²/4500 and less each time.
    assert_eq!(grown_after(Growth::Acks), (true, 5));
}
