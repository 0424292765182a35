//! The order of arms by what they came to, with ties where the noise decides nothing; and whether several runs agree about it.
//!
//! # Of many pairs some differ by chance
//!
//! Sixteen arms are 120 pairs, at each of seven points, in each run. Were each pair judged for itself with 95 %, a run would put six of 120 in an order
//! that are alike, and another run would put some of them the other way round. So the pairs of a point are judged together: that any of its line is
//! wrong has at most 5 % (Holm 1979, over all pairs of the point that were measured often enough). Two runs contradict each other about arms that
//! are alike only if both err, and in opposite directions.
//!
//! A pair is judged by Welch's test of the logarithms of what the rounds came to: is the ratio of the two further from 1 than 2 %? Of six rounds
//! no test by signs or ranks can be more sure than one in 32, which is too little for one pair of 120. Welch's asks for values that are about normal.
//! Where they are not (a row either has a timeout in it or has none) a test below has arms that are alike, 16 at each of 7 points in 3 runs, with
//! four kinds of noise, and counts contradictions.
//!
//! Undecided is therefore what most pairs of a short run are that differ by less than their noise. An arm joins the group above it unless it is
//! in order below the first of that group. Figures of a busy machine differ from run to run, and their order may not: that is what a run can
//! repeat.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    experiments::virtual_time::BACKEND,
    measure::student,
    record::Row,
    table::{Arm, ROUNDS_MIN, Table},
};

/// The axis whose values are put in order.
const ARM: &str = "arm";
/// More is better; the first that an experiment's rows have.
const METRICS: [&str; 2] = ["goodput_mbit_per_sec", "long_goodput_mbit_per_sec"];
/// Virtual time has no noise, and two figures that differ by less are the same all the same.
const SAME_RATIO: f64 = 1.01;
/// Nor is less than this a difference between arms of a real kernel, however often it was seen: where a link is full all arms are within a percent
/// of each other, and which is above which is then a matter of how a run's memory and CPUs lay.
const SAME_RATIO_MEASURED: f64 = 1.02;
/// That all is true that a line says.
const CONFIDENCE: f64 = 0.95;

/// An arm and what it came to, the median over rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Its name.
    pub arm: String,
    /// In the metric's unit.
    pub value: f64,
}

/// All arms at one point of the other axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// "kernel-tcp, servers 8".
    pub at: String,
    /// The best first; within a group the noise decides nothing.
    pub groups: Vec<Vec<Placed>>,
    /// Of each two arms that were measured in enough rounds, in the order of their names: is the first above (`Greater`) or below the
    /// second, or does the noise decide nothing (`Equal`)?
    pub pairs: BTreeMap<(String, String), Ordering>,
}

/// A point of the axes beside the arms'. Where a value is a number, it comes first: points are in the order of numbers.
type Place = Vec<(u64, String, String)>;

/// The orders of an experiment's rows, point by point. None of rows without an axis of arms, or with fewer than two arms.
pub fn orders(table: &Table) -> Vec<Order> {
    let Some(metric) = METRICS
        .into_iter()
        .find(|name| table.valid().any(|row| row.metrics.contains_key(*name)))
    else {
        return Vec::new();
    };
    let mut points: BTreeMap<(String, Place), BTreeSet<String>> = BTreeMap::new();
    for row in table.valid().filter(|row| !row.twin) {
        let Some(arm) = row.axis.get(ARM) else { continue };
        let others = row.axis.iter().filter(|(name, _)| *name != ARM);
        let place = others.map(|(name, value)| {
            let number = value.parse::<f64>().map_or(0, |number| (number * 1e6) as u64);
            (number, name.clone(), value.clone())
        });
        let key = (row.backend.clone(), place.collect());
        points.entry(key).or_default().insert(arm.clone());
    }
    let mut all = Vec::new();
    for ((backend, place), arms) in points {
        all.extend(order(
            table,
            metric,
            &backend,
            &place,
            &arms.into_iter().collect::<Vec<_>>(),
        ));
    }
    all
}

fn order(
    table: &Table,
    metric: &str,
    backend: &str,
    place: &[(u64, String, String)],
    arms: &[String],
) -> Option<Order> {
    let value = |row: &Row| row.metrics.get(metric).map(|metric| metric.value);
    let axis_of = |arm| -> Vec<(&str, &str)> {
        let others = place.iter().map(|(_, name, value)| (name.as_str(), value.as_str()));
        others.chain([(ARM, arm)]).collect()
    };
    let mut placed: Vec<Placed> = Vec::new();
    let mut of_arms = Vec::new();
    for arm in arms {
        let axis = axis_of(arm);
        let mut values: Vec<f64> = table
            .arm(Arm::of(backend, &axis))
            .into_iter()
            .filter_map(value)
            .collect();
        values.sort_by(f64::total_cmp);
        placed.push(Placed {
            arm: arm.clone(),
            value: *values.get(values.len() / 2)?,
        });
        of_arms.push(values);
    }
    if placed.len() < 2 {
        return None;
    }
    let named = |(a, b): (usize, usize)| (arms[a].clone(), arms[b].clone());
    let pairs = match backend == BACKEND {
        true => exact(&of_arms),
        false => decided(&of_arms),
    };
    let pairs: BTreeMap<_, _> = pairs
        .into_iter()
        .map(|(pair, ordering)| (named(pair), ordering))
        .collect();
    placed.sort_by(|a, b| b.value.total_cmp(&a.value));
    let is_below = |first: &Placed, next: &Placed| {
        let found = pairs.get(&(first.arm.clone(), next.arm.clone())).copied();
        let reversed = pairs.get(&(next.arm.clone(), first.arm.clone())).copied();
        found.or(reversed.map(Ordering::reverse)) == Some(Ordering::Greater)
    };
    let mut groups: Vec<Vec<Placed>> = Vec::new();
    for next in placed {
        match groups.last_mut() {
            Some(group) if !is_below(&group[0], &next) => group.push(next),
            _ => groups.push(vec![next]),
        }
    }
    let at = place.iter().filter(|(_, name, _)| name != "level");
    let at = at
        .map(|(_, name, value)| format!(", {name} {value}"))
        .collect::<String>();
    Some(Order {
        at: format!("{backend}{at}"),
        groups,
        pairs,
    })
}

/// Of each two arms, by index, the first before the second.
type Pairs = BTreeMap<(usize, usize), Ordering>;

fn each_two(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(|second| (0..second).map(move |first| (first, second)))
}

/// Of virtual time, whose figures have no noise.
fn exact(of_arms: &[Vec<f64>]) -> Pairs {
    let first = |index: usize| of_arms[index].first().copied();
    each_two(of_arms.len())
        .filter_map(|(a, b)| {
            let ratio = first(a)? / first(b)?;
            let ordering = match (ratio > SAME_RATIO, ratio < 1.0 / SAME_RATIO) {
                (true, _) => Ordering::Greater,
                (_, true) => Ordering::Less,
                _ => Ordering::Equal,
            };
            Some(((a, b), ordering))
        })
        .collect()
}

/// Of measured figures, round by round: which pairs are in order, so that with [`CONFIDENCE`] none of them is wrong. Those that were not measured
/// often enough are left out.
fn decided(of_arms: &[Vec<f64>]) -> Pairs {
    // Nothing answered in ten seconds is less than anything that was.
    const NEXT_TO_NOTHING: f64 = 1e-3;
    let logs: Vec<Vec<f64>> = of_arms
        .iter()
        .map(|values| values.iter().map(|value| value.max(NEXT_TO_NOTHING).ln()).collect())
        .collect();
    let mean = |index: usize| logs[index].iter().sum::<f64>() / logs[index].len() as f64;
    let mut by_chance: Vec<((usize, usize), f64)> = each_two(logs.len())
        .filter(|(a, b)| logs[*a].len().min(logs[*b].len()) >= ROUNDS_MIN)
        .map(|(a, b)| {
            let p_value = student::apart_p_value(&logs[a], &logs[b], SAME_RATIO_MEASURED.ln());
            ((a, b), p_value)
        })
        .collect();
    by_chance.sort_by(|a, b| a.1.total_cmp(&b.1));
    // Holm's: the surest against all of them, the next against one fewer, until one is not sure enough.
    let count = by_chance.len();
    let is_sure = |(index, (_, p_value)): (usize, &(_, f64))| *p_value <= (1.0 - CONFIDENCE) / (count - index) as f64;
    let sure_count = by_chance.iter().enumerate().take_while(|entry| is_sure(*entry)).count();
    let ordering = |index: usize, (a, b): (usize, usize)| match index < sure_count {
        true => mean(a).total_cmp(&mean(b)),
        false => Ordering::Equal,
    };
    let pairs = by_chance.iter().enumerate();
    pairs
        .map(|(index, (pair, _))| (*pair, ordering(index, *pair)))
        .collect()
}

/// One line for each point: "servers 8: a 93, b 92 > c 40 > d 8.1".
pub fn text(orders: &[Order]) -> String {
    let mut text = String::new();
    for order in orders {
        let group = |group: &Vec<Placed>| {
            let placed = group.iter().map(|placed| {
                let digits = if placed.value < 10.0 { 1 } else { 0 };
                format!("{} {:.*}", placed.arm, digits, placed.value)
            });
            placed.collect::<Vec<_>>().join(", ")
        };
        let groups: Vec<String> = order.groups.iter().map(group).collect();
        let _ = writeln!(text, "{}: {}", order.at, groups.join("  >  "));
    }
    text
}

/// What several runs say of the same pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Pairs of arms at points that all runs measured often enough.
    pub pairs_count: usize,
    /// Those that all runs put in the same order, or all leave undecided.
    pub same_count: usize,
    /// Those that some runs put in order and others leave undecided.
    pub partly_count: usize,
    /// Those of which one run says the contrary of another: point, and arms.
    pub contradictions: Vec<String>,
}

/// Compares what runs say.
pub fn agreement(runs: &[Vec<Order>]) -> Agreement {
    let mut agreement = Agreement::default();
    let Some((first, others)) = runs.split_first() else {
        return agreement;
    };
    for order in first {
        let same_point = |orders: &Vec<Order>| orders.iter().find(|other| other.at == order.at).cloned();
        let others: Option<Vec<Order>> = others.iter().map(same_point).collect();
        let Some(others) = others else { continue };
        for ((a, b), ordering) in &order.pairs {
            let of = |other: &Order| other.pairs.get(&(a.clone(), b.clone())).copied();
            let Some(mut said) = others.iter().map(of).collect::<Option<Vec<Ordering>>>() else {
                continue;
            };
            said.push(*ordering);
            agreement.pairs_count += 1;
            let has = |ordering| said.contains(&ordering);
            if has(Ordering::Greater) && has(Ordering::Less) {
                agreement.contradictions.push(format!("{}: {a} and {b}", order.at));
            } else if said.iter().all(|other| other == ordering) {
                agreement.same_count += 1;
            } else {
                agreement.partly_count += 1;
            }
        }
    }
    agreement
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;
    use crate::experiments::virtual_time::row_of;

    /// Six rounds of each arm with these goodputs, a thousandth of noise on them, and `jumpy` with a factor of three of its own.
    fn table(arms: &[(&str, f64)]) -> Table {
        let mut rows = Vec::new();
        for (arm, goodput) in arms {
            for round in 0..ROUNDS_MIN as u32 {
                let own = if *arm == "jumpy" && round % 2 == 0 { 3.0 } else { 1.0 };
                let noise = own * (1.0 + 0.001 * f64::from(round % 3));
                let mut row = row_of(&[(ARM, *arm), ("servers", "8")], &[(METRICS[0], goodput * noise)]);
                row.backend = "kernel-tcp".to_owned();
                row.round = round;
                rows.push(row);
            }
        }
        Table { rows, seed: 1 }
    }

    #[test]
    fn arms_are_in_order_and_the_noise_makes_ties() {
        let orders = orders(&table(&[("slow", 10.0), ("fast", 90.0), ("jumpy", 50.0)]));
        assert_eq!(orders.len(), 1);
        assert_eq!(text(&orders), "kernel-tcp, servers 8: jumpy 150, fast 90  >  slow 10\n");
        assert_eq!(
            orders[0].pairs[&("fast".to_owned(), "slow".to_owned())],
            Ordering::Greater
        );
        assert_eq!(
            orders[0].pairs[&("fast".to_owned(), "jumpy".to_owned())],
            Ordering::Equal
        );
    }

    /// Full links are alike, however exactly they are measured.
    #[test]
    fn a_percent_is_no_order() {
        let orders = orders(&table(&[("a", 92.0), ("b", 93.0), ("c", 96.0)]));
        assert_eq!(text(&orders), "kernel-tcp, servers 8: c 96  >  b 93, a 92\n");
        assert_eq!(orders[0].pairs[&("a".to_owned(), "b".to_owned())], Ordering::Equal);
    }

    #[test]
    fn runs_agree_partly_or_not() {
        let run = |a: f64, b: f64| orders(&table(&[("a", a), ("b", b)]));
        let said = agreement(&[run(10.0, 20.0), run(11.0, 30.0), run(9.0, 18.0)]);
        assert_eq!(
            (said.pairs_count, said.same_count, said.contradictions.len()),
            (1, 1, 0)
        );
        let said = agreement(&[run(10.0, 20.0), run(10.0, 10.0)]);
        assert_eq!((said.same_count, said.partly_count), (0, 1));
        let said = agreement(&[run(10.0, 20.0), run(10.0, 5.0)]);
        assert_eq!(said.contradictions, ["kernel-tcp, servers 8: a and b"]);
        assert_eq!(agreement(&[]), Agreement::default());
    }

    /// What a row comes to, of arms that are alike.
    #[derive(Clone, Copy, Debug)]
    enum Noise {
        /// Tens of questions, each with its own luck.
        LogNormal,
        /// A timeout, or none.
        TwoValues,
        /// One row in ten is cut to a third.
        Outliers,
        /// What a few questions lose together is skewed.
        Skewed,
    }

    impl Noise {
        const ALL: [Noise; 4] = [Noise::LogNormal, Noise::TwoValues, Noise::Outliers, Noise::Skewed];

        fn draw(self, rng: &mut Pcg64Mcg) -> f64 {
            // Of twelve uniform ones the sum is normal enough, to three deviations.
            let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let chance = rng.random::<f64>();
            let either = |share: f64, a: f64, b: f64| if chance < share { a } else { b };
            match self {
                Noise::LogNormal => 20.0 * (0.3 * normal).exp(),
                Noise::TwoValues => either(0.5, 70.0, 35.0) * (0.01 * normal).exp(),
                Noise::Outliers => either(0.1, 30.0, 90.0) * (0.02 * normal).exp(),
                Noise::Skewed => 10.0 - 30.0 * (1.0 - chance).max(1e-9).ln(),
            }
        }
    }

    type Decide = fn(&[Vec<f64>]) -> Pairs;

    /// Three runs of the whole ladder in which all arms are alike, and what the runs say of them: pairs in any order, and contradictions.
    fn alike(noise: Noise, rng: &mut Pcg64Mcg, decide: Decide) -> (usize, usize) {
        const POINTS_COUNT: usize = 7;
        let mut counts = (0_usize, 0_usize);
        for _ in 0..POINTS_COUNT {
            let mut run = || {
                let arm = |_| (0..ROUNDS_MIN).map(|_| noise.draw(rng)).collect::<Vec<f64>>();
                decide(&(0..16).map(arm).collect::<Vec<_>>())
            };
            let runs = [run(), run(), run()];
            for pair in runs[0].keys() {
                let has = |ordering: Ordering| runs.iter().filter(|run| run[pair] == ordering).count();
                let (above, below) = (has(Ordering::Greater), has(Ordering::Less));
                counts.0 += above + below;
                counts.1 += usize::from(above > 0 && below > 0);
            }
        }
        counts
    }

    /// Each pair for itself, as if it were the only one.
    fn one_by_one(of_arms: &[Vec<f64>]) -> Pairs {
        let of_pair = |(a, b): (usize, usize)| {
            let pair = decided(&[of_arms[a].clone(), of_arms[b].clone()]);
            ((a, b), pair[&(0, 1)])
        };
        each_two(of_arms.len()).map(of_pair).collect()
    }

    /// 840 pairs in each of three runs, a hundred times over, with each kind of noise.
    #[test]
    fn runs_of_arms_that_are_alike_hardly_contradict_each_other() {
        const LADDERS_COUNT: usize = 100;
        const FEW_COUNT: usize = 10;
        let mut naive_count = 0;
        let mut rng = Pcg64Mcg::seed_from_u64(7);
        for noise in Noise::ALL {
            let mut count = |decide: Decide, ladders_count: usize| {
                let ladders = (0..ladders_count).map(|_| alike(noise, &mut rng, decide));
                ladders.fold((0_usize, 0_usize), |sum, (ordered, contradicted)| {
                    (sum.0 + ordered, sum.1 + contradicted)
                })
            };
            let (ordered, contradicted) = count(decided, LADDERS_COUNT);
            // 2,100 lines, of which 5 % may have an error; an arm that is off is so beside several.
            let lines_count = LADDERS_COUNT * 7 * 3;
            println!(
                "{noise:?}: {ordered} of {} in order, {contradicted} contradicted",
                lines_count * 120
            );
            assert!(
                ordered * 10 <= lines_count,
                "{noise:?}: {ordered} orders of arms that are alike"
            );
            assert!(
                contradicted <= 1,
                "{noise:?}: {contradicted} contradictions in {LADDERS_COUNT} ladders"
            );
            let (ordered, contradicted) = count(one_by_one, FEW_COUNT);
            println!("{noise:?}, one by one: {ordered} in order, {contradicted} contradicted in {FEW_COUNT} ladders");
            naive_count += contradicted;
        }
        // What is counted here is there to be found.
        assert!(naive_count >= FEW_COUNT, "{naive_count}");
    }

    /// Caution is not all: what differs by more than its noise is found in all runs.
    #[test]
    fn what_differs_is_in_order_all_the_same() {
        let mut rng = Pcg64Mcg::seed_from_u64(8);
        let mut found = 0;
        for _ in 0..100 {
            // From 5 to 90 Mbit/s, a fifth of noise.
            let mut arm = |index: usize| -> Vec<f64> {
                let draw = |rng: &mut Pcg64Mcg| (Noise::LogNormal.draw(rng) / 20.0).powf(2.0 / 3.0);
                (0..ROUNDS_MIN)
                    .map(|_| 5.0 * 18f64.powf(index as f64 / 15.0) * draw(&mut rng))
                    .collect()
            };
            let arms: Vec<Vec<f64>> = (0..16).map(&mut arm).collect();
            let pairs = decided(&arms);
            assert!(
                pairs
                    .iter()
                    .all(|((a, b), ordering)| a >= b || *ordering != Ordering::Greater),
                "{pairs:?}"
            );
            found += pairs.values().filter(|ordering| **ordering == Ordering::Less).count();
        }
        println!("{} of 120 pairs found", found as f64 / 100.0);
        assert!(found >= 60 * 100, "{found} of 12,000");
    }

    #[test]
    fn what_has_no_arms_has_no_order() {
        assert_eq!(orders(&Table::default()), []);
        let rows = vec![row_of(&[("servers", "8")], &[(METRICS[0], 1.0)])];
        assert_eq!(orders(&Table { rows, seed: 1 }), []);
    }
}
