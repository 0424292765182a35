//! raft-engine, as TiKV has it by default; a thread is a Raft group.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use raft_engine::{Config, Engine, LogBatch};

use super::Append;

const FIRST_GROUP: u64 = 1;

fn open(dir: &Path) -> anyhow::Result<Engine> {
    let config = Config {
        dir: dir.to_str().context("a path that is not UTF-8")?.to_owned(),
        ..Config::default()
    };
    Ok(Engine::open(config)?)
}

pub fn writers(dir: &Path, count: usize) -> anyhow::Result<Vec<Append>> {
    let engine = Arc::new(open(dir)?);
    let writer = |index| -> Append {
        let engine = engine.clone();
        Box::new(move |record| {
            let mut batch = LogBatch::default();
            let key = record.index.to_be_bytes().to_vec();
            batch.put(FIRST_GROUP + index, key, record.bytes.to_vec())?;
            engine.write(&mut batch, true)?;
            Ok(())
        })
    };
    Ok((0..count as u64).map(writer).collect())
}

pub fn records(dir: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    open(dir)?.scan_raw_messages(FIRST_GROUP, None, None, false, |_, value| {
        records.push(value.to_vec());
        true
    })?;
    Ok(records)
}
