//! A replica's folder: whose it is, and the log in it.
//!
//! ```text
//!  DIR/REPLICA     which replica of which cluster this is, as text; written once, before anything else
//!  DIR/wal/        the log of a durable replica
//! ```
//!
//! A memory replica has a folder, too, with the text alone: its vote and its log are gone when its process ends, so that
//! under the same number it would vote twice and deny what it acknowledged. What is found in the folder keeps it from that.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_quorum::guarantees::Keeps;
use dataplane_waist::{Log, MemoryLog};
use dataplane_wal::{Engine, FolderStorage, OwnHand, ThreadedWal, Wal, WalOptions};

use super::file::Cluster;

/// The text's first line without its version.
const TITLE: &str = "dplab replica ";
/// The version that this build writes, and the only one it reads.
const VERSION: u32 = 1;
const NAME: &str = "REPLICA";
/// Segment files beside the first one that a new log begins with. A snapshot is taken every 32,768 slots at the latest
/// (`Limits::SMALL`), so a log of short entries goes round in three: one is written, one holds what the last snapshot does
/// not, one is free. Without them they are made in the first seconds, by all replicas at the same time, and each flush
/// waits for what is being made.
const SPARE_COUNT: u32 = 2;

/// What a replica's own thread writes, because two wake-ups would take as long as half of a fast disk's flush: a few dozen short
/// entries, on a disk that flushes within a twentieth of a heartbeat's interval ([`dataplane_quorum::Timing::LOCAL`]). A disk that
/// was slower once does not stop heartbeats again for as long as it takes to write a thousand batches.
const OWN_HAND: OwnHand = OwnHand {
    batch_bytes_max: 4 << 10,
    flush_max: Duration::from_millis(1),
    batches_after_slow: 1024,
    batches_after_long: 16,
};

/// Which replica's folder it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub cluster: &'a Cluster,
    pub node: u32,
    pub keeps: Keeps,
}

/// An opened folder: nobody else has it as long as this lives.
pub struct Opened {
    pub log: Box<dyn Log + Send>,
    /// What there is to say about the log, for people.
    pub facts: Vec<String>,
    _lock: File,
}

/// Where a replica keeps what it must, unless it is told.
pub fn default_path(cluster: &Cluster, node: u32) -> PathBuf {
    Path::new("dplab-data").join(&cluster.name).join(format!("node-{node}"))
}

/// Opens the folder for `owner`, or makes it.
///
/// # Errors
/// It is another replica's, another cluster's or another configuration's, a newer build's, in use, a memory replica's that
/// has run before, or it cannot be written.
pub fn open(folder: &Path, owner: Owner<'_>, engine: Engine) -> anyhow::Result<Opened> {
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("making the folder {shown}"))?;
    let lock = lock(folder)?;
    let expected = text_of(owner);
    let has_run = match fs::read_to_string(folder.join(NAME)) {
        Ok(found) => {
            check(folder, &found, &expected)?;
            true
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("reading {shown}/{NAME}")),
    };
    if has_run && owner.keeps == Keeps::Memory {
        let node = owner.node;
        bail!(
            "node {node} kept its vote and its log in memory, and they ended with its process ({shown}/{NAME} says that it \
             has run): under the same number it could vote twice and deny what it acknowledged. Replace it: start a node of \
             the cluster file that never ran, then `dplab kv add-node` that one and `dplab kv remove-node {node}`. If all \
             replicas have ended, what they held is lost: found a new cluster, under another `cluster = NAME`"
        );
    }
    if !has_run {
        refuse_strange(folder)?;
        write_durably(folder, &expected).with_context(|| format!("writing {shown}/{NAME}"))?;
    }
    let (log, facts): (Box<dyn Log + Send>, _) = match owner.keeps {
        Keeps::Memory => {
            // As much as the replica's own window holds, and the snapshot beside it.
            let limits = owner.cluster.limits();
            let log = MemoryLog::with_capacity(limits.window_slots * 2, limits.window_bytes * 2);
            (Box::new(log), vec!["the log is in memory".to_owned()])
        }
        Keeps::Durable => {
            let wal_folder = folder.join("wal");
            let storage = FolderStorage::open(&wal_folder, engine)?;
            let options = WalOptions {
                spare_count: SPARE_COUNT,
                // Of requests that come together, those behind the first commit would wait for the second anyhow.
                under_way_max: 1,
                ..WalOptions::new(owner.cluster.number(Keeps::Durable))
            };
            let wal = Wal::open(Box::new(storage), options)?;
            let writer = match engine.blocks() {
                true => ", written by a thread of its own but for what is short",
                false => "",
            };
            let name = wal.way();
            let mut facts = vec![format!("the log is in {} by `{name}`{writer}", wal_folder.display())];
            let report = wal.report().to_string();
            facts.extend(report.lines().map(|line| format!("found there: {line}")));
            match engine.blocks() {
                true => (Box::new(ThreadedWal::with_own_hand(wal, OWN_HAND)?), facts),
                false => (Box::new(wal), facts),
            }
        }
    };
    Ok(Opened {
        log,
        facts,
        _lock: lock,
    })
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("LOCK");
    let shown = path.display();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by another process: one node is one process; end that one, or choose another --node or --data",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {shown}")),
    }
}

fn text_of(owner: Owner<'_>) -> String {
    format!(
        "{TITLE}{VERSION}\n{}node = {}\nkeeps = {}\n",
        owner.cluster.agreed(),
        owner.node,
        owner.keeps.name()
    )
}

/// Whether a folder that says `found` belongs to a replica that would say `expected`.
fn check(folder: &Path, found: &str, expected: &str) -> anyhow::Result<()> {
    if found == expected {
        return Ok(());
    }
    let shown = folder.display();
    let version = found.lines().next().and_then(|line| line.strip_prefix(TITLE));
    match version.and_then(|version| version.trim().parse::<u32>().ok()) {
        Some(VERSION) => {}
        Some(version) if version > VERSION => bail!(
            "{shown}/{NAME} is of version {version}, and this dplab knows {VERSION}: it was written by a newer one; use that"
        ),
        _ => bail!("{shown}/{NAME} is not what dplab writes: is {shown} another program's folder?"),
    }
    let differences: Vec<String> = expected
        .lines()
        .filter(|line| !found.lines().any(|other| other == *line))
        .map(|line| {
            let name = line.split(" = ").next().unwrap_or(line);
            let theirs = found.lines().find(|other| other.split(" = ").next() == Some(name));
            format!("there `{}`, here `{line}`", theirs.unwrap_or("nothing"))
        })
        .collect();
    bail!(
        "{shown} belongs to another replica, or the cluster file has changed in what must stay: {}. Choose another --data, or \
         correct the file; members are changed by `dplab kv add-node` and `remove-node`",
        differences.join("; ")
    );
}

/// A folder that is not empty and does not say whose it is, is not ours to write into.
fn refuse_strange(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {shown}"))? {
        let name = entry.with_context(|| format!("listing {shown}"))?.file_name();
        // What an earlier start leaves that ended before it wrote the text.
        if name != "LOCK" && name != UNFINISHED {
            bail!(
                "{shown} holds {}, and no {NAME} that says whose it is: choose an empty folder for --data",
                name.display()
            );
        }
    }
    Ok(())
}

const UNFINISHED: &str = "REPLICA.unfinished";

fn write_durably(folder: &Path, text: &str) -> io::Result<()> {
    let unfinished = folder.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(NAME))?;
    File::open(folder)?.sync_all()?;
    // The folder's own name, too: a memory replica that loses it in a crash would not know that it has run.
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("dplab-folder-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn cluster(more: &str) -> Cluster {
        let text = format!("cluster = c\nnode 1 = 127.0.0.1:7101\nnode 2 = 127.0.0.1:7102\n{more}");
        Cluster::parse(&text).expect("sound")
    }

    fn owner(cluster: &Cluster, node: u32, keeps: Keeps) -> Owner<'_> {
        Owner { cluster, node, keeps }
    }

    fn refusal(folder: &Path, owner: Owner<'_>) -> String {
        match open(folder, owner, Engine::File) {
            Ok(_) => panic!("it was opened"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_folder_is_one_replicas_and_one_processs() {
        let (scratch, cluster) = (Scratch::new("own"), cluster(""));
        let first = open(&scratch.0, owner(&cluster, 1, Keeps::Durable), Engine::File).expect("new");
        assert!(refusal(&scratch.0, owner(&cluster, 1, Keeps::Durable)).contains("in use"));
        drop(first);
        open(&scratch.0, owner(&cluster, 1, Keeps::Durable), Engine::File).expect("its own");
        let other = refusal(&scratch.0, owner(&cluster, 2, Keeps::Durable));
        assert!(other.contains("there `node = 1`, here `node = 2`"), "{other}");
        let other = refusal(&scratch.0, owner(&cluster, 1, Keeps::Memory));
        assert!(other.contains("there `keeps = durable`"), "{other}");
        let changed = self::cluster("frame-bytes = 8972\n");
        let other = refusal(&scratch.0, owner(&changed, 1, Keeps::Durable));
        assert!(other.contains("frame-bytes = 1472"), "{other}");
    }

    #[test]
    fn a_new_log_has_its_spares_and_an_old_one_is_given_no_more() {
        let (scratch, cluster) = (Scratch::new("spares"), cluster(""));
        for _ in 0..2 {
            drop(open(&scratch.0, owner(&cluster, 1, Keeps::Durable), Engine::File).expect("its own"));
            let files = fs::read_dir(scratch.0.join("wal")).expect("made");
            let lens_bytes = files.map(|file| file.and_then(|file| file.metadata()).expect("it is there").len());
            let segments_count = lens_bytes.filter(|&bytes| bytes == 16 << 20).count();
            assert_eq!(segments_count, 1 + SPARE_COUNT as usize);
        }
    }

    #[test]
    fn a_memory_replica_runs_once() {
        let (scratch, cluster) = (Scratch::new("memory"), cluster(""));
        drop(open(&scratch.0, owner(&cluster, 1, Keeps::Memory), Engine::File).expect("new"));
        let second = refusal(&scratch.0, owner(&cluster, 1, Keeps::Memory));
        assert!(
            second.contains("vote twice") && second.contains("remove-node 1"),
            "{second}"
        );
    }

    #[test]
    fn newer_and_strange_folders_are_left_alone() {
        let (scratch, cluster) = (Scratch::new("strange"), cluster(""));
        fs::create_dir_all(&scratch.0).expect("ours");
        fs::write(scratch.0.join("thesis.txt"), "years of work").expect("ours");
        let strange = refusal(&scratch.0, owner(&cluster, 1, Keeps::Durable));
        assert!(strange.contains("thesis.txt"), "{strange}");
        fs::write(scratch.0.join(NAME), "dplab replica 2\n").expect("ours");
        let newer = refusal(&scratch.0, owner(&cluster, 1, Keeps::Durable));
        assert!(newer.contains("version 2") && newer.contains("newer"), "{newer}");
        fs::write(scratch.0.join(NAME), "hello\n").expect("ours");
        assert!(refusal(&scratch.0, owner(&cluster, 1, Keeps::Durable)).contains("not what dplab writes"));
    }
}
