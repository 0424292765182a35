//! Processes that want a CPU each, or the disk, all the time: neighbours that a measurement asks for, and ends. Ordinary priority,
//! no privileges; they die with their parent, however that ends.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::atomic::Ordering,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    host::{self, Scheduler, Seat},
    server::{self, Server},
};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "serve-hog";

/// What a hog wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wants {
    /// A CPU: this one, or any.
    Cpu(Option<usize>),
    /// The disk of this file, which it writes over and over, and has synced, in pieces of 1 MiB.
    Disk(PathBuf),
}

/// What a hog that wants the disk writes at once: what a flush of a log-structured store writes, or a copy of a file.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct HogConfig {
    parent_pid: u32,
    wants: Wants,
}

/// Starts one. Call it from a thread that outlives it.
///
/// # Errors
/// It could not be started, or not open its file.
pub fn start(wants: Wants) -> anyhow::Result<Server> {
    let parent_pid = std::process::id();
    Server::spawn_as(SUBCOMMAND, &HogConfig { parent_pid, wants }).context("starting a hog")
}

/// Ends one.
///
/// # Errors
/// It had died before, or did nothing.
pub fn finish(hog: Server) -> anyhow::Result<()> {
    let report: HogReport = hog.finish_as()?;
    anyhow::ensure!(
        report.rounds_count > 0,
        "a hog never ran: the machine was not as the row says"
    );
    Ok(())
}

#[derive(Debug, Serialize, Deserialize)]
struct HogReport {
    /// How often it went round: it has done something.
    rounds_count: u64,
}

/// Running hogs. Dropping them ends them.
#[derive(Debug)]
pub struct Hogs {
    hogs: Vec<Server>,
}

impl Hogs {
    /// Starts as many as there are CPUs that this process may use. Call it from a thread that outlives them.
    ///
    /// # Errors
    /// One could not be started.
    pub fn start(cpus_count: usize) -> anyhow::Result<Hogs> {
        let hogs = (0..cpus_count).map(|_| start(Wants::Cpu(None)));
        Ok(Hogs {
            hogs: hogs.collect::<anyhow::Result<_>>()?,
        })
    }

    /// Ends them; says how many there were.
    ///
    /// # Errors
    /// One had died before, or did nothing.
    pub fn finish(self) -> anyhow::Result<usize> {
        let count = self.hogs.len();
        self.hogs.into_iter().try_for_each(finish)?;
        Ok(count)
    }
}

/// The hog's process: everything behind [`SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read; the parent is gone.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: HogConfig = serde_json::from_str(config).context("reading the hog's configuration")?;
    server::die_with(config.parent_pid)?;
    let (cpu, mut file) = match config.wants {
        Wants::Cpu(cpu) => (cpu, None),
        Wants::Disk(path) => {
            let file = OpenOptions::new().write(true).open(&path);
            let file = file.with_context(|| format!("opening {}", path.display()))?;
            (None, Some(Writer::new(file)?))
        }
    };
    let seat = Seat {
        cpu,
        spins: true,
        is_shared: true,
    };
    server::say_ready(None, host::settle_as("hog", seat, Scheduler::Ordinary))?;
    let stop = server::stop_at_eof(|_| {}, || {});
    let mut rounds_count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if let Some(writer) = &mut file {
            writer.write().context("writing over the file")?;
        }
        rounds_count = std::hint::black_box(rounds_count + 1);
    }
    server::say(&HogReport { rounds_count })
}

/// Writes a file from its begin to its end, and again.
struct Writer {
    file: File,
    piece: Vec<u8>,
    pieces_count: u64,
    next: u64,
}

impl Writer {
    fn new(file: File) -> anyhow::Result<Writer> {
        let len_bytes = file.metadata().context("asking how long the file is")?.len();
        let pieces_count = len_bytes / PIECE_BYTES as u64;
        anyhow::ensure!(pieces_count > 0, "the file is shorter than {PIECE_BYTES} bytes");
        Ok(Writer {
            file,
            piece: vec![0x5a; PIECE_BYTES],
            pieces_count,
            next: 0,
        })
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.file.write_all_at(&self.piece, self.next * PIECE_BYTES as u64)?;
        self.next = (self.next + 1) % self.pieces_count;
        self.file.sync_data()
    }
}
