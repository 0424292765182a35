//! fio beside ours: the same files, the same blocks, in the same round, by a program that everybody knows. Only where it is
//! installed.

use std::{
    fmt::Write as _,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::Sampled;
use crate::measure::Recorder;

/// What fio may take beside what it measures.
const PATIENCE: Duration = Duration::from_secs(20);

/// A job of fio's.
#[derive(Clone, Debug)]
pub struct Fio<'a> {
    /// A file that has been written from end to end; or a folder of such files, `fio-0` and so on, one for each job.
    pub place: &'a Path,
    /// How long each is.
    pub file_bytes: u64,
    /// How many threads, with a file each.
    pub jobs_count: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// For so long.
    pub duration: Duration,
    /// The rest of its words: engine, direction, how to be durable.
    pub words: &'a [&'a str],
}

/// What fio said.
#[derive(Clone, Debug)]
pub struct FioAnswer {
    /// Counts, time and CPU time. The histogram is empty if fio has none of the whole operation: with fdatasync, it times
    /// the write and the sync apart.
    pub sampled: Sampled,
    /// The command, for the record.
    pub command: String,
}

/// "fio-3.33", or why there is none.
///
/// # Errors
/// A sentence.
pub fn version() -> Result<String, String> {
    match Command::new("fio").arg("--version").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(output) => Err(format!("fio --version ended with {}", output.status)),
        Err(_) => Err("fio is not installed (apt-get install fio)".to_owned()),
    }
}

/// Killed when it is no longer waited for.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Fio<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--name=dplab",
            "--thread",
            "--group_reporting",
            "--time_based",
            "--invalidate=0",
        ]
        .into_iter()
        .chain([
            "--overwrite=1",
            "--lat_percentiles=1",
            "--clat_percentiles=0",
            "--output-format=json+",
        ])
        .chain(self.words.iter().copied())
        .map(str::to_owned)
        .collect();
        arguments.push(format!("--runtime={}ms", self.duration.as_millis()));
        arguments.push(format!("--bs={}", self.block_bytes));
        arguments.push(format!("--size={}", self.file_bytes));
        match self.jobs_count {
            1 => arguments.push(format!("--filename={}", self.place.display())),
            jobs_count => {
                arguments.push(format!("--numjobs={jobs_count}"));
                arguments.push(format!("--directory={}", self.place.display()));
                arguments.push("--filename_format=fio-$jobnum".to_owned());
            }
        }
        arguments
    }

    /// Runs it.
    ///
    /// # Errors
    /// It failed, said nothing, or did not end.
    pub fn run(&self) -> anyhow::Result<FioAnswer> {
        let arguments = self.arguments();
        let child = Command::new("fio")
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting fio")?;
        let mut child = Killed(child);
        let reading = |mut pipe: Box<dyn Read + Send>| {
            thread::spawn(move || {
                let mut text = String::new();
                // What cannot be read is told by what is missing.
                let _ = pipe.read_to_string(&mut text);
                text
            })
        };
        let stdout = reading(Box::new(child.0.stdout.take().context("fio's output")?));
        let stderr = reading(Box::new(child.0.stderr.take().context("fio's errors")?));
        let deadline = Instant::now() + self.duration + PATIENCE;
        let status = loop {
            if let Some(status) = child.0.try_wait().context("waiting for fio")? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("fio did not end within {} s of its time", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let said = stderr.join().unwrap_or_default();
        if !status.success() {
            bail!(
                "fio ended with {status}: {}",
                said.lines().next().unwrap_or("it said nothing")
            );
        }
        let sampled = parse(&stdout.join().unwrap_or_default())?;
        let mut command = "fio".to_owned();
        for word in &arguments {
            write!(command, " {word}").expect("writing to a string does not fail");
        }
        Ok(FioAnswer { sampled, command })
    }
}

/// fio's JSON (HOWTO, "JSON+ output"): `jobs[0].read` or `.write`, whichever did something.
fn parse(text: &str) -> anyhow::Result<Sampled> {
    // Warnings come first.
    let json = text.find('{').map_or("", |begin| &text[begin..]);
    let said: Value = serde_json::from_str(json).context("fio's output is not JSON")?;
    let job = &said["jobs"][0];
    if let Some(error) = job["error"].as_i64().filter(|error| *error != 0) {
        bail!("fio met error {error} (errno(3))");
    }
    let ios = |direction: &str| job[direction]["total_ios"].as_u64().unwrap_or(0);
    let direction = if ios("read") > 0 { "read" } else { "write" };
    let side = &job[direction];
    let number = |value: &Value, what: &str| value.as_f64().with_context(|| format!("fio says no {what}"));
    let iops = number(&side["iops"], "iops")?;
    let count = ios(direction);
    if count == 0 || iops <= 0.0 {
        bail!("fio did nothing");
    }
    let mut latency = Recorder::new();
    let has_syncs = job["sync"]["lat_ns"]["N"].as_u64().unwrap_or(0) > 0;
    if let (Some(bins), false) = (side["lat_ns"]["bins"].as_object(), has_syncs) {
        for (ns, count) in bins {
            let (ns, count) = (
                ns.parse::<u64>().context("a bin of fio's")?,
                count.as_u64().unwrap_or(0),
            );
            (0..count).for_each(|_| latency.record(ns));
        }
    }
    // Percent of the time of all jobs together.
    let cpu_ratio = (number(&job["usr_cpu"], "usr_cpu")? + number(&job["sys_cpu"], "sys_cpu")?) / 100.0;
    let runtime_ms = number(&job["job_runtime"], "job_runtime")?;
    Ok(Sampled {
        latency,
        count,
        elapsed: Duration::from_secs_f64(count as f64 / iops),
        cpu: Duration::from_secs_f64((cpu_ratio * runtime_ms / 1e3).max(0.0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"fio: a warning
{"jobs":[{"error":0,"job_runtime":200,"usr_cpu":5.0,"sys_cpu":20.0,
"read":{"total_ios":0,"iops":0.0},
"write":{"total_ios":4,"iops":20.0,"lat_ns":{"bins":{"1000":3,"2000":1}}},"sync":{"total_ios":0,"lat_ns":{"N":0}}}]}"#;

    #[test]
    fn fio_is_understood() {
        let sampled = parse(SAID).expect("it is fio's");
        assert_eq!((sampled.count, sampled.latency.total_count()), (4, 4));
        assert_eq!((sampled.elapsed.as_millis(), sampled.cpu.as_millis()), (200, 50));
        assert_eq!(sampled.latency.histogram().max(), 2000);
        let with_syncs = SAID.replace(r#""N":0"#, r#""N":4"#);
        let sampled = parse(&with_syncs).expect("it is fio's");
        assert_eq!(
            (sampled.count, sampled.latency.total_count()),
            (4, 0),
            "half a latency is none"
        );
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for damaged in [
            "",
            "fio: no",
            "{}",
            &SAID.replace("\"error\":0", "\"error\":28"),
            &SAID.replace("20.0", "0.0"),
        ] {
            assert!(parse(damaged).is_err(), "{damaged}");
        }
    }
}
