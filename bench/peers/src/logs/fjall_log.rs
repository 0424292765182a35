//! fjall: a store whose journal is the log. A key is the thread and the record's number.

use std::path::Path;

use anyhow::Context;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::Append;

fn open(dir: &Path) -> anyhow::Result<(Database, Keyspace)> {
    let database = Database::builder(dir).open().context("opening the database")?;
    let keyspace = database
        .keyspace("log", KeyspaceCreateOptions::default)
        .context("opening the keyspace")?;
    Ok((database, keyspace))
}

pub fn writers(dir: &Path, count: usize) -> anyhow::Result<Vec<Append>> {
    let (database, keyspace) = open(dir)?;
    let writer = |index: u64| -> Append {
        let (database, keyspace) = (database.clone(), keyspace.clone());
        Box::new(move |record| {
            let key = [index.to_be_bytes(), record.index.to_be_bytes()].concat();
            keyspace.insert(key, record.bytes)?;
            database.persist(PersistMode::SyncData)?;
            Ok(())
        })
    };
    Ok((0..count as u64).map(writer).collect())
}

pub fn records(dir: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let (_database, keyspace) = open(dir)?;
    let values = keyspace.iter().map(|guard| Ok(guard.value()?.to_vec()));
    values.collect()
}
