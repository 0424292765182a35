//! What a host's process sees of the simulator: what is gone with it when it dies, what it is told when it begins again,
//! and when it has a turn.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_sim::{Crash, Event, EventKind, Fault, HostId, HostOptions, HostSet, LinkOptions, Sim, SimTime};
use dataplane_waist::{Effects, Input, Instant, Log, Peer, Protocol, Slot, Term};

const ONE: HostId = HostId(0);
const OTHER: HostId = HostId(1);

/// Writes an entry when it begins with an empty log, sends a frame a millisecond to the other host if it is to, and counts.
struct Process {
    writes: bool,
    sends_to: Option<Peer>,
    next_at: Instant,
    frames_count: u64,
    told_end: Option<Slot>,
}

impl Protocol for Process {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { .. } => self.frames_count += 1,
            Input::Durable(durable) => self.told_end = Some(durable.end),
            Input::Tick => {
                if std::mem::take(&mut self.writes) {
                    out.append(Slot(0), Term(1), b"entry").expect("room for one");
                }
                if let Some(peer) = self.sends_to {
                    self.next_at = now + Duration::from_millis(1);
                    out.send(peer, 4, |bytes| bytes.copy_from_slice(b"ping"))
                        .expect("room for one");
                }
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.writes {
            true => Some(Instant::ZERO),
            false => self.sends_to.map(|_| self.next_at),
        }
    }
}

/// Two hosts; those in `senders` send.
fn sim(senders: HostSet) -> Sim<Process> {
    Sim::new(3, &[HostOptions::default(); 2], LinkOptions::default(), move |boot| {
        let mut is_empty = true;
        boot.log.recover(&mut |_| is_empty = false)?;
        Ok(Process {
            writes: is_empty,
            sends_to: senders.contains(boot.host).then_some(Peer(1 - boot.host.0)),
            next_at: boot.now,
            frames_count: 0,
            told_end: None,
        })
    })
}

fn process(sim: &Sim<Process>, host: HostId) -> &Process {
    sim.protocol(host).expect("the host is up")
}

const LASTS: SimTime = SimTime::from_ms(5);

#[test]
fn a_process_that_begins_again_is_told_what_its_log_has() {
    let mut sim = sim(HostSet::default());
    sim.run_until(SimTime::from_ms(10));
    assert_eq!(process(&sim, ONE).told_end, Some(Slot(1)));
    sim.inject(Fault::Crash {
        host: ONE,
        crash: Crash::Power,
        lasts: LASTS,
    });
    // It has nothing to do, and no sync is under way whose end could wake it.
    sim.run_until(SimTime::from_ms(20));
    let again = process(&sim, ONE);
    assert!(!again.writes, "the entry was found");
    assert_eq!(again.told_end, Some(Slot(1)));
}

#[test]
fn a_process_that_was_changed_has_a_turn_at_once() {
    let mut sim = sim(HostSet::default());
    let now = SimTime::from_ms(10);
    sim.run_until(now);
    assert_eq!(sim.step(now), None, "nobody has anything to do");
    sim.with_protocol(OTHER, |_, _| ()).expect("the host is up");
    let turned = Event {
        at: now,
        kind: EventKind::Turned(OTHER),
    };
    assert_eq!(sim.step(now), Some(turned));
    assert_eq!(sim.step(now), None, "and that once");
}

#[test]
fn frames_that_wait_for_a_process_are_gone_with_it() {
    let mut sim = sim(HostSet::of([ONE]));
    let (begin, lasts) = (SimTime::from_ms(10), SimTime::from_ms(5));
    sim.run_until(begin);
    sim.inject(Fault::Pause { host: OTHER, lasts });
    sim.run_until(begin + SimTime::from_ms(3));
    let sent_before_count = sim.counts().delivered_count;
    let crash = Crash::Process;
    let lasts = SimTime::from_us(1);
    sim.inject(Fault::Crash {
        host: OTHER,
        crash,
        lasts,
    });
    sim.run_until(SimTime::from_ms(20));
    let since_count = sim.counts().delivered_count - sent_before_count;
    assert_eq!(process(&sim, OTHER).frames_count, since_count);
    assert!(since_count >= 5, "it heard what came later");
}

#[test]
fn a_partition_cuts_both_ways() {
    let mut sim = sim(HostSet::of([ONE, OTHER]));
    sim.run_until(SimTime::from_ms(10));
    let counts = |sim: &Sim<Process>| [ONE, OTHER].map(|host| process(sim, host).frames_count);
    assert!(counts(&sim).iter().all(|&count| count >= 9));
    let side = HostSet::of([ONE]);
    sim.inject(Fault::Partition { side, lasts: LASTS });
    // What was under way has arrived.
    sim.run_until(SimTime::from_ms(11));
    let before = counts(&sim);
    sim.run_until(SimTime::from_ms(15));
    assert_eq!(counts(&sim), before);
    sim.run_until(SimTime::from_ms(20));
    for (after, before) in counts(&sim).into_iter().zip(before) {
        assert!(after >= before + 4, "{after} after {before}: the partition has ended");
    }
}
