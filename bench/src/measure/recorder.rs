//! A histogram that knows of the requests that were never answered.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};

use super::{DecodeError, decode, interval, rank};
use crate::record::{Distribution, QuantileRecord, QuantileValue};

/// The longest duration that is told apart from longer ones. A request waits at most its time-out of 60 s, and the
/// generator itself may be late on top.
pub const VALUE_NS_MAX: u64 = 120_000_000_000;

/// Three digits: a value is off by at most 0.1 %, a twentieth of the differences that runs are asked to tell apart
/// (5 % with 2 % of noise), and exact below 2 µs. Two digits would be steps of 1 %, four cost eight times the memory,
/// which the cache would feel.
pub(super) const SIGNIFICANT_DIGITS: u8 = 3;

/// Durations in nanoseconds, and the count of those that never ended.
///
/// A lost request is slower than any time: it counts as +∞ in every quantile. Leaving it out would make a server that
/// drops its slowest requests look fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorder {
    pub(super) histogram: Histogram<u64>,
    lost_count: u64,
    saturated_count: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// An empty one, its memory already touched, so that recording never faults a page in.
    pub fn new() -> Recorder {
        let mut histogram =
            Histogram::new_with_bounds(1, VALUE_NS_MAX, SIGNIFICANT_DIGITS).expect("the constants are valid bounds");
        histogram.clear();
        Recorder {
            histogram,
            lost_count: 0,
            saturated_count: 0,
        }
    }

    /// Records one duration. Above [`VALUE_NS_MAX`] it counts as that, and as saturated.
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        if value_ns > VALUE_NS_MAX {
            self.saturated_count += 1;
        }
        self.histogram.saturating_record(value_ns.min(VALUE_NS_MAX));
    }

    /// Records one request that was not answered in time.
    #[inline]
    pub fn record_lost(&mut self) {
        self.lost_count += 1;
    }

    /// Adds everything that `other` recorded. Quantiles of several runs come from merged recorders, never from
    /// averaged quantiles.
    pub fn merge(&mut self, other: &Recorder) {
        self.histogram
            .add(&other.histogram)
            .expect("all recorders have the same bounds");
        self.lost_count += other.lost_count;
        self.saturated_count += other.saturated_count;
    }

    /// Durations recorded.
    pub fn samples_count(&self) -> u64 {
        self.histogram.len()
    }

    /// Requests without an answer.
    pub fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// Durations above [`VALUE_NS_MAX`].
    pub fn saturated_count(&self) -> u64 {
        self.saturated_count
    }

    /// Durations and lost requests together.
    pub fn total_count(&self) -> u64 {
        self.samples_count() + self.lost_count
    }

    /// The histogram of the durations alone.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// The value of the given rank, from 1, among durations and lost requests.
    fn at_rank(&self, rank: u64) -> QuantileValue {
        let samples_count = self.samples_count();
        if rank > samples_count {
            return QuantileValue::Lost;
        }
        // Half a rank less, so that rounding inside the histogram cannot reach the next rank.
        let q = (rank as f64 - 0.5) / samples_count as f64;
        QuantileValue::Ns(self.histogram.value_at_quantile(q))
    }

    /// The quantile `q` (0 to 1) of this sample, whatever it says about the distribution: for decisions that need some
    /// value. [`QuantileValue::Unsupported`] only without any sample.
    pub fn quantile_of_sample(&self, q: f64) -> QuantileValue {
        match rank(q, self.total_count()) {
            0 => QuantileValue::Unsupported,
            rank => self.at_rank(rank),
        }
    }

    /// The quantile `q` (0 to 1), [`QuantileValue::Lost`] where it falls among the lost requests, and
    /// [`QuantileValue::Unsupported`] where the sample is too small ([`super::RankInterval::is_supported`]).
    pub fn quantile(&self, q: f64) -> QuantileValue {
        self.quantile_record(q).value
    }

    /// The quantile `q` with its 95 % confidence interval. Of an unsupported quantile the bound that exists is given:
    /// "at least this much" is still true.
    pub fn quantile_record(&self, q: f64) -> QuantileRecord {
        let total_count = self.total_count();
        let bounds = interval(q, total_count);
        let at = |rank: Option<u64>| rank.map_or(QuantileValue::Unsupported, |rank| self.at_rank(rank));
        let value = match bounds.is_supported() {
            true => self.at_rank(rank(q, total_count)),
            false => QuantileValue::Unsupported,
        };
        QuantileRecord {
            q,
            value,
            low: at(bounds.low),
            high: at(bounds.high),
        }
    }

    /// Everything about this sample that a record keeps, with the given quantiles (usually [`super::QUANTILES`]).
    pub fn distribution(&self, quantiles: &[f64]) -> Distribution {
        let is_empty = self.histogram.is_empty();
        Distribution {
            samples_count: self.samples_count(),
            lost_count: self.lost_count,
            min_ns: if is_empty { 0 } else { self.histogram.min() },
            max_ns: self.histogram.max(),
            mean_ns: self.histogram.mean(),
            quantiles: quantiles.iter().map(|&q| self.quantile_record(q)).collect(),
            hdr_v2_deflate_base64: self.to_base64(),
        }
    }

    fn to_base64(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.histogram, &mut bytes)
            .expect("writing to memory does not fail, and counts are below 2⁶³");
        BASE64.encode(bytes)
    }

    /// The recorder that a distribution was made from, for merging and for quantiles that it does not list.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Recorder::distribution`] would not have written; never a panic, and never
    /// more memory than a recorder's own.
    pub fn from_distribution(distribution: &Distribution) -> Result<Recorder, DecodeError> {
        let mut recorder = Recorder::new();
        decode::fill(&distribution.hdr_v2_deflate_base64, &mut recorder.histogram)?;
        if recorder.samples_count() != distribution.samples_count {
            return Err(DecodeError::Count {
                said: distribution.samples_count,
                found: recorder.samples_count(),
            });
        }
        recorder.lost_count = distribution.lost_count;
        Ok(recorder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::QUANTILES;

    /// 1 to 10 000 µs, each once.
    fn ramp() -> Recorder {
        let mut recorder = Recorder::new();
        (1..=10_000).for_each(|us| recorder.record(us * 1_000));
        recorder
    }

    fn ns(value: QuantileValue) -> u64 {
        match value {
            QuantileValue::Ns(ns) => ns,
            other => panic!("a time was expected: {other:?}"),
        }
    }

    fn close(value: QuantileValue, expected_ns: u64) -> bool {
        ns(value).abs_diff(expected_ns) <= expected_ns / 1_000 + 1
    }

    #[test]
    fn quantiles_are_those_of_the_sample_within_a_tenth_of_a_percent() {
        let recorder = ramp();
        for (q, us) in [(0.5, 5_000), (0.9, 9_000), (0.99, 9_900), (0.999, 9_990)] {
            assert!(
                close(recorder.quantile(q), us * 1_000),
                "{q}: {:?}",
                recorder.quantile(q)
            );
        }
        assert_eq!(
            recorder.quantile(0.9999),
            QuantileValue::Unsupported,
            "10 000 samples cannot bound p99.99"
        );
        assert!(close(recorder.quantile_of_sample(0.9999), 9_999_000));
    }

    #[test]
    fn values_below_two_microseconds_are_exact() {
        let mut recorder = Recorder::new();
        (0..100).for_each(|_| recorder.record(1_234));
        assert_eq!(recorder.quantile(0.5), QuantileValue::Ns(1_234));
    }

    #[test]
    fn a_lost_request_is_slower_than_any_time() {
        let mut recorder = ramp();
        // 2 500 lost of 12 500: everything above p80 is lost.
        (0..2_500).for_each(|_| recorder.record_lost());
        assert!(close(recorder.quantile(0.5), 6_250_000));
        assert!(close(recorder.quantile(0.79), 9_875_000));
        assert_eq!(recorder.quantile(0.9), QuantileValue::Lost);
        assert_eq!(recorder.quantile(0.999), QuantileValue::Lost);
        let p80 = recorder.quantile_record(0.8);
        assert_eq!(
            p80.high,
            QuantileValue::Lost,
            "the upper bound of p80 is among the lost"
        );
        assert!(ns(p80.low) < ns(p80.value));
    }

    #[test]
    fn all_lost_is_lost_and_nothing_is_unsupported() {
        let mut recorder = Recorder::new();
        assert_eq!(recorder.quantile(0.5), QuantileValue::Unsupported);
        assert_eq!(recorder.quantile_of_sample(0.5), QuantileValue::Unsupported);
        let empty = recorder.distribution(&QUANTILES);
        assert_eq!(
            (empty.samples_count, empty.min_ns, empty.max_ns, empty.mean_ns),
            (0, 0, 0, 0.0)
        );
        (0..10).for_each(|_| recorder.record_lost());
        assert_eq!(recorder.quantile(0.5), QuantileValue::Lost);
    }

    #[test]
    fn values_above_the_range_saturate_and_are_counted() {
        let mut recorder = Recorder::new();
        recorder.record(u64::MAX);
        recorder.record(VALUE_NS_MAX);
        assert_eq!((recorder.samples_count(), recorder.saturated_count()), (2, 1));
        assert!(recorder.histogram().max() >= VALUE_NS_MAX);
    }

    #[test]
    fn merging_is_recording_together() {
        let (mut odd, mut even, mut all) = (Recorder::new(), Recorder::new(), Recorder::new());
        for value in 1..5_000u64 {
            let half = if value % 2 == 0 { &mut even } else { &mut odd };
            half.record(value * 777);
            all.record(value * 777);
        }
        odd.record_lost();
        all.record_lost();
        odd.merge(&even);
        assert_eq!(odd, all);
    }

    #[test]
    fn a_distribution_gives_its_recorder_back() {
        let mut recorder = ramp();
        recorder.record(0);
        recorder.record(VALUE_NS_MAX);
        (0..7).for_each(|_| recorder.record_lost());
        let distribution = recorder.distribution(&QUANTILES);
        assert_eq!((distribution.samples_count, distribution.lost_count), (10_002, 7));
        let back = Recorder::from_distribution(&distribution).expect("our own distribution");
        assert_eq!(back, recorder);
        assert_eq!(back.distribution(&QUANTILES), distribution);
        assert!(
            distribution.hdr_v2_deflate_base64.starts_with("HISTFAAA"),
            "as every HdrHistogram tool writes it"
        );
    }

    #[test]
    fn a_distribution_whose_count_is_not_its_histogram_s_is_refused() {
        let mut distribution = ramp().distribution(&QUANTILES);
        distribution.samples_count += 1;
        let error = Recorder::from_distribution(&distribution).expect_err("counts differ");
        assert!(error.to_string().contains("10001"), "{error}");
    }
}
