//! Tests of the log's ring on the kernel that is here.

use std::{
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use super::*;

/// Far longer than any disk takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every gear that there is here.
fn gears() -> Vec<Gear> {
    let most = match Gear::probe(4096) {
        Ok(gear) => gear,
        Err(error) => {
            println!("skipped: no io_uring: {error}");
            return Vec::new();
        }
    };
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    let gears = flags.map(|(defers, registers)| Gear { defers, registers });
    let mut gears = Vec::from(gears);
    gears.retain(|gear| (!gear.defers || most.defers) && (!gear.registers || most.registers));
    gears
}

fn a_file(name: &str) -> (std::path::PathBuf, File) {
    let path = std::env::temp_dir().join(format!("dplab-wal-ring-{name}-{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a folder for temporary files");
    (path, file)
}

fn filled(len_bytes: usize, byte: u8) -> Buffer {
    let mut buffer = Buffer::new(len_bytes);
    buffer.fill(len_bytes, byte);
    buffer
}

/// More buffers and files than a ring remembers, large ones whose memory the allocator gives back and takes again at the
/// same addresses, and file numbers that are used again: what is in the files is what was in the buffers.
#[test]
fn what_the_kernel_was_shown_is_never_taken_for_something_else() {
    const LEN_BYTES: usize = 1 << 20;
    for gear in gears() {
        let mut ring = WriteRing::new(gear);
        for round in 0..24u8 {
            let (path, file) = a_file("shown");
            for part in 0..2u8 {
                // Dropped with its completion, as a buffer that was outgrown.
                let buffer = filled(LEN_BYTES, round * 2 + part);
                ring.start(&file, u64::from(part) * LEN_BYTES as u64, buffer)
                    .expect("a ring");
            }
            for _ in 0..2 {
                let completion = ring.next(true).expect("the ring works").expect("two are under way");
                completion.result.expect("the disk is well");
            }
            let mut found = vec![0; 2 * LEN_BYTES];
            file.read_exact_at(&mut found, 0).expect("it has its length");
            let (first, second) = found.split_at(LEN_BYTES);
            assert!(first.iter().all(|&byte| byte == round * 2), "{gear:?}, round {round}");
            assert!(
                second.iter().all(|&byte| byte == round * 2 + 1),
                "{gear:?}, round {round}"
            );
            ring.forget(&file);
            drop(file);
            std::fs::remove_file(path).expect("it is ours");
        }
        assert_eq!(ring.gear(), gear, "nothing was refused on the way");
    }
}

/// Each thread finds a write of another one under way, which has ended or which has not.
#[test]
fn a_ring_goes_on_in_another_thread() {
    for gear in gears() {
        let (path, file) = a_file("moved");
        let mut handed = (WriteRing::new(gear), file);
        for byte in 0..MOVES_MAX as u8 {
            let at_bytes = u64::from(byte) * 8192;
            handed
                .0
                .start(&handed.1, at_bytes, filled(4096, 2 * byte))
                .expect("a ring");
            handed = thread::spawn(move || {
                let (mut ring, file) = handed;
                ring.start(&file, at_bytes + 4096, filled(4096, 2 * byte + 1))
                    .expect("a ring");
                ring.next(true)
                    .expect("the ring works")
                    .expect("two are under way")
                    .result
                    .expect("the disk is well");
                (ring, file)
            })
            .join()
            .expect("the thread did not panic");
            let completion = handed.0.next(true).expect("the ring works").expect("one is under way");
            completion.result.expect("the disk is well");
        }
        let (ring, file) = handed;
        assert!(!ring.gear().defers, "threads that take turns share one ring");
        assert_eq!(ring.gear().registers, gear.registers);
        let mut found = [0; 2 * MOVES_MAX as usize * 4096];
        file.read_exact_at(&mut found, 0).expect("it has its length");
        let is_whole = |(part, byte): (&[u8], u8)| part.iter().all(|&found| found == byte);
        assert!(found.chunks(4096).zip(0..).all(is_whole), "{gear:?}");
        std::fs::remove_file(path).expect("it is ours");
    }
}

#[test]
fn who_rests_on_a_ring_is_woken_when_a_write_is_over() {
    for (index, gear) in gears().into_iter().enumerate() {
        rest_on(gear, index);
    }
}

fn rest_on(gear: Gear, index: usize) {
    let path = std::env::temp_dir().join(format!("dplab-wal-ring-{}-{index}", std::process::id()));
    let file = File::create(&path).expect("a folder for temporary files");
    let mut ring = WriteRing::new(gear);
    assert!(ring.bell().is_none());
    for round in 0..50u64 {
        let buffer = Buffer::zeroed(4096);
        ring.start(&file, round * 4096, buffer).expect("a ring");
        let begin = Instant::now();
        let bell = ring.bell().expect("it has been made").try_clone_to_owned();
        let bell = Bell(bell.expect("a descriptor is free"));
        loop {
            bell.wait(PATIENCE);
            assert!(begin.elapsed() < PATIENCE, "the ring never rang");
            if let Some(completion) = ring.next(false).expect("the ring works") {
                completion.result.expect("the disk is well");
                break;
            }
        }
    }
    std::fs::remove_file(path).expect("it is ours");
}

/// Sets the limit on the length of this process's files (setrlimit(2)), and says what it was.
fn limit_files(bytes_max: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: one structure each, which outlives the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, bytes_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        before
    }
}

#[test]
fn a_write_that_the_kernel_cuts_short_is_continued_where_it_ended() {
    let gear = match Gear::probe(4096) {
        Ok(gear) => gear,
        Err(error) => return println!("skipped: no io_uring: {error}"),
    };
    // Far above what any other test of this process writes: the limit is everybody's.
    const AT_BYTES: u64 = 1 << 30;
    const WRITTEN_BYTES: u64 = 1024;
    let flag = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).expect("a signal that may be handled");
    let path = std::env::temp_dir().join(format!("dplab-wal-ring-short-{}", std::process::id()));
    let file = File::create(&path).expect("a folder for temporary files");
    let mut ring = WriteRing::new(gear);
    let mut buffer = Buffer::new(4096);
    buffer.fill(4096, 7);
    let before = limit_files(AT_BYTES + WRITTEN_BYTES);
    ring.start(&file, AT_BYTES, buffer).expect("a ring");
    let bell = ring.bell().expect("it has been made").try_clone_to_owned();
    // The kernel is done with it, and nobody has looked.
    Bell(bell.expect("a descriptor is free")).wait(PATIENCE);
    limit_files(before);
    let completion = ring.next(true).expect("the ring works").expect("a write is under way");
    completion.result.expect("the rest was written, too");
    assert_eq!(ring.short_count(), 1);
    let mut found = [0; 4096];
    let file = File::open(&path).expect("it is there");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, AT_BYTES).expect("it has its length");
    assert!(found.iter().all(|&byte| byte == 7));
    std::fs::remove_file(path).expect("it is ours");
}

/// Whether some open file, anybody's, can still write to this one: fcntl(2), F_SETLEASE, gives no lease for reading then.
fn is_open_for_writing(path: &std::path::Path) -> bool {
    let file = File::open(path).expect("it is there");
    // SAFETY: no pointers. The lease ends with the file.
    let leased = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    let refused = io::Error::last_os_error().raw_os_error();
    assert!(leased == 0 || refused == Some(libc::EAGAIN), "{refused:?}");
    leased != 0
}

/// A request that io-wq carried out is let go by its thread after its completion was posted, and holds its file until then: who
/// unmounts the file system under a log that has just been closed must not meet that.
#[test]
fn a_ring_that_is_gone_has_no_file_open() {
    for gear in gears().into_iter().filter(|gear| gear.registers) {
        for round in 0..50 {
            let (path, file) = a_file("held");
            let mut ring = WriteRing::new(gear);
            // Not O_DIRECT: such a write is never done at once, so each is carried out by io-wq.
            ring.start(&file, 0, filled(4096, 1)).expect("a ring");
            ring.next(true).expect("the ring works").expect("one is under way");
            assert!(is_open_for_writing(&path), "the test sees who has it open");
            // By the ring alone.
            drop(file);
            assert!(is_open_for_writing(&path), "{gear:?}: the ring was shown it");
            drop(ring);
            assert!(!is_open_for_writing(&path), "{gear:?}, round {round}");
            std::fs::remove_file(path).expect("it is ours");
        }
    }
}

/// A log's thread ends before the log is closed by another one, which could not have a ring with a single issuer let go of anything.
#[test]
fn a_thread_that_leaves_leaves_no_file_open() {
    for gear in gears().into_iter().filter(|gear| gear.registers) {
        let (path, file) = a_file("left");
        let mut ring = WriteRing::new(gear);
        let mut ring = thread::spawn(move || {
            ring.start(&file, 0, filled(4096, 1)).expect("a ring");
            ring.next(true).expect("the ring works").expect("one is under way");
            ring.leave();
            ring
        })
        .join()
        .expect("it does not panic");
        assert!(!is_open_for_writing(&path), "{gear:?}");
        // And goes on here.
        let file = File::options().write(true).open(&path).expect("it is there");
        ring.start(&file, 0, filled(4096, 2)).expect("a ring");
        ring.next(true).expect("the ring works").expect("one is under way");
        assert_eq!(ring.gear(), gear, "nothing was given up on the way");
        std::fs::remove_file(path).expect("it is ours");
    }
}
