//! Snapshots: a file each, whole or not there. It is written under another name, made durable and renamed; the log's
//! record that it stands comes after that.

use std::{io, ops::Range, sync::Arc};

use dataplane_wire::checksum::crc32c;

use crate::storage::{OpenFor, Storage};

const MAGIC: [u8; 8] = *b"DPLABSNP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;

const FILE_MAGIC: Range<usize> = 0..8;
const FILE_VERSION: Range<usize> = 8..10;
const CLUSTER: Range<usize> = 16..24;
const END: Range<usize> = 24..32;
const LAST_TERM: Range<usize> = 32..40;
const LEN: Range<usize> = 40..48;
const GENERATION: Range<usize> = 48..56;
const BYTES_CRC: Range<usize> = 56..60;
const HEADER_CRC: Range<usize> = 60..64;

/// What the names of unfinished files end in; they are removed when a log is opened.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Which snapshot: two with the same end differ in their generation, so that the one that stands is never replaced
/// before the log says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SnapshotId {
    pub(crate) end: u64,
    /// The number of the commit that was about to be written when the file was.
    pub(crate) generation: u64,
}

impl SnapshotId {
    pub(crate) fn name(self) -> String {
        format!("snapshot-{:020}-{:020}", self.end, self.generation)
    }

    /// What a file's name says.
    pub(crate) fn of_name(name: &str) -> Option<SnapshotId> {
        let (end, generation) = name.strip_prefix("snapshot-")?.split_once('-')?;
        let id = SnapshotId {
            end: end.parse().ok()?,
            generation: generation.parse().ok()?,
        };
        (id.name() == name).then_some(id)
    }
}

pub(crate) struct SnapshotFile {
    pub(crate) last_term: u64,
    pub(crate) bytes: Arc<[u8]>,
}

/// Writes it; it is durable afterwards.
pub(crate) fn write(
    storage: &mut dyn Storage,
    cluster: u64,
    id: SnapshotId,
    last_term: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    header[FILE_MAGIC].copy_from_slice(&MAGIC);
    header[FILE_VERSION].copy_from_slice(&VERSION.to_be_bytes());
    header[CLUSTER].copy_from_slice(&cluster.to_be_bytes());
    header[END].copy_from_slice(&id.end.to_be_bytes());
    header[GENERATION].copy_from_slice(&id.generation.to_be_bytes());
    header[LAST_TERM].copy_from_slice(&last_term.to_be_bytes());
    header[LEN].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
    header[BYTES_CRC].copy_from_slice(&crc32c(bytes).to_be_bytes());
    let crc = crc32c(&header[..HEADER_CRC.start]);
    header[HEADER_CRC].copy_from_slice(&crc.to_be_bytes());

    let name = id.name();
    let unfinished = format!("{name}{UNFINISHED}");
    let file = storage.open(&unfinished, OpenFor::Create)?;
    let written = storage
        .write_at(file, 0, &header)
        .and_then(|()| storage.write_at(file, HEADER_BYTES as u64, bytes))
        .and_then(|()| storage.sync(file));
    storage.close(file);
    written?;
    storage.rename(&unfinished, &name)?;
    storage.sync_folder()
}

/// Reads it. The inner error says what is wrong with the file; the outer one is the device's.
pub(crate) fn read(
    storage: &mut dyn Storage,
    cluster: u64,
    id: SnapshotId,
    file_bytes: u64,
) -> io::Result<Result<SnapshotFile, String>> {
    let file = storage.open(&id.name(), OpenFor::Use)?;
    let mut all = vec![0; file_bytes as usize];
    let read = storage.read_at(file, 0, &mut all);
    storage.close(file);
    all.truncate(read?);
    Ok(parse(&all, cluster, id))
}

fn parse(all: &[u8], cluster: u64, id: SnapshotId) -> Result<SnapshotFile, String> {
    let Some((header, bytes)) = all.split_at_checked(HEADER_BYTES) else {
        return Err(format!("it ends after {} bytes", all.len()));
    };
    let word = |range: Range<usize>| u64::from_be_bytes(header[range].try_into().expect("eight bytes"));
    if header[FILE_MAGIC] != MAGIC {
        return Err("it does not begin like a snapshot".into());
    }
    if crc32c(&header[..HEADER_CRC.start]).to_be_bytes() != header[HEADER_CRC] {
        return Err("the checksum of its header does not match".into());
    }
    let version = u16::from_be_bytes([header[FILE_VERSION.start], header[FILE_VERSION.start + 1]]);
    if version != VERSION {
        return Err(format!(
            "it has format version {version}, and this build reads version {VERSION}"
        ));
    }
    if (word(CLUSTER), word(END), word(GENERATION)) != (cluster, id.end, id.generation) {
        let (cluster, end) = (word(CLUSTER), word(END));
        return Err(format!("it is cluster {cluster:#x}'s snapshot up to slot {end}"));
    }
    let len = word(LEN);
    if (bytes.len() as u64) < len {
        let found = bytes.len();
        return Err(format!("it ends after {found} of {len} bytes"));
    }
    let bytes = &bytes[..len as usize];
    if crc32c(bytes).to_be_bytes() != header[BYTES_CRC] {
        return Err("its checksum does not match".into());
    }
    Ok(SnapshotFile {
        last_term: word(LAST_TERM),
        bytes: bytes.into(),
    })
}
