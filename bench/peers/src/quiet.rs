//! Whether the machine has nothing else to do. What is measured beside somebody's compiler says nothing.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::scratch::Stop;

/// A CPU's share that others may take, in percent of one CPU.
const BUSY_PERCENT_MAX: f64 = 12.0;
const LOOK: Duration = Duration::from_millis(300);
/// How long to wait for others to be done.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Waits until the machine rests. `false` if it did not in time: what follows is disturbed.
///
/// # Errors
/// /proc/stat cannot be read, or the end is wanted.
pub fn wait(stop: &Stop) -> anyhow::Result<bool> {
    let begin = Instant::now();
    loop {
        let before = busy_ticks()?;
        thread::sleep(LOOK);
        stop.check()?;
        // A tick is 10 ms (USER_HZ is 100 on every architecture that Rust knows).
        let busy_percent = (busy_ticks()? - before) as f64 * 10.0 / LOOK.as_millis() as f64 * 100.0;
        if busy_percent <= BUSY_PERCENT_MAX {
            return Ok(true);
        }
        if begin.elapsed() > WAIT_MAX {
            eprintln!("  others use {busy_percent:.0} % of a CPU: what follows is disturbed");
            return Ok(false);
        }
    }
}

/// Time that CPUs were not idle and did not wait for a disk, since the start (proc_stat(5)).
fn busy_ticks() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal guest …; guest is in user.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| fields.get(index));
    Ok(busy.sum())
}
