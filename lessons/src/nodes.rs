//! Nodes that stand still now and then, and a client with a policy, in virtual time.

use dataplane_service::{
    policy::Policy,
    service_time::ServiceTime,
    sim::{Cluster, ClusterOptions},
    stalls::StallPattern,
};

/// A millisecond, in nanoseconds.
pub const MS: u64 = 1_000_000;

/// What calls took.
#[derive(Clone, Debug)]
pub struct Took {
    /// In nanoseconds, sorted; one that was lost took for ever.
    pub sorted_ns: Vec<u64>,
    /// Requests beyond one a call, as a share of the calls.
    pub extra_ratio: f64,
}

impl Took {
    /// The time that a share `q` of the calls took at most, in nanoseconds.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        let rank = (q * self.sorted_ns.len() as f64).ceil() as usize;
        self.sorted_ns[rank.clamp(1, self.sorted_ns.len()) - 1]
    }

    /// The share of calls that took longer than that.
    pub fn slow_ratio(&self, over_ns: u64) -> f64 {
        let slow_count = self.sorted_ns.len() - self.sorted_ns.partition_point(|ns| *ns <= over_ns);
        slow_count as f64 / self.sorted_ns.len() as f64
    }
}

/// Four nodes that answer in 0.2 ms on average, exponential, and stand still for 40 ms every two seconds, each by itself or all
/// together; `calls_count` calls, 1,500 a second.
pub fn with_stalls(policy: Box<dyn Policy>, together: bool, calls_count: u64) -> Took {
    let pattern = StallPattern {
        gap_ns_mean: 1_960.0 * MS as f64,
        stall_ns: 40 * MS,
    };
    call(
        ClusterOptions {
            stalls: Some(pattern),
            stalls_are_shared: together,
            ..at_rest(
                4,
                ServiceTime::Exponential {
                    mean_ns: 0.2 * MS as f64,
                },
            )
        },
        policy,
        calls_count,
    )
}

/// So many leaves, of whose answers a share `slow_ratio` takes 100 ms and the others 1 ms.
pub fn with_slow_leaves(policy: Box<dyn Policy>, leaves_count: usize, slow_ratio: f64, calls_count: u64) -> Took {
    let service = ServiceTime::Bimodal {
        short_ns: MS,
        long_ns: 100 * MS,
        long_ratio: slow_ratio,
    };
    let options = ClusterOptions {
        gap_ns_mean: 200.0 * MS as f64,
        ..at_rest(leaves_count, service)
    };
    call(options, policy, calls_count)
}

fn at_rest(nodes_count: usize, service: ServiceTime) -> ClusterOptions {
    ClusterOptions {
        nodes_count,
        workers_count: 16,
        service,
        gap_ns_mean: 1e9 / 1_500.0,
        way_ns: 20_000,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: None,
        patience_ns: 10_000 * MS,
        seed: 14,
    }
}

fn call(options: ClusterOptions, policy: Box<dyn Policy>, calls_count: u64) -> Took {
    let mut cluster = Cluster::new(options, policy);
    let mut sorted_ns = Vec::new();
    cluster.run(calls_count, &mut |outcome| {
        sorted_ns.push(outcome.took_ns.unwrap_or(u64::MAX))
    });
    sorted_ns.sort_unstable();
    Took {
        sorted_ns,
        extra_ratio: cluster.counts().extra_ratio(1),
    }
}
