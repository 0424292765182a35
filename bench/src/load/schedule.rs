//! When requests are meant to be sent: fixed by the seed before the run, so that no server can slow the question down.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

/// The highest rate that can be asked for, per second: one request per nanosecond, the unit of send times.
pub const RATE_PER_S_MAX: f64 = 1e9;
/// The most requests in one schedule: 400 MB of send times.
pub const REQUESTS_MAX: u64 = 50_000_000;
/// The longest schedule.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Send times, in nanoseconds from the start of the run, never falling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub(super) offsets_ns: Vec<u64>,
    pub(super) duration: Duration,
}

/// The shape of a bursty schedule. Its average rate is the schedule's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Requests in each burst.
    pub requests_count: u32,
    /// Time between two requests of one burst; zero sends them back to back.
    pub spacing: Duration,
    /// When bursts begin.
    pub arrivals: BurstArrivals,
}

/// When bursts begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurstArrivals {
    /// At equal distances.
    Periodic,
    /// As a Poisson process.
    Poisson,
}

/// Why a schedule cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The rate is not a number above zero and within [`RATE_PER_S_MAX`].
    #[error("a rate of {rate_per_s} requests/s was asked for; it must be above 0 and at most {RATE_PER_S_MAX:e}")]
    Rate {
        /// What was asked for.
        rate_per_s: f64,
    },
    /// The duration is zero or above [`DURATION_MAX`].
    #[error("a duration of {duration:?} was asked for; it must be above 0 and at most {DURATION_MAX:?}")]
    Duration {
        /// What was asked for.
        duration: Duration,
    },
    /// The schedule would hold no request.
    #[error(
        "{rate_per_s} requests/s for {duration:?} is a schedule of 0 requests; at least 1 is needed: \
         raise the rate or the duration"
    )]
    Empty {
        /// The rate asked for.
        rate_per_s: f64,
        /// The duration asked for.
        duration: Duration,
    },
    /// The schedule would hold more than [`REQUESTS_MAX`].
    #[error("{requests_count} requests were asked for; a schedule holds at most {REQUESTS_MAX}")]
    TooMany {
        /// What was asked for.
        requests_count: u64,
    },
    /// A burst of no request.
    #[error("bursts of 0 requests were asked for; a burst has at least 1")]
    Burst,
    /// A line of a replay file is not a send time.
    #[error("line {line_number}: {seen:?} {why}")]
    Line {
        /// Counted from 1.
        line_number: usize,
        /// The line, cut to 40 characters.
        seen: String,
        /// What is wrong with it, and what would be right.
        why: &'static str,
    },
    /// A replay file without a send time.
    #[error("the replay file holds no send time; it needs one per line, in nanoseconds (12000) or seconds (0.000012)")]
    NoLines,
    /// A replay file that cannot be read.
    #[error("cannot read the replay file {path}: {error}")]
    Read {
        /// Its path.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// What the gaps between send times look like, for a self-check of the schedule and for records.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ArrivalStats {
    /// Gaps between neighbours.
    pub gaps_count: u64,
    /// Their mean, in nanoseconds.
    pub gap_ns_mean: f64,
    /// Standard deviation over mean: 0 for a uniform schedule, 1 for a Poisson process.
    pub gap_variation: f64,
    /// Kolmogorov-Smirnov distance of the gaps from the exponential distribution of the same mean. Above
    /// 1.36 ÷ √gaps the gaps are not a Poisson process's, at 95 % confidence.
    pub exponential_distance: f64,
}

impl Schedule {
    /// This one, and `next` from its end on.
    pub fn then(mut self, next: &Schedule) -> Schedule {
        let begin_ns = self.duration.as_nanos() as u64;
        self.offsets_ns.extend(next.offsets_ns.iter().map(|ns| begin_ns + ns));
        self.duration += next.duration;
        self
    }

    /// Equal gaps.
    ///
    /// # Errors
    /// A bound of this module that is not kept.
    pub fn uniform(rate_per_s: f64, duration: Duration) -> Result<Schedule, ScheduleError> {
        let requests_count = check(rate_per_s, duration)?;
        let gap_ns = 1e9 / rate_per_s;
        let offsets_ns = (0..requests_count)
            .map(|i| (i as f64 * gap_ns).round() as u64)
            .collect();
        Schedule::finish(offsets_ns, rate_per_s, duration)
    }

    /// A Poisson process: independent exponential gaps, the arrivals of many independent clients.
    ///
    /// # Errors
    /// A bound of this module that is not kept.
    pub fn poisson(rate_per_s: f64, duration: Duration, seed: u64) -> Result<Schedule, ScheduleError> {
        let requests_count = check(rate_per_s, duration)?;
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let gap_ns_mean = 1e9 / rate_per_s;
        // The count of a Poisson process is itself random; six standard deviations more are seldom needed.
        let mut offsets_ns = Vec::with_capacity(requests_count as usize + 6 * (requests_count as f64).sqrt() as usize);
        let mut at_ns = exponential(&mut rng) * gap_ns_mean;
        while at_ns < duration.as_nanos() as f64 {
            offsets_ns.push(at_ns as u64);
            at_ns += exponential(&mut rng) * gap_ns_mean;
        }
        Schedule::finish(offsets_ns, rate_per_s, duration)
    }

    /// Bursts, of the same average rate.
    ///
    /// # Errors
    /// A bound of this module that is not kept.
    pub fn bursty(rate_per_s: f64, duration: Duration, bursts: Bursts, seed: u64) -> Result<Schedule, ScheduleError> {
        let requests_count = check(rate_per_s, duration)?;
        if bursts.requests_count == 0 {
            return Err(ScheduleError::Burst);
        }
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let gap_ns_mean = 1e9 / rate_per_s * f64::from(bursts.requests_count);
        let duration_ns = duration.as_nanos() as u64;
        let spacing_ns = bursts.spacing.as_nanos().min(u128::from(duration_ns)) as u64;
        let mut offsets_ns = Vec::with_capacity(requests_count as usize + bursts.requests_count.min(1 << 20) as usize);
        let mut gap = || match bursts.arrivals {
            BurstArrivals::Periodic => gap_ns_mean,
            BurstArrivals::Poisson => exponential(&mut rng) * gap_ns_mean,
        };
        // A periodic schedule begins with a burst, a random one with a gap.
        let mut at_ns = match bursts.arrivals {
            BurstArrivals::Periodic => 0.0,
            BurstArrivals::Poisson => gap(),
        };
        while at_ns < duration_ns as f64 {
            for index in 0..u64::from(bursts.requests_count) {
                let offset_ns = (at_ns as u64).saturating_add(index.saturating_mul(spacing_ns));
                if offset_ns >= duration_ns {
                    break;
                }
                offsets_ns.push(offset_ns);
                if offsets_ns.len() as u64 > REQUESTS_MAX {
                    return Err(ScheduleError::TooMany {
                        requests_count: offsets_ns.len() as u64,
                    });
                }
            }
            at_ns += gap();
        }
        // Spaced bursts may overlap.
        offsets_ns.sort_unstable();
        Schedule::finish(offsets_ns, rate_per_s, duration)
    }

    fn finish(offsets_ns: Vec<u64>, rate_per_s: f64, duration: Duration) -> Result<Schedule, ScheduleError> {
        match offsets_ns.len() as u64 {
            0 => Err(ScheduleError::Empty { rate_per_s, duration }),
            requests_count if requests_count > REQUESTS_MAX => Err(ScheduleError::TooMany { requests_count }),
            _ => Ok(Schedule { offsets_ns, duration }),
        }
    }

    /// Send times in nanoseconds from the start, never falling, at least one.
    pub fn offsets_ns(&self) -> &[u64] {
        &self.offsets_ns
    }

    /// Requests in the schedule.
    pub fn requests_count(&self) -> u64 {
        self.offsets_ns.len() as u64
    }

    /// How long it is meant to take.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Requests per second that it really offers; a Poisson process's count differs from its mean.
    pub fn offered_rate_per_s(&self) -> f64 {
        self.offsets_ns.len() as f64 / self.duration.as_secs_f64()
    }

    /// The most requests whose send times lie within any interval of `window`: what may be in flight at once when
    /// none is answered for that long.
    pub fn in_flight_max(&self, window: Duration) -> usize {
        let window_ns = window.as_nanos().min(u128::from(u64::MAX)) as u64;
        let mut first = 0;
        let mut most = 0;
        for (end, &at_ns) in self.offsets_ns.iter().enumerate() {
            while at_ns - self.offsets_ns[first] > window_ns {
                first += 1;
            }
            most = most.max(end + 1 - first);
        }
        most
    }

    /// What the gaps look like; `None` with fewer than two requests, or when all are at once.
    pub fn arrival_stats(&self) -> Option<ArrivalStats> {
        let mut gaps: Vec<f64> = self
            .offsets_ns
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        if gaps.is_empty() || mean == 0.0 {
            return None;
        }
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        gaps.sort_unstable_by(f64::total_cmp);
        let distance = gaps.iter().enumerate().map(|(rank, gap)| {
            let expected = 1.0 - (-gap / mean).exp();
            (expected - rank as f64 / count).max((rank as f64 + 1.0) / count - expected)
        });
        Some(ArrivalStats {
            gaps_count: gaps.len() as u64,
            gap_ns_mean: mean,
            gap_variation: variance.sqrt() / mean,
            exponential_distance: distance.fold(0.0, f64::max),
        })
    }
}

/// Checks the bounds and says how many requests to expect.
fn check(rate_per_s: f64, duration: Duration) -> Result<u64, ScheduleError> {
    if !(rate_per_s > 0.0 && rate_per_s <= RATE_PER_S_MAX) {
        return Err(ScheduleError::Rate { rate_per_s });
    }
    if duration.is_zero() || duration > DURATION_MAX {
        return Err(ScheduleError::Duration { duration });
    }
    // Rounded before it is cut: 1 000/s for 0.1 s is 100 requests, whatever the last bit of the product says.
    let requests_count = (rate_per_s * duration.as_secs_f64() + 1e-6).floor() as u64;
    match requests_count {
        0 => Err(ScheduleError::Empty { rate_per_s, duration }),
        _ if requests_count > REQUESTS_MAX => Err(ScheduleError::TooMany { requests_count }),
        _ => Ok(requests_count),
    }
}

/// Exponential with mean 1, by inversion. `1 - u` is never 0, since `u` is below 1.
fn exponential(rng: &mut Pcg64Mcg) -> f64 {
    // The 53 bits that an f64 between 0 and 1 can hold.
    let u = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    -(1.0 - u).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_schedule_behind_another_begins_where_that_ends() {
        let (slow, fast) = (
            Schedule::uniform(2.0, SECOND).unwrap(),
            Schedule::uniform(4.0, SECOND).unwrap(),
        );
        let both = slow.then(&fast);
        let expected = [0, 500, 1_000, 1_250, 1_500, 1_750].map(|ms: u64| ms * 1_000_000);
        assert_eq!(both.offsets_ns(), expected);
        assert_eq!(both.duration(), 2 * SECOND);
    }

    #[test]
    fn a_uniform_schedule_has_equal_gaps_and_the_rate_asked_for() {
        let schedule = Schedule::uniform(1_000.0, SECOND).unwrap();
        assert_eq!(schedule.requests_count(), 1_000);
        assert_eq!(schedule.offered_rate_per_s(), 1_000.0);
        assert!(
            schedule
                .offsets_ns()
                .windows(2)
                .all(|pair| pair[1] - pair[0] == 1_000_000)
        );
        let stats = schedule.arrival_stats().unwrap();
        assert_eq!((stats.gap_ns_mean, stats.gap_variation), (1e6, 0.0));
        assert!(stats.exponential_distance > 0.5, "equal gaps are no Poisson process");
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let schedule = Schedule::uniform(3.0, Duration::from_secs(1_000)).unwrap();
        assert_eq!(schedule.requests_count(), 3_000);
        assert_eq!(schedule.offsets_ns()[2_997], 999_000_000_000);
    }

    #[test]
    fn poisson_gaps_pass_the_test_for_exponential_gaps() {
        for seed in 1..=5 {
            let schedule = Schedule::poisson(100_000.0, SECOND, seed).unwrap();
            let stats = schedule.arrival_stats().unwrap();
            let bound = 1.36 / (stats.gaps_count as f64).sqrt();
            assert!(
                stats.exponential_distance < bound,
                "seed {seed}: {stats:?}, bound {bound}"
            );
            assert!((stats.gap_variation - 1.0).abs() < 0.02, "seed {seed}: {stats:?}");
            assert!((stats.gap_ns_mean - 10_000.0).abs() < 150.0, "seed {seed}: {stats:?}");
        }
    }

    #[test]
    fn counts_of_a_poisson_schedule_vary_as_much_as_they_should() {
        // In a Poisson process the counts of equal intervals have variance = mean.
        let schedule = Schedule::poisson(50_000.0, Duration::from_secs(2), 7).unwrap();
        let mut counts = vec![0.0f64; 2_000];
        for at_ns in schedule.offsets_ns() {
            counts[(at_ns / 1_000_000) as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / 2_000.0;
        let dispersion = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 2_000.0 / mean;
        // The dispersion of 2 000 counts has a standard deviation of √(2/2000) = 0.032.
        assert!((dispersion - 1.0).abs() < 0.1, "{dispersion}");
    }

    #[test]
    fn the_seed_decides_every_send_time() {
        let first = Schedule::poisson(1e6, Duration::from_millis(5), 1).unwrap();
        assert_eq!(first, Schedule::poisson(1e6, Duration::from_millis(5), 1).unwrap());
        assert_ne!(first, Schedule::poisson(1e6, Duration::from_millis(5), 2).unwrap());
        // Golden: a record's seed must mean the same schedule in every later version.
        assert_eq!(first.offsets_ns()[..6], GOLDEN_POISSON_NS);
        assert_eq!(first.requests_count(), GOLDEN_POISSON_COUNT);
    }

    const GOLDEN_POISSON_NS: [u64; 6] = [1_942, 2_090, 2_726, 4_022, 4_483, 5_298];
    const GOLDEN_POISSON_COUNT: u64 = 4_987;

    #[test]
    fn bursts_keep_the_average_rate_and_their_shape() {
        let bursts = Bursts {
            requests_count: 10,
            spacing: Duration::from_micros(1),
            arrivals: BurstArrivals::Periodic,
        };
        let schedule = Schedule::bursty(1_000.0, SECOND, bursts, 1).unwrap();
        assert_eq!(schedule.requests_count(), 1_000);
        assert_eq!(schedule.offsets_ns()[9..12], [9_000, 10_000_000, 10_001_000]);
        assert_eq!(schedule.in_flight_max(Duration::from_micros(20)), 10);

        let random = Bursts {
            spacing: Duration::from_millis(30),
            arrivals: BurstArrivals::Poisson,
            ..bursts
        };
        let schedule = Schedule::bursty(1_000.0, SECOND, random, 1).unwrap();
        assert!(schedule.offsets_ns().is_sorted(), "overlapping bursts are sorted");
        assert!(schedule.requests_count().abs_diff(1_000) < 200);
    }

    #[test]
    fn absurd_options_are_refused_with_the_bound() {
        let refused = |result: Result<Schedule, ScheduleError>, said: &str| {
            let error = result.expect_err("out of bounds").to_string();
            assert!(error.contains(said), "{error:?} should say {said:?}");
        };
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.1e9] {
            refused(Schedule::uniform(rate, SECOND), "at most 1e9");
            refused(Schedule::poisson(rate, SECOND, 1), "at most 1e9");
        }
        refused(Schedule::uniform(1.0, Duration::ZERO), "above 0");
        refused(Schedule::uniform(1.0, DURATION_MAX + SECOND), "at most 86400s");
        refused(Schedule::uniform(0.5, SECOND), "at least 1 is needed");
        refused(Schedule::poisson(1e9, SECOND, 1), "at most 50000000");
        let bursts = Bursts {
            requests_count: 0,
            spacing: Duration::ZERO,
            arrivals: BurstArrivals::Periodic,
        };
        refused(Schedule::bursty(1_000.0, SECOND, bursts, 1), "at least 1");
        let endless = Bursts {
            requests_count: u32::MAX,
            ..bursts
        };
        refused(Schedule::bursty(1_000.0, SECOND, endless, 1), "at most 50000000");
    }

    #[test]
    fn in_flight_max_counts_the_densest_window() {
        let schedule = Schedule::replay("0\n10\n11\n12\n1000\n").unwrap();
        assert_eq!(schedule.in_flight_max(Duration::from_nanos(2)), 3);
        assert_eq!(schedule.in_flight_max(Duration::from_nanos(12)), 4);
        assert_eq!(schedule.in_flight_max(Duration::ZERO), 1);
    }
}
