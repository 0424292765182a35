//! Lesson 8, your turn. The disk is modelled and loses power whenever the tests like; what is counted is flushes, and
//! what is left. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use std::{
    io,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{
    FileId, OpenFor, Storage, Wal, WalOptions,
    testing::{Disk, Loss, Tear},
};
use lessons::page_cache::{PageCache, after_power_loss};

// ---- 1. The second time it said that all is well --------------------------------------------------------------------

/// A log of numbers, eight bytes each.
struct Numbers {
    storage: PageCache,
    file: FileId,
    end_bytes: u64,
}

impl Numbers {
    fn create(mut storage: PageCache) -> io::Result<Numbers> {
        let file = storage.open("numbers", OpenFor::Create)?;
        storage.sync_folder()?;
        Ok(Numbers {
            storage,
            file,
            end_bytes: 0,
        })
    }

    /// `Ok` is a promise: the number is there after a power loss.
    fn append(&mut self, number: u64) -> io::Result<()> {
        self.storage
            .write_at(self.file, self.end_bytes, &number.to_be_bytes())?;
        // Disks have hiccups. The next attempt usually works.
        let mut attempts = (0..3).map(|_| self.storage.sync(self.file));
        let synced = attempts.find(Result::is_ok);
        synced.unwrap_or_else(|| Err(io::Error::other("the disk is broken")))?;
        self.end_bytes += 8;
        Ok(())
    }
}

fn numbers(mut disk: Disk) -> Vec<u64> {
    let Ok(file) = disk.open("numbers", OpenFor::Use) else {
        return Vec::new();
    };
    let mut bytes = [0; 8 * NUMBERS_COUNT as usize];
    let read_bytes = disk.read_at(file, 0, &mut bytes).expect("memory");
    let (numbers, _) = bytes[..read_bytes].as_chunks::<8>();
    numbers.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect()
}

const NUMBERS_COUNT: u64 = 8;

#[test]
#[ignore = "your turn: delete this line"]
fn what_was_acknowledged_survives() {
    for fails_at in 0..NUMBERS_COUNT {
        for appends_count in 1..=NUMBERS_COUNT {
            let disk = Disk::new(1);
            let mut log = Numbers::create(PageCache::that_fails_once(disk.clone(), fails_at)).expect("memory");
            let acked: Vec<u64> = (1..=appends_count)
                .filter(|number| log.append(*number).is_ok())
                .collect();
            // The power goes now.
            let left = numbers(after_power_loss(&disk));
            let lost: Vec<&u64> = acked.iter().filter(|number| !left.contains(number)).collect();
            assert!(
                lost.is_empty(),
                "write-back {fails_at} failed, power lost after {appends_count} appends: {lost:?} were acknowledged and \
                 are gone"
            );
            assert!(acked.len() as u64 >= fails_at.min(appends_count), "it gave up early");
        }
    }
}

// ---- 2. Sixteen writers, one flush ----------------------------------------------------------------------------------

const WRITERS_COUNT: u64 = 16;
const ROUNDS_COUNT: u64 = 20;

/// A log for several threads.
struct Shared {
    wal: Mutex<Wal>,
}

impl Shared {
    fn new(wal: Wal) -> Shared {
        Shared { wal: Mutex::new(wal) }
    }

    /// Returns when the entry is durable. (While one commit is on its way to the disk, others could gather for the next:
    /// a queue under one lock, the log under another, and a `Condvar` for those who wait.)
    fn append_durable(&self, payload: &[u8]) -> io::Result<()> {
        let mut wal = self.wal.lock().expect("no writer panics");
        let slot = wal.end();
        wal.append(slot, Term(1), payload)?;
        wal.sync()?;
        wal.wait()?;
        Ok(())
    }
}

/// A flush waits until all writers have come to append, so that the test counts what was made of it and not how fast
/// threads are. Not for longer than a second.
fn flush_that_all_come_to(come_count: Arc<AtomicU64>, flushes_count: Arc<AtomicU64>) -> PageCache {
    PageCache::new(Disk::new(1), move || {
        flushes_count.fetch_add(1, Ordering::Relaxed);
        let begin = Instant::now();
        while !come_count.load(Ordering::Relaxed).is_multiple_of(WRITERS_COUNT)
            && begin.elapsed() < Duration::from_secs(1)
        {
            thread::yield_now();
        }
        // From having come to standing in the queue it is a few instructions more.
        thread::sleep(Duration::from_millis(1));
        Ok(())
    })
}

#[test]
#[ignore = "your turn: delete this line"]
fn sixteen_writers_share_their_flushes() {
    let (come_count, flushes_count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let storage = flush_that_all_come_to(come_count.clone(), flushes_count.clone());
    let wal = Wal::open(Box::new(storage), OPTIONS).expect("a new log");
    let shared = Shared::new(wal);
    let opening_count = flushes_count.load(Ordering::Relaxed);
    let barrier = Barrier::new(WRITERS_COUNT as usize);
    thread::scope(|scope| {
        for writer in 0..WRITERS_COUNT {
            let (shared, barrier, come_count) = (&shared, &barrier, &come_count);
            scope.spawn(move || {
                for _ in 0..ROUNDS_COUNT {
                    barrier.wait();
                    come_count.fetch_add(1, Ordering::Relaxed);
                    shared.append_durable(&[writer as u8]).expect("memory");
                }
            });
        }
    });
    let entries_count = WRITERS_COUNT * ROUNDS_COUNT;
    let flushes_count = flushes_count.load(Ordering::Relaxed) - opening_count;
    println!("{entries_count} entries, {flushes_count} flushes");
    let end = shared.wal.lock().expect("no writer panicked").end();
    assert_eq!(end, Slot(entries_count), "every entry is in the log once");
    assert!(flushes_count * 4 < entries_count);
}

const OPTIONS: WalOptions = WalOptions {
    cluster: 8,
    segment_bytes: 256 << 10,
    buffer_bytes: 16 << 10,
    spare_count: 0,
    under_way_max: 1,
};

// ---- 3. The file was flushed, and is not there ----------------------------------------------------------------------

/// Replaces the contents of the file `name` so that, whenever the power goes, the old ones or the new ones are there as
/// a whole, and the new ones once this has returned.
fn replace(storage: &mut Disk, name: &str, contents: &[u8]) -> io::Result<()> {
    let file = storage.open("unfinished", OpenFor::Create)?;
    storage.write_at(file, 0, contents)?;
    storage.rename("unfinished", name)?;
    // Now it is the file itself that is flushed.
    storage.sync(file)
}

#[test]
#[ignore = "your turn: delete this line"]
fn old_or_new_and_new_once_it_is_said() {
    let (old, new) = (vec![b'o'; 1500], vec![b'n'; 1500]);
    let mut disk = Disk::new(1);
    let file = disk.open("settings", OpenFor::Create).expect("memory");
    disk.write_at(file, 0, &old).expect("memory");
    disk.sync(file).expect("memory");
    disk.sync_folder().expect("memory");
    let before_count = disk.events_count();
    replace(&mut disk, "settings", &new).expect("memory");
    let mut images_count = 0;
    for events_count in before_count..=disk.events_count() {
        let loss = Loss {
            events_count,
            tear: Tear::Sectors,
        };
        for subset in 0..1u32 << disk.doubtful_count(loss) {
            let image = disk.image(loss, &mut |piece| subset >> piece & 1 == 1);
            let found = image.file("settings");
            let is_over = events_count == disk.events_count();
            let is_right = found.as_ref() == Some(&new) || !is_over && found.as_ref() == Some(&old);
            assert!(
                is_right,
                "power lost after {} steps of it, pieces kept {subset:#b}: {:?}",
                events_count - before_count,
                found.map(|bytes| bytes.escape_ascii().to_string())
            );
            images_count += 1;
        }
    }
    println!("{images_count} power losses");
}
