//! What Linux does with a bad disk: the facts that the log's rules are made for, each shown on the kernel that runs here.
#![forbid(unsafe_code)]

mod common;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command as Process, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::disk;
use dataplane_faulty_disk::{Command, Fault, FaultyDisk, IoKind, Mounted, Outcome, Side};

const OLD: [u8; 4096] = [b'o'; 4096];
const NEW: [u8; 4096] = [b'n'; 4096];

fn once(kind: IoKind) -> Fault {
    Fault {
        kind: Some(kind),
        at_index: 0,
        errno: libc::EIO,
        lasts: false,
    }
}

/// A file of which `OLD` is on the medium, and recording begun.
fn with_a_file(disk: &mut FaultyDisk) -> (Mounted, File) {
    let mounted = disk.mount(Side::Disk, "").unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(mounted.path().join("file"))
        .unwrap();
    file.write_all_at(&OLD, 0).unwrap();
    file.sync_all().unwrap();
    // Nothing of the making is left to be written.
    nix::unistd::syncfs(&file).unwrap();
    disk.tell(Command::Record).unwrap();
    (mounted, file)
}

/// What the file holds after a power loss that keeps nothing in doubt.
fn after_power_loss(disk: &mut FaultyDisk) -> Vec<u8> {
    let events_count = disk.events_count().unwrap();
    disk.cut(events_count, 0, 0).unwrap();
    let image = disk.mount(Side::Image, "").unwrap();
    let found = std::fs::read(image.path().join("file")).unwrap();
    image.unmount().unwrap();
    found
}

#[test]
fn a_retried_fsync_says_that_all_is_well_and_the_disk_is_old() {
    let Some(mut disk) = disk() else { return };
    let (mounted, file) = with_a_file(&mut disk);
    file.write_all_at(&NEW, 0).unwrap();
    disk.fail(once(IoKind::Write)).unwrap();
    let first = file.sync_data().expect_err("the disk refused the write");
    assert_eq!(first.raw_os_error(), Some(libc::EIO));
    let (_, failed_count) = disk.fault_counts().unwrap();
    assert_eq!(failed_count, 1);
    disk.heal().unwrap();
    file.sync_data().expect("the page is clean, says the kernel");
    let mut cached = [0; 4096];
    file.read_exact_at(&mut cached, 0).unwrap();
    assert_eq!(cached, NEW, "and reading it back shows the new bytes");
    assert_eq!(after_power_loss(&mut disk), OLD, "which are on no medium");
    drop(file);
    mounted.unmount().unwrap();
    // Not even a clean end brings them there.
    let mounted = disk.mount(Side::Disk, "").unwrap();
    assert_eq!(std::fs::read(mounted.path().join("file")).unwrap(), OLD);
    mounted.unmount().unwrap();
}

#[test]
fn after_a_refused_flush_the_next_sync_says_that_all_is_well() {
    let Some(mut disk) = disk() else { return };
    let (_mounted, file) = with_a_file(&mut disk);
    file.write_all_at(&NEW, 0).unwrap();
    disk.fail(once(IoKind::Flush)).unwrap();
    assert!(file.sync_data().is_err());
    let retried = file.sync_data();
    let events = disk.events().unwrap();
    println!("the second fdatasync said {retried:?}; the stream: {events:?}");
    assert!(events.contains(&(0, None, Outcome::Refused(libc::EIO))));
    // Whatever it says, only a flush that the disk has done keeps anything.
    let flushed_after = events
        .iter()
        .rev()
        .take_while(|event| event.2 != Outcome::Refused(libc::EIO));
    let is_flushed = flushed_after.clone().any(|event| event.1.is_none());
    assert_eq!(after_power_loss(&mut disk) == NEW, is_flushed);
}

#[test]
fn a_disk_that_ignores_flushes_loses_what_fsync_promised() {
    let Some(mut disk) = disk() else { return };
    let (_mounted, file) = with_a_file(&mut disk);
    disk.tell(Command::IgnoreFlushes).unwrap();
    file.write_all_at(&NEW, 0).unwrap();
    file.sync_data().expect("the disk lies");
    let events = disk.events().unwrap();
    assert!(events.contains(&(0, None, Outcome::Ignored)), "{events:?}");
    assert_eq!(after_power_loss(&mut disk), OLD);
    disk.heal().unwrap();
    file.write_all_at(&NEW, 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        after_power_loss(&mut disk),
        NEW,
        "an honest flush covers all that came before"
    );
}

#[test]
fn a_slow_disk_is_slow_and_nothing_else() {
    let Some(mut disk) = disk() else { return };
    let (mounted, file) = with_a_file(&mut disk);
    disk.tell(Command::Delay(20)).unwrap();
    let start = Instant::now();
    file.write_all_at(&NEW, 0).unwrap();
    file.sync_data().unwrap();
    // A write and a flush, at least; sleeping is never shorter than asked for.
    assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
    assert_eq!(after_power_loss(&mut disk), NEW);
    drop(file);
    mounted.unmount().unwrap();
    disk.check_file_system(Side::Disk).unwrap();
}

/// Not a test: a process that uses a disk until it is killed. Started by the next test alone.
#[test]
#[ignore = "started by the test of killed users"]
fn a_user_that_will_be_killed() {
    let Some(mut disk) = disk() else { return };
    let (mounted, file) = with_a_file(&mut disk);
    println!("using {} on {}", mounted.path().display(), mounted.device_name());
    loop {
        file.write_all_at(&NEW, 0).unwrap();
        file.sync_data().unwrap();
    }
}

#[test]
fn a_killed_user_leaves_nothing_behind() {
    if disk().is_none() {
        return;
    }
    let mut user = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_user_that_will_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = io::BufRead::lines(io::BufReader::new(user.stdout.take().unwrap()))
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("using ")?.1.to_owned()))
        .expect("it says what it uses");
    let (place, device) = said.split_once(" on ").unwrap();
    let folder = Path::new(place).parent().unwrap().to_owned();
    let backing_file = format!("/sys/block/{device}/loop/backing_file");
    let is_ours =
        || std::fs::read_to_string(&backing_file).is_ok_and(|file| Path::new(file.trim()).starts_with(&folder));
    assert!(folder.exists() && is_ours(), "{said}");
    user.kill().unwrap();
    user.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while folder.exists() || is_ours() {
        assert!(Instant::now() < deadline, "{said} is still there");
        thread::sleep(Duration::from_millis(10));
    }
}
