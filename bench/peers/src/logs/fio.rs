//! fio: what the disk can do. 4 KiB and fdatasync, over and over, in files that were written before.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use serde_json::Value;

/// What `fio --version` says.
pub fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes per second, p50 and p99 of a write and its flush in microseconds.
///
/// # Errors
/// fio fails, or says something else than it used to.
pub fn measure(dir: &Path, jobs: usize, seconds: f64) -> anyhow::Result<[f64; 3]> {
    let output = Command::new("fio")
        .args([
            "--name=append",
            "--rw=write",
            "--ioengine=psync",
            "--bs=4k",
            "--size=22m",
            "--fdatasync=1",
        ])
        .args([
            "--time_based",
            "--thread",
            "--group_reporting",
            "--overwrite=1",
            "--invalidate=0",
        ])
        .arg("--output-format=json")
        .arg(format!("--runtime={}ms", (seconds * 1000.0).round()))
        .arg(format!("--numjobs={jobs}"))
        .arg(format!("--directory={}", dir.display()))
        .output()
        .context("starting fio")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fio ended ({}): {errors}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let json = text.find('{').map_or("", |begin| &text[begin..]);
    let report: Value = serde_json::from_str(json).context("reading fio's report")?;
    let job = &report["jobs"][0];
    let per_second = job["write"]["iops"].as_f64().context("fio's report has no iops")?;
    // The flush is most of it; fio counts it apart from the write.
    let quantile = |name: &str| {
        let part = |side: &Value, key: &str| side[key]["percentile"][name].as_f64();
        let sum = part(&job["sync"], "lat_ns")? + part(&job["write"], "clat_ns")?;
        Some(sum / 1000.0)
    };
    let [p50, p99] = ["50.000000", "99.000000"].map(quantile);
    Ok([
        per_second,
        p50.context("fio's report has no p50")?,
        p99.context("fio's report has no p99")?,
    ])
}
