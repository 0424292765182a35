//! A disk in memory that remembers every write and every flush, so that any image can be made that a power loss at any
//! moment could have left.
//!
//! The rules are those of a device with a volatile cache under a file system that keeps names and contents apart, and
//! leave as little as possible to hope:
//!
//! - a write may reach the medium at once, later or never, in any order and in pieces ([`Tear`]);
//! - `sync` makes what was written to that one file durable, a completed commit itself alone;
//! - names change in order, and any number of the last changes may be missing until `sync_folder`.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::make_at_once;
use crate::{
    buffer::Buffer,
    storage::{Completion, EngineStats, FileId, OpenFor, Storage},
};

/// In which pieces a write reaches the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Sectors of 512 bytes.
    Sectors,
    /// Pages of 4096.
    Pages,
}

impl Tear {
    fn bytes(self) -> u64 {
        match self {
            Tear::Sectors => 512,
            Tear::Pages => 4096,
        }
    }
}

/// One power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many of the disk's events had happened.
    pub events_count: usize,
    /// In which pieces what was not durable is lost.
    pub tear: Tear,
}

#[derive(Clone, Debug)]
enum Event {
    Write {
        inode: usize,
        at_bytes: u64,
        bytes: Vec<u8>,
    },
    /// The write of that event is durable.
    Durable(usize),
    Sync {
        inode: usize,
    },
    Name(NameChange),
    SyncFolder,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create { name: String, inode: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    contents: Vec<Vec<u8>>,
    open: Vec<usize>,
    /// Names and contents before the first event.
    base: (BTreeMap<String, usize>, Vec<Vec<u8>>),
    events: Vec<Event>,
    /// Commits under way: the event of the write, and its memory.
    under_way: VecDeque<(usize, Buffer)>,
    /// How often `completed` says "not yet" before a commit is over.
    delay_polls: u32,
    polls: u32,
    depth: usize,
    align_bytes: usize,
    made: Option<io::Result<()>>,
    stats: EngineStats,
}

/// A handle of the disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// An empty disk that has up to `depth` commits under way. With 1, a commit is over when it is asked for; with more,
    /// only after some asking.
    pub fn new(depth: usize) -> Disk {
        Disk::with(State {
            depth,
            delay_polls: if depth > 1 { 3 } else { 0 },
            align_bytes: 512,
            ..State::default()
        })
    }

    /// A disk on which nothing is in doubt.
    fn at_rest(&self, names: BTreeMap<String, usize>, contents: Vec<Vec<u8>>) -> Disk {
        let state = self.lock();
        Disk::with(State {
            base: (names.clone(), contents.clone()),
            names,
            contents,
            depth: state.depth,
            delay_polls: state.delay_polls,
            align_bytes: state.align_bytes,
            ..State::default()
        })
    }

    fn with(state: State) -> Disk {
        Disk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Commits become multiples of this.
    pub fn align(self, align_bytes: usize) -> Disk {
        self.lock().align_bytes = align_bytes;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the disk")
    }

    /// How many events there have been.
    pub fn events_count(&self) -> usize {
        self.lock().events.len()
    }

    /// The disk's contents as they are, on a disk of its own.
    pub fn copy(&self) -> Disk {
        let (names, contents) = {
            let state = self.lock();
            (state.names.clone(), state.contents.clone())
        };
        self.at_rest(names, contents)
    }

    /// A file's contents.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = state.names.get(name)?;
        Some(state.contents[*inode].clone())
    }

    /// Changes a file behind everybody's back.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let inode = state.names[name];
        change(&mut state.contents[inode]);
    }

    /// How many pieces would be in doubt if the power went then: pieces of writes, and changes of names.
    pub fn doubtful_count(&self, loss: Loss) -> usize {
        let mut count = 0;
        self.image(loss, &mut |_| {
            count += 1;
            true
        });
        count
    }

    /// What a power loss leaves. `keep` is asked for each piece in doubt, in order, whether it reached the medium.
    pub fn image(&self, loss: Loss, keep: &mut dyn FnMut(usize) -> bool) -> Disk {
        let state = self.lock();
        let events = &state.events[..loss.events_count];
        let is_durable = durable_writes(events);
        let mut piece_index = 0;
        let mut ask = || {
            piece_index += 1;
            keep(piece_index - 1)
        };
        let mut contents = state.base.1.clone();
        contents.resize(state.contents.len(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            let Event::Write { inode, at_bytes, bytes } = event else {
                continue;
            };
            let file = &mut contents[*inode];
            let unit = loss.tear.bytes();
            let mut begin = 0;
            while begin < bytes.len() {
                let room = unit - (at_bytes + begin as u64) % unit;
                let end = bytes.len().min(begin + room as usize);
                if is_durable[index] || ask() {
                    let at = *at_bytes as usize + begin;
                    if file.len() < at + end - begin {
                        file.resize(at + end - begin, 0);
                    }
                    file[at..at + end - begin].copy_from_slice(&bytes[begin..end]);
                }
                begin = end;
            }
        }
        let mut names = state.base.0.clone();
        let synced = events
            .iter()
            .rposition(|event| matches!(event, Event::SyncFolder))
            .map_or(0, |index| index + 1);
        for (index, event) in events.iter().enumerate() {
            let Event::Name(change) = event else { continue };
            // The first that is missing takes those behind it along.
            if index >= synced && !ask() {
                break;
            }
            change.apply(&mut names);
        }
        drop(state);
        self.at_rest(names, contents)
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename { from, to } => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

/// For each event, whether it is a write that was durable in the end.
fn durable_writes(events: &[Event]) -> Vec<bool> {
    let mut is_durable = vec![false; events.len()];
    let mut pending: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Write { inode, .. } => pending.entry(*inode).or_default().push(index),
            Event::Durable(write) => is_durable[*write] = true,
            Event::Sync { inode } => {
                for write in pending.remove(inode).unwrap_or_default() {
                    is_durable[write] = true;
                }
            }
            Event::Name(_) | Event::SyncFolder => {}
        }
    }
    is_durable
}

impl State {
    fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    fn write(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) {
        let inode = self.open[file.0 as usize];
        let contents = &mut self.contents[inode];
        let end = at_bytes as usize + bytes.len();
        if contents.len() < end {
            contents.resize(end, 0);
        }
        contents[at_bytes as usize..end].copy_from_slice(bytes);
        let bytes = bytes.to_vec();
        self.note(Event::Write { inode, at_bytes, bytes });
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} is not there"))
}

impl Storage for Disk {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn align_bytes(&self) -> usize {
        self.lock().align_bytes
    }

    fn place(&self) -> String {
        "memory".into()
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let state = self.lock();
        let files = state.names.iter();
        Ok(files
            .map(|(name, &inode)| (name.clone(), state.contents[inode].len() as u64))
            .collect())
    }

    fn open(&mut self, name: &str, purpose: OpenFor) -> io::Result<FileId> {
        let mut state = self.lock();
        let inode = match purpose {
            OpenFor::Create => {
                let inode = state.contents.len();
                state.contents.push(Vec::new());
                state.names.insert(name.into(), inode);
                let name = name.into();
                state.note(Event::Name(NameChange::Create { name, inode }));
                inode
            }
            OpenFor::Use | OpenFor::Commits => *state.names.get(name).ok_or_else(|| not_found(name))?,
        };
        state.open.push(inode);
        Ok(FileId(state.open.len() as u32 - 1))
    }

    fn close(&mut self, _file: FileId) {}

    fn read_at(&mut self, file: FileId, at_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.lock();
        let contents = &state.contents[state.open[file.0 as usize]];
        let rest = contents.get(at_bytes as usize..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.lock().write(file, at_bytes, bytes);
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.open[file.0 as usize];
        state.note(Event::Sync { inode });
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let change = NameChange::Rename {
            from: from.into(),
            to: to.into(),
        };
        change.apply(&mut state.names);
        state.note(Event::Name(change));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Remove { name: name.into() };
        change.apply(&mut state.names);
        state.note(Event::Name(change));
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.lock().note(Event::SyncFolder);
        Ok(())
    }

    fn make(&mut self, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()> {
        let made = make_at_once(self, name, head, len_bytes);
        self.lock().made = Some(made);
        Ok(())
    }

    fn made(&mut self, _wait: bool) -> Option<io::Result<()>> {
        self.lock().made.take()
    }

    fn commit(&mut self, file: FileId, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        let mut state = self.lock();
        assert!(
            at_bytes.is_multiple_of(state.align_bytes as u64) && buffer.bytes().len().is_multiple_of(state.align_bytes),
            "a commit that O_DIRECT would refuse: {} bytes at {at_bytes}",
            buffer.bytes().len()
        );
        assert!(state.under_way.len() < state.depth, "too many commits under way");
        state.stats.commits_count += 1;
        state.stats.commits_bytes += buffer.bytes().len() as u64;
        state.write(file, at_bytes, buffer.bytes());
        let event = state.events.len() - 1;
        state.under_way.push_back((event, buffer));
        Ok(())
    }

    fn completed(&mut self, wait: bool) -> io::Result<Option<Completion>> {
        let mut state = self.lock();
        state.polls += 1;
        if !wait && state.polls <= state.delay_polls {
            return Ok(None);
        }
        state.polls = 0;
        let Some((event, buffer)) = state.under_way.pop_front() else {
            return Ok(None);
        };
        state.note(Event::Durable(event));
        Ok(Some(Completion { buffer, result: Ok(()) }))
    }

    fn depth(&self) -> usize {
        self.lock().depth
    }

    fn stats(&self) -> EngineStats {
        self.lock().stats
    }
}
