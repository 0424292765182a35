//! walrus: a topic for each thread, files opened with O_SYNC. Its folder comes from the environment.

use std::sync::Arc;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::Append;

fn open() -> anyhow::Result<Walrus> {
    Ok(Walrus::with_consistency_and_schedule(
        ReadConsistency::StrictlyAtOnce,
        FsyncSchedule::SyncEach,
    )?)
}

pub fn writers(count: usize) -> anyhow::Result<Vec<Append>> {
    let log = Arc::new(open()?);
    let writer = |index| -> Append {
        let log = log.clone();
        let topic = format!("t{index}");
        Box::new(move |record| Ok(log.append_for_topic(&topic, &record.bytes)?))
    };
    Ok((0..count).map(writer).collect())
}

pub fn records() -> anyhow::Result<Vec<Vec<u8>>> {
    let log = open()?;
    let mut records = Vec::new();
    while let Some(entry) = log.read_next("t0", true)? {
        records.push(entry.data);
    }
    Ok(records)
}
