//! Opening a log: look at the folder, refuse what is not ours, read what is there, make it durable.

use crate::{
    error::{WalError, is_foreign},
    format::{Cut, FileHeader, SECTOR_BYTES, VERSION, file_version},
    replay::Standing,
    report::{Finding, FindingKind, Report},
    scan::{Walked, segment_index, segment_name, walk},
    snapshot::{self, SnapshotFile, SnapshotId, UNFINISHED},
    state::{Kept, Page, STATE_NAME, StateFile},
    storage::{FileId, OpenFor, Storage},
    witness::Witness,
};

/// What a log needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// The cluster whose log it is. A log of another one is refused.
    pub cluster: u64,
    /// The length of a segment file in bytes; a multiple of 4096. Files are written once before they are used, so that a
    /// commit never has to allocate, and used again when a snapshot has made them worthless.
    pub segment_bytes: u64,
    /// A commit that would become longer is given to the disk without waiting for `sync`, in bytes. As much memory is
    /// taken for each commit under way. A single entry may be longer.
    pub buffer_bytes: usize,
    /// How many unused segment files there are to be after opening, so that none has to be made later. Making one takes
    /// as long as writing it.
    pub spare_count: u32,
    /// How many commits may be under way at once, where the engine takes several. What is synced while so many are shares the
    /// next one (group commit).
    pub under_way_max: usize,
}

impl WalOptions {
    /// Segments of 16 MiB, commits of up to 256 KiB, as many under way as the engine takes.
    pub fn new(cluster: u64) -> WalOptions {
        WalOptions {
            cluster,
            segment_bytes: 16 << 20,
            buffer_bytes: 256 << 10,
            spare_count: 0,
            under_way_max: usize::MAX,
        }
    }

    fn check(&self) -> Result<(), WalError> {
        let (segment_bytes, buffer_bytes) = (self.segment_bytes, self.buffer_bytes);
        if !segment_bytes.is_multiple_of(4096) || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
            return Err(WalError::Options(format!(
                "segments of {segment_bytes} bytes: they must have a multiple of 4096, from {SEGMENT_BYTES_MIN} to \
                 {SEGMENT_BYTES_MAX}"
            )));
        }
        if buffer_bytes < 4096 || buffer_bytes as u64 > segment_bytes / 2 || buffer_bytes > 8 << 20 {
            return Err(WalError::Options(format!(
                "commits of up to {buffer_bytes} bytes: they must have at least 4096, and at most half a segment ({}) \
                 or 8 MiB",
                segment_bytes / 2
            )));
        }
        if self.under_way_max == 0 {
            return Err(WalError::Options(
                "no commit may be under way, so none would ever be: allow at least one".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Below this, headers would be most of it.
const SEGMENT_BYTES_MIN: u64 = 32 << 10;
/// A sector's number in its file has 32 bits, and a file is read as a whole.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

pub(crate) struct Opened {
    pub(crate) walked: Walked,
    pub(crate) state_file: FileId,
    pub(crate) report: Report,
    /// Above every number that any commit had, also one that cannot be read.
    pub(crate) next_lsn: u64,
    /// What has been overwritten.
    pub(crate) cut: Cut,
    /// The same behind the next commit. What is there behind the end was given up: that commit says it by the end that it names,
    /// and those behind it to whoever misses it and does not know the witness, because a later one has replaced it.
    pub(crate) cut_next: Cut,
    /// Files that hold nothing of value.
    pub(crate) free: Vec<u32>,
    /// Above the highest index in use.
    pub(crate) files_count: u32,
}

/// The folder's files, by kind.
pub(crate) struct Files {
    pub(crate) segments: Vec<(u32, u64)>,
    pub(crate) snapshots: Vec<(SnapshotId, u64)>,
    pub(crate) unfinished: Vec<String>,
}

pub(crate) fn files(storage: &mut dyn Storage) -> Result<Files, WalError> {
    let listed = storage.list();
    let mut files = Files {
        segments: Vec::new(),
        snapshots: Vec::new(),
        unfinished: Vec::new(),
    };
    for (name, len_bytes) in listed.map_err(WalError::io(format!("listing {}", storage.place())))? {
        if let Some(file_index) = segment_index(&name) {
            files.segments.push((file_index, len_bytes));
        } else if let Some(id) = SnapshotId::of_name(&name) {
            files.snapshots.push((id, len_bytes));
        } else if name.ends_with(UNFINISHED) {
            files.unfinished.push(name);
        }
    }
    files.segments.sort_unstable();
    files.snapshots.sort_unstable();
    Ok(files)
}

/// What is there.
pub(crate) struct Read {
    pub(crate) walked: Walked,
    pub(crate) state_file: StateFile,
}

/// Reads what is there; writes nothing.
pub(crate) fn read(storage: &mut dyn Storage, options: &WalOptions) -> Result<Read, WalError> {
    let files = files(storage)?;
    refuse_foreign(storage, &files, options.cluster)?;
    let place = storage.place();
    let state_file =
        StateFile::read(storage, options.cluster).map_err(WalError::io(format!("reading {place}/{STATE_NAME}")))?;
    let witness = state_file.newest().and_then(|kept| kept.witness);
    let mut walked =
        walk(storage, &files.segments, options.cluster, witness).map_err(WalError::io(format!("reading {place}")))?;
    if settle_state(&mut walked, &state_file) {
        return Err(WalError::StateLost {
            place,
            report: walked.report.to_string(),
        });
    }
    if let Some(standing) = walked.replay.snapshot {
        let is_it = |id: SnapshotId| {
            id.end == standing.end && standing.generation.is_none_or(|generation| generation == id.generation)
        };
        let newest = files.snapshots.iter().map(|&(id, _)| id).max_by_key(|id| id.generation);
        if !files.snapshots.iter().any(|&(id, _)| is_it(id))
            && let Some(newest) = newest.filter(|newest| newest.end >= standing.end)
        {
            // It was removed because a newer one stood, and the record that says so is damaged.
            walked.replay.adopt(newest.end, newest.generation);
        }
    }
    if let Some(standing) = walked.replay.snapshot {
        // Its last term may be lost with the record of it; its file says it too.
        let (id, snapshot) = read_snapshot(storage, options, standing)?;
        walked.replay.snapshot = Some(Standing {
            end: id.end,
            last_term: snapshot.last_term,
            generation: Some(id.generation),
        });
    }
    let replay = &walked.replay;
    walked.report.damaged_slots = replay.damage.map(|damage| (replay.end(), damage.end));
    Ok(Read { walked, state_file })
}

/// Which state counts: the log's, or one that the file of the state alone still tells. True: a later one may be lost.
fn settle_state(walked: &mut Walked, file: &StateFile) -> bool {
    let replay = &mut walked.replay;
    match file.newest() {
        Some(kept) => {
            walked.max_lsn = walked.max_lsn.max(kept.lsn);
            if kept.states_count > replay.states_count {
                replay.states_count = kept.states_count;
                replay.state.clone_from(&kept.state);
                walked.report.findings.push(Finding {
                    file: STATE_NAME.to_owned(),
                    at_bytes: 0,
                    lsn: Some(kept.lsn),
                    slot: None,
                    kind: FindingKind::StateAhead,
                });
            }
        }
        // A log that is whole tells the state itself; an old one has no such file.
        None if walked.is_end_in_doubt || file.is_there && walked.report.commits_count == 0 => return true,
        None => {}
    }
    let is_missing = !file.is_there && walked.version_max > 1;
    walked.report.findings.extend(file.findings(is_missing));
    replay.is_state_lost()
}

pub(crate) fn open(storage: &mut dyn Storage, options: &WalOptions) -> Result<Opened, WalError> {
    options.check()?;
    let align_bytes = storage.align_bytes();
    if !align_bytes.is_multiple_of(SECTOR_BYTES) || align_bytes > 4096 {
        return Err(WalError::Options(format!(
            "{} wants writes aligned to {align_bytes} bytes; this log writes in units of 512 to 4096: use the engine \
             `file`, which leaves that to the kernel",
            storage.place()
        )));
    }
    let Read { walked, state_file } = read(storage, options)?;
    let files = files(storage)?;
    let place = storage.place();
    for &(file_index, len_bytes) in &files.segments {
        if len_bytes != options.segment_bytes {
            let name = segment_name(file_index);
            return Err(WalError::Options(format!(
                "{place}/{name} has {len_bytes} bytes, and segments are to have {}: open the log with the size it was \
                 made with; a file that has become shorter must come from a copy or from the other replicas",
                options.segment_bytes
            )));
        }
    }
    // What was read may so far be in a cache alone, and is about to be called durable.
    for live in &walked.live {
        let name = segment_name(live.file_index);
        let synced = storage.open(&name, OpenFor::Use).and_then(|file| {
            let synced = storage.sync(file);
            storage.close(file);
            synced
        });
        synced.map_err(WalError::io(format!("making {name} durable")))?;
    }
    let (witness, next_lsn) = conclude(&walked, state_file.newest());
    let remove = |storage: &mut dyn Storage, name: &str| {
        let removed = storage.remove(name);
        removed.map_err(WalError::io(format!("removing {place}/{name}, which nothing needs")))
    };
    // Before the state's file is mended, which may take the place of one that was left unfinished.
    for name in &files.unfinished {
        remove(storage, name)?;
    }
    let page = Page {
        states_count: walked.replay.states_count,
        state: walked.replay.state.as_deref(),
        witness: &witness,
    };
    let state_file = state_file
        .mend(storage, options.cluster, page)
        .map_err(WalError::io(format!("making {place}/{STATE_NAME} hold the state")))?;
    raise_versions(storage, &files)?;
    wipe(storage, &walked)?;
    let stands = |id: SnapshotId| {
        let standing = walked.replay.snapshot;
        standing.is_some_and(|standing| (standing.end, standing.generation) == (id.end, Some(id.generation)))
    };
    let stale = files.snapshots.iter().filter(|&&(id, _)| !stands(id));
    for &(id, _) in stale {
        remove(storage, &id.name())?;
    }
    storage
        .sync_folder()
        .map_err(WalError::io(format!("making the names in {place} durable")))?;
    let is_live = |file_index: u32| walked.live.iter().any(|live| live.file_index == file_index);
    // A file with damage is not written again before somebody has looked at it.
    let is_damaged = |file_index: u32| {
        let name = segment_name(file_index);
        let mut findings = walked.report.findings.iter();
        findings.any(|finding| finding.file == name && finding.kind != FindingKind::TornEnd)
    };
    let indices = files.segments.iter().map(|&(file_index, _)| file_index);
    let free = indices
        .clone()
        .filter(|&file_index| !is_live(file_index) && !is_damaged(file_index))
        .collect();
    let cut = walked.replay.cut;
    Ok(Opened {
        state_file,
        report: walked.report.clone(),
        next_lsn,
        cut,
        cut_next: match is_damaged_anywhere(&walked.report) {
            true => cut.at(witness.lsn, witness.shape.end),
            false => cut,
        },
        walked,
        free,
        files_count: indices.max().map_or(0, |last| last + 1),
    })
}

/// How far above the highest number that can be read a log goes on if not everything can be: no disk has so many sectors
/// damaged that each held a commit.
const LSN_SKIP: u64 = 1 << 16;

/// The witness that is to stand, and the number of the next commit. Later readers, to whom other sectors may be damaged, find no
/// other log than this one behind what was there; so whatever was not as it should be makes a new witness.
fn conclude(walked: &Walked, kept: Option<&Kept>) -> (Witness, u64) {
    let is_odd = walked.is_witness_void || !walked.report.findings.is_empty();
    // A damaged sector may have held a number that nobody can read any more.
    let lsn = walked.max_lsn + if is_odd { LSN_SKIP } else { 0 };
    let concluded = Witness {
        lsn,
        last_lsn: walked.last_lsn,
        live_lsn: walked.live.first().map_or(0, |live| live.first_lsn),
        file_index: walked.end.map_or(0, |(file_index, _)| file_index),
        shape: walked.replay.shape(),
    };
    let standing = kept.and_then(|kept| kept.witness).filter(|_| !is_odd);
    (standing.unwrap_or(concluded), lsn + 1)
}

/// Whether anything cannot be read that was once written.
fn is_damaged_anywhere(report: &Report) -> bool {
    let is_unread = |kind: &FindingKind| match kind {
        FindingKind::Damaged { .. }
        | FindingKind::MissingCommits { .. }
        | FindingKind::DamagedUnused
        | FindingKind::FileHeader(_) => true,
        FindingKind::TornEnd | FindingKind::StateCopy | FindingKind::StateAhead => false,
    };
    report.findings.iter().any(|finding| is_unread(&finding.kind))
}

/// Takes away what was cut off: nobody was told that it was kept.
fn wipe(storage: &mut dyn Storage, walked: &Walked) -> Result<(), WalError> {
    for (file_index, sectors) in &walked.dead {
        let name = segment_name(*file_index);
        let zeros = vec![0; sectors.len() * SECTOR_BYTES];
        let wiped = storage.open(&name, OpenFor::Use).and_then(|file| {
            let written = storage.write_at(file, (sectors.start * SECTOR_BYTES) as u64, &zeros);
            let synced = written.and_then(|()| storage.sync(file));
            storage.close(file);
            synced
        });
        wiped.map_err(WalError::io(format!("wiping the torn end of {name}")))?;
    }
    Ok(())
}

/// Files of an older format become such of this one, so that no older build goes on with the log and leaves the file of the
/// state as it is.
fn raise_versions(storage: &mut dyn Storage, files: &Files) -> Result<(), WalError> {
    for &(file_index, _) in &files.segments {
        let name = segment_name(file_index);
        let mut raise = || {
            let mut sector = [0; SECTOR_BYTES];
            let file = storage.open(&name, OpenFor::Use)?;
            // A header that cannot be read stays as it is: it is among the findings.
            let raised = match storage.read_at(file, 0, &mut sector) {
                Ok(SECTOR_BYTES) => match FileHeader::parse(&sector) {
                    Ok(header) if file_version(&sector) < VERSION => {
                        header.emit(&mut sector);
                        storage.write_at(file, 0, &sector).and_then(|()| storage.sync(file))
                    }
                    _ => Ok(()),
                },
                Ok(_) => Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
                Err(error) => Err(error),
            };
            storage.close(file);
            raised
        };
        raise().map_err(WalError::io(format!("raising the format version of {name}")))?;
    }
    Ok(())
}

fn refuse_foreign(storage: &mut dyn Storage, files: &Files, cluster: u64) -> Result<(), WalError> {
    for &(file_index, _) in &files.segments {
        let file = segment_name(file_index);
        let mut sector = [0; SECTOR_BYTES];
        let read = storage.open(&file, OpenFor::Use).and_then(|id| {
            let read = storage.read_at(id, 0, &mut sector);
            storage.close(id);
            read
        });
        // A device that cannot read the header may still read the rest: the walk judges that.
        match read {
            Ok(SECTOR_BYTES) => {}
            Ok(_) => continue,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => continue,
            Err(error) => return Err(WalError::io(format!("reading {}/{file}", storage.place()))(error)),
        }
        match FileHeader::parse(&sector) {
            Ok(header) if header.cluster != cluster => {
                return Err(WalError::OtherCluster {
                    place: storage.place(),
                    file,
                    found: header.cluster,
                    expected: cluster,
                });
            }
            Err(fault) if is_foreign(fault) => {
                let place = storage.place();
                return Err(WalError::Unreadable { place, file, fault });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads the snapshot that stands.
pub(crate) fn read_snapshot(
    storage: &mut dyn Storage,
    options: &WalOptions,
    standing: Standing,
) -> Result<(SnapshotId, SnapshotFile), WalError> {
    let place = storage.place();
    let files = files(storage)?;
    let is_it = |id: SnapshotId| {
        id.end == standing.end && standing.generation.is_none_or(|generation| generation == id.generation)
    };
    let Some(&(id, len_bytes)) = files.snapshots.iter().rfind(|&&(id, _)| is_it(id)) else {
        let id = SnapshotId {
            end: standing.end,
            generation: standing.generation.unwrap_or(0),
        };
        return Err(WalError::Snapshot {
            place,
            file: id.name(),
            what: "it is not there".into(),
        });
    };
    let file = id.name();
    let read = snapshot::read(storage, options.cluster, id, len_bytes);
    match read.map_err(WalError::io(format!("reading {place}/{file}")))? {
        Ok(snapshot) => Ok((id, snapshot)),
        Err(what) => Err(WalError::Snapshot { place, file, what }),
    }
}
