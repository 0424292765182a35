//! How long a request takes a worker that does nothing else.

use std::sync::Arc;

use crate::random::Random;

/// A distribution of service times, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceTime {
    /// Always the same.
    Deterministic {
        /// It.
        ns: u64,
    },
    /// Memoryless.
    Exponential {
        /// The mean.
        mean_ns: f64,
    },
    /// Two lengths: most requests are short, some are long (a point query and a scan).
    Bimodal {
        /// Of most.
        short_ns: u64,
        /// Of the others.
        long_ns: u64,
        /// How many of them there are, 0 to 1.
        long_ratio: f64,
    },
    /// Its logarithm is normal.
    Lognormal {
        /// The median.
        median_ns: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// One of these, each as likely as any other: a trace.
    Empirical {
        /// Sorted, at least one.
        sorted_ns: Arc<[u64]>,
    },
}

/// A line of a trace that is no service time, or a trace without any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Not a number.
    #[error("line {line_number}: {seen:?} is no service time; write whole nanoseconds, one a line (12000)")]
    Line {
        /// Counted from 1.
        line_number: usize,
        /// The line, cut to 40 characters.
        seen: String,
    },
    /// Nothing there.
    #[error("the file holds no service time; it needs one a line, in nanoseconds (12000)")]
    Empty,
}

impl ServiceTime {
    /// A trace: one service time in nanoseconds a line; empty lines and those that begin with # are skipped.
    ///
    /// # Errors
    /// The first line that is none; a trace without any.
    pub fn parse_trace(text: &str) -> Result<ServiceTime, TraceError> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let mut sorted_ns = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line_number, line)| {
                line.parse::<u64>().map_err(|_| TraceError::Line {
                    line_number,
                    seen: line.chars().take(40).collect(),
                })
            })
            .collect::<Result<Vec<u64>, TraceError>>()?;
        if sorted_ns.is_empty() {
            return Err(TraceError::Empty);
        }
        sorted_ns.sort_unstable();
        Ok(ServiceTime::Empirical {
            sorted_ns: sorted_ns.into(),
        })
    }

    /// One service time.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u64 {
        match self {
            ServiceTime::Deterministic { ns } => *ns,
            ServiceTime::Exponential { mean_ns } => random.exponential(*mean_ns) as u64,
            ServiceTime::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => match random.chance(*long_ratio) {
                true => *long_ns,
                false => *short_ns,
            },
            ServiceTime::Lognormal { median_ns, sigma } => (median_ns * (sigma * random.normal()).exp()) as u64,
            ServiceTime::Empirical { sorted_ns } => sorted_ns[random.below(sorted_ns.len())],
        }
    }

    /// The mean, in nanoseconds.
    pub fn mean_ns(&self) -> f64 {
        self.moment(1)
    }

    /// The mean of the squares, in square nanoseconds.
    pub fn second_moment(&self) -> f64 {
        self.moment(2)
    }

    fn moment(&self, power: i32) -> f64 {
        match self {
            ServiceTime::Deterministic { ns } => (*ns as f64).powi(power),
            ServiceTime::Exponential { mean_ns } => mean_ns.powi(power) * f64::from(power),
            ServiceTime::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => (1.0 - long_ratio) * (*short_ns as f64).powi(power) + long_ratio * (*long_ns as f64).powi(power),
            ServiceTime::Lognormal { median_ns, sigma } => {
                let power = f64::from(power);
                median_ns.powf(power) * (power * power * sigma * sigma / 2.0).exp()
            }
            ServiceTime::Empirical { sorted_ns } => {
                sorted_ns.iter().map(|&ns| (ns as f64).powi(power)).sum::<f64>() / sorted_ns.len() as f64
            }
        }
    }

    /// The mean of the lesser of a service time and `t_ns`, to the power of 1 or 2: what is spent on requests before `t_ns`.
    pub fn least_moment(&self, t_ns: f64, power: i32) -> f64 {
        let least = |ns: f64| ns.min(t_ns).powi(power);
        match self {
            ServiceTime::Deterministic { ns } => least(*ns as f64),
            ServiceTime::Exponential { mean_ns } => {
                let (t, beyond) = (t_ns / mean_ns, (-t_ns / mean_ns).exp());
                match power {
                    1 => mean_ns * (1.0 - beyond),
                    _ => 2.0 * mean_ns * mean_ns * (1.0 - beyond * (1.0 + t)),
                }
            }
            ServiceTime::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => (1.0 - long_ratio) * least(*short_ns as f64) + long_ratio * least(*long_ns as f64),
            ServiceTime::Lognormal { .. } if t_ns <= 0.0 => 0.0,
            ServiceTime::Lognormal { median_ns, sigma } => {
                let z = (t_ns / median_ns).ln() / sigma;
                let of_shorter = self.moment(power) * normal_below(z - f64::from(power) * sigma);
                of_shorter + t_ns.powi(power) * (1.0 - normal_below(z))
            }
            ServiceTime::Empirical { sorted_ns } => {
                sorted_ns.iter().map(|&ns| least(ns as f64)).sum::<f64>() / sorted_ns.len() as f64
            }
        }
    }

    /// The share of service times of at most `t_ns`, 0 to 1.
    pub fn ratio_within(&self, t_ns: f64) -> f64 {
        let step = |at_ns: u64| f64::from(t_ns >= at_ns as f64);
        match self {
            ServiceTime::Deterministic { ns } => step(*ns),
            ServiceTime::Exponential { mean_ns } => 1.0 - (-t_ns.max(0.0) / mean_ns).exp(),
            ServiceTime::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => (1.0 - long_ratio) * step(*short_ns) + long_ratio * step(*long_ns),
            ServiceTime::Lognormal { median_ns, sigma } if t_ns > 0.0 => normal_below((t_ns / median_ns).ln() / sigma),
            ServiceTime::Lognormal { .. } => 0.0,
            ServiceTime::Empirical { sorted_ns } => {
                sorted_ns.partition_point(|&ns| ns as f64 <= t_ns) as f64 / sorted_ns.len() as f64
            }
        }
    }
}

/// In a few words, with its mean.
impl std::fmt::Display for ServiceTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |ns: f64| ns / 1e3;
        match self {
            ServiceTime::Deterministic { ns } => write!(f, "always {} µs", us(*ns as f64)),
            ServiceTime::Exponential { mean_ns } => write!(f, "exponential, mean {} µs", us(*mean_ns)),
            ServiceTime::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => write!(
                f,
                "{} µs, {} % of them {} µs",
                us(*short_ns as f64),
                long_ratio * 100.0,
                us(*long_ns as f64)
            ),
            ServiceTime::Lognormal { median_ns, sigma } => {
                write!(f, "lognormal, median {} µs, sigma {sigma}", us(*median_ns))
            }
            ServiceTime::Empirical { sorted_ns } => {
                write!(f, "one of {}, mean {:.1} µs", sorted_ns.len(), us(self.mean_ns()))
            }
        }
    }
}

/// The normal distribution's share below `z`, by its tail to 7 digits (Abramowitz & Stegun 26.2.17).
fn normal_below(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let polynomial =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial;
    if z < 0.0 { above } else { 1.0 - above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<ServiceTime> {
        vec![
            ServiceTime::Deterministic { ns: 1_000 },
            ServiceTime::Exponential { mean_ns: 1_000.0 },
            ServiceTime::Bimodal {
                short_ns: 500,
                long_ns: 50_500,
                long_ratio: 0.01,
            },
            ServiceTime::Lognormal {
                median_ns: 1_000.0,
                sigma: 0.5,
            },
            ServiceTime::parse_trace("# a trace\n100\n\n200\n900\n").expect("three times"),
        ]
    }

    #[test]
    fn draws_have_the_moments_and_the_distribution_that_are_said() {
        const DRAWS_COUNT: usize = 200_000;
        for model in all() {
            let mut random = Random::new(1, 2);
            let mut drawn: Vec<f64> = (0..DRAWS_COUNT).map(|_| model.draw(&mut random) as f64).collect();
            let mean = drawn.iter().sum::<f64>() / DRAWS_COUNT as f64;
            let square = drawn.iter().map(|ns| ns * ns).sum::<f64>() / DRAWS_COUNT as f64;
            // Whole nanoseconds are half a nanosecond short.
            assert!((mean / model.mean_ns() - 1.0).abs() < 0.03, "{model}: {mean}");
            assert!((square / model.second_moment() - 1.0).abs() < 0.06, "{model}: {square}");
            drawn.sort_by(f64::total_cmp);
            for t_ns in [250.5, 600.5, 1_000.5, 2_000.5] {
                let within = drawn.partition_point(|ns| *ns <= t_ns) as f64 / DRAWS_COUNT as f64;
                let least = drawn.iter().map(|ns| ns.min(t_ns).powi(2)).sum::<f64>() / DRAWS_COUNT as f64;
                assert!(
                    (least / model.least_moment(t_ns, 2) - 1.0).abs() < 0.02,
                    "{model} at {t_ns}: {least}"
                );
                // Five standard deviations, and half a nanosecond.
                assert!(
                    (within - model.ratio_within(t_ns)).abs() < 0.007,
                    "{model} at {t_ns}: {within}"
                );
            }
        }
    }

    #[test]
    fn a_trace_that_is_none_says_where() {
        let error = ServiceTime::parse_trace("100\nfast\n").expect_err("no number");
        assert!(
            error.to_string().contains("line 2") && error.to_string().contains("fast"),
            "{error}"
        );
        assert_eq!(ServiceTime::parse_trace("# nothing\n"), Err(TraceError::Empty));
    }
}
