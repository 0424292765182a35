//! A folder as a power loss may leave it: everything that was flushed, and of the rest any subset of its 512-byte sectors.
//!
//! Names and lengths are taken to survive in the order in which they were made, which is kinder than some file systems
//! are; lengths that come from writing alone are not: they may or may not have been reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::trace::Op;

/// What a disk writes in one piece, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// What a write does within one sector.
#[derive(Clone, Debug)]
struct Piece {
    op_index: usize,
    at_bytes: u64,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    len_bytes: u64,
    /// Those that were ever written, by number.
    sectors: BTreeMap<u64, [u8; SECTOR_BYTES as usize]>,
    pending: Vec<Piece>,
}

/// All files, at some moment.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    files: BTreeMap<PathBuf, Content>,
    folders: BTreeSet<PathBuf>,
}

impl Content {
    fn put(&mut self, piece: &Piece) {
        let sector = self
            .sectors
            .entry(piece.at_bytes / SECTOR_BYTES)
            .or_insert([0; SECTOR_BYTES as usize]);
        let begin = (piece.at_bytes % SECTOR_BYTES) as usize;
        sector[begin..begin + piece.bytes.len()].copy_from_slice(&piece.bytes);
        self.len_bytes = self.len_bytes.max(piece.at_bytes + piece.bytes.len() as u64);
    }

    fn cut(&mut self, len_bytes: u64) {
        self.len_bytes = len_bytes;
        self.pending.retain(|piece| piece.at_bytes < len_bytes);
        self.sectors.retain(|&sector, _| sector * SECTOR_BYTES < len_bytes);
        let rest = (len_bytes % SECTOR_BYTES) as usize;
        if let Some(sector) = self.sectors.get_mut(&(len_bytes / SECTOR_BYTES)) {
            sector[rest..].fill(0);
        }
    }
}

impl Folder {
    /// What operation number `op_index` does to it.
    pub fn apply(&mut self, op_index: usize, op: &Op) {
        match op {
            Op::Create(file) => drop(self.files.entry(file.clone()).or_default()),
            Op::Folder(folder) => drop(self.folders.insert(folder.clone())),
            Op::Write { file, at_bytes, bytes } => {
                let content = self.files.entry(file.clone()).or_default();
                let (mut at_bytes, mut rest) = (*at_bytes, &bytes[..]);
                while !rest.is_empty() {
                    let room = (SECTOR_BYTES - at_bytes % SECTOR_BYTES) as usize;
                    let (piece, behind) = rest.split_at(room.min(rest.len()));
                    content.pending.push(Piece {
                        op_index,
                        at_bytes,
                        bytes: piece.to_vec(),
                    });
                    at_bytes += piece.len() as u64;
                    rest = behind;
                }
            }
            Op::Length { file, len_bytes, exact } => {
                let content = self.files.entry(file.clone()).or_default();
                match exact {
                    true => content.cut(*len_bytes),
                    false => content.len_bytes = content.len_bytes.max(*len_bytes),
                }
            }
            Op::Sync { file, ops_count } => {
                if let Some(content) = self.files.get_mut(file) {
                    let (done, pending) = std::mem::take(&mut content.pending)
                        .into_iter()
                        .partition::<Vec<_>, _>(|piece| piece.op_index < *ops_count);
                    done.iter().for_each(|piece| content.put(piece));
                    content.pending = pending;
                }
            }
            Op::Rename(from, to) => {
                if let Some(content) = self.files.remove(from) {
                    self.files.insert(to.clone(), content);
                }
            }
            Op::Remove(file) => drop(self.files.remove(file)),
            Op::Acknowledged(_) => {}
        }
    }

    /// How many sectors are not flushed.
    pub fn pending_count(&self) -> usize {
        self.files.values().map(|content| content.pending.len()).sum()
    }

    /// As it is after a power loss: `keep` says of each unflushed sector whether it made it, `grow` of each file whether its
    /// length did.
    pub fn lose(&self, mut keep: impl FnMut() -> bool, mut grow: impl FnMut() -> bool) -> Folder {
        let mut after = self.clone();
        for content in after.files.values_mut() {
            let pending = std::mem::take(&mut content.pending);
            let reached = pending
                .iter()
                .map(|piece| piece.at_bytes + piece.bytes.len() as u64)
                .max();
            for piece in pending {
                if keep() {
                    content.put(&piece);
                }
            }
            if grow() {
                content.len_bytes = content.len_bytes.max(reached.unwrap_or_default());
            }
        }
        after
    }

    /// How many bytes stand in sectors that are not all zeros: a log that is made of zeros beforehand has little to lose there.
    pub fn written_bytes(&self) -> u64 {
        let sectors = self.files.values().flat_map(|content| content.sectors.values());
        sectors.filter(|sector| is_written(sector)).count() as u64 * SECTOR_BYTES
    }

    /// Flips a bit of the `index`th of those bytes. `false` if it lies behind the file's end.
    pub fn flip(&mut self, index: u64, bit: u8) -> bool {
        let mut sectors = self.files.values_mut().flat_map(|content| {
            let len_bytes = content.len_bytes;
            content
                .sectors
                .iter_mut()
                .filter(|(_, sector)| is_written(sector))
                .map(move |(&number, sector)| (number, sector, len_bytes))
        });
        let Some((number, sector, len_bytes)) = sectors.nth((index / SECTOR_BYTES) as usize) else {
            return false;
        };
        let within = index % SECTOR_BYTES;
        sector[within as usize] ^= 1 << bit;
        number * SECTOR_BYTES + within < len_bytes
    }

    /// Makes it in `path`, which is made.
    ///
    /// # Errors
    /// The file system's.
    pub fn make(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        for folder in &self.folders {
            fs::create_dir_all(path.join(folder)).with_context(|| format!("making {}", folder.display()))?;
        }
        for (name, content) in &self.files {
            let path = path.join(name);
            let write = || -> std::io::Result<()> {
                let file = File::create(&path)?;
                for (number, sector) in &content.sectors {
                    file.write_all_at(sector, number * SECTOR_BYTES)?;
                }
                file.set_len(content.len_bytes)
            };
            write().with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

fn is_written(sector: &[u8; SECTOR_BYTES as usize]) -> bool {
    sector.iter().any(|&byte| byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_go() {
        let file = PathBuf::from("log");
        let write = |at_bytes, byte, len| Op::Write {
            file: file.clone(),
            at_bytes,
            bytes: vec![byte; len],
        };
        let mut folder = Folder::default();
        folder.apply(0, &write(0, 1, 600));
        let sync = Op::Sync {
            file: file.clone(),
            ops_count: 1,
        };
        folder.apply(1, &sync);
        folder.apply(2, &write(600, 2, 1000));
        assert_eq!(folder.pending_count(), 3);

        let lost = folder.lose(|| false, || false);
        let content = &lost.files[&file];
        assert_eq!((content.len_bytes, content.sectors.len()), (600, 2));
        assert_eq!(content.sectors[&1][87..89], [1, 0]);
        let grown = folder.lose(|| false, || true);
        assert_eq!(grown.files[&file].len_bytes, 1600);
        let kept = folder.lose(|| true, || false);
        let content = &kept.files[&file];
        assert_eq!((content.len_bytes, content.sectors.len()), (1600, 4));
        assert_eq!(content.sectors[&1][87..89], [1, 2]);
        let mut turn = 0;
        let torn = folder.lose(
            || {
                turn += 1;
                turn == 2
            },
            || false,
        );
        assert_eq!(torn.files[&file].sectors.keys().collect::<Vec<_>>(), [&0, &1, &2]);
    }

    #[test]
    fn a_cut_file_forgets() {
        let file = PathBuf::from("log");
        let mut folder = Folder::default();
        folder.apply(
            0,
            &Op::Write {
                file: file.clone(),
                at_bytes: 0,
                bytes: vec![9; 1024],
            },
        );
        folder.apply(
            1,
            &Op::Sync {
                file: file.clone(),
                ops_count: 1,
            },
        );
        let cut = |len_bytes| Op::Length {
            file: file.clone(),
            len_bytes,
            exact: true,
        };
        folder.apply(2, &cut(100));
        folder.apply(3, &cut(1024));
        let content = &folder.files[&file];
        assert_eq!(content.sectors.keys().collect::<Vec<_>>(), [&0]);
        assert_eq!(content.sectors[&0][99..101], [9, 0]);
    }
}
