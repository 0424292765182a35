//! Makes a segment file beside everything else: a thread that writes zeros from end to end, so that no append has to wait for that.
//!
//! It gives the device little at a time and makes that durable before it goes on: a flush of the log's own waits for all that
//! the device holds, and behind 16 MiB of zeros it would wait for as long as if the log wrote them itself.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{buffer::Buffer, snapshot::UNFINISHED};

/// Written and made durable at once. Larger pieces hold the log's flushes up for longer; smaller ones take more flushes for a file.
const PIECE_BYTES: usize = 256 << 10;

/// A file that is being made, or none.
#[derive(Debug, Default)]
pub(super) struct Maker {
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    thread: JoinHandle<io::Result<()>>,
    is_unwanted: Arc<AtomicBool>,
}

/// Which file.
#[derive(Debug)]
pub(super) struct Make {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) head: Vec<u8>,
    pub(super) len_bytes: u64,
    /// Past the page cache.
    pub(super) is_direct: bool,
}

impl Maker {
    /// Starts.
    ///
    /// # Panics
    /// If one is under way.
    pub(super) fn start(&mut self, make: Make) -> io::Result<()> {
        assert!(self.under_way.is_none(), "one file at a time");
        let is_unwanted = Arc::new(AtomicBool::new(false));
        let seen = is_unwanted.clone();
        let thread = thread::Builder::new()
            .name("dplab-wal-make".to_owned())
            .spawn(move || make.run(&seen))?;
        self.under_way = Some(UnderWay { thread, is_unwanted });
        Ok(())
    }

    /// What has become of it; with `wait`, waits for that. `None`: nothing is under way, or it still is.
    pub(super) fn made(&mut self, wait: bool) -> Option<io::Result<()>> {
        let under_way = self
            .under_way
            .take_if(|under_way| wait || under_way.thread.is_finished())?;
        let joined = under_way.thread.join();
        Some(joined.unwrap_or_else(|_| Err(io::Error::other("the thread that makes a segment file panicked"))))
    }
}

/// Nobody waits for a file that nobody wants any more, but for the piece that is being written.
impl Drop for Maker {
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            under_way.is_unwanted.store(true, Ordering::Relaxed);
            // What it says concerns nobody.
            let _ = under_way.thread.join();
        }
    }
}

impl Make {
    fn run(&self, is_unwanted: &AtomicBool) -> io::Result<()> {
        let unfinished = self.folder.join(format!("{}{UNFINISHED}", self.name));
        let written = self
            .write(&unfinished, is_unwanted)
            .and_then(|is_whole| match is_whole {
                true => std::fs::rename(&unfinished, self.folder.join(&self.name)).map(|()| true),
                false => Ok(false),
            });
        match written {
            Ok(true) => File::open(&self.folder)?.sync_all(),
            other => {
                // Of no use to anybody, and the space may be what is wanted.
                let _ = std::fs::remove_file(&unfinished);
                other.map(drop)
            }
        }
    }

    /// False: it is wanted no more.
    fn write(&self, path: &Path, is_unwanted: &AtomicBool) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        if self.is_direct {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(path)?;
        let mut piece = Buffer::zeroed(PIECE_BYTES.min(self.len_bytes as usize));
        piece.bytes_mut()[..self.head.len()].copy_from_slice(&self.head);
        let mut at_bytes = 0;
        while at_bytes < self.len_bytes {
            if is_unwanted.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let len_bytes = (self.len_bytes - at_bytes).min(piece.bytes().len() as u64);
            file.write_all_at(&piece.bytes()[..len_bytes as usize], at_bytes)?;
            file.sync_data()?;
            piece.bytes_mut()[..self.head.len()].fill(0);
            at_bytes += len_bytes;
        }
        file.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(name: &str) -> Make {
        let folder = std::env::temp_dir().join(format!("dplab-wal-maker-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        Make {
            folder,
            name: "file".to_owned(),
            head: b"head".to_vec(),
            len_bytes: (PIECE_BYTES + 8192) as u64,
            is_direct: false,
        }
    }

    #[test]
    fn a_file_is_under_its_name_when_it_is_whole() {
        let make = make("whole");
        let folder = make.folder.clone();
        let len_bytes = make.len_bytes;
        let mut maker = Maker::default();
        assert!(maker.made(true).is_none(), "nothing is under way");
        maker.start(make).expect("a thread");
        maker.made(true).expect("it was under way").expect("the disk is well");
        assert!(maker.made(true).is_none());
        let bytes = std::fs::read(folder.join("file")).expect("it is there");
        assert_eq!(bytes.len() as u64, len_bytes);
        assert!(bytes.starts_with(b"head") && bytes[4..].iter().all(|&byte| byte == 0));
        let names: Vec<_> = std::fs::read_dir(&folder).expect("it is there").collect();
        assert_eq!(names.len(), 1);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn nothing_is_left_of_one_that_nobody_wants_or_that_fails() {
        let mut unwanted = make("unwanted");
        unwanted.len_bytes = 1 << 30;
        let folder = unwanted.folder.clone();
        let mut maker = Maker::default();
        maker.start(unwanted).expect("a thread");
        drop(maker);
        assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 0);
        let mut nowhere = make("unwanted");
        nowhere.folder.push("nowhere");
        let mut maker = Maker::default();
        maker.start(nowhere).expect("a thread");
        let error = maker.made(true).expect("it was under way").expect_err("no such folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
