//! `dplab wal`: looks at a replica's log on disk, and takes damage out of it.

use std::{io::Write, path::Path};

use anyhow::{Context, bail};
use dataplane_wal::{Finding, FolderStorage, Inspection, WalError, identity, inspect, repair};
use serde_json::{Value, json};

use crate::cli::{WalArgs, WalCommand};

/// What the shell is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WalExit {
    /// The log is sound, torn at most; or it has been repaired.
    Sound = 0,
    /// It is damaged, or acknowledged entries are missing, or it would be refused.
    Damaged = 1,
}

/// Does it, and prints what came of it.
///
/// # Errors
/// There is no log, or it cannot be read or written, or nobody reads `out`.
pub fn wal(args: &WalArgs, out: &mut dyn Write) -> anyhow::Result<WalExit> {
    match &args.command {
        WalCommand::Inspect { folder, json } => look(folder, *json, out),
        WalCommand::Repair { folder, yes } => mend(folder, *yes, out),
    }
}

fn look(folder: &Path, as_json: bool, out: &mut dyn Write) -> anyhow::Result<WalExit> {
    let shown = folder.display();
    let Some(identity) = identity(&mut FolderStorage::open_to_read(folder)?)? else {
        bail!("{shown} holds no log: a replica's is in the folder `wal` of its --data");
    };
    let inspection = inspect(folder, identity.cluster)?;
    match as_json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&to_json(&inspection))?)?,
        false => write!(out, "{inspection}")?,
    }
    let is_sound = inspection
        .outcome
        .is_ok_and(|report| report.damaged_slots.is_none() && !report.findings.iter().any(Finding::is_damage));
    Ok(if is_sound { WalExit::Sound } else { WalExit::Damaged })
}

fn mend(folder: &Path, yes: bool, out: &mut dyn Write) -> anyhow::Result<WalExit> {
    let repair = match repair(folder, yes) {
        Ok(repair) => repair,
        Err(error @ (WalError::StateLost { .. } | WalError::Snapshot { .. })) => {
            writeln!(out, "cannot be repaired: {error}")?;
            return Ok(WalExit::Damaged);
        }
        Err(error) => return Err(error).with_context(|| format!("repairing {}", folder.display())),
    };
    write!(out, "{repair}")?;
    if repair.findings.is_empty() || repair.is_done {
        return Ok(WalExit::Sound);
    }
    writeln!(out, "nothing was changed: add --yes to do it")?;
    Ok(WalExit::Damaged)
}

fn to_json(inspection: &Inspection) -> Value {
    let records: Vec<Value> = inspection
        .items
        .iter()
        .map(|item| {
            json!({
                "file": item.file, "at_bytes": item.at_bytes, "lsn": item.lsn,
                "kind": item.kind.map(|kind| format!("{kind:?}").to_lowercase()),
                "slot": item.slot, "term": item.term, "payload_bytes": item.payload_bytes,
            })
        })
        .collect();
    let findings = |findings: &[Finding]| -> Vec<Value> {
        findings
            .iter()
            .map(|finding| {
                json!({
                    "file": finding.file, "at_bytes": finding.at_bytes, "lsn": finding.lsn, "slot": finding.slot,
                    "is_damage": finding.is_damage(), "text": finding.to_string(),
                })
            })
            .collect()
    };
    match &inspection.outcome {
        Ok(report) => json!({
            "records": records,
            "segments_count": report.segments_count,
            "commits_count": report.commits_count,
            "findings": findings(&report.findings),
            "damaged_slots": report.damaged_slots.map(|(slot, end)| {
                let readable: Vec<Value> = inspection
                    .readable_slots()
                    .iter()
                    .map(|range| json!({ "slot": range.start, "end": range.end }))
                    .collect();
                json!({ "slot": slot, "end": end, "readable": readable })
            }),
            "refused": null,
        }),
        Err(error) => json!({ "records": records, "refused": error.to_string() }),
    }
}
