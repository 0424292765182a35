//! Lesson 8, solved: a log that fails once has failed, writers that share a flush, a file that is replaced as a whole.
#![forbid(unsafe_code)]

use std::{
    io,
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{
    Engine, FileId, FolderStorage, OpenFor, SharedWal, Storage, Wal, WalOptions,
    testing::{Disk, Loss, Tear},
};
use lessons::page_cache::{PageCache, after_power_loss};

// ---- 1. The second time it said that all is well --------------------------------------------------------------------

/// A log of numbers, eight bytes each.
struct Numbers {
    storage: PageCache,
    file: FileId,
    end_bytes: u64,
    has_failed: bool,
}

impl Numbers {
    fn create(mut storage: PageCache) -> io::Result<Numbers> {
        let file = storage.open("numbers", OpenFor::Create)?;
        storage.sync_folder()?;
        Ok(Numbers {
            storage,
            file,
            end_bytes: 0,
            has_failed: false,
        })
    }

    /// `Ok` is a promise: the number is there after a power loss.
    fn append(&mut self, number: u64) -> io::Result<()> {
        // After a failed sync nobody knows what is on the disk, and a sync that succeeds later does not say it. Whoever wants
        // to go on opens the file again and reads.
        if self.has_failed {
            return Err(io::Error::other("the log has failed before"));
        }
        let written = self.storage.write_at(self.file, self.end_bytes, &number.to_be_bytes());
        let synced = written.and_then(|()| self.storage.sync(self.file));
        self.has_failed = synced.is_err();
        synced?;
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

#[test]
fn the_page_cache_hides_what_was_lost() {
    let disk = Disk::new(1);
    let mut cache = PageCache::that_fails_once(disk.clone(), 0);
    let file = cache.open("numbers", OpenFor::Create).expect("memory");
    cache.sync_folder().expect("memory");
    cache.write_at(file, 0, b"eight...").expect("memory");
    assert!(cache.sync(file).is_err(), "told once");
    assert!(cache.sync(file).is_ok(), "and then all is well");
    let mut bytes = [0; 8];
    assert_eq!(cache.read_at(file, 0, &mut bytes).expect("memory"), 8);
    assert_eq!(&bytes, b"eight...", "whoever looks sees it");
    assert_eq!(numbers(after_power_loss(&disk)), [0_u64; 0], "and it is not there");
    // The next write to the same page takes it along: tests that lose power a little later see nothing.
    cache.write_at(file, 8, b"more....").expect("memory");
    cache.sync(file).expect("memory");
    assert_eq!(numbers(after_power_loss(&disk)).len(), 2);
}

#[test]
fn the_real_log_does_not_try_again() {
    let mut failures_count = 0;
    for fails_at in 0..20 {
        let disk = Disk::new(1);
        let wal = Wal::open(Box::new(PageCache::that_fails_once(disk.clone(), fails_at)), OPTIONS);
        let mut acked_end = Slot(0);
        if let Ok(mut wal) = wal {
            for slot in 0..10 {
                let appended = wal.append(Slot(slot), Term(1), b"entry").and_then(|()| wal.sync());
                match appended.and_then(|()| wal.wait()) {
                    Ok(durable) => acked_end = durable.end,
                    Err(error) => {
                        assert!(error.to_string().contains("never tried again"), "{error}");
                        failures_count += 1;
                    }
                }
            }
        }
        let mut wal = Wal::open(Box::new(after_power_loss(&disk)), OPTIONS).expect("the disk is mended");
        let end = wal.recover(&mut |_| ()).expect("memory");
        assert!(end >= acked_end, "write-back {fails_at}: {end:?} of {acked_end:?}");
    }
    assert!(failures_count > 10, "the failures hit the appends: {failures_count}");
}

// ---- 2. Sixteen writers, one flush ----------------------------------------------------------------------------------

const WRITERS_COUNT: u64 = 16;
const ROUNDS_COUNT: u64 = 20;

/// A log for several threads. Whoever finds nobody writing takes all that is waiting and writes it.
struct Shared {
    queue: Mutex<Queue>,
    is_over: Condvar,
    wal: Mutex<Wal>,
}

#[derive(Default)]
struct Queue {
    staged: Vec<Vec<u8>>,
    /// The batch that is being filled; all below `over` are durable.
    batch: u64,
    over: u64,
    is_led: bool,
    failure: Option<io::ErrorKind>,
}

impl Shared {
    fn new(wal: Wal) -> Shared {
        Shared {
            queue: Mutex::default(),
            is_over: Condvar::new(),
            wal: Mutex::new(wal),
        }
    }

    fn append_durable(&self, payload: &[u8]) -> io::Result<()> {
        let mut queue = self.queue.lock().expect("no writer panics");
        queue.staged.push(payload.to_vec());
        let batch = queue.batch;
        loop {
            if let Some(kind) = queue.failure {
                return Err(kind.into());
            }
            if queue.over > batch {
                return Ok(());
            }
            if queue.is_led {
                queue = self.is_over.wait(queue).expect("no writer panics");
                continue;
            }
            // We lead: the next batch fills while this one is written.
            queue.is_led = true;
            queue.batch += 1;
            let staged = std::mem::take(&mut queue.staged);
            drop(queue);
            let outcome = self.write(&staged);
            queue = self.queue.lock().expect("no writer panics");
            queue.is_led = false;
            queue.over = batch + 1;
            queue.failure = outcome.err().map(|error| error.kind());
            self.is_over.notify_all();
        }
    }

    fn write(&self, staged: &[Vec<u8>]) -> io::Result<()> {
        let mut wal = self.wal.lock().expect("no writer panics");
        for payload in staged {
            let slot = wal.end();
            wal.append(slot, Term(1), payload)?;
        }
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

/// The lab's own shared log over a real file: what one flush for several writers is worth. Printed, not judged.
#[test]
fn flushes_of_one_writer_and_of_sixteen() {
    const ENTRIES_COUNT_MAX: u64 = 2000;
    // A slow disk is measured with fewer.
    const TIME_MAX: Duration = Duration::from_secs(1);
    for engine in Engine::ALL {
        for writers_count in [1, WRITERS_COUNT] {
            let name = format!("dplab-lesson-8-{}-{}", engine.name(), std::process::id());
            let folder = std::env::temp_dir().join(name);
            let storage = match FolderStorage::open(&folder, engine) {
                Ok(storage) => storage,
                Err(error) => {
                    println!("{}: skipped: {error}", engine.name());
                    let _ = std::fs::remove_dir_all(&folder);
                    continue;
                }
            };
            let wal = Wal::open(Box::new(storage), WalOptions::new(8)).expect("a new log");
            let before_count = wal.stats().commits_count;
            let shared = SharedWal::new(wal, Term(1));
            let begin = Instant::now();
            thread::scope(|scope| {
                for _ in 0..writers_count {
                    scope.spawn(|| {
                        for _ in 0..ENTRIES_COUNT_MAX / writers_count {
                            if begin.elapsed() > TIME_MAX {
                                break;
                            }
                            shared.append_durable(&[0; 256]).expect("the disk is well");
                        }
                    });
                }
            });
            let elapsed = begin.elapsed();
            let entries_count = shared.stats().entries_count;
            let flushes_count = shared.with(|wal| wal.stats().commits_count) - before_count;
            println!(
                "{}, {writers_count} writers: {entries_count} entries, {flushes_count} flushes, {:.1} us for each flush, \
                 {:.1} us for each entry",
                engine.name(),
                elapsed.as_secs_f64() * 1e6 / flushes_count as f64,
                elapsed.as_secs_f64() * 1e6 / entries_count as f64
            );
            assert!(flushes_count <= entries_count);
            assert_eq!(shared.with(|wal| wal.end()), Slot(entries_count));
            drop(shared);
            std::fs::remove_dir_all(&folder).expect("our own folder");
        }
    }
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
    // Contents first: a name that is there before them names nothing.
    storage.sync(file)?;
    storage.rename("unfinished", name)?;
    // The name is the folder's contents.
    storage.sync_folder()
}

#[test]
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
