//! The order of arms by what they came to, with ties where the noise decides nothing; and whether several runs agree about it.
//!
//! Two arms are in order if the interval of their ratio, paired by round, holds neither 1 nor what is within 2 % of it ([`compare::ratio`]). An arm joins the group above
//! it unless it is in order below the first of that group. Figures of a busy machine differ from run to run, and their order may not:
//! that is what a run can repeat.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    experiments::virtual_time::BACKEND,
    measure::compare,
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
    let mut pairs = BTreeMap::new();
    for (index, arm) in arms.iter().enumerate() {
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
        for other in &arms[..index] {
            let other_axis = axis_of(other);
            let (others, own) = table.paired(Arm::of(backend, &other_axis), Arm::of(backend, &axis), value);
            if let Some(ordering) = decide(backend, &others, &own, table.seed) {
                pairs.insert((other.clone(), arm.clone()), ordering);
            }
        }
    }
    if placed.len() < 2 {
        return None;
    }
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

/// Is `a` above `b`? Nothing, if they were not measured together often enough.
fn decide(backend: &str, a: &[f64], b: &[f64], seed: u64) -> Option<Ordering> {
    let (first, second) = (a.first()?, b.first()?);
    if backend == BACKEND {
        let ratio = first / second;
        return Some(match (ratio > SAME_RATIO, ratio < 1.0 / SAME_RATIO) {
            (true, _) => Ordering::Greater,
            (_, true) => Ordering::Less,
            _ => Ordering::Equal,
        });
    }
    if a.len() < ROUNDS_MIN {
        return None;
    }
    let ratio = compare::ratio(b, a, seed);
    Some(
        match (ratio.low > SAME_RATIO_MEASURED, ratio.high < 1.0 / SAME_RATIO_MEASURED) {
            (true, _) => Ordering::Greater,
            (_, true) => Ordering::Less,
            _ => Ordering::Equal,
        },
    )
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
    use super::*;
    use crate::experiments::virtual_time::row_of;

    /// Six rounds of each arm with these goodputs, a tenth of noise on them that all arms share, and `jumpy` with a factor of three of its own.
    fn table(arms: &[(&str, f64)]) -> Table {
        let mut rows = Vec::new();
        for (arm, goodput) in arms {
            for round in 0..ROUNDS_MIN as u32 {
                let own = if *arm == "jumpy" && round % 2 == 0 { 3.0 } else { 1.0 };
                let noise = own * (1.0 + 0.1 * f64::from(round % 3));
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
        assert_eq!(text(&orders), "kernel-tcp, servers 8: jumpy 150, fast 99  >  slow 11\n");
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
        assert_eq!(text(&orders), "kernel-tcp, servers 8: c 106  >  b 102, a 101\n");
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

    #[test]
    fn what_has_no_arms_has_no_order() {
        assert_eq!(orders(&Table::default()), []);
        let rows = vec![row_of(&[("servers", "8")], &[(METRICS[0], 1.0)])];
        assert_eq!(orders(&Table { rows, seed: 1 }), []);
    }
}
