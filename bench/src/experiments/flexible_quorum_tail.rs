//! `flexible-quorum-tail`: what a smaller commit quorum does to the tail of a commit, and what it costs when replicas die.

mod crashes;
mod order;

use std::{collections::BTreeMap, time::Duration};

use dataplane_quorum::ReadMode;
use dataplane_sim::{Latency, LinkFaults, LinkOptions, SimTime};
use dataplane_wire::quorum::members::Members;

use self::order::Excess;
use crate::{
    caller::{Done, Kind, Load},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::measured,
        virtual_time::{SILENT, Setup, Simulated, TURN},
    },
    record::{Better, Outcome, QuantileValue, Row},
    table::Table,
};

/// See the module.
#[derive(Debug)]
pub struct FlexibleQuorumTail;

const PART: Axis = Axis {
    name: "part",
    meaning: "tail: commits over links with slow frames; crashes: how many deaths each setting survives, and whether anything \
              acknowledged is lost while leaders die",
    full: &[TAIL, CRASHES],
    tour: &[TAIL, CRASHES],
    smallest: TAIL,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas",
    full: &["5", "7"],
    tour: &["5"],
    smallest: "5",
    allowed: Allowed::Number(3.0, 15.0),
};

const COMMIT: Axis = Axis {
    name: "commit_quorum",
    meaning: "how many replicas must have an entry, the leader among them (phase 2); elections take the fewest that are safe \
              then (phase 1)",
    full: &["2", "3", "4"],
    tour: &["2", "3", "4"],
    smallest: "2",
    allowed: Allowed::Number(2.0, 15.0),
};

const SLOW: Axis = Axis {
    name: "slow_percent",
    meaning: "frames between replicas that take up to 2 ms more than the others' 25 µs",
    full: &["1", "5", "10"],
    tour: &["10"],
    smallest: "10",
    allowed: Allowed::Number(0.1, 100.0),
};

const ARRIVALS: Axis = Axis {
    name: "arrivals",
    meaning: "spaced: a put comes when all frames of the last one have arrived, so commits have nothing to do with each other; \
              back-to-back: it comes when the last one is answered, and a follower that waits for a slow entry has the next ones \
              wait, too",
    full: &[SPACED, BACK_TO_BACK],
    tour: &[SPACED],
    smallest: SPACED,
    allowed: Allowed::Words,
};

const TAIL: &str = "tail";
const CRASHES: &str = "crashes";
const SPACED: &str = "spaced";
const BACK_TO_BACK: &str = "back-to-back";

/// The least that a frame takes, on every link.
const DELAY: SimTime = SimTime::from_us(25);
/// The most that a slow frame takes more.
const SLOW_MAX: SimTime = SimTime::from_ms(2);
/// Two slow frames and some.
const SPACE: Duration = Duration::from_millis(5);
/// Four one-way delays and as many turns: what a commit takes if nothing is slow.
const FLOOR_NS: u64 = 4 * (DELAY.as_ps() + TURN.as_ps()) / 1_000;
/// Counts of a binomial distribution lie within as many standard deviations of their mean but for one time in two million.
const DEVIATIONS_MAX: f64 = 5.0;
/// The quantiles that are held against order statistics.
const HELD: [(f64, &str); 3] = [(0.9, "oracle_p90"), (0.99, "oracle_p99"), (0.999, "oracle_p999")];

impl Experiment for FlexibleQuorumTail {
    fn id(&self) -> &'static str {
        "flexible-quorum-tail"
    }

    fn title(&self) -> &'static str {
        "Flexible quorums and the tail"
    }

    fn question(&self) -> &'static str {
        "How much of a commit's tail does a smaller commit quorum take away, and what does it cost when replicas die?"
    }

    fn how(&self) -> &'static str {
        "Replicas and a client run in virtual time. A share of the frames between replicas is slow, each drawn for itself from \
         the seed; everything else takes 25 µs one way. Each put's latency stands beside what order statistics say of the \
         (quorum − 1)-th fastest of the followers. Then replicas are killed, and after every turn of every replica agreement, \
         log matching and election safety are checked."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, REPLICAS, COMMIT, SLOW, ARRIVALS]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let arms = arms(lab);
        anyhow::ensure!(
            !arms.is_empty(),
            "no commit_quorum that was chosen fits the replicas that were chosen: it is at least 2 and at most their number, \
             so choose others with --axis"
        );
        lab.progress.set_length(arms.len() as u64);
        for arm in arms {
            if lab.interrupted() {
                return Ok(());
            }
            lab.progress.set_message(format!("{arm:?}"));
            let row = match &arm.tail {
                Some((slow_percent, arrivals)) => measure_tail(lab, arm.members, *slow_percent, arrivals)?,
                None => measure_crashes(lab, arm.members)?,
            };
            lab.record(row)?;
            lab.progress.inc(1);
        }
        Ok(())
    }
}

/// What one row measures.
#[derive(Clone, Debug)]
struct Arm {
    members: Members,
    /// Slow frames in percent, and how puts come; none for crashes.
    tail: Option<(f64, String)>,
}

fn arms(lab: &Lab<'_>) -> Vec<Arm> {
    let mut arms = Vec::new();
    for part in lab.values(&PART) {
        for replicas in lab.numbers(&REPLICAS) {
            for commit in lab.numbers(&COMMIT) {
                let Some(members) = members(replicas as u32, commit as u8) else {
                    lab.say(&format!(
                        "{commit} of {replicas} is left out: there are not so many replicas"
                    ));
                    continue;
                };
                if part == CRASHES {
                    arms.push(Arm { members, tail: None });
                    continue;
                }
                for slow_percent in lab.numbers(&SLOW) {
                    arms.extend(lab.values(&ARRIVALS).into_iter().map(|arrivals| Arm {
                        members,
                        tail: Some((slow_percent, arrivals)),
                    }));
                }
            }
        }
    }
    arms
}

/// The smallest election quorum that meets every commit quorum and every other election quorum.
fn members(count: u32, commit_count: u8) -> Option<Members> {
    let elect_count = (count + 1).saturating_sub(u32::from(commit_count)).max(count / 2 + 1) as u8;
    let members = Members {
        voters: (1 << count) - 1,
        elect_count,
        commit_count,
    };
    members.is_sound().then_some(members)
}

fn axis(part: &str, members: Members) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PART.name.to_owned(), part.to_owned()),
        (REPLICAS.name.to_owned(), members.count().to_string()),
        (COMMIT.name.to_owned(), members.commit_count.to_string()),
    ])
}

fn quorums(members: Members) -> String {
    format!(
        "{} of {} elect (phase 1), {} commit (phase 2)",
        members.elect_count,
        members.count(),
        members.commit_count
    )
}

fn measure_tail(lab: &Lab<'_>, members: Members, slow_percent: f64, arrivals: &str) -> anyhow::Result<Row> {
    let straight = LinkOptions {
        latency: Latency::fixed(DELAY),
        ..LinkOptions::default()
    };
    let slow = LinkOptions {
        // A slow frame is overtaken: whether one is slow says nothing about the next.
        faults: LinkFaults {
            reorder_ratio: slow_percent / 100.0,
            reorder: SLOW_MAX,
            ..LinkFaults::default()
        },
        ..straight
    };
    let setup = Setup {
        seed: lab.choice.seed,
        members,
        link: straight,
        sync: Latency::fixed(SimTime::ZERO),
        timing: SILENT,
        reads: ReadMode::Index,
        callers_count: 1,
        in_flight_max: 1,
    };
    let mut cluster = setup.start()?;
    let count = members.count();
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        cluster.sim.network_mut().set_link(from, to, slow);
    }
    let since = cluster.sim.now();
    let load = Load {
        kind: Kind::Put,
        in_flight: 1,
        pause: match arrivals {
            SPACED => SPACE,
            _ => Duration::ZERO,
        },
        ops_count: match lab.choice.depth {
            Depth::Smallest => 200,
            Depth::Tour => 5_000,
            Depth::Full => 40_000,
        },
    };
    setup.call(&mut cluster, 0, load)?;
    cluster.compare()?;

    let mut axis = axis(TAIL, members);
    axis.insert(SLOW.name.to_owned(), slow_percent.to_string());
    axis.insert(ARRIVALS.name.to_owned(), arrivals.to_owned());
    let mut row = Simulated::new(lab, "flexible-quorum-tail", axis, setup.seed, &cluster, since);
    let latencies = cluster
        .client(setup.caller(0))
        .done
        .iter()
        .map(|done: &Done| done.latency().as_nanos() as u64);
    row.latencies(latencies.clone());
    row.fact("guarantee", setup.guarantee());
    row.fact("quorums", quorums(members));
    row.fact(
        "links",
        format!("25 µs; {slow_percent} % of the frames between replicas take up to 2 ms more, uniform"),
    );
    let excess = Excess {
        slow_ratio: slow_percent / 100.0,
        slow_ns_max: SLOW_MAX.as_ns() as f64,
    };
    let (followers, needed) = (count - 1, u32::from(members.commit_count) - 1);
    let mut deviations_max = 0.0f64;
    for (q, name) in HELD {
        let excess_ns = excess.quantile_ns(followers, needed, q);
        row.put(name, FLOOR_NS as f64 + excess_ns, "ns", Better::Neither);
        // Half a nanosecond more: latencies are whole ones.
        let beyond_ratio = 1.0 - excess.quorum(followers, needed, excess_ns + 0.5);
        let beyond = latencies
            .clone()
            .filter(|&ns| ns as f64 > FLOOR_NS as f64 + excess_ns + 0.5);
        deviations_max = deviations_max.max(deviations(beyond.count(), latencies.len(), beyond_ratio));
    }
    if arrivals == SPACED {
        row.put(
            "deviations_from_oracle_max",
            deviations_max,
            "standard deviations",
            Better::Lower,
        );
    }
    Ok(row.into_row())
}

/// How far a count of `of` draws, each with this chance, lies from its mean, in standard deviations.
fn deviations(count: usize, of: usize, ratio: f64) -> f64 {
    let mean = ratio * of as f64;
    let variance = mean * (1.0 - ratio);
    // One more or less is nothing, however rare the event.
    ((count as f64 - mean).abs() - 1.0).max(0.0) / variance.max(1e-9).sqrt()
}

fn measure_crashes(lab: &Lab<'_>, members: Members) -> anyhow::Result<Row> {
    let seed = lab.choice.seed;
    let (commit, elect) = (u32::from(members.commit_count), u32::from(members.elect_count));
    let killed_count = match lab.choice.depth {
        Depth::Smallest => 2,
        Depth::Tour => 10,
        Depth::Full => 50,
    };
    let survives_followers = crashes::survives_count(members, seed, false)?;
    let survives_with_leader = crashes::survives_count(members, seed, true)?;
    let (lives, cluster) = crashes::lives(members, seed, killed_count)?;
    let mut axis = axis(CRASHES, members);
    axis.insert(SLOW.name.to_owned(), "0".to_owned());
    let mut row = Simulated::new(lab, "flexible-quorum-tail", axis, seed, &cluster, SimTime::ZERO);
    row.fact("guarantee", crashes::setup(members, seed).guarantee());
    row.fact("quorums", quorums(members));
    let count = members.count();
    for (name, value) in [
        ("survives_followers", survives_followers),
        ("survives_with_leader", survives_with_leader),
        ("analytic_survives_followers", count - commit),
        ("analytic_survives_with_leader", count - commit.max(elect)),
    ] {
        row.put(name, f64::from(value), "count", Better::Higher);
    }
    for (name, value) in [
        ("leaders_killed", lives.killed_count),
        ("terms", lives.terms_count),
        ("acknowledged", lives.acknowledged_count),
        ("acknowledged_and_lost", lives.forgotten_count),
    ] {
        row.put(name, value as f64, "count", Better::Neither);
    }
    Ok(row.into_row())
}

const HOWARD: Source = Source::Published {
    work: "Howard, Malkhi and Spiegelman, Flexible Paxos: quorum intersection revisited, OPODIS 2016",
    place: "§1 and §4: only quorums of different phases must intersect, so the one of every commit may be small",
};

const CLAIMS: &[Claim] = &[
    Claim {
        id: "quorum-flexible",
        sentence: "A smaller commit quorum cuts the tail of a commit: its p99.9 is lower wherever order statistics say so",
        source: HOWARD,
        invariant: "The same links, the same slow frames drawn from the same seed; each put alone. Quorums next to each other are \
                    compared where the oracle's p99.9 differ by 5 % or more: no 95 % interval of a smaller quorum may lie above the \
                    larger's, and one pair at least of each number of replicas must be told apart.",
        judge: tail_falls,
    },
    Claim {
        id: "quorum-order-statistics",
        sentence: "With commits that do not wait for each other, latency is the (quorum − 1)-th fastest of the followers: the \
                   counts beyond the oracle's p90, p99 and p99.9 are those of a binomial distribution",
        source: Source::Ours {
            seen: "a closed form for slow frames that are drawn one by one; it knows nothing of the protocol",
        },
        invariant: "Decided by counts within 5 standard deviations (one false alarm in two million), for every setting.",
        judge: oracle_agrees,
    },
    Claim {
        id: "quorum-flexible-crashes",
        sentence: "The price is paid in elections: with a leader, n − phase 2 deaths are survived, without one, \
                   n − max(phase 1, phase 2); nothing acknowledged is lost",
        source: HOWARD,
        invariant: "Replicas are killed for good, one more each time, until puts are not answered within 5 s of virtual time; then \
                    leaders lose power again and again while puts go on, and what is read in the end is no older than what was \
                    acknowledged. Invariants are checked after every turn. Decided by equality.",
        judge: crashes_agree,
    },
];

fn part<'a>(table: &'a Table, part: &'a str) -> impl Iterator<Item = &'a Row> {
    table
        .valid()
        .filter(move |row| row.axis.get(PART.name).is_some_and(|have| have == part))
}

fn spaced(table: &Table) -> impl Iterator<Item = &Row> {
    part(table, TAIL).filter(|row| row.axis.get(ARRIVALS.name).is_some_and(|have| have == SPACED))
}

fn metric(row: &Row, name: &str) -> f64 {
    row.metrics.get(name).map_or(f64::NAN, |metric| metric.value)
}

fn number(row: &Row, axis: &Axis) -> f64 {
    row.axis
        .get(axis.name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(f64::NAN)
}

fn place(row: &Row) -> String {
    let (commit, replicas) = (number(row, &COMMIT), number(row, &REPLICAS));
    match row.axis.get(SLOW.name) {
        Some(slow) => format!("{commit} of {replicas}, {slow} % slow"),
        None => format!("{commit} of {replicas}"),
    }
}

fn decide(holds: bool) -> Outcome {
    match holds {
        true => Outcome::Holds,
        false => Outcome::Fails,
    }
}

/// p99.9 with its interval, in nanoseconds; nothing where the sample is too small for one.
fn p999(row: &Row) -> Option<(f64, f64, f64)> {
    let quantiles = &row.latency.as_ref()?.quantiles;
    let quantile = quantiles.iter().find(|quantile| quantile.q == 0.999)?;
    match (quantile.value, quantile.low, quantile.high) {
        (QuantileValue::Ns(ns), QuantileValue::Ns(low), QuantileValue::Ns(high)) => {
            Some((ns as f64, low as f64, high as f64))
        }
        _ => None,
    }
}

fn tail_falls(table: &Table) -> Judgement {
    let (mut figures, mut is_reversed, mut undecided) = (Vec::new(), false, BTreeMap::new());
    for larger in spaced(table) {
        // The next smaller quorum over the same links.
        let same = |row: &&Row| {
            number(row, &REPLICAS) == number(larger, &REPLICAS)
                && number(row, &SLOW) == number(larger, &SLOW)
                && number(row, &COMMIT) < number(larger, &COMMIT)
        };
        let smaller = spaced(table)
            .filter(same)
            .max_by(|a, b| number(a, &COMMIT).total_cmp(&number(b, &COMMIT)));
        let Some(smaller) = smaller else { continue };
        let differs = metric(larger, "oracle_p999") >= 1.05 * metric(smaller, "oracle_p999");
        let (Some(low), Some(high)) = (p999(smaller), p999(larger)) else {
            return Judgement::not_measured("too few puts for a p99.9");
        };
        if differs {
            is_reversed |= low.1 > high.2;
            // Rare events leave wide intervals: one pair that is told apart for each number of replicas is enough.
            *undecided.entry(number(larger, &REPLICAS) as u32).or_insert(true) &= low.2 >= high.1;
            let mut figure = measured(
                format!("p99.9, {} ÷ {}", place(smaller), place(larger)),
                Some(low.0 / high.0),
                "ratio",
                "< 1",
                larger.latency.as_ref().map_or(0, |latency| latency.samples_count),
            );
            (figure.low, figure.high) = (Some(low.1 / high.2), Some(low.2 / high.1));
            figures.push(figure);
        }
    }
    if figures.is_empty() {
        return Judgement::not_measured(
            "no two commit quorums of this run differ in their tail: it takes part=tail, arrivals=spaced and two quorums",
        );
    }
    let outcome = match (is_reversed, undecided.values().any(|undecided| *undecided)) {
        (true, _) => Outcome::Fails,
        (false, true) => Outcome::Inconclusive {
            why: "the intervals of all quorums touch; a full run, or more slow frames, would tell them apart"
                .to_owned(),
        },
        (false, false) => Outcome::Holds,
    };
    Judgement::new(outcome, figures)
}

fn oracle_agrees(table: &Table) -> Judgement {
    let figures: Vec<_> = spaced(table)
        .map(|row| {
            measured(
                format!("largest deviation from order statistics, {}", place(row)),
                Some(metric(row, "deviations_from_oracle_max")),
                "standard deviations",
                format!("≤ {DEVIATIONS_MAX}"),
                row.latency.as_ref().map_or(0, |latency| latency.samples_count),
            )
        })
        .collect();
    let holds = figures
        .iter()
        .all(|figure| figure.value.is_some_and(|value| value <= DEVIATIONS_MAX));
    match figures.is_empty() {
        true => Judgement::not_measured("no row with part=tail and arrivals=spaced"),
        false => Judgement::new(decide(holds), figures),
    }
}

fn crashes_agree(table: &Table) -> Judgement {
    let (mut figures, mut holds) = (Vec::new(), true);
    for row in part(table, CRASHES) {
        for (name, analytic, what) in [
            (
                "survives_followers",
                "analytic_survives_followers",
                "deaths survived beside a leader",
            ),
            (
                "survives_with_leader",
                "analytic_survives_with_leader",
                "deaths survived, the leader's among them",
            ),
        ] {
            holds &= metric(row, name) == metric(row, analytic);
            figures.push(measured(
                format!("{what}, {}", place(row)),
                Some(metric(row, name)),
                "count",
                format!("= {}", metric(row, analytic)),
                1,
            ));
        }
        holds &= metric(row, "acknowledged_and_lost") == 0.0 && metric(row, "invariant_checks") > 0.0;
    }
    match figures.is_empty() {
        true => Judgement::not_measured("no row with part=crashes"),
        false => Judgement::new(decide(holds), figures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn elections_take_the_fewest_that_are_safe() {
        let elect_count = |count, commit| members(count, commit).map(|members| members.elect_count);
        assert_eq!(elect_count(5, 2), Some(4));
        assert_eq!(elect_count(5, 3), Some(3));
        // Two elections must meet, too, however large commits are.
        assert_eq!(elect_count(5, 4), Some(3));
        assert_eq!(elect_count(7, 2), Some(6));
        assert_eq!(elect_count(3, 4), None);
    }

    #[test]
    fn a_cluster_that_survives_another_number_of_deaths_is_seen() {
        let judge = |survives: f64, lost: f64| {
            let row = row_of(
                &[("part", CRASHES), ("replicas", "5"), ("commit_quorum", "2")],
                &[
                    ("survives_followers", survives),
                    ("analytic_survives_followers", 3.0),
                    ("survives_with_leader", 1.0),
                    ("analytic_survives_with_leader", 1.0),
                    ("acknowledged_and_lost", lost),
                    ("invariant_checks", 1.0),
                ],
            );
            crashes_agree(&Table {
                rows: vec![row],
                seed: 1,
            })
            .outcome
        };
        assert_eq!(judge(3.0, 0.0), Outcome::Holds);
        assert_eq!(judge(4.0, 0.0), Outcome::Fails);
        assert_eq!(judge(3.0, 1.0), Outcome::Fails);
    }

    #[test]
    fn counts_that_chance_does_not_explain_are_seen() {
        assert!(deviations(1_000, 10_000, 0.1) < 0.1);
        assert!(deviations(1_200, 10_000, 0.1) > DEVIATIONS_MAX);
    }
}
