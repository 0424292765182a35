//! What a node is to be, as its process is told.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use dataplane_service::{
    discipline::{Discipline, Kind, PerWorker, Quantum, ShortestOfTwo, SingleQueue, Stealing},
    queue::Queue,
    random::mix,
    service_time::ServiceTime,
    stalls::{StallPattern, Stalls},
};
use serde::{Deserialize, Serialize};

use crate::{
    host::{Scheduler, Seat},
    place::Endpoint,
};

/// What a process of nodes is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodesPlan {
    /// Who starts it; it ends when that process does.
    pub parent_pid: u32,
    /// Name of the back end that all its nodes use.
    pub backend: String,
    /// Where each node is; the first of them has the number `first_node`.
    pub locals: Vec<Endpoint>,
    /// The number of the first.
    pub first_node: u32,
    /// The ends are the two of a veth pair.
    pub over_veth: bool,
    /// Where they run.
    pub seat: Seat,
    /// How the kernel is to choose when they run.
    pub scheduler: Scheduler,
    /// What each is.
    pub node: NodePlan,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePlan {
    /// How many workers.
    pub workers_count: usize,
    /// What they are.
    pub workers: WorkerPlan,
    /// Name of a [`Kind`].
    pub discipline: String,
    /// Of the preemptive discipline.
    pub quantum: Duration,
    /// What a request takes, where it does not say so itself.
    pub service: ServicePlan,
    /// How it stands still by itself, on the machine's own monotonic clock, if it does.
    pub pauses: Option<PausePlan>,
    /// What workers read that read.
    pub file: Option<PathBuf>,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
}

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPlan {
    /// A timer: the node is one thread, and many workers sleep at once.
    Timer,
    /// A thread that sleeps for the time of the service.
    Sleep,
    /// A thread that burns its CPU for the time of the service, in slices after which it looks at the clock.
    Burn,
    /// A thread that computes checksums (CRC-32C) of a buffer.
    Crc,
    /// A thread that gets keys from a replica's store.
    KvGet,
    /// A thread that reads ranges of a replica's store.
    KvScan,
    /// A thread that reads blocks of [`NodePlan::file`] past the page cache.
    DirectRead,
}

impl WorkerPlan {
    /// Does it want a CPU all the time that it serves?
    pub fn wants_cpu(self) -> bool {
        match self {
            WorkerPlan::Timer | WorkerPlan::Sleep | WorkerPlan::DirectRead => false,
            WorkerPlan::Burn | WorkerPlan::Crc | WorkerPlan::KvGet | WorkerPlan::KvScan => true,
        }
    }
}

/// How a node stands still: as a garbage collector makes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PausePlan {
    /// From the end of one to the begin of the next, on average.
    pub gap: Duration,
    /// How long each lasts.
    pub pause: Duration,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// All nodes at the same times.
    pub together: bool,
}

impl PausePlan {
    /// As the state machines have it.
    pub fn pattern(&self) -> StallPattern {
        StallPattern {
            gap_ns_mean: self.gap.as_nanos() as f64,
            stall_ns: self.pause.as_nanos() as u64,
        }
    }

    /// The stalls of node, or process, number `index`.
    pub fn stalls(&self, index: u32) -> Stalls {
        let whose = if self.together { 0 } else { u64::from(index) + 1 };
        Stalls::new(self.pattern(), mix(self.seed ^ whose << 20))
    }
}

/// A [`ServiceTime`], as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServicePlan {
    /// [`ServiceTime::Deterministic`].
    Deterministic {
        /// It, in nanoseconds.
        ns: u64,
    },
    /// [`ServiceTime::Exponential`].
    Exponential {
        /// The mean, in nanoseconds.
        mean_ns: f64,
    },
    /// [`ServiceTime::Bimodal`].
    Bimodal {
        /// Of most, in nanoseconds.
        short_ns: u64,
        /// Of the others, in nanoseconds.
        long_ns: u64,
        /// How many of them there are, 0 to 1.
        long_ratio: f64,
    },
    /// [`ServiceTime::Lognormal`].
    Lognormal {
        /// The median, in nanoseconds.
        median_ns: f64,
        /// Of the logarithm.
        sigma: f64,
    },
    /// [`ServiceTime::Empirical`], from a file.
    Trace {
        /// Its path.
        path: String,
    },
}

impl ServicePlan {
    /// As the state machines have it.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn model(&self) -> anyhow::Result<ServiceTime> {
        Ok(match self {
            ServicePlan::Deterministic { ns } => ServiceTime::Deterministic { ns: *ns },
            ServicePlan::Exponential { mean_ns } => ServiceTime::Exponential { mean_ns: *mean_ns },
            ServicePlan::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => ServiceTime::Bimodal {
                short_ns: *short_ns,
                long_ns: *long_ns,
                long_ratio: *long_ratio,
            },
            ServicePlan::Lognormal { median_ns, sigma } => ServiceTime::Lognormal {
                median_ns: *median_ns,
                sigma: *sigma,
            },
            ServicePlan::Trace { path } => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("reading the service times in {path}"))?;
                ServiceTime::parse_trace(&text).with_context(|| path.clone())?
            }
        })
    }
}

impl NodePlan {
    /// The stalls of node number `node`.
    pub fn stalls(&self, node: u32) -> Stalls {
        self.pauses.map_or_else(Stalls::never, |pauses| pauses.stalls(node))
    }

    /// An empty discipline over queues of this kind.
    ///
    /// # Errors
    /// No discipline has that name.
    pub fn discipline<J: 'static, Q: Queue<J> + Send + Sync + 'static>(
        &self,
    ) -> anyhow::Result<Box<dyn Discipline<J> + Send + Sync>> {
        let kind = Kind::by_name(&self.discipline).with_context(|| format!("no discipline {:?}", self.discipline))?;
        Ok(match kind {
            Kind::SingleQueue => Box::new(SingleQueue::<Q>::new()),
            Kind::PerWorker => Box::new(PerWorker::<Q>::new(self.workers_count)),
            Kind::Stealing => Box::new(Stealing::<Q>::new(self.workers_count)),
            Kind::ShortestOfTwo => Box::new(ShortestOfTwo::<Q>::new(self.workers_count)),
            Kind::Preemptive => Box::new(Quantum::new(SingleQueue::<Q>::new(), self.quantum)),
        })
    }
}
