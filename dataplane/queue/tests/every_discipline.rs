//! What holds for every queue, whatever comes: no packet is invented or lost without a word, bounds hold, flows stay in
//! order, and memory is given back.

use std::collections::BTreeMap;

use dataplane_queue::{
    CoDelOptions, Discipline, DropTailOptions, Ecn, Enqueued, FqCoDelOptions, Limit, Marking, Queue, Queued,
    RedOptions, SharedBuffer, Sharing, SimTime, TrimmingOptions,
};
use proptest::prelude::*;

const HEADER_BYTES: u32 = 64;
const PACKETS_MAX: u32 = 20;
const BYTES_MAX: u64 = 12_000;
const MEMORY_BYTES: u64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Parcel {
    number: u64,
    flow: u32,
    bytes: u32,
    ecn: Ecn,
    is_header: bool,
}

impl Queued for Parcel {
    fn bytes(&self) -> u32 {
        self.bytes
    }

    fn ecn(&self) -> Ecn {
        self.ecn
    }

    fn set_ecn(&mut self, ecn: Ecn) {
        self.ecn = ecn;
    }

    /// A flow has one priority: packets of several would overtake each other, rightly.
    fn priority(&self) -> u8 {
        (self.flow % 8) as u8
    }

    fn flow_hash(&self) -> u32 {
        self.flow.wrapping_mul(0x9e37_79b9)
    }

    fn trim(&mut self) -> bool {
        let trims = !self.is_header;
        if trims {
            (self.bytes, self.is_header) = (HEADER_BYTES, true);
        }
        trims
    }

    fn is_header(&self) -> bool {
        self.is_header
    }
}

/// What is bounded, besides the switch's memory.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Packets(usize),
    Bytes(u64),
}

fn disciplines() -> Vec<(Discipline, Bound)> {
    let by_packets = Limit::Packets(PACKETS_MAX);
    let packets = Bound::Packets(PACKETS_MAX as usize);
    let tail = |limit, marking| DropTailOptions { limit, marking };
    let red = |is_gentle, marks| RedOptions {
        limit: by_packets,
        min_packets: 2.0,
        max_packets: 6.0,
        max_p: 0.2,
        weight_exponent: 2,
        is_gentle,
        marks,
        packet_time: SimTime::from_us(1),
    };
    let codel = |marks| CoDelOptions {
        limit: by_packets,
        target: SimTime::from_us(5),
        interval: SimTime::from_us(20),
        marks,
        ..CoDelOptions::default()
    };
    let fq_codel = FqCoDelOptions {
        queues_count: 4,
        packets_max: PACKETS_MAX,
        quantum_bytes: 300,
        codel: codel(false),
    };
    let trimming = TrimmingOptions {
        data: Limit::Bytes(BYTES_MAX),
        headers: Limit::Bytes(10 * u64::from(HEADER_BYTES)),
        headers_per_data: 10,
    };
    vec![
        (Discipline::DropTail(tail(by_packets, Marking::Never)), packets),
        (
            Discipline::DropTail(tail(Limit::Bytes(BYTES_MAX), Marking::AtEnqueue(Limit::Packets(3)))),
            Bound::Bytes(BYTES_MAX),
        ),
        (
            Discipline::DropTail(tail(by_packets, Marking::AtDequeue(Limit::Bytes(3_000)))),
            packets,
        ),
        (Discipline::Red(red(false, true)), packets),
        (Discipline::Red(red(true, false)), packets),
        (Discipline::CoDel(codel(true)), packets),
        (Discipline::CoDel(codel(false)), packets),
        (Discipline::FqCoDel(fq_codel), packets),
        (
            Discipline::Priority(tail(by_packets, Marking::AtEnqueue(Limit::Packets(1)))),
            packets,
        ),
        (
            Discipline::Trimming(trimming),
            Bound::Bytes(BYTES_MAX + 10 * u64::from(HEADER_BYTES)),
        ),
    ]
}

/// One thing that happens at the port.
#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive { flow: u32, bytes: u32, is_capable: bool },
    Depart,
    Wait { ns: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrive = (0..6_u32, 40..1_515_u32, any::<bool>()).prop_map(|(flow, bytes, is_capable)| Step::Arrive {
        flow,
        bytes,
        is_capable,
    });
    let step = prop_oneof![
        6 => arrive,
        4 => Just(Step::Depart),
        2 => (0..30_000_u64).prop_map(|ns| Step::Wait { ns }),
    ];
    proptest::collection::vec(step, 1..400)
}

/// What is known of the packets that went in.
#[derive(Debug, Default)]
struct Ledger {
    arrived_count: u64,
    left_count: u64,
    lost_count: u64,
    inside: BTreeMap<u64, Parcel>,
    /// The last number that left, of each flow, data and headers apart.
    last_left: BTreeMap<(u32, bool), u64>,
}

impl Ledger {
    /// A packet is out, and was in: as it was, but for a mark or a payload.
    fn out(&mut self, parcel: Parcel) -> Result<Parcel, TestCaseError> {
        let before = self.inside.remove(&parcel.number);
        let before =
            before.ok_or_else(|| TestCaseError::fail(format!("{parcel:?} never went in, or came out twice")))?;
        prop_assert_eq!(parcel.flow, before.flow);
        prop_assert!(parcel.bytes == before.bytes || parcel.is_header);
        prop_assert!(
            parcel.ecn == before.ecn || before.ecn == Ecn::Capable,
            "{before:?} was marked"
        );
        Ok(before)
    }

    fn lost(&mut self, parcel: Parcel) -> Result<(), TestCaseError> {
        self.lost_count += 1;
        self.out(parcel).map(drop)
    }

    /// Within a flow nothing overtakes, except that headers overtake data where there is a queue for them.
    fn left(&mut self, parcel: Parcel) -> Result<(), TestCaseError> {
        self.left_count += 1;
        self.out(parcel)?;
        // A trimmed packet joined the headers late: only packets that kept their payload have an order.
        if !parcel.is_header
            && let Some(last) = self.last_left.insert((parcel.flow, false), parcel.number)
        {
            prop_assert!(
                last < parcel.number,
                "{} of flow {} left after {last}",
                parcel.number,
                parcel.flow
            );
        }
        Ok(())
    }
}

fn check(
    discipline: &Discipline,
    bound: Bound,
    sharing: Sharing,
    steps: &[Step],
    seed: u64,
) -> Result<(), TestCaseError> {
    let mut pool = SharedBuffer::new(sharing);
    let mut queue: Queue<Parcel> = Queue::new(discipline, seed);
    let (mut ledger, mut now) = (Ledger::default(), SimTime::ZERO);
    let mut drains = vec![Step::Depart; 2 * steps.len()];
    let mut all: Vec<Step> = steps.to_vec();
    all.append(&mut drains);
    for step in all {
        match step {
            Step::Wait { ns } => now += SimTime::from_ns(ns),
            Step::Arrive {
                flow,
                bytes,
                is_capable,
            } => {
                let ecn = if is_capable { Ecn::Capable } else { Ecn::NotCapable };
                let number = ledger.arrived_count;
                let parcel = Parcel {
                    number,
                    flow,
                    bytes,
                    ecn,
                    is_header: bytes <= HEADER_BYTES,
                };
                ledger.arrived_count += 1;
                ledger.inside.insert(number, parcel);
                match queue.enqueue(now, parcel, &mut pool) {
                    Enqueued::Dropped { packet, .. } => ledger.lost(packet)?,
                    Enqueued::Marked => prop_assert!(is_capable),
                    Enqueued::Queued | Enqueued::Trimmed => (),
                }
            }
            Step::Depart => {
                let mut lost = Vec::new();
                let waited = !queue.is_empty();
                let left = queue.dequeue(now, &mut pool, &mut |parcel, _| lost.push(parcel));
                prop_assert!(left.is_some() || queue.is_empty(), "it kept its packets");
                prop_assert!(waited || left.is_none());
                lost.into_iter().try_for_each(|parcel| ledger.lost(parcel))?;
                left.map_or(Ok(()), |parcel| ledger.left(parcel))?;
            }
        }
        prop_assert_eq!(queue.packets_count(), ledger.inside.len());
        prop_assert_eq!(queue.bytes(), pool.used_bytes());
        match bound {
            Bound::Packets(bound) => prop_assert!(queue.packets_count() <= bound),
            Bound::Bytes(bound) => prop_assert!(queue.bytes() <= bound),
        }
        if matches!(sharing, Sharing::Dynamic { .. }) {
            prop_assert!(pool.used_bytes_max() <= MEMORY_BYTES);
        }
    }
    prop_assert_eq!(ledger.arrived_count, ledger.left_count + ledger.lost_count);
    prop_assert_eq!((queue.bytes(), queue.packets_count()), (0, 0));
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_invented_overtaken_or_lost_without_a_word(steps in steps(), seed: u64, alpha in 0.1..8.0_f64) {
        for (discipline, bound) in disciplines() {
            for sharing in [Sharing::Static, Sharing::Dynamic { memory_bytes: MEMORY_BYTES, alpha }] {
                check(&discipline, bound, sharing, &steps, seed)
                    .map_err(|error| TestCaseError::fail(format!("{discipline:?}, {sharing:?}: {error}")))?;
            }
        }
    }

    /// The same packets and seed give the same fates.
    #[test]
    fn fates_follow_from_the_seed(steps in steps(), seed: u64) {
        let fates = |discipline: &Discipline| {
            let (mut pool, mut now) = (SharedBuffer::default(), SimTime::ZERO);
            let mut queue: Queue<Parcel> = Queue::new(discipline, seed);
            let (mut number, mut fates) = (0, Vec::new());
            for step in &steps {
                match *step {
                    Step::Wait { ns } => now += SimTime::from_ns(ns),
                    Step::Arrive { flow, bytes, .. } => {
                        let parcel = Parcel { number, flow, bytes, ecn: Ecn::Capable, is_header: false };
                        number += 1;
                        fates.push(format!("{:?}", queue.enqueue(now, parcel, &mut pool)));
                    }
                    Step::Depart => fates.push(format!("{:?}", queue.dequeue(now, &mut pool, &mut |_, _| ()))),
                }
            }
            fates
        };
        for (discipline, _) in disciplines() {
            prop_assert_eq!(fates(&discipline), fates(&discipline));
        }
    }
}
