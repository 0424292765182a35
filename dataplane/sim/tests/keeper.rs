//! A server that keeps what it acknowledges, under every fault that an honest disk and a bad network have; and the
//! same server on a disk that lies, which must be caught.
#![forbid(unsafe_code)]

use std::{io, time::Duration};

use dataplane_sim::{
    EventKind, Fault, FaultBounds, FaultKind, HostId, HostOptions, LinkOptions, ScheduledFault, Sim, SimTime, generate,
    shrink,
};
use dataplane_waist::{Durable, Effects, Input, Instant, Log, Peer, Protocol, Recovered, Slot, Term};
use dataplane_wire::checksum::crc32c;

const SERVER: HostId = HostId(0);
const CLIENT: HostId = HostId(1);
const RETRY: Duration = Duration::from_millis(1);
const RUN: SimTime = SimTime::from_ms(300);

enum Role {
    Server(Server),
    Client(Client),
}

/// Appends each number that it does not have yet and acknowledges it when it is durable. The number is the slot.
#[derive(Default)]
struct Server {
    entries: Vec<u64>,
    acked_end: u64,
}

/// Sends one number after the other, each until it is acknowledged.
struct Client {
    acked_end: u64,
    retry_at: Instant,
}

impl Protocol for Role {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match (self, input) {
            (Role::Server(server), Input::Frame { bytes, .. }) => {
                let Some(number) = parse(bytes) else {
                    return;
                };
                let end = server.entries.len() as u64;
                if number == end && out.append(Slot(end), Term(1), &bytes[..8]).is_ok() {
                    server.entries.push(number);
                } else if number < server.acked_end {
                    acknowledge(server.acked_end, out);
                }
            }
            (Role::Server(server), Input::Durable(Durable { end, .. })) => {
                server.acked_end = end.0;
                acknowledge(end.0, out);
            }
            (Role::Client(client), Input::Frame { bytes, .. }) => {
                let Some(end) = parse(bytes) else {
                    return;
                };
                if end > client.acked_end {
                    client.acked_end = end;
                    client.ask(now, out);
                }
            }
            (Role::Client(client), Input::Tick) => client.ask(now, out),
            (Role::Server(_), Input::Tick) | (Role::Client(_), Input::Durable(_)) => (),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Role::Server(_) => None,
            Role::Client(client) => Some(client.retry_at),
        }
    }
}

fn acknowledge(end: u64, out: &mut Effects) {
    send(CLIENT, end, out);
}

/// A number and its checksum: links flip bits.
fn send(to: HostId, number: u64, out: &mut Effects) {
    let number = number.to_be_bytes();
    let _ = out.send(Peer(to.0), 12, |bytes| {
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32c(&number).to_be_bytes());
    });
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let (number, crc) = bytes.split_first_chunk::<8>()?;
    (crc == crc32c(number).to_be_bytes()).then(|| u64::from_be_bytes(*number))
}

impl Client {
    fn ask(&mut self, now: Instant, out: &mut Effects) {
        self.retry_at = now + RETRY;
        send(SERVER, self.acked_end, out);
    }
}

fn sim(seed: u64) -> Sim<Role> {
    let host = HostOptions {
        restart: SimTime::from_ms(5),
        ..HostOptions::default()
    };
    let hosts = [host; 2];
    Sim::new(seed, &hosts, LinkOptions::default(), |boot| {
        let mut server = Server::default();
        let mut is_damaged = false;
        boot.log.recover(&mut |recovered| match recovered {
            Recovered::Entry { slot, payload, .. } => {
                server.entries.push(slot.0);
                assert_eq!(payload, slot.0.to_be_bytes(), "an entry came back changed");
            }
            Recovered::Damaged { .. } => is_damaged = true,
            _ => (),
        })?;
        if is_damaged {
            // There is nobody to ask for what is gone.
            return Err(io::Error::other("entries are gone"));
        }
        Ok(match boot.host {
            SERVER => Role::Server(server),
            _ => Role::Client(Client {
                acked_end: 0,
                retry_at: boot.now,
            }),
        })
    })
}

/// What a history came to.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    acked_count: u64,
    starts_count: u32,
    /// An acknowledged number that the server did not have when it had started again.
    lost: Option<u64>,
    refuses_to_start: bool,
}

fn run(seed: u64, faults: &[ScheduledFault]) -> Outcome {
    let mut sim = sim(seed);
    sim.schedule(faults);
    let mut outcome = Outcome::default();
    while let Some(event) = sim.step(RUN) {
        let acked_end = match sim.protocol(CLIENT) {
            Some(Role::Client(client)) => client.acked_end,
            _ => panic!("seed {seed}: the client is spared"),
        };
        assert!(
            acked_end >= outcome.acked_count,
            "seed {seed}: an acknowledgement was taken back"
        );
        outcome.acked_count = acked_end;
        match (event.kind, sim.protocol(SERVER)) {
            (EventKind::Started(SERVER), Some(Role::Server(server))) => {
                let end = server.entries.len() as u64;
                if end < acked_end {
                    outcome.lost = Some(end);
                }
            }
            (EventKind::Started(SERVER), None) => outcome.refuses_to_start = true,
            (EventKind::Failed(host), _) => {
                let error = sim.error(host).expect("it says why");
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::Other,
                    "seed {seed}: a bug of the protocol: {error}"
                );
            }
            _ => (),
        }
    }
    outcome.starts_count = sim.starts_count(SERVER);
    outcome
}

/// As lines, each of which can be read back.
fn printed(faults: &[ScheduledFault]) -> String {
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[test]
fn what_was_acknowledged_survives_everything_that_is_honest() {
    let bounds = FaultBounds::honest(1, RUN);
    let (mut starts_count, mut acked_count) = (0, 0);
    for seed in 0..300 {
        let faults = generate(seed, &bounds);
        let outcome = run(seed, &faults);
        assert_eq!(outcome.lost, None, "seed {seed}:\n{}", printed(&faults));
        assert!(!outcome.refuses_to_start, "seed {seed}:\n{}", printed(&faults));
        // A third of the run is left without a fault, but for clocks that were moved.
        assert!(
            outcome.acked_count > 100,
            "seed {seed}: {outcome:?}\n{}",
            printed(&faults)
        );
        starts_count += outcome.starts_count;
        acked_count += outcome.acked_count;
    }
    assert!(starts_count > 600, "only {starts_count} starts in 300 histories");
    assert!(acked_count > 100_000, "only {acked_count} acknowledgements");
}

#[test]
fn a_disk_that_lies_is_caught_and_the_list_shrinks_to_the_lie_and_the_crash() {
    let mut bounds = FaultBounds::honest(1, RUN);
    bounds.kinds.push(FaultKind::LyingDisk);
    let caught = (0..100).find_map(|seed| {
        let faults = generate(seed, &bounds);
        run(seed, &faults).lost.map(|_| (seed, faults))
    });
    let (seed, faults) = caught.expect("one of a hundred histories shows it");
    let kept = shrink(&faults, |tried| run(seed, tried).lost.is_some());
    let is_lie = |fault: &&ScheduledFault| matches!(fault.fault, Fault::LyingDisk { .. });
    assert_eq!(
        kept.iter().filter(is_lie).count(),
        1,
        "seed {seed}: \n{}",
        printed(&kept)
    );
    assert!(kept.len() <= 3, "seed {seed}: \n{}", printed(&kept));
    // What is printed repeats it.
    let lines: Vec<String> = kept.iter().map(ScheduledFault::to_string).collect();
    let read: Vec<ScheduledFault> = lines.iter().map(|line| line.parse().expect("as printed")).collect();
    assert!(run(seed, &read).lost.is_some(), "seed {seed}: {lines:#?}");
}

#[test]
fn a_server_that_lost_what_it_acknowledged_knows_it() {
    let bounds = FaultBounds {
        kinds: vec![FaultKind::Damage],
        ..FaultBounds::honest(1, RUN)
    };
    let outcomes = (0..50).map(|seed| run(seed, &generate(seed, &bounds)));
    let refused_count = outcomes
        .filter(|outcome| outcome.refuses_to_start && outcome.lost.is_none())
        .count();
    assert!(refused_count > 10, "{refused_count} of 50");
}
