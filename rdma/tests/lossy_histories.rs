//! Random requests over wires that lose, repeat and reorder at random: whatever happens on the wire, memory, completions and
//! their order are those of a wire on which nothing happens. A failure prints the seeds that repeat it.

#[path = "support/memory_wire.rs"]
mod memory_wire;

use std::{sync::Arc, time::Duration};

use dataplane_waist::WrId;
use proptest::prelude::*;
use rdma::{
    Access, Completion, Data, Device, Faults, Faulty, Kind, Local, Memory, Operation, PathMtu, Provider, Qp, QpOptions,
    ReceiveRequest, Registered, Remote, Rts, SendRequest, wire::Psn,
};

const MEMORY_BYTES: usize = 64 << 10;
/// Both ends: sources in the first half, what comes from the peer in the second.
const HALF: usize = MEMORY_BYTES / 2;
const LEN_MAX: usize = 5000;
const WORDS_AT: usize = HALF - 64;

#[derive(Clone, Debug)]
enum Ask {
    Send {
        from: usize,
        len: usize,
        imm: Option<u32>,
    },
    Write {
        from: usize,
        to: usize,
        len: usize,
        imm: Option<u32>,
    },
    Read {
        from: usize,
        to: usize,
        len: usize,
    },
    Add {
        word: usize,
        add: u64,
    },
    Swap {
        word: usize,
        compare: u64,
        swap: u64,
    },
}

fn asks() -> impl Strategy<Value = Ask> {
    let at = || 0..HALF - LEN_MAX - 64;
    let len = || prop_oneof![3 => 0..LEN_MAX, 1 => Just(0), 1 => Just(256), 1 => Just(1024)];
    let imm = || prop::option::of(any::<u32>());
    let word = || 0usize..4;
    prop_oneof![
        (at(), len(), imm()).prop_map(|(from, len, imm)| Ask::Send { from, len, imm }),
        (at(), at(), len(), imm()).prop_map(|(from, to, len, imm)| Ask::Write { from, to, len, imm }),
        (at(), at(), len()).prop_map(|(from, to, len)| Ask::Read { from, to, len }),
        (word(), any::<u64>()).prop_map(|(word, add)| Ask::Add { word, add }),
        (word(), 0u64..3, any::<u64>()).prop_map(|(word, compare, swap)| Ask::Swap { word, compare, swap }),
    ]
}

type Dev = Device<Faulty<memory_wire::MemoryWire>>;

struct End {
    device: Dev,
    memory: Arc<Memory>,
    region: Registered,
    qp: Option<Qp<Rts>>,
    done: Vec<Completion>,
}

impl End {
    fn turn(&mut self) {
        self.device.progress().expect("memory works");
        let done = &mut self.done;
        self.device.poll_cq(64, &mut |completion| done.push(completion));
    }
}

fn ends(faults: [Faults; 2], options: &QpOptions) -> [End; 2] {
    let (a, b) = memory_wire::pair();
    let [a, b] = [(a, faults[0], 1), (b, faults[1], 2)].map(|(wire, faults, seed)| {
        let mut device = Device::new(Faulty::new(wire, faults), memory_wire::random(seed));
        let pd = device.create_pd();
        let memory = Memory::new(MEMORY_BYTES);
        let region = device.register(pd, Arc::clone(&memory), Access::ALL);
        let qp = device.create_qp(pd, options).expect("room");
        let qp = device.init(qp);
        let address = device.address(&qp).expect("it is there");
        let end = End {
            device,
            memory,
            region,
            qp: None,
            done: Vec::new(),
        };
        (end, qp, address)
    });
    let (address_a, address_b) = (a.2, b.2);
    [(a, address_b), (b, address_a)].map(|((mut end, qp, _), peer)| {
        let qp = end.device.ready_to_receive(qp, &peer).expect("a path");
        end.qp = Some(end.device.ready_to_send(qp));
        end
    })
}

fn faults() -> impl Strategy<Value = Faults> {
    // From a wire that does nothing wrong to one that loses every fourth packet.
    let every = || prop_oneof![Just(0u64), 4u64..60];
    (every(), every(), every(), 1u64..).prop_map(|(lose_every, repeat_every, delay_every, seed)| Faults {
        lose_every,
        repeat_every,
        delay_every,
        seed,
        ..Faults::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_a_wire_does_is_seen(
        asks in prop::collection::vec(asks(), 1..40), faults in [faults(), faults()], mtu in 0usize..3,
        start_psn: u32, seed: u64, reads_max in 1usize..5, window_packets in 1u64..40,
    ) {
        let options = QpOptions {
            path_mtu: PathMtu::ALL[mtu],
            timeout: Duration::from_micros(300),
            retries_max: 100,
            rnr_timer: 1,
            start_psn: Some(Psn::new(start_psn)),
            initiator_reads_max: reads_max,
            responder_reads_max: reads_max,
            window_packets,
            ..QpOptions::default()
        };
        let [mut a, mut b] = ends(faults, &options);
        let mut random = memory_wire::random(seed);
        let mut model_a: Vec<u8> = (0..MEMORY_BYTES).map(|_| random() as u8).collect();
        let mut model_b: Vec<u8> = (0..MEMORY_BYTES).map(|_| random() as u8).collect();
        model_b[WORDS_AT..WORDS_AT + 32].fill(0);
        a.memory.write(0, &model_a);
        b.memory.write(0, &model_b);
        let local = |end: &End, at: usize, len: usize| Local { key: end.region.key, at_bytes: at as u64, len_bytes: len as u32 };
        let remote = |end: &End, at: usize| Remote { address: end.region.address + at as u64, rkey: end.region.key.0 };
        // What the receives will be: posted before or after the sends, as the seed says.
        let mut receives = Vec::new();
        let mut expected_b = Vec::new();
        let mut posted = 0;
        for (id, ask) in asks.iter().enumerate() {
            let id = WrId(id as u64);
            let operation = match ask {
                Ask::Send { from, len, imm } => {
                    let into = HALF + random() as usize % (HALF - LEN_MAX);
                    receives.push(ReceiveRequest { wr_id: id, into: local(&b, into, LEN_MAX) });
                    model_b[into..into + len].copy_from_slice(&model_a[*from..from + len]);
                    expected_b.push((id, Kind::Receive, *imm));
                    Operation::Send { data: Data::Local(local(&a, *from, *len)), imm: *imm }
                }
                Ask::Write { from, to, len, imm } => {
                    model_b[HALF + to..HALF + to + len].copy_from_slice(&model_a[*from..from + len]);
                    if imm.is_some() {
                        receives.push(ReceiveRequest { wr_id: id, into: Local::EMPTY });
                        expected_b.push((id, Kind::ReceiveWrite, *imm));
                    }
                    Operation::Write { data: Data::Local(local(&a, *from, *len)), to: remote(&b, HALF + to), imm: *imm }
                }
                // From what no write touches: a write behind a read may overtake it (IBA §9.5, table of ordering).
                Ask::Read { from, to, len } => {
                    model_a[HALF + to..HALF + to + len].copy_from_slice(&model_b[*from..from + len]);
                    Operation::Read { into: local(&a, HALF + to, *len), from: remote(&b, *from) }
                }
                Ask::Add { word, add } => {
                    let at = WORDS_AT + 8 * word;
                    let there = u64::from_ne_bytes(model_b[at..at + 8].try_into().expect("8 bytes"));
                    model_b[at..at + 8].copy_from_slice(&there.wrapping_add(*add).to_ne_bytes());
                    let into = MEMORY_BYTES - 64;
                    model_a[into..into + 8].copy_from_slice(&there.to_ne_bytes());
                    Operation::FetchAdd { into: local(&a, into, 8), at: remote(&b, at), add: *add }
                }
                Ask::Swap { word, compare, swap } => {
                    let at = WORDS_AT + 8 * word;
                    let there = u64::from_ne_bytes(model_b[at..at + 8].try_into().expect("8 bytes"));
                    if there == *compare {
                        model_b[at..at + 8].copy_from_slice(&swap.to_ne_bytes());
                    }
                    let into = MEMORY_BYTES - 64;
                    model_a[into..into + 8].copy_from_slice(&there.to_ne_bytes());
                    Operation::CompareSwap { into: local(&a, into, 8), at: remote(&b, at), compare: *compare, swap: *swap }
                }
            };
            let request = SendRequest { wr_id: id, operation, signalled: true };
            a.device.post_send(a.qp.as_ref().expect("connected"), &request).expect("room");
            if random().is_multiple_of(2) {
                a.turn();
                b.turn();
                for receive in receives.drain(..) {
                    b.device.post_receive(b.qp.as_ref().expect("connected"), receive).expect("room");
                    posted += 1;
                }
            }
        }
        for receive in receives.drain(..) {
            b.device.post_receive(b.qp.as_ref().expect("connected"), receive).expect("room");
            posted += 1;
        }
        prop_assert_eq!(posted, expected_b.len());
        let mut turns = 0;
        while a.done.len() < asks.len() || b.done.len() < expected_b.len() {
            a.turn();
            b.turn();
            turns += 1;
            prop_assert!(turns < 2_000_000, "it does not end: {} of {} done; {:?}", a.done.len(), asks.len(), a.done.last());
        }
        for (index, done) in a.done.iter().enumerate() {
            prop_assert_eq!((done.wr_id, done.result), (WrId(index as u64), Ok(())));
        }
        for (done, (id, kind, imm)) in b.done.iter().zip(&expected_b) {
            prop_assert_eq!((done.wr_id, done.kind, done.imm, done.result), (*id, *kind, *imm, Ok(())));
        }
        for (end, model) in [(&a, &model_a), (&b, &model_b)] {
            let mut memory = vec![0; MEMORY_BYTES];
            end.memory.read(0, &mut memory);
            prop_assert!(memory == *model, "memory differs at {:?}", memory.iter().zip(model).position(|(is, was)| is != was));
        }
    }
}
