//! What a way of these experiments is: who does which part of a commit, and what an answer then means.

use std::path::Path;

use ebpf_host::Mode;

use crate::{
    host::Scheduler,
    replicas::{self, Parts, ReplicaRole},
};

pub(in crate::experiments) const ECHO: &str = "echo";
pub(in crate::experiments) const REFLECTOR: &str = "reflector";
pub(in crate::experiments) const USER: &str = "user";
pub(in crate::experiments) const DRIVER_ACK: &str = "driver-ack";
pub(in crate::experiments) const DRIVER_COUNT: &str = "driver-count";
pub(in crate::experiments) const DRIVER: &str = "driver";
pub(in crate::experiments) const USER_DURABLE: &str = "user-durable";
pub(in crate::experiments) const DRIVER_DURABLE: &str = "driver-durable";
/// Programs are attached and pass everything up.
pub(in crate::experiments) const ATTACHED: &str = "attached";
/// Electrode's offloads, each by itself, and all three.
pub(in crate::experiments) const BROADCAST: &str = "broadcast";
pub(in crate::experiments) const FAST_ACK: &str = "fast-ack";
pub(in crate::experiments) const WAIT_ON_QUORUM: &str = "wait-on-quorum";
pub(in crate::experiments) const THREE_OFFLOADS: &str = "all-three";

/// How a log on disk is written: by a thread of its own, each write durable by itself.
const ENGINE: &str = "dsync";

/// One server that answers by itself.
pub(in crate::experiments) fn is_alone(way: &str) -> bool {
    matches!(way, ECHO | REFLECTOR)
}

/// Nothing is answered before a majority's disks have it.
pub(in crate::experiments) fn is_durable(way: &str) -> bool {
    matches!(way, USER_DURABLE | DRIVER_DURABLE)
}

/// What programs in the driver do of a commit; nothing where there are none.
pub(in crate::experiments) fn parts(way: &str) -> Option<Parts> {
    match way {
        DRIVER | DRIVER_DURABLE => Some(Parts::ALL),
        DRIVER_ACK | FAST_ACK => Some(Parts {
            acknowledges: true,
            ..Parts::NONE
        }),
        DRIVER_COUNT => Some(Parts {
            acknowledges: true,
            counts: true,
            ..Parts::NONE
        }),
        ATTACHED => Some(Parts::NONE),
        BROADCAST => Some(Parts {
            broadcasts: true,
            ..Parts::NONE
        }),
        WAIT_ON_QUORUM => Some(Parts {
            counts: true,
            ..Parts::NONE
        }),
        THREE_OFFLOADS => Some(Parts {
            broadcasts: true,
            acknowledges: true,
            counts: true,
            appends: false,
        }),
        _ => None,
    }
}

/// What node `node` is; a log on disk is in a folder of its own in `logs`. `mode`: where frames meet its programs.
pub(super) fn role(way: &str, mode: Mode, node: usize, logs: &Path) -> ReplicaRole {
    let disk = || (logs.join(format!("node-{node}")), ENGINE.to_owned());
    if let Some(parts) = parts(way) {
        return ReplicaRole::Driver {
            mode: mode.into(),
            parts,
            disk: is_durable(way).then(disk),
        };
    }
    match way {
        ECHO => ReplicaRole::Echo,
        REFLECTOR => ReplicaRole::Reflector { mode: mode.into() },
        USER_DURABLE => {
            let (folder, engine) = disk();
            ReplicaRole::Durable(folder, engine)
        }
        _ => ReplicaRole::Memory,
    }
}

/// Who has the CPU. With programs that do everything the client never sleeps, so that nobody else would ever run.
pub(super) fn scheduler(way: &str) -> Scheduler {
    match way {
        DRIVER => Scheduler::RealTimeFirst,
        _ => Scheduler::RealTime,
    }
}

/// What an answer means, where programs are on cards and where they are not.
pub(super) fn guarantee(way: &str, replicas_count: usize, on_card: bool) -> String {
    let plain = replicas::guarantee(is_durable(way), replicas_count);
    match parts(way) {
        _ if is_alone(way) => "none: one end answers by itself".to_owned(),
        Some(_) if is_durable(way) => format!("disk (driver ring, then log): {plain}"),
        Some(parts) if (parts.acknowledges || parts.appends) && on_card => format!(
            "memory of the DPU (driver ring on the card): {plain}; a card's own memory would outlive its host's process, but here it \
             is mapped by that and goes with it"
        ),
        Some(parts) if parts.acknowledges || parts.appends => {
            format!("memory (driver ring): {plain}; a ring goes with its process, as its memory does")
        }
        _ => plain,
    }
}
