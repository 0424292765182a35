//! What the kernels said of their connections while a load ran (`TCP_INFO`): figures for a row, and all of it as a file.

use std::fs;

use anyhow::Context;

use crate::{
    experiment::Lab,
    packet_sim::{Series, quantile},
    traffic::Sample,
};

/// In a run's folder, as those of scenarios.
const FOLDER: &str = "series";

/// The samples of all connections of a row in a few figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Congestion window, in segments.
    pub window_segments_p50: f64,
    /// The largest that was seen.
    pub window_segments_max: f64,
    /// Slow start threshold, in segments, of those that had one.
    pub ssthresh_segments_p50: Option<f64>,
    /// Smoothed round trip, in milliseconds.
    pub rtt_ms_p50: f64,
    /// Its 99th percentile.
    pub rtt_ms_p99: f64,
    /// Of all samples, those in which a connection had retransmitted since the one before, 0 to 1.
    pub retransmitting_ratio: f64,
}

/// TCP_INFINITE_SSTHRESH, include/net/tcp.h: no loss yet.
const SSTHRESH_NONE: u32 = 0x7fff_ffff;

impl Summary {
    /// Nothing without samples.
    pub fn of(samples: &[Sample]) -> Option<Summary> {
        let column = |of: fn(&Sample) -> f64| -> Vec<f64> { samples.iter().map(of).collect() };
        let windows = column(|sample| f64::from(sample.info.window_segments));
        let rtts_ms = column(|sample| sample.info.rtt.as_secs_f64() * 1e3);
        let thresholds: Vec<f64> = samples
            .iter()
            .map(|sample| sample.info.ssthresh_segments)
            .filter(|segments| *segments < SSTHRESH_NONE)
            .map(f64::from)
            .collect();
        let mut last = std::collections::BTreeMap::new();
        let mut busy_count = 0;
        for sample in samples {
            let before = last.insert(sample.flow, sample.info.retransmits_count);
            busy_count += usize::from(before.is_some_and(|before| before < sample.info.retransmits_count));
        }
        Some(Summary {
            window_segments_p50: quantile(&windows, 0.5)?,
            window_segments_max: quantile(&windows, 1.0)?,
            ssthresh_segments_p50: quantile(&thresholds, 0.5),
            rtt_ms_p50: quantile(&rtts_ms, 0.5)?,
            rtt_ms_p99: quantile(&rtts_ms, 0.99)?,
            retransmitting_ratio: busy_count as f64 / samples.len() as f64,
        })
    }
}

/// Writes all samples into a file of the run's folder; its name there.
///
/// # Errors
/// It cannot be written.
pub fn keep(lab: &Lab<'_>, stem: &str, samples: &[Sample], about: String) -> anyhow::Result<String> {
    let name = format!("{FOLDER}/{stem}.csv");
    let folder = lab.folder.path().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let text = to_csv(samples, vec![about]);
    lab.folder
        .write_file(&name, text.as_bytes())
        .context("writing what the connections did")?;
    Ok(name)
}

/// All samples as CSV, with `about` in its head.
fn to_csv(samples: &[Sample], about: Vec<String>) -> String {
    let column = |of: fn(&Sample) -> u64| samples.iter().map(of).collect();
    let series = Series {
        about,
        names: vec![
            "at_ns",
            "flow",
            "window_segments",
            "ssthresh_segments",
            "srtt_ns",
            "rto_ns",
            "retransmits",
            "timeouts",
            "delivered_segments",
            "delivered_marked_segments",
            "pacing_bytes_per_sec",
            "window_offered_limited_ns",
            "send_buffer_limited_ns",
        ],
        columns: vec![
            column(|sample| sample.at.as_nanos() as u64),
            column(|sample| sample.flow as u64),
            column(|sample| sample.info.window_segments.into()),
            column(|sample| sample.info.ssthresh_segments.into()),
            column(|sample| sample.info.rtt.as_nanos() as u64),
            column(|sample| sample.info.rto.as_nanos() as u64),
            column(|sample| sample.info.retransmits_count.into()),
            column(|sample| sample.info.timeouts_count.unwrap_or(0).into()),
            column(|sample| sample.info.delivered_count.into()),
            column(|sample| sample.info.delivered_ce_count.into()),
            column(|sample| sample.info.pacing_bytes_per_sec),
            column(|sample| sample.info.window_offered_limited.as_nanos() as u64),
            column(|sample| sample.info.send_buffer_limited.as_nanos() as u64),
        ],
    };
    series.to_csv()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane_ports::tcp::TcpInfo;

    use super::*;

    #[test]
    fn figures_and_a_file_come_of_samples() {
        let sample = |at_ms: u64, flow: usize, window_segments: u32, retransmits_count: u32| Sample {
            at: Duration::from_millis(at_ms),
            flow,
            info: TcpInfo {
                window_segments,
                retransmits_count,
                ssthresh_segments: if flow == 0 { SSTHRESH_NONE } else { 7 },
                rtt: Duration::from_millis(at_ms),
                ..TcpInfo::default()
            },
        };
        let samples = [
            sample(1, 0, 10, 0),
            sample(1, 1, 4, 3),
            sample(2, 0, 20, 0),
            sample(2, 1, 2, 5),
        ];
        let summary = Summary::of(&samples).expect("there are some");
        assert_eq!((summary.window_segments_p50, summary.window_segments_max), (4.0, 20.0));
        assert_eq!(summary.ssthresh_segments_p50, Some(7.0));
        assert_eq!(summary.retransmitting_ratio, 0.25);
        assert_eq!(Summary::of(&[]), None);
        let text = to_csv(&samples, vec!["a test".to_owned()]);
        assert!(text.contains("# a test\nat_ns,flow,window_segments"), "{text}");
        assert_eq!(text.lines().count(), 3 + samples.len());
    }
}
