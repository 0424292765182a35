//! What several tests need: a random workload, and what a log must hold after each of its steps.
#![allow(dead_code, reason = "no test uses all of it")]

use std::sync::Arc;

use dataplane_waist::{Log, MemoryLog, Recovered, Slot, Snapshot, Tail, Term};
use dataplane_wal::{Storage, Wal, WalError, WalOptions};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

pub const CLUSTER: u64 = 0x1ab;

/// Small segments, so that a short run goes through several.
pub fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 32 << 10,
        buffer_bytes: 8 << 10,
        ..WalOptions::new(CLUSTER)
    }
}

pub fn open(storage: impl Storage + 'static) -> Result<Wal, WalError> {
    Wal::open(Box::new(storage), options())
}

/// The seed of this run: `DPLAB_SEED`, or a fresh one; printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = match std::env::var("DPLAB_SEED") {
        Ok(text) => text.parse().expect("DPLAB_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("seed: DPLAB_SEED={seed}");
    seed
}

/// How many, from the environment.
pub fn count(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("it is a number"))
}

#[derive(Clone, Debug)]
pub enum Step {
    Append(u64, u64, Vec<u8>),
    State(Vec<u8>),
    Install(Snapshot),
    Sync,
}

/// Everything that a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub state: Option<Vec<u8>>,
    pub snapshot: Option<(u64, u64, Vec<u8>)>,
    pub entries: Vec<(u64, u64, Vec<u8>)>,
    pub damaged: Option<(u64, u64, u64)>,
}

impl Contents {
    /// A log in memory that holds this.
    pub fn to_log(&self) -> MemoryLog {
        let mut log = MemoryLog::new();
        if let Some(state) = &self.state {
            log.set_state(state).expect("it was one");
        }
        if let Some((end, last_term, bytes)) = &self.snapshot {
            let snapshot = Snapshot {
                end: Slot(*end),
                last_term: Term(*last_term),
                tail: Tail::Drop,
                bytes: Arc::from(&bytes[..]),
            };
            log.install(&snapshot).expect("the log is empty");
        }
        for (slot, term, payload) in &self.entries {
            log.append(Slot(*slot), Term(*term), payload)
                .expect("they are in order");
        }
        log
    }
}

pub fn contents(log: &mut dyn Log) -> std::io::Result<Contents> {
    let mut contents = Contents::default();
    log.recover(&mut |recovered| match recovered {
        Recovered::State(state) => contents.state = Some(state.to_vec()),
        Recovered::Snapshot { end, last_term, bytes } => {
            contents.snapshot = Some((end.0, last_term.0, bytes.to_vec()));
        }
        Recovered::Entry { slot, term, payload } => contents.entries.push((slot.0, term.0, payload.to_vec())),
        Recovered::Damaged { slot, end, last_term } => contents.damaged = Some((slot.0, end.0, last_term.0)),
    })?;
    Ok(contents)
}

/// A random workload, and what a log in memory holds after each step.
pub struct Workload {
    pub steps: Vec<Step>,
    /// `after[n]`: after the first `n` steps.
    pub after: Vec<Contents>,
}

impl Workload {
    pub fn random(seed: u64, steps_count: usize, payload_bytes_max: usize) -> Workload {
        Workload::following(&Contents::default(), seed, steps_count, payload_bytes_max)
    }

    /// One that goes on where a log holds `before`.
    pub fn following(before: &Contents, seed: u64, steps_count: usize, payload_bytes_max: usize) -> Workload {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut model = before.to_log();
        let mut begin = before.snapshot.as_ref().map_or(0, |&(end, ..)| end);
        let mut end = begin + before.entries.len() as u64;
        let mut term = 1 + before.entries.last().map_or(0, |&(_, term, _)| term);
        let mut steps = Vec::new();
        let mut after = vec![before.clone()];
        while steps.len() < steps_count {
            let step = match rng.random_range(0..100) {
                0..50 => {
                    let back = if rng.random_ratio(1, 8) {
                        rng.random_range(0..4)
                    } else {
                        0
                    };
                    let slot = (end - back.min(end - begin)).max(begin);
                    term += u64::from(slot < end);
                    let len = match rng.random_ratio(1, 10) {
                        true => rng.random_range(0..payload_bytes_max * 4),
                        false => rng.random_range(0..payload_bytes_max),
                    };
                    let payload = (0..len).map(|_| rng.random()).collect();
                    end = slot + 1;
                    Step::Append(slot, term, payload)
                }
                50..58 => Step::State((0..rng.random_range(0..=64)).map(|_| rng.random()).collect()),
                58..62 => {
                    let drops = rng.random_ratio(1, 3);
                    let at = match drops {
                        true => end + rng.random_range(0..3),
                        false => rng.random_range(begin..=end),
                    };
                    let at = at.max(1);
                    let snapshot = Snapshot {
                        end: Slot(at),
                        last_term: Term(term),
                        tail: if drops { Tail::Drop } else { Tail::Keep },
                        bytes: Arc::from(
                            (0..rng.random_range(0..3000))
                                .map(|_| rng.random())
                                .collect::<Vec<u8>>(),
                        ),
                    };
                    (begin, end) = (at, if drops || at > end { at } else { end });
                    Step::Install(snapshot)
                }
                _ => Step::Sync,
            };
            step.apply(&mut model).expect("the model takes it");
            steps.push(step);
            after.push(contents(&mut model).expect("memory can be read"));
        }
        Workload { steps, after }
    }
}

impl Step {
    pub fn apply(&self, log: &mut dyn Log) -> std::io::Result<()> {
        match self {
            Step::Append(slot, term, payload) => log.append(Slot(*slot), Term(*term), payload),
            Step::State(state) => log.set_state(state),
            Step::Install(snapshot) => log.install(snapshot),
            Step::Sync => log.sync(),
        }
    }
}
