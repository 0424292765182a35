//! Distributions of several rows made one, and drawn as curves.

use crate::{
    measure::{QUANTILES, Recorder},
    record::{Distribution, QuantileRecord, QuantileValue},
};

/// Points of a percentile curve per decade of "nines" (p90 is one nine, p99 two).
const CURVE_POINTS_PER_DECADE: u32 = 24;

/// Points of a cumulative distribution per decade of time.
const CDF_POINTS_PER_DECADE: f64 = 40.0;

/// The distributions of several rows as one.
#[derive(Clone, Debug)]
pub(crate) struct Pooled {
    /// Quantiles of the merged histogram, with intervals.
    pub distribution: Distribution,
    /// Share of requests (0 to 1) against the duration within which they were answered, up to the first lost request.
    pub curve: Vec<(f64, u64)>,
    /// Duration against the share of requests answered within it.
    pub cdf: Vec<(u64, f64)>,
}

impl Pooled {
    /// The quantile `q`, if it is among those of the records.
    pub fn quantile(&self, q: f64) -> Option<&QuantileRecord> {
        self.distribution.quantiles.iter().find(|quantile| quantile.q == q)
    }

    /// Requests: answered and lost.
    pub fn requests_count(&self) -> u64 {
        self.distribution
            .samples_count
            .saturating_add(self.distribution.lost_count)
    }
}

/// Merges histograms. What cannot be read is left out and named; `None` when nothing is left.
pub(crate) fn pool<'a>(
    distributions: impl IntoIterator<Item = &'a Distribution>,
    problems: &mut Vec<String>,
) -> Option<Pooled> {
    let mut merged: Option<Recorder> = None;
    for distribution in distributions {
        match (Recorder::from_distribution(distribution), &mut merged) {
            (Ok(recorder), Some(merged)) => merged.merge(&recorder),
            (Ok(recorder), None) => merged = Some(recorder),
            (Err(error), _) => problems.push(error.to_string()),
        }
    }
    let merged = merged.filter(|merged| merged.total_count() > 0)?;
    Some(Pooled {
        distribution: merged.distribution(&QUANTILES),
        curve: curve(&merged),
        cdf: cdf(&merged),
    })
}

fn curve(merged: &Recorder) -> Vec<(f64, u64)> {
    let total_count = merged.total_count() as f64;
    let steps = (total_count.log10() * f64::from(CURVE_POINTS_PER_DECADE)).floor() as u32;
    let grid = (0..=steps).map(|step| 1.0 - 10f64.powf(-f64::from(step) / f64::from(CURVE_POINTS_PER_DECADE)));
    // The last point is the largest sample itself, half a rank below the end so that it has a place on the axis.
    let last = 1.0 - 0.5 / total_count;
    let mut points = Vec::new();
    for q in grid.chain([last]) {
        match merged.quantile_of_sample(q) {
            QuantileValue::Ns(ns) => points.push((q, ns)),
            _ => break,
        }
    }
    points
}

fn cdf(merged: &Recorder) -> Vec<(u64, f64)> {
    let total_count = merged.total_count() as f64;
    let mut points: Vec<(u64, f64)> = Vec::new();
    let mut bin = None;
    let mut below_count = 0u64;
    for bucket in merged.histogram().iter_recorded() {
        below_count += bucket.count_at_value();
        let ns = bucket.value_iterated_to();
        let this = ((ns.max(1) as f64).log10() * CDF_POINTS_PER_DECADE).floor() as i64;
        let point = (ns, below_count as f64 / total_count);
        match points.last_mut() {
            Some(last) if bin == Some(this) => *last = point,
            _ => points.push(point),
        }
        bin = Some(this);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(values: impl IntoIterator<Item = u64>) -> Recorder {
        let mut recorder = Recorder::new();
        values.into_iter().for_each(|ns| recorder.record(ns));
        recorder
    }

    #[test]
    fn pooling_is_of_samples_and_not_of_quantiles() {
        // Medians of 10 and 1000; together the median is 10, nowhere near their mean.
        let a = recorder(vec![10; 3000]).distribution(&QUANTILES);
        let b = recorder(vec![1000; 1000]).distribution(&QUANTILES);
        let pooled = pool([&a, &b], &mut Vec::new()).unwrap();
        assert_eq!(pooled.quantile(0.5).unwrap().value, QuantileValue::Ns(10));
        assert_eq!(pooled.quantile(0.9).unwrap().value, QuantileValue::Ns(1000));
        assert_eq!(pooled.requests_count(), 4000);
        assert_eq!(pooled.cdf, [(10, 0.75), (1000, 1.0)]);
    }

    #[test]
    fn curves_end_where_requests_are_lost() {
        let mut recorder = recorder(1..=900);
        (0..100).for_each(|_| recorder.record_lost());
        let pooled = pool([&recorder.distribution(&QUANTILES)], &mut Vec::new()).unwrap();
        assert!(pooled.curve.last().unwrap().0 <= 0.9);
        assert!(
            pooled.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
            "{:?}",
            pooled.curve
        );
        assert!((pooled.cdf.last().unwrap().1 - 0.9).abs() < 1e-9);
        assert_eq!(pooled.quantile(0.99).unwrap().value, QuantileValue::Lost);
    }

    #[test]
    fn a_histogram_that_cannot_be_read_is_named_and_left_out() {
        let good = recorder(1..=10).distribution(&QUANTILES);
        let bad = Distribution {
            hdr_v2_deflate_base64: "?".into(),
            ..good.clone()
        };
        let mut problems = Vec::new();
        let pooled = pool([&good, &bad], &mut problems).unwrap();
        assert_eq!((pooled.requests_count(), problems.len()), (10, 1));
        assert!(pool([&bad], &mut problems).is_none());
    }
}
