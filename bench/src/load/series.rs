//! Reply time over the run: one small histogram per time bucket, all of them there before the first request.

use hdrhistogram::Histogram;

use crate::{measure::VALUE_NS_MAX, record::SeriesPoint};

/// The most points of one series. Each holds a histogram of about 17 KB while the run lasts.
pub const SERIES_POINTS_MAX: usize = 600;

/// Two digits: a median that is off by 1 % is as good as a chart can show.
const SIGNIFICANT_DIGITS: u8 = 2;

/// The buckets of a run.
#[derive(Debug)]
pub(super) struct Series {
    bucket_ns: u64,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug)]
struct Bucket {
    sent_count: u64,
    lost_count: u64,
    max_ns: Option<u64>,
    latency: Histogram<u32>,
}

impl Series {
    /// `points_count` buckets over `span_ns`, their memory touched. None of either is a series without points.
    pub(super) fn new(points_count: usize, span_ns: u64) -> Series {
        let mut latency = Histogram::new_with_bounds(1, VALUE_NS_MAX, SIGNIFICANT_DIGITS).expect("valid constants");
        latency.clear();
        let empty = Bucket {
            sent_count: 0,
            lost_count: 0,
            max_ns: None,
            latency,
        };
        Series {
            bucket_ns: span_ns.div_ceil(points_count.max(1) as u64).max(1),
            buckets: vec![empty; points_count],
        }
    }

    /// The bucket of an intended send time; the last one takes what comes after the span.
    fn bucket(&mut self, offset_ns: u64) -> Option<&mut Bucket> {
        let last = self.buckets.len().checked_sub(1)?;
        let index = (offset_ns / self.bucket_ns).min(last as u64);
        self.buckets.get_mut(index as usize)
    }

    pub(super) fn sent(&mut self, offset_ns: u64) {
        if let Some(bucket) = self.bucket(offset_ns) {
            bucket.sent_count += 1;
        }
    }

    pub(super) fn lost(&mut self, offset_ns: u64) {
        if let Some(bucket) = self.bucket(offset_ns) {
            bucket.lost_count += 1;
        }
    }

    pub(super) fn answered(&mut self, offset_ns: u64, latency_ns: u64) {
        if let Some(bucket) = self.bucket(offset_ns) {
            bucket.max_ns = bucket.max_ns.max(Some(latency_ns));
            bucket.latency.saturating_record(latency_ns.min(VALUE_NS_MAX));
        }
    }

    /// The points, those without a request left out.
    pub(super) fn points(&self) -> Vec<SeriesPoint> {
        let points = self.buckets.iter().enumerate().map(|(index, bucket)| SeriesPoint {
            at_ms: (index as u64 * self.bucket_ns) as f64 / 1e6,
            sent_count: bucket.sent_count,
            lost_count: bucket.lost_count,
            // Never above the exact maximum, whatever the bucket's width.
            p50_ns: bucket
                .max_ns
                .map(|max_ns| bucket.latency.value_at_quantile(0.5).min(max_ns)),
            max_ns: bucket.max_ns,
        });
        points.filter(|point| point.sent_count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_in_the_bucket_of_their_intended_time() {
        let mut series = Series::new(4, 4_000_000);
        for (offset_ns, latency_ns) in [(0, 10), (999_999, 30), (1_000_000, 500)] {
            series.sent(offset_ns);
            series.answered(offset_ns, latency_ns);
        }
        series.sent(9_000_000);
        series.lost(9_000_000);
        let points = series.points();
        assert_eq!(points.len(), 3, "a bucket without a request is no point");
        assert_eq!(
            (points[0].sent_count, points[0].p50_ns, points[0].max_ns),
            (2, Some(10), Some(30))
        );
        assert_eq!((points[1].at_ms, points[1].max_ns), (1.0, Some(500)));
        assert_eq!(
            (points[2].at_ms, points[2].lost_count, points[2].p50_ns),
            (3.0, 1, None)
        );
    }

    #[test]
    fn no_points_are_no_series() {
        let mut series = Series::new(0, 1_000);
        series.sent(1);
        series.answered(1, 1);
        series.lost(1);
        assert!(series.points().is_empty());
    }
}
