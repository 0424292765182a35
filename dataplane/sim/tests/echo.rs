//! The echo protocol over the simulator, end to end: clients that ask, a server that answers, all through `Node::turn`.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, time::Duration};

use dataplane_echo::{EchoServer, RequestTemplate, reply};
use dataplane_sim::{
    Crash, Fault, FaultBounds, HostId, HostOptions, HostSet, LinkFaults, LinkOptions, ScheduledFault, Sim, SimTime,
    generate,
};
use dataplane_waist::{Effects, Input, Instant, Log, Peer, Protocol};

const SERVER: HostId = HostId(0);
const PERIOD: Duration = Duration::from_micros(100);

/// Either end.
enum Role {
    Server(EchoServer),
    Client(Client),
}

/// Sends a request every 100 µs, as many as there are to be.
struct Client {
    number: u32,
    template: RequestTemplate,
    requests_count: u64,
    next_seq: u64,
    next_at: Instant,
    answered: BTreeSet<u64>,
    replies_count: u64,
    rejects_count: u64,
    rtt_min: Duration,
}

impl Protocol for Client {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Tick => {
                let (template, seq) = (&self.template, self.next_seq);
                let stamp = |frame: &mut [u8]| template.stamp(frame, seq, now.as_ns());
                out.send(Peer(SERVER.0), template.frame_bytes(), stamp)
                    .expect("room for one");
                self.next_seq += 1;
                self.next_at = self.next_at + PERIOD;
            }
            Input::Frame { bytes, .. } => match reply(bytes, self.number) {
                Ok(reply) => {
                    assert!(reply.payload_intact, "a checksum let a changed payload pass");
                    self.replies_count += 1;
                    self.answered.insert(reply.seq);
                    let rtt = now.saturating_since(Instant::from_ns(reply.sent_ns));
                    self.rtt_min = self.rtt_min.min(rtt);
                }
                Err(_) => self.rejects_count += 1,
            },
            Input::Durable(_) => (),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        (self.next_seq < self.requests_count).then_some(self.next_at)
    }
}

impl Protocol for Role {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match self {
            Role::Server(server) => server.handle(now, input, out),
            Role::Client(client) => client.handle(now, input, out),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Role::Server(server) => server.wake_at(),
            Role::Client(client) => client.wake_at(),
        }
    }
}

/// A server and `clients_count` clients that ask 100 times each.
fn sim(seed: u64, clients_count: usize, link: LinkOptions) -> Sim<Role> {
    let hosts = vec![HostOptions::default(); 1 + clients_count];
    Sim::new(seed, &hosts, link, |boot| {
        boot.log.recover(&mut |_| ())?;
        Ok(match boot.host {
            SERVER => Role::Server(EchoServer),
            HostId(number) => Role::Client(Client {
                number,
                template: RequestTemplate::new(number, 200).expect("a size that an echo has"),
                requests_count: 100,
                next_seq: 0,
                next_at: boot.now,
                answered: BTreeSet::new(),
                replies_count: 0,
                rejects_count: 0,
                rtt_min: Duration::MAX,
            }),
        })
    })
}

fn client(sim: &Sim<Role>, host: u32) -> &Client {
    match sim.protocol(HostId(host)).expect("clients are up") {
        Role::Client(client) => client,
        Role::Server(_) => panic!("host {host} is the server"),
    }
}

const END: SimTime = SimTime::from_ms(50);

#[test]
fn every_request_is_answered_over_a_good_network() {
    let mut sim = sim(1, 3, LinkOptions::default());
    sim.run_until(END);
    for host in 1..=3 {
        let client = client(&sim, host);
        assert_eq!(client.answered.len(), 100);
        assert_eq!((client.replies_count, client.rejects_count), (100, 0));
        // Two links of 5 µs at least, and a turn with one frame in and one out at either end.
        let floor = Duration::from_micros(2 * 5 + 2 + 2 * 2 / 2);
        assert!(client.rtt_min >= floor, "{:?} is below {floor:?}", client.rtt_min);
    }
    let counts = sim.counts();
    assert_eq!(
        (counts.sent_count, counts.delivered_count, counts.lost_count),
        (600, 600, 0)
    );
}

#[test]
fn corrupt_frames_are_rejected_and_copies_are_seen() {
    let faults = LinkFaults {
        duplicate_ratio: 0.2,
        corrupt_ratio: 0.2,
        reorder_ratio: 0.2,
        reorder: SimTime::from_ms(1),
        ..LinkFaults::default()
    };
    let link = LinkOptions {
        faults,
        ..LinkOptions::default()
    };
    let mut sim = sim(2, 1, link);
    sim.run_until(END);
    let client = client(&sim, 1);
    assert!(client.rejects_count > 0 && client.replies_count > client.answered.len() as u64);
    let rejects_count: u64 = sim.stats(SERVER).expect("up").rejects.iter().sum();
    assert!(rejects_count > 0, "the server rejects some, too");
    let counts = sim.counts();
    assert_eq!(counts.sent_count + counts.duplicated_count, counts.delivered_count);
}

#[test]
fn a_one_way_partition_lets_requests_come_and_no_reply_go() {
    let mut sim = sim(3, 2, LinkOptions::default());
    sim.inject(Fault::Block {
        from: HostSet::of([SERVER]),
        to: HostSet::of([HostId(1)]),
        lasts: SimTime::from_ms(5),
    });
    sim.run_until(SimTime::from_ms(5));
    assert_eq!(client(&sim, 1).answered.len(), 0);
    assert!(client(&sim, 2).answered.len() >= 45, "the other client is not touched");
    let server = sim.stats(SERVER).expect("up").port;
    assert!(server.rx_frames_count >= 95, "the requests of both came: {server:?}");
    sim.run_until(END);
    assert!(client(&sim, 1).answered.len() >= 45, "and then it heals");
    assert_eq!(client(&sim, 2).answered.len(), 100);
}

#[test]
fn a_crashed_server_answers_again_and_a_paused_one_answers_late() {
    let ms = SimTime::from_ms;
    let mut crashed = sim(4, 1, LinkOptions::default());
    crashed.schedule(&[ScheduledFault {
        at: ms(2),
        fault: Fault::Crash {
            host: SERVER,
            crash: Crash::Power,
            lasts: ms(3),
        },
    }]);
    crashed.run_until(END);
    let answered_count = client(&crashed, 1).answered.len();
    assert!(
        (65..=72).contains(&answered_count),
        "30 of 100 came to nobody: {answered_count}"
    );
    assert_eq!(crashed.starts_count(SERVER), 2);
    assert_eq!(crashed.counts().to_nobody_count, 30);

    let mut paused = sim(4, 1, LinkOptions::default());
    paused.inject(Fault::Pause {
        host: SERVER,
        lasts: ms(3),
    });
    paused.run_until(ms(3));
    assert_eq!(client(&paused, 1).answered.len(), 0);
    paused.run_until(END);
    assert_eq!(client(&paused, 1).answered.len(), 100);
}

#[test]
fn a_client_with_a_fast_clock_asks_sooner() {
    let mut hosts = vec![HostOptions::default(); 3];
    hosts[2].clock_drift_ppm = 100_000;
    hosts[2].clock_skew_ns = 5_000_000_000;
    let mut sim = Sim::new(5, &hosts, LinkOptions::default(), |boot| {
        Ok(Client {
            number: boot.host.0,
            template: RequestTemplate::new(boot.host.0, 200).expect("a size that an echo has"),
            requests_count: 1_000_000,
            next_seq: 0,
            next_at: boot.now,
            answered: BTreeSet::new(),
            replies_count: 0,
            rejects_count: 0,
            rtt_min: Duration::MAX,
        })
    });
    sim.run_until(SimTime::from_us(10_050));
    assert_eq!(sim.local_now(HostId(1)).as_ns(), 10_050_000);
    assert_eq!(sim.local_now(HostId(2)).as_ns(), 5_011_055_000);
    assert_eq!(sim.protocol(HostId(1)).expect("up").next_seq, 101);
    assert_eq!(sim.protocol(HostId(2)).expect("up").next_seq, 111);
}

/// One history under faults: its hash, and how much happened.
fn history(seed: u64, faults: &[ScheduledFault]) -> (u64, u64) {
    let mut sim = sim(seed, 3, LinkOptions::default());
    sim.schedule(faults);
    sim.run_until(END);
    (sim.hash().value(), sim.events_count())
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() {
    let bounds = FaultBounds::everything(4, SimTime::from_ms(12));
    let mut hashes = BTreeSet::new();
    for seed in 0..100 {
        let faults = generate(seed, &bounds);
        let first = history(seed, &faults);
        assert_eq!(first, history(seed, &faults), "seed {seed}");
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 100, "a hash that differs for every seed");
}

#[test]
fn the_hash_sees_a_single_byte_of_a_single_frame() {
    let with_size = |frame_bytes| {
        let hosts = [HostOptions::default(); 2];
        let link = LinkOptions::default();
        let mut sim = Sim::new(6, &hosts, link, move |boot| {
            Ok(Client {
                number: boot.host.0,
                template: RequestTemplate::new(boot.host.0, frame_bytes).expect("a size that an echo has"),
                requests_count: 1,
                next_seq: 0,
                next_at: boot.now,
                answered: BTreeSet::new(),
                replies_count: 0,
                rejects_count: 0,
                rtt_min: Duration::MAX,
            })
        });
        sim.run_until(END);
        (sim.hash(), sim.events_count())
    };
    let (short, long) = (with_size(200), with_size(201));
    assert_ne!(short.0, long.0);
    assert_eq!(short.1, long.1, "the same events at the same times");
    assert_eq!(short, with_size(200));
}

#[test]
fn shrinking_a_history_finds_the_fault_that_matters() {
    let ms = SimTime::from_ms;
    let bounds = FaultBounds {
        kinds: vec![dataplane_sim::FaultKind::SlowDisk, dataplane_sim::FaultKind::Drift],
        faults_max: 60,
        ..FaultBounds::honest(2, ms(12))
    };
    let mut faults = generate(8, &bounds);
    let guilty = ScheduledFault {
        at: ms(1),
        fault: Fault::Crash {
            host: SERVER,
            crash: Crash::Process,
            lasts: SimTime::FOREVER,
        },
    };
    faults.push(guilty);
    assert!(faults.len() > 10, "something to drop: {faults:?}");
    let kept = dataplane_sim::shrink(&faults, |tried| {
        let mut sim = sim(8, 1, LinkOptions::default());
        sim.schedule(tried);
        sim.run_until(END);
        client(&sim, 1).answered.len() < 100
    });
    assert_eq!(kept, [guilty]);
}
