//! Histograms as files that other tools read: `.hlog` (HdrHistogram's interval log, V2 histograms inside) and `.hgrm`
//! (its percentile table, for HdrHistogram's plotter).

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
};

use super::Recorder;

/// One interval of a log.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'a> {
    /// What it is of: "udp/64". Spaces, commas and line ends become underscores, which the format needs.
    pub tag: &'a str,
    /// What was recorded.
    pub recorder: &'a Recorder,
    /// When it began, since the log's start.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
}

/// Writes an interval log; values are nanoseconds. Lost requests stand in comments: the format has no place for them.
///
/// # Errors
/// What `to` says.
pub fn write_hlog(to: &mut dyn Write, started: SystemTime, intervals: &[Interval<'_>]) -> io::Result<()> {
    let mut to = to;
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("Values are nanoseconds. Requests without a reply are not in the histograms; see [Lost].")
        .with_start_time(started)
        .with_base_time(started)
        // The third column, for human eyes, in milliseconds.
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut to, &mut serializer)?;
    for interval in intervals {
        let tag: String = interval
            .tag
            .chars()
            .map(|c| if c == ',' || c.is_whitespace() { '_' } else { c })
            .collect();
        log.write_comment(&format!("[Lost: {} of {tag}]", interval.recorder.lost_count()))?;
        let tag = Tag::new(&tag);
        let histogram = interval.recorder.histogram();
        let written = log.write_histogram(histogram, interval.start, interval.duration, tag);
        written.map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
        })?;
    }
    Ok(())
}

/// Writes the percentile table as `outputPercentileDistribution` of the Java HdrHistogram does; values are
/// microseconds. With lost requests, percentiles are of all requests, so the table ends below 100 %: the rest is lost.
///
/// # Errors
/// What `to` says.
pub fn write_hgrm(to: &mut dyn Write, recorder: &Recorder) -> io::Result<()> {
    /// Lines per halving of the distance to 100 %, as the Java tools' default.
    const TICKS_PER_HALF_DISTANCE: u32 = 5;
    let histogram = recorder.histogram();
    let us = |ns: f64| ns / 1_000.0;
    let total_count = recorder.total_count().max(1) as f64;
    writeln!(
        to,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut samples_count = 0;
    for line in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        samples_count += line.count_since_last_iteration();
        let of_samples = line.quantile_iterated_to();
        let q = of_samples * recorder.samples_count() as f64 / total_count;
        let value_us = us(line.value_iterated_to() as f64);
        write!(to, "{value_us:12.3} {q:2.12} {samples_count:10}")?;
        match q < 1.0 {
            true => writeln!(to, " {:14.2}", 1.0 / (1.0 - q))?,
            false => writeln!(to)?,
        }
    }
    writeln!(
        to,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        us(histogram.mean()),
        us(histogram.stdev())
    )?;
    writeln!(
        to,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        us(histogram.max() as f64),
        recorder.samples_count()
    )?;
    writeln!(
        to,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        2_048
    )?;
    writeln!(
        to,
        "#[Lost    = {:12}, Unit           = microseconds]",
        recorder.lost_count()
    )
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
    use hdrhistogram::{
        Histogram,
        serialization::{
            Deserializer,
            interval_log::{IntervalLogIterator, LogEntry},
        },
    };

    use super::*;

    fn recorder(lost_count: u64) -> Recorder {
        let mut recorder = Recorder::new();
        (1..=1_000).for_each(|us| recorder.record(us * 1_000));
        (0..lost_count).for_each(|_| recorder.record_lost());
        recorder
    }

    #[test]
    fn an_interval_log_is_read_back_by_the_crate_s_reader() {
        let (first, second) = (recorder(0), recorder(5));
        let intervals = [
            Interval {
                tag: "udp 64,open",
                recorder: &first,
                start: Duration::from_millis(1_500),
                duration: Duration::from_secs(2),
            },
            Interval {
                tag: "io_uring",
                recorder: &second,
                start: Duration::from_secs(4),
                duration: Duration::from_secs(2),
            },
        ];
        let mut bytes = Vec::new();
        write_hlog(
            &mut bytes,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
            &intervals,
        )
        .unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("#[Lost: 5 of io_uring]"));

        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            match entry.expect("a log of ours") {
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => assert_eq!(at, Duration::from_secs(1_000)),
                LogEntry::Interval(interval) => {
                    let encoded = BASE64.decode(interval.encoded_histogram()).unwrap();
                    let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut encoded.as_slice()).unwrap();
                    let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                    read.push((tag, interval.start_timestamp(), histogram));
                }
            }
        }
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].0.as_deref(), read[0].1),
            (Some("udp_64_open"), Duration::from_millis(1_500))
        );
        assert_eq!(read[0].2, *first.histogram());
        assert_eq!(read[1].0.as_deref(), Some("io_uring"));
    }

    /// Value, percentile, count of each line.
    fn parse_hgrm(text: &str) -> Vec<(f64, f64, u64)> {
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.trim_start().starts_with("Value")));
        assert_eq!(lines.next(), Some(""));
        let numbers = lines.filter(|line| !line.starts_with('#')).map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let value = columns.next().unwrap().parse().unwrap();
            let percentile = columns.next().unwrap().parse().unwrap();
            (value, percentile, columns.next().unwrap().parse().unwrap())
        });
        numbers.collect()
    }

    #[test]
    fn a_percentile_table_is_in_the_plotter_s_format() {
        let mut bytes = Vec::new();
        write_hgrm(&mut bytes, &recorder(0)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines = parse_hgrm(&text);
        let &(value, percentile, count) = lines.last().unwrap();
        assert_eq!((percentile, count), (1.0, 1_000));
        assert!((value - 1_000.0).abs() < 1.0, "{value}");
        let middle = lines.iter().find(|line| line.1 >= 0.5).unwrap();
        assert!((middle.0 - 500.0).abs() <= 1.0 && middle.2 == 500, "{middle:?}");
        assert!(lines.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1 && a.2 <= b.2));
        assert!(text.contains("#[Mean    =") && text.contains("SubBuckets"), "{text}");
    }

    #[test]
    fn lost_requests_end_the_table_below_a_hundred_percent() {
        let mut bytes = Vec::new();
        write_hgrm(&mut bytes, &recorder(1_000)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let &(_, percentile, count) = parse_hgrm(&text).last().unwrap();
        assert_eq!(
            (percentile, count),
            (0.5, 1_000),
            "half of the requests were never answered"
        );
        assert!(text.contains("#[Lost    =         1000"), "{text}");
    }

    #[test]
    fn an_empty_recorder_is_an_empty_table() {
        let mut bytes = Vec::new();
        write_hgrm(&mut bytes, &Recorder::new()).unwrap();
        assert!(
            parse_hgrm(&String::from_utf8(bytes).unwrap())
                .iter()
                .all(|line| line.2 == 0)
        );
    }
}
