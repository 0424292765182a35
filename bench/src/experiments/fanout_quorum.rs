//! `fanout-quorum`: waiting for k of n instead of all of them: a quorum cuts a tail.

use std::collections::BTreeMap;

use dataplane_service::{
    oracle,
    policy::{Choice, FanOut},
    service_time::ServiceTime,
    sim::ClusterOptions,
};

use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound, measured},
        virtual_nodes::{At, seed_of, simulate},
        virtual_time::BACKEND,
    },
    record::{Better, Outcome, Row},
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct FanoutQuorum;

const ASKED: Axis = Axis {
    name: "asked",
    meaning: "how many nodes are asked at once",
    full: &["3", "5", "100"],
    tour: &["5"],
    smallest: "5",
    allowed: Allowed::Number(1.0, 500.0),
};

const NEEDED_PERCENT: Axis = Axis {
    name: "needed_percent",
    meaning: "of those, how many answers are waited for, rounded up: 50 is a majority of an odd number",
    full: &["20", "50", "80", "95", "100"],
    tour: &["50", "100"],
    smallest: "50",
    allowed: Allowed::Number(0.1, 100.0),
};

/// One leaf of the paper's table 1: p50, p95 and p99 of 1, 5 and 10 ms, which is nearly lognormal.
const SERVICE: ServiceTime = ServiceTime::Lognormal {
    median_ns: 1e6,
    sigma: 0.98,
};
const WAY_NS: u64 = 20_000;
const ROUNDS_COUNT: u32 = 8;
/// Counts of a binomial distribution lie within as many standard deviations of their mean but for one time in two million.
const DEVIATIONS_MAX: f64 = 5.0;

impl Experiment for FanoutQuorum {
    fn id(&self) -> &'static str {
        "fanout-quorum"
    }

    fn title(&self) -> &'static str {
        "Waiting for some of many"
    }

    fn question(&self) -> &'static str {
        "How much shorter is the tail if a request waits for k of n answers instead of all?"
    }

    fn how(&self) -> &'static str {
        "Nodes at rest in virtual time, whose answers take 1 ms as a rule, 5 at p95 and 10 at p99. A request asks n of them and is done with \
         the k-th answer: a quorum of replicas, or a search that is content with most of its pieces. Order statistics say what that takes."
    }

    fn axes(&self) -> &'static [Axis] {
        &[ASKED, NEEDED_PERCENT]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.05
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let (asked, needed) = (lab.numbers(&ASKED), lab.values(&NEEDED_PERCENT));
        let calls_count = match lab.choice.depth {
            Depth::Full => 10_000,
            Depth::Tour => 4_000,
            Depth::Smallest => 500,
        };
        lab.progress.set_length((asked.len() * needed.len()) as u64);
        for (asked, needed_percent) in asked
            .iter()
            .flat_map(|asked| needed.iter().map(move |needed| (*asked as u32, needed)))
        {
            lab.progress.set_message(format!("{needed_percent} % of {asked}"));
            for round in 0..ROUNDS_COUNT {
                if lab.interrupted() {
                    return Ok(());
                }
                let row = measure(lab, asked, needed_percent, round, calls_count);
                lab.record(row)?;
            }
            lab.progress.inc(1);
        }
        Ok(())
    }
}

fn needed_count(asked: u32, percent: f64) -> u32 {
    ((f64::from(asked) * percent / 100.0).ceil() as u32).clamp(1, asked)
}

fn measure(lab: &Lab<'_>, asked: u32, needed_percent: &str, round: u32, calls_count: u64) -> Row {
    let needed = needed_count(
        asked,
        needed_percent.parse().expect("axis values are checked beforehand"),
    );
    let options = ClusterOptions {
        nodes_count: asked as usize,
        workers_count: 16,
        gap_ns_mean: 20e6,
        service: SERVICE,
        way_ns: WAY_NS,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: None,
        patience_ns: 60_000_000_000,
        seed: seed_of(lab, round),
    };
    let policy = FanOut {
        asked_count: asked,
        needed_count: needed,
        choice: Choice::Random,
    };
    let at = At {
        experiment: FanoutQuorum.id(),
        axis: BTreeMap::from([
            (ASKED.name.to_owned(), asked.to_string()),
            (NEEDED_PERCENT.name.to_owned(), needed_percent.to_owned()),
        ]),
        round,
    };
    let oracle_ns = oracle_ns(asked, needed, 0.99);
    // Half a nanosecond more: latencies are whole ones.
    let expected = oracle::kth_of_n_within(SERVICE.ratio_within(oracle_ns + 0.5), needed, asked);
    let limit_ns = oracle_ns + 0.5 + 2.0 * WAY_NS as f64;
    let mut beyond_count = 0u64;
    let mut row = simulate(lab, at, options, Box::new(policy), calls_count, asked, &mut |outcome| {
        beyond_count += u64::from(outcome.took_ns.is_none_or(|ns| ns as f64 > limit_ns));
    });
    let mean = (1.0 - expected) * calls_count as f64;
    let deviations = ((beyond_count as f64 - mean).abs() - 1.0).max(0.0) / (mean * expected).max(1e-9).sqrt();
    row.put("oracle_p99", oracle_ns + 2.0 * WAY_NS as f64, "ns", Better::Neither);
    row.put(
        "deviations_from_oracle",
        deviations,
        "standard deviations",
        Better::Lower,
    );
    row.fact("quorum", format!("{needed} of {asked}"));
    row.fact("service", SERVICE.to_string());
    row.into_row()
}

/// The time within which a share `q` of the k-th of n answers come, without the way.
fn oracle_ns(asked: u32, needed: u32, q: f64) -> f64 {
    let within = |t_ns: f64| oracle::kth_of_n_within(SERVICE.ratio_within(t_ns), needed, asked);
    let (mut low, mut high) = (0.0, 1e6);
    while within(high) < q {
        (low, high) = (high, high * 2.0);
    }
    while high - low > high * 1e-9 {
        let middle = f64::midpoint(low, high);
        match within(middle) < q {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "fanout-quorum",
        sentence: "A majority of five has less than a third of the p99.9 of all five",
        source: Source::Ours {
            seen: "order statistics of a lognormal answer; replicas as tail cutters",
        },
        invariant: "p99.9 of 3 of 5 ÷ p99.9 of 5 of 5, the same arrivals and answers, a ratio a seed.",
        judge: |table| cut(table, ("5", "50"), ("5", "100"), 0.999, Bound::AtMost(1.0 / 3.0)),
    },
    Claim {
        id: "good-enough",
        sentence: "Of a hundred leaves the slowest five make half of the p99: who is content with 95 waits half as long, or less",
        source: Source::Published {
            work: "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013",
            place: "table 1: p99 of all leaves 140 ms, of 95 % of them 70 ms",
        },
        invariant: "p99 of 95 of 100 ÷ p99 of 100 of 100. A leaf has the paper's p50, p95 and p99; its tail beyond is lognormal, and leaves have \
                    nothing to do with each other, which the paper's have.",
        judge: |table| cut(table, ("100", "95"), ("100", "100"), 0.99, Bound::AtMost(0.5)),
    },
    Claim {
        id: "fanout-order-statistics",
        sentence: "The p99 of every k of n is that of the k-th smallest of n answers",
        source: Source::Ours {
            seen: "David and Nagaraja, Order Statistics, eq. 2.1.3, as code that knows nothing of the simulator",
        },
        invariant: "Counts beyond the oracle's p99 within 5 standard deviations of a binomial distribution's mean, in every row.",
        judge: order_statistics,
    },
];

fn cut(table: &Table, less: (&str, &str), all: (&str, &str), q: f64, bound: Bound) -> Judgement {
    let axis = |(asked, needed)| [(ASKED.name, asked), (NEEDED_PERCENT.name, needed)];
    let (a, b) = (axis(less), axis(all));
    judge::ratio(
        table,
        &format!("p{} of {} % of {} ÷ of all", q * 100.0, less.1, less.0),
        (Arm::of(BACKEND, &a), Arm::of(BACKEND, &b)),
        latency_ns(q),
        bound,
    )
}

fn order_statistics(table: &Table) -> Judgement {
    let off = |row: &Row| Some(row.metrics.get("deviations_from_oracle")?.value);
    let all: Vec<f64> = table.valid().filter_map(off).collect();
    let Some(worst) = all.iter().copied().max_by(f64::total_cmp) else {
        return Judgement::not_measured("no row");
    };
    let outcome = match worst <= DEVIATIONS_MAX {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let what = "the farthest count from the oracle's";
    let limit = format!("≤ {DEVIATIONS_MAX}");
    Judgement::new(
        outcome,
        vec![measured(
            what,
            Some(worst),
            "standard deviations",
            limit,
            all.len() as u64,
        )],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_papers_percentiles_and_a_majority_is_one() {
        for (q, ms) in [(0.5, 1.0), (0.95, 5.0), (0.99, 10.0)] {
            assert!((oracle_ns(1, 1, q) / 1e6 / ms - 1.0).abs() < 0.03, "{q}");
        }
        assert_eq!([3, 5, 7].map(|count| needed_count(count, 50.0)), [2, 3, 4]);
        assert_eq!(needed_count(100, 95.0), 95);
    }
}
