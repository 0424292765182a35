//! The shared-memory ring between processes: a child that answers, one that is killed, and files that are no rings.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use dataplane_ports::shm::{RingOptions, ShmPort, ShmRegion, Side};
use dataplane_waist::{Peer, Port, TxError, Wake};

const PATH_VARIABLE: &str = "DPLAB_TEST_SHM_PATH";
/// How long nothing may happen. On a busy machine each frame can cost a time slice of whoever else runs.
const PATIENCE: Duration = Duration::from_secs(10);
const FRAMES_COUNT: u64 = 5_000;

/// Kills the child when the test ends, however it ends.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn echo_in_a_child(region: &ShmRegion) -> Reaped {
    let child = Command::new(env::current_exe().expect("this test's file"))
        .args(["--exact", "echo_child", "--ignored", "--nocapture"])
        .env(PATH_VARIABLE, region.path_for(std::process::id()))
        .spawn()
        .expect("this test starts again");
    Reaped(child)
}

fn small() -> RingOptions {
    RingOptions {
        slots_count: 16,
        frame_bytes_max: 256,
        batch_frames_max: 8,
    }
}

fn frame(number: u64) -> [u8; 64] {
    let mut frame = [number as u8; 64];
    frame[..8].copy_from_slice(&number.to_le_bytes());
    frame
}

fn rest(port: &mut ShmPort) {
    match port.caps().wake {
        // Long, so that a lost wake-up shows as a test that runs out of patience.
        Wake::Sleeps => port.wait(PATIENCE / 2).expect("wait"),
        _ => thread::yield_now(),
    }
}

/// Sends `FRAMES_COUNT` numbered frames and expects each back, in order.
fn ping_pong(port: &mut ShmPort) {
    let mut last_heard_at = Instant::now();
    let (mut sent, mut heard) = (0, 0);
    while heard < FRAMES_COUNT {
        assert!(last_heard_at.elapsed() < PATIENCE, "{heard} of {sent} came back");
        if sent < FRAMES_COUNT {
            match port.tx(Peer(0), 64, &mut |bytes| bytes.copy_from_slice(&frame(sent))) {
                Ok(()) => sent += 1,
                Err(TxError::Full) => thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
            port.flush().expect("flush");
        }
        let count = port
            .rx_burst(&mut |reply| {
                assert_eq!(reply.bytes, frame(heard));
                heard += 1;
            })
            .expect("rx");
        if count == 0 {
            rest(port);
        } else {
            last_heard_at = Instant::now();
        }
    }
}

#[test]
fn a_child_process_answers_and_another_takes_its_place() {
    for create in [ShmRegion::create, ShmRegion::create_sleeping] {
        let region = create(&small()).expect("region");
        let mut port = ShmPort::connect(&region, Side::A).expect("side A");
        for _ in 0..2 {
            let child = echo_in_a_child(&region);
            ping_pong(&mut port);
            drop(child);
        }
    }
}

#[test]
fn a_killed_peer_is_loss() {
    let region = ShmRegion::create(&small()).expect("region");
    let mut port = ShmPort::connect(&region, Side::A).expect("side A");
    let child = echo_in_a_child(&region);
    ping_pong(&mut port);
    drop(child);
    let mut refused_count = 0;
    for _ in 0..100 {
        match port.tx(Peer(0), 64, &mut |bytes| bytes.fill(0)) {
            Ok(()) => {}
            Err(TxError::Full) => refused_count += 1,
            Err(other) => panic!("{other}"),
        }
        port.flush().expect("flush");
        port.wait(Duration::from_millis(20)).expect("wait");
        port.rx_burst(&mut |_| {}).expect("rx");
    }
    assert!(refused_count >= 100 - 16, "{refused_count}");
    assert!(port.stats().tx_dropped_count >= refused_count);
}

/// The other process of the tests above, which start it and kill it.
#[test]
#[ignore = "started by the other tests as their child process"]
fn echo_child() {
    let path = env::var_os(PATH_VARIABLE).expect("the parent says where the region is");
    let region = ShmRegion::open(Path::new(&path)).expect("the parent's region");
    let mut port = ShmPort::connect(&region, Side::B).expect("side B");
    let begin = Instant::now();
    let mut burst: Vec<Vec<u8>> = Vec::new();
    while begin.elapsed() < 6 * PATIENCE {
        let count = port
            .rx_burst(&mut |frame| burst.push(frame.bytes.to_vec()))
            .expect("rx");
        for frame in burst.drain(..) {
            while let Err(TxError::Full) = port.tx(Peer(0), frame.len(), &mut |bytes| bytes.copy_from_slice(&frame)) {
                assert!(begin.elapsed() < 6 * PATIENCE, "the parent does not listen");
                thread::yield_now();
            }
        }
        port.flush().expect("flush");
        if count == 0 {
            rest(&mut port);
        }
    }
}

#[test]
fn files_that_are_no_rings_are_refused_by_reason() {
    let folder = env::temp_dir().join(format!("dplab-shm-test-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let plain = folder.join("plain");
    fs::File::create(&plain)
        .and_then(|mut file| file.write_all(&[0; 8192]))
        .expect("a file");
    for (path, complaint) in [
        (plain.as_path(), "seal"),
        (Path::new("/dev/zero"), "seal"),
        (Path::new("/proc/self/fd/987654"), "opening"),
        (folder.as_path(), "opening"),
    ] {
        let error = ShmRegion::open(path).expect_err("no ring").to_string();
        assert!(error.contains(complaint), "{error}");
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn options_out_of_bounds_are_refused() {
    let good = small();
    for (options, complaint) in [
        (RingOptions { slots_count: 3, ..good }, "slots_count"),
        (RingOptions { slots_count: 0, ..good }, "batch_frames_max"),
        (
            RingOptions {
                frame_bytes_max: 0,
                ..good
            },
            "frame_bytes_max",
        ),
        (
            RingOptions {
                batch_frames_max: 17,
                ..good
            },
            "batch_frames_max",
        ),
    ] {
        let error = ShmRegion::create(&options).expect_err("out of bounds").to_string();
        assert!(error.contains(complaint), "{error}");
    }
}
