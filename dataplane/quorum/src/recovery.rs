//! A replica from what its log still has.

use std::io;

use dataplane_waist::{Effects, Log, Recovered, Slot, Snapshot, StateMachine, Tail, Term};
use dataplane_wire::{
    Reject,
    quorum::{
        entry::{self, Entry},
        request::{Command, Request},
    },
};

use crate::{
    config::{Config, ConfigError},
    replica::{Parts, Replica},
    sessions::Sessions,
    state::State,
    transfer::{self, Kept},
    window::Window,
};

/// Why a replica could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The configuration.
    #[error("the configuration cannot be: {0}")]
    Config(#[from] ConfigError),
    /// The log could not be read.
    #[error("reading the log: {0}")]
    Log(#[from] io::Error),
    /// The log's small state is of another version, or not ours.
    #[error("the log's state is not one of a replica ({0}): is this another program's log?")]
    State(Reject),
    /// The snapshot is not what this build and these bounds can load.
    #[error(
        "the snapshot up to slot {end} cannot be loaded ({reason}): sessions_max and session_replies must be the cluster's"
    )]
    Snapshot {
        /// Where it ends.
        end: u64,
        /// What is wrong.
        reason: Reject,
    },
    /// More entries behind the snapshot than fit.
    #[error(
        "the log has more entries behind its snapshot than the window holds (at slot {slot}): raise window_slots or window_bytes"
    )]
    WindowFull {
        /// The first that does not fit.
        slot: u64,
    },
}

impl<S: StateMachine> Replica<S> {
    /// The replica that `log` remembers; a new one if it remembers nothing. `machine` is empty.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub fn recover(config: Config, mut machine: S, log: &mut dyn Log) -> Result<Replica<S>, RecoverError> {
        config.check()?;
        let limits = config.limits;
        let mut state = State::default();
        let mut window = Window::new(limits.window_slots, limits.window_bytes, Slot(0), Term(0));
        let mut memberships = vec![(Slot(0), config.members)];
        let mut sessions = Sessions::new(limits.sessions_max, limits.session_replies);
        let mut snapshot = None;
        let mut failed = None;
        let mut promise = None;
        log.recover(&mut |recovered| match recovered {
            Recovered::State(bytes) => match State::decode(bytes) {
                Ok(decoded) => state = decoded,
                Err(reason) => failed = failed.take().or(Some(RecoverError::State(reason))),
            },
            Recovered::Snapshot { end, last_term, bytes } => match transfer::load(bytes, &sessions, &mut machine) {
                Ok(contents) => {
                    window.restart(end, last_term);
                    memberships = vec![(end, contents.members)];
                    sessions = contents.sessions;
                    let stands = Snapshot {
                        end,
                        last_term,
                        tail: Tail::Keep,
                        bytes: bytes.into(),
                    };
                    snapshot = Some(Kept::new(stands, contents.members));
                }
                Err(reason) => failed = failed.take().or(Some(RecoverError::Snapshot { end: end.0, reason })),
            },
            Recovered::Entry { slot, term, payload } => {
                if window.push(term, payload).is_err() {
                    failed = failed.take().or(Some(RecoverError::WindowFull { slot: slot.0 }));
                    return;
                }
                if let Ok(Entry::Request(Request {
                    command: Command::Reconfigure { members },
                    ..
                })) = entry::parse(payload)
                {
                    memberships.push((Slot(slot.0 + 1), members));
                }
            }
            Recovered::Damaged { end, last_term, .. } => promise = Some((last_term, end)),
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let owes = promise.is_some_and(|promise| promise > state.promise);
        if let Some(promise) = promise {
            state.promise = state.promise.max(promise);
        }
        let mut replica = Replica::from_parts(Parts {
            config,
            state,
            window,
            memberships,
            sessions,
            machine,
            snapshot,
        });
        if owes {
            replica.owe();
        }
        Ok(replica)
    }

    /// A list of effects with room for a turn of this replica on a port that delivers `batch_frames_max` frames at once.
    pub fn effects(&self, batch_frames_max: usize) -> Effects {
        let limits = &self.config.limits;
        // Everything in flight may be answered in one turn, and every follower sent a pipeline in batches.
        let actions_max = limits.in_flight_slots as usize + (batch_frames_max + 64) * 40;
        let bytes_max =
            (actions_max * 256).max(limits.frame_bytes_max * 64) + limits.frame_bytes_max * (batch_frames_max + 64) * 4;
        Effects::with_capacity(actions_max, bytes_max)
    }
}
