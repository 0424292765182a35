//! `cc-cubic-window`: a CUBIC flow's window between losses beside the cubic of RFC 9438, and its rate beside the law that follows.

use std::collections::BTreeMap;

use super::{
    scenarios::{Demand, judge_all, metric},
    virtual_time::{Happened, Simulated},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    packet_sim::{WindowSample, points},
    record::Better,
    scenario::{embedded, file::ScenarioFile},
    table::Table,
};

const LOSS: Axis = Axis {
    name: "loss_ratio",
    meaning: "packets that the wire loses at random",
    full: &["0.00001", "0.00003", "0.0001"],
    tour: &["0.00003"],
    smallest: "0.0001",
    allowed: Allowed::Number(0.000_001, 0.1),
};

const WORK: &str = "RFC 9438, CUBIC for Fast and Long-Distance Networks, 2023";

/// The experiment.
#[derive(Clone, Copy, Debug)]
pub struct CubicWindow;

impl Experiment for CubicWindow {
    fn id(&self) -> &'static str {
        "cc-cubic-window"
    }

    fn title(&self) -> &'static str {
        "CUBIC's window"
    }

    fn question(&self) -> &'static str {
        "Does a CUBIC flow's window follow the cubic that its RFC draws?"
    }

    fn how(&self) -> &'static str {
        "One CUBIC flow with a round trip of 100 ms over 10 Gbit/s, which it never fills, under rare random losses for 200 s. Its window is \
         looked at every 100 ms from outside; after each reduction the curve of the RFC is drawn from the window before and the window \
         after, and the two are compared until the next reduction."
    }

    fn axes(&self) -> &'static [Axis] {
        &[LOSS]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        &[
            Claim {
                id: "cc-cubic-window",
                sentence: "Between losses the window is W(t) = 0.4 (t − K)³ + W_max, and a loss leaves 0.7 of it",
                source: Source::Published {
                    work: WORK,
                    place: "sections 4.2, 4.6 and 4.7, figure 1; 5 % for 99 of 100 samples is ours",
                },
                invariant: "Virtual time. Epochs of 1 s and more, from a round trip after the reduction on. Judged at loss ratios of 0.00001 and \
                            0.00003, where the cubic is above Reno's window.",
                judge: shape,
            },
            Claim {
                id: "cc-cubic-response",
                sentence: "A CUBIC flow's goodput is MSS × 1.054 ÷ (RTT¹ᐟ⁴ p³ᐟ⁴), to within 20 %",
                source: Source::Published {
                    work: WORK,
                    place: "section 5.1, equation 6, for periodic loss; 20 % is ours",
                },
                invariant: "Virtual time. Losses are drawn for each packet. Judged at 0.00003 and 0.0001.",
                judge: response,
            },
        ]
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let text = embedded(self.id()).map_or("", |embedded| embedded.text);
        let mut file = ScenarioFile::parse("cc-cubic-window.toml", text)?;
        if lab.choice.depth == Depth::Smallest {
            file.horizon.ns = 20_000_000_000;
        }
        let values = lab.values(&LOSS);
        lab.progress.set_length(values.len() as u64);
        for value in values {
            let point = points(&file)[0].with_value(value.parse().ok());
            let outcome = point.setup(lab.choice.seed)?.run(lab.stop);
            if outcome.is_interrupted || lab.interrupted() {
                break;
            }
            let what = Happened {
                elapsed: outcome.ended,
                event_hash: outcome.hash,
                events_count: outcome.counters.events_count,
            };
            let axis = BTreeMap::from([(LOSS.name.to_owned(), value.clone())]);
            let mut row = Simulated::of(lab, self.id(), axis, lab.choice.seed, what);
            row.fact(
                "guarantee",
                "none is asked for: bytes are delivered once, in order, or the flow is unfinished",
            );
            let shape = Shape::of(&outcome.windows);
            row.put("reductions", shape.kept.len() as f64, "count", Better::Neither);
            row.put("samples", shape.deviations.len() as f64, "count", Better::Neither);
            let of = |values: &[f64], q| crate::packet_sim::quantile(values, q);
            for (name, value, unit) in [
                ("kept_ratio_p50", of(&shape.kept, 0.5), "ratio"),
                ("deviation_percent_p50", of(&shape.deviations, 0.5), "%"),
                ("deviation_percent_p99", of(&shape.deviations, 0.99), "%"),
                ("window_segments_mean", mean_segments(&outcome.windows), "segments"),
            ] {
                if let Some(value) = value {
                    row.put(name, value, unit, Better::Neither);
                }
            }
            if let Some(goodput) = outcome.metric("long_goodput_mbit_per_sec") {
                row.put("long_goodput_mbit_per_sec", goodput, "Mbit/s", Better::Higher);
            }
            lab.record(row.into_row())?;
            lab.progress.inc(1);
        }
        Ok(())
    }
}

const MSS_BYTES: f64 = 1_448.0;
/// Two cables of 1 µs and one of 49.998 ms each way.
const RTT_S: f64 = 0.1;
/// RFC 9438 §5.1 and §4.6.
const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// A window that shrinks by so much between two looks was reduced: once leaves 0.7.
const REDUCED_RATIO: f64 = 0.85;
/// Shorter epochs are left out.
const EPOCH_MIN_S: f64 = 1.0;

/// What the windows of a run say.
#[derive(Debug, Default)]
struct Shape {
    /// What each reduction left.
    kept: Vec<f64>,
    /// Each sample's distance from the curve, in percent of it.
    deviations: Vec<f64>,
}

fn segments(sample: &WindowSample) -> f64 {
    sample.window_bytes as f64 / MSS_BYTES
}

fn mean_segments(samples: &[WindowSample]) -> Option<f64> {
    let (_, late) = samples.split_at(samples.len() / 5);
    (!late.is_empty()).then(|| late.iter().map(segments).sum::<f64>() / late.len() as f64)
}

impl Shape {
    fn of(samples: &[WindowSample]) -> Shape {
        let mut shape = Shape::default();
        let has_left = |index: usize| samples[index - 1].is_slow_start && !samples[index].is_slow_start;
        let is_smaller = |index: usize| segments(&samples[index]) < REDUCED_RATIO * segments(&samples[index - 1]);
        let reduced: Vec<usize> = (1..samples.len())
            .filter(|&index| has_left(index) || is_smaller(index))
            .collect();
        let mut w_max = 0.0;
        for (number, &first) in reduced.iter().enumerate() {
            let (mut before, after) = (segments(&samples[first - 1]), segments(&samples[first]));
            if has_left(first) {
                // Slow start doubles the window between two looks: what it was is known from what is left.
                before = after / BETA;
            } else {
                shape.kept.push(after / before);
            }
            // Two losses may fall between two looks. §4.7: who falls below the old plateau makes room. The look before a loss is up to
            // 100 ms old, so the window that the loss met is known best from what it left.
            let losses_count = ((after / before).ln() / BETA.ln()).round().max(1.0) as u32;
            for loss in 0..losses_count {
                let window = after / BETA.powi((losses_count - loss) as i32);
                w_max = if window < w_max {
                    window * (1.0 + BETA) / 2.0
                } else {
                    window
                };
            }
            let end = reduced.get(number + 1).copied().unwrap_or(samples.len());
            shape.follow(&samples[first..end], w_max);
        }
        shape
    }

    /// An epoch, from the reduction to the last sample before the next.
    fn follow(&mut self, epoch: &[WindowSample], w_max: f64) {
        let at_s = |sample: &WindowSample| sample.at.as_ns() as f64 / 1e9;
        let [first, .., last] = epoch else { return };
        if at_s(last) - at_s(first) < EPOCH_MIN_S {
            return;
        }
        // The loss was between two looks, half of one ago on average, and recovery lasts a round trip.
        let look_s = (at_s(last) - at_s(first)) / (epoch.len() - 1) as f64;
        let begun_s = at_s(first) - look_s / 2.0 + RTT_S;
        let after = segments(first);
        let plateau = w_max.max(after);
        let k_s = ((plateau - after) / C).cbrt();
        for sample in epoch {
            let t_s = at_s(sample) - begun_s;
            if t_s >= 0.0 {
                // §4.3: Reno's window where that is larger, with its own growth once it is back at the plateau.
                let slow = 3.0 * (1.0 - BETA) / (1.0 + BETA) / RTT_S;
                let back_s = (plateau - after) / slow;
                let reno = after + slow * t_s.min(back_s) + (t_s - back_s).max(0.0) / RTT_S;
                let curve = (C * (t_s - k_s).powi(3) + plateau).max(reno);
                self.deviations.push((segments(sample) / curve - 1.0).abs() * 100.0);
            }
        }
    }
}

/// What the law says, in Mbit/s of payload.
fn law_mbit_per_sec(loss_ratio: f64) -> f64 {
    let segments = (C * (3.0 + BETA) / (4.0 * (1.0 - BETA))).powf(0.25) * (RTT_S / loss_ratio).powf(0.75);
    segments * MSS_BYTES * 8.0 / RTT_S / 1e6
}

fn shape(table: &Table) -> Judgement {
    let at = |loss, name| metric(table, "", (LOSS.name, loss), name);
    let kept = |what, loss| Demand {
        what,
        value: at(loss, "kept_ratio_p50"),
        unit: "ratio",
        limit: "0.68 to 0.72",
        meets: |ratio: f64| (0.68..=0.72).contains(&ratio),
    };
    let near = |what, loss| Demand {
        what,
        value: at(loss, "deviation_percent_p99"),
        unit: "%",
        limit: "≤ 5",
        meets: |percent: f64| percent <= 5.0,
    };
    judge_all(&[
        kept("what a loss leaves, median, loss ratio 0.00001", "0.00001"),
        kept("what a loss leaves, median, loss ratio 0.00003", "0.00003"),
        near("distance from the curve, 99th percentile, 0.00001", "0.00001"),
        near("distance from the curve, 99th percentile, 0.00003", "0.00003"),
    ])
}

fn response(table: &Table) -> Judgement {
    let demand = |what, loss: &str| Demand {
        what,
        value: metric(table, "", (LOSS.name, loss), "long_goodput_mbit_per_sec")
            .zip(loss.parse().ok())
            .map(|(goodput, loss)| goodput / law_mbit_per_sec(loss)),
        unit: "ratio",
        limit: "0.8 to 1.2",
        meets: |ratio: f64| (0.8..=1.2).contains(&ratio),
    };
    judge_all(&[
        demand("goodput ÷ the law, loss ratio 0.00003", "0.00003"),
        demand("goodput ÷ the law, loss ratio 0.0001", "0.0001"),
    ])
}

#[cfg(test)]
mod tests {
    use dataplane_sim::SimTime;

    use super::*;
    use crate::{experiments::scenarios::testing::table, packet_sim::quantile, record::Outcome};

    /// A window of 1,000 segments, reduced at 1 s, that comes back along `curve` of the seconds since the recovery's end.
    fn windows(curve: impl Fn(f64) -> f64) -> Vec<WindowSample> {
        let at = |tenth: u64| match tenth {
            0..=10 => 1_000.0,
            11 | 12 => 700.0,
            _ => curve((tenth as f64 - 11.0) / 10.0 - 0.05),
        };
        (0..120)
            .map(|tenth| WindowSample {
                at: SimTime::from_ns(tenth * 100_000_000),
                window_bytes: (at(tenth) * MSS_BYTES) as u64,
                is_slow_start: false,
                srtt_ns: 0,
            })
            .collect()
    }

    #[test]
    fn a_cubic_is_near_its_curve_and_a_line_is_not() {
        let k_s = (300.0_f64 / C).cbrt();
        let cubic = Shape::of(&windows(|t| C * (t - k_s).powi(3) + 1_000.0));
        let line = Shape::of(&windows(|t| 700.0 + 300.0 * t / k_s));
        assert_eq!(cubic.kept.len(), 1);
        assert!((cubic.kept[0] - 0.7).abs() < 0.01);
        assert!(
            quantile(&cubic.deviations, 0.99).is_some_and(|percent| percent < 2.0),
            "{cubic:?}"
        );
        assert!(
            quantile(&line.deviations, 0.99).is_some_and(|percent| percent > 5.0),
            "{line:?}"
        );
    }

    #[test]
    fn the_claims_hold_and_fail() {
        // RFC 9438 §5.1, table 3: 187 segments at 100 ms and 0.0001.
        assert!((law_mbit_per_sec(0.0001) - 187.0 * 1_448.0 * 8.0 / 0.1 / 1e6).abs() < 0.2);
        let rows = |off: f64, deviation: f64| {
            let of = |loss: f64| {
                [
                    ("kept_ratio_p50", 0.7),
                    ("deviation_percent_p99", deviation),
                    ("long_goodput_mbit_per_sec", off * law_mbit_per_sec(loss)),
                ]
            };
            let all = [of(0.000_01), of(0.000_03), of(0.0001)];
            table(
                LOSS.name,
                &[
                    ("", "0.00001", &all[0][..]),
                    ("", "0.00003", &all[1][..]),
                    ("", "0.0001", &all[2][..]),
                ],
            )
        };
        assert_eq!(shape(&rows(1.0, 3.0)).outcome, Outcome::Holds);
        assert_eq!(shape(&rows(1.0, 8.0)).outcome, Outcome::Fails);
        assert_eq!(response(&rows(1.1, 3.0)).outcome, Outcome::Holds);
        assert_eq!(response(&rows(0.7, 3.0)).outcome, Outcome::Fails);
    }
}
