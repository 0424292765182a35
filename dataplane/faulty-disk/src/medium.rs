//! The disk itself: bytes, the stream of what was asked of it, and the images that a power loss could leave. No I/O.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// What a device writes wholly or not at all: the smallest logical block in use.
pub const SECTOR_BYTES: usize = 512;

/// The stream is recorded up to so many bytes of writes; more is a mistake of the test's.
const RECORDED_BYTES_MAX: u64 = 512 << 20;

/// What can be asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Bytes from the disk.
    Read,
    /// Bytes to the disk, which may keep them in its cache.
    Write,
    /// Everything written so far to the medium, please.
    Flush,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// A flush that was answered with "done", and was not: the disk lies.
    Ignored,
    /// An error was returned (errno(3)).
    Refused(i32),
}

/// One write or flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where the write begins, in bytes; 0 for a flush.
    pub at_bytes: u64,
    /// What was written; `None` for a flush.
    pub bytes: Option<Vec<u8>>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Which I/O fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind that is counted, and fails; `None`: all of them.
    pub kind: Option<IoKind>,
    /// The number of the one that fails, from 0, counted from when the fault was set.
    pub at_index: u64,
    /// The error (errno(3)).
    pub errno: i32,
    /// Whether all later ones of that kind fail too.
    pub lasts: bool,
}

/// What a power loss left.
#[derive(Clone, Debug)]
pub struct Image {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many sectors were in doubt: written, and in no honoured flush.
    pub doubtful_count: u64,
    /// How many of them reached the medium.
    pub kept_count: u64,
}

/// Bytes, and what was asked of them.
#[derive(Debug)]
pub struct Medium {
    /// As a read sees it.
    bytes: Vec<u8>,
    /// As it was when recording began; all of that is on the medium.
    base: Vec<u8>,
    saved: Option<Vec<u8>>,
    events: Vec<Event>,
    recorded_bytes: u64,
    is_overfull: bool,
    fault: Option<Fault>,
    /// How many of the fault's kind there have been since it was set.
    seen_count: u64,
    failed_count: u64,
    ignores_flushes: bool,
}

impl Medium {
    /// Zeros.
    pub fn new(size_bytes: usize) -> Medium {
        Medium {
            bytes: vec![0; size_bytes],
            base: vec![0; size_bytes],
            saved: None,
            events: Vec::new(),
            recorded_bytes: 0,
            is_overfull: false,
            fault: None,
            seen_count: 0,
            failed_count: 0,
            ignores_flushes: false,
        }
    }

    /// Its length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The writes and flushes since [`Medium::record`].
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Forgets the stream; what is there now is on the medium.
    pub fn record(&mut self) {
        self.base.copy_from_slice(&self.bytes);
        self.events.clear();
        (self.recorded_bytes, self.is_overfull) = (0, false);
    }

    /// Sets the fault, or heals the disk. The count begins anew.
    pub fn set_fault(&mut self, fault: Option<Fault>) {
        (self.fault, self.seen_count, self.failed_count) = (fault, 0, 0);
    }

    /// How many of the fault's kind there have been since it was set, and how many of them failed.
    pub fn fault_counts(&self) -> (u64, u64) {
        (self.seen_count, self.failed_count)
    }

    /// Whether flushes are answered and not done.
    pub fn ignore_flushes(&mut self, ignores: bool) {
        self.ignores_flushes = ignores;
    }

    /// Remembers what is there, for [`Medium::restore`].
    pub fn save(&mut self) {
        self.saved = Some(self.bytes.clone());
    }

    /// What was saved is there again, and on the medium; the stream is forgotten.
    ///
    /// # Errors
    /// Nothing was saved.
    pub fn restore(&mut self) -> Result<(), String> {
        let saved = self.saved.as_ref().ok_or("nothing was saved")?;
        self.bytes.copy_from_slice(saved);
        self.record();
        Ok(())
    }

    /// Other bytes, as if the medium had been exchanged.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn exchange(&mut self, bytes: &[u8]) {
        self.bytes.copy_from_slice(bytes);
        self.record();
    }

    /// The bytes, as a read sees them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads; fewer bytes at the end.
    ///
    /// # Errors
    /// The fault's number.
    pub fn read(&mut self, at_bytes: u64, len_bytes: usize) -> Result<&[u8], i32> {
        self.ask(IoKind::Read)?;
        let begin = (at_bytes as usize).min(self.bytes.len());
        let end = begin.saturating_add(len_bytes).min(self.bytes.len());
        Ok(&self.bytes[begin..end])
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The fault's number; ENOSPC behind the end.
    pub fn write(&mut self, at_bytes: u64, bytes: &[u8]) -> Result<(), i32> {
        let end = (at_bytes as usize).checked_add(bytes.len());
        let Some(end) = end.filter(|&end| end <= self.bytes.len()) else {
            return Err(nix::libc::ENOSPC);
        };
        let outcome = self.ask(IoKind::Write);
        self.note(Event {
            at_bytes,
            bytes: Some(bytes.to_vec()),
            outcome: outcome.map_or_else(Outcome::Refused, |()| Outcome::Done),
        });
        outcome?;
        self.bytes[at_bytes as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    /// Flushes, or says so.
    ///
    /// # Errors
    /// The fault's number.
    pub fn flush(&mut self) -> Result<(), i32> {
        let answer = self.ask(IoKind::Flush);
        let outcome = match answer {
            Err(errno) => Outcome::Refused(errno),
            Ok(()) if self.ignores_flushes => Outcome::Ignored,
            Ok(()) => Outcome::Done,
        };
        self.note(Event {
            at_bytes: 0,
            bytes: None,
            outcome,
        });
        answer
    }

    fn ask(&mut self, kind: IoKind) -> Result<(), i32> {
        let Some(fault) = self
            .fault
            .filter(|fault| fault.kind.is_none_or(|counted| counted == kind))
        else {
            return Ok(());
        };
        let index = self.seen_count;
        self.seen_count += 1;
        if index == fault.at_index || fault.lasts && index > fault.at_index {
            self.failed_count += 1;
            return Err(fault.errno);
        }
        Ok(())
    }

    fn note(&mut self, event: Event) {
        self.recorded_bytes += event.bytes.as_ref().map_or(0, Vec::len) as u64;
        self.is_overfull |= self.recorded_bytes > RECORDED_BYTES_MAX;
        if !self.is_overfull {
            self.events.push(event);
        }
    }

    /// What is on the medium if the power goes after the first `events_count` events.
    ///
    /// Everything up to the last honoured flush is there. Of what was written since, a subset of the sectors drawn from
    /// `seed`, each with the probability `keep_ratio` and each for itself: torn and reordered in every way. A write that
    /// was refused may have reached the medium as well, wholly or in part: an error says nothing about the bytes.
    ///
    /// # Errors
    /// There are not so many events, or more was written than is recorded.
    pub fn image(&self, events_count: usize, seed: u64, keep_ratio: f64) -> Result<Image, String> {
        if self.is_overfull {
            return Err(format!(
                "more than {RECORDED_BYTES_MAX} bytes were written: record shorter pieces"
            ));
        }
        let known = self.events.len();
        let events = self.events.get(..events_count);
        let events = events.ok_or_else(|| format!("{events_count} events asked for, {known} there"))?;
        let is_honoured = |event: &Event| event.bytes.is_none() && event.outcome == Outcome::Done;
        let safe_count = events.iter().rposition(is_honoured).unwrap_or(0);
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut image = Image {
            bytes: self.base.clone(),
            doubtful_count: 0,
            kept_count: 0,
        };
        for (index, event) in events.iter().enumerate() {
            let Some(bytes) = &event.bytes else { continue };
            let at = event.at_bytes as usize;
            if index < safe_count && event.outcome == Outcome::Done {
                image.bytes[at..at + bytes.len()].copy_from_slice(bytes);
                continue;
            }
            for (sector, piece) in bytes.chunks(SECTOR_BYTES).enumerate() {
                image.doubtful_count += 1;
                if rng.random_bool(keep_ratio) {
                    image.kept_count += 1;
                    image.bytes[at + sector * SECTOR_BYTES..][..piece.len()].copy_from_slice(piece);
                }
            }
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: i32 = nix::libc::EIO;

    fn sector(value: u8) -> [u8; SECTOR_BYTES] {
        [value; SECTOR_BYTES]
    }

    #[test]
    fn what_was_flushed_is_in_every_image_and_nothing_else_must_be() {
        let mut medium = Medium::new(4096);
        medium.write(0, &sector(1)).unwrap();
        medium.flush().unwrap();
        medium.write(0, &sector(2)).unwrap();
        medium.write(1024, &[sector(3), sector(4)].concat()).unwrap();
        let none = medium.image(4, 1, 0.0).unwrap();
        assert_eq!((none.doubtful_count, none.kept_count), (3, 0));
        assert_eq!(none.bytes[..512], sector(1));
        let all = medium.image(4, 1, 1.0).unwrap();
        assert_eq!(all.bytes, medium.bytes());
        // A write in doubt is torn between its sectors, and an older one may be missing where a newer one is there.
        let torn = (0..64).map(|seed| medium.image(4, seed, 0.5).unwrap());
        let kinds: std::collections::BTreeSet<[u8; 3]> = torn
            .map(|image| [image.bytes[0], image.bytes[1024], image.bytes[1536]])
            .collect();
        assert_eq!(kinds.len(), 8, "{kinds:?}");
        // The same seed, the same image; before the flush nothing is promised.
        assert_eq!(
            medium.image(4, 7, 0.5).unwrap().bytes,
            medium.image(4, 7, 0.5).unwrap().bytes
        );
        assert_eq!(medium.image(1, 0, 0.0).unwrap().bytes[..512], sector(0));
        assert!(medium.image(5, 0, 0.0).is_err());
    }

    #[test]
    fn a_lie_and_a_refusal_promise_nothing() {
        let mut medium = Medium::new(4096);
        medium.ignore_flushes(true);
        medium.write(0, &sector(1)).unwrap();
        medium.flush().unwrap();
        assert_eq!(medium.events()[1].outcome, Outcome::Ignored);
        assert_eq!(medium.image(2, 0, 0.0).unwrap().bytes[..512], sector(0));
        medium.ignore_flushes(false);
        let fault = |kind, at_index, lasts| {
            Some(Fault {
                kind,
                at_index,
                errno: EIO,
                lasts,
            })
        };
        medium.set_fault(fault(Some(IoKind::Flush), 0, false));
        assert_eq!(medium.flush(), Err(EIO));
        assert_eq!(medium.image(3, 0, 0.0).unwrap().bytes[..512], sector(0));
        assert_eq!(medium.flush(), Ok(()));
        assert_eq!(medium.image(4, 0, 0.0).unwrap().bytes[..512], sector(1));
        medium.set_fault(fault(None, 1, true));
        medium.read(0, 1).unwrap();
        assert_eq!(medium.write(0, &sector(9)), Err(EIO));
        assert_eq!(medium.read(0, 1), Err(EIO));
        assert_eq!(medium.fault_counts(), (3, 2));
        medium.set_fault(None);
        // A refused write is not seen, and may be there after a power loss, also behind a flush.
        assert_eq!(medium.read(0, 1), Ok(&[1][..]));
        medium.flush().unwrap();
        assert_eq!(medium.image(6, 0, 0.0).unwrap().bytes[0], 1);
        assert_eq!(medium.image(6, 0, 1.0).unwrap().bytes[0], 9);
    }

    #[test]
    fn saved_and_restored_is_the_same() {
        let mut medium = Medium::new(1024);
        assert!(medium.restore().is_err());
        medium.write(0, &sector(5)).unwrap();
        medium.save();
        medium.write(0, &sector(6)).unwrap();
        medium.restore().unwrap();
        assert_eq!(medium.bytes()[..512], sector(5));
        assert!(medium.events().is_empty());
        assert_eq!(medium.write(1000, &sector(1)), Err(nix::libc::ENOSPC));
    }
}
