//! Blocks through a ring: what was written is read, a refusal names its block, and nothing under way can be looked at.
#![forbid(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process,
};

use dataplane_wal::blocks::{Access, BlockRing, Polling, RingOptions};

const BLOCK_BYTES: usize = 4096;

/// A file of this test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("dplab-blocks-{name}-{}", process::id())))
    }

    /// Opens it for direct I/O; `None`, and says why, where there is none.
    fn open(&self) -> Option<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        match options.custom_flags(libc::O_DIRECT).open(&self.0) {
            Ok(file) => Some(file),
            Err(error) => {
                println!("not run: no direct I/O in {} ({error})", self.0.display());
                None
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ring(file: File, depth: usize, is_registered: bool) -> Option<BlockRing> {
    let options = RingOptions {
        block_bytes: BLOCK_BYTES,
        depth,
        is_registered,
        polling: Polling::Off,
    };
    match BlockRing::new(file, options) {
        Ok(ring) => Some(ring),
        Err(error) => {
            println!("not run: the kernel gives no ring ({error})");
            None
        }
    }
}

#[test]
fn what_was_written_is_read() {
    for (is_registered, access) in [(false, Access::Write), (true, Access::WriteDurable)] {
        let scratch = Scratch::new(if is_registered { "registered" } else { "plain" });
        let Some(mut ring) = scratch.open().and_then(|file| ring(file, 4, is_registered)) else {
            return;
        };
        for index in 0..4 {
            ring.block_mut(index).fill(index as u8 + 1);
            ring.start(index, access, (index * BLOCK_BYTES) as u64)
                .expect("started");
        }
        assert_eq!(ring.in_flight_count(), 4);
        for _ in 0..4 {
            assert_eq!(ring.wait().expect("written").len_bytes, BLOCK_BYTES);
        }
        // In another order, into other memory.
        for index in 0..4 {
            ring.block_mut(index).fill(0);
            ring.start(index, Access::Read, ((3 - index) * BLOCK_BYTES) as u64)
                .expect("started");
        }
        let mut seen = [false; 4];
        for _ in 0..4 {
            let done = ring.wait().expect("read");
            assert!(!std::mem::replace(&mut seen[done.index], true), "each is over once");
            assert!(
                ring.block(done.index)
                    .iter()
                    .all(|&byte| usize::from(byte) == 4 - done.index)
            );
        }
    }
}

#[test]
fn what_the_device_refuses_is_an_error_and_the_rest_goes_on() {
    let scratch = Scratch::new("refused");
    let Some(mut ring) = scratch.open().and_then(|file| ring(file, 2, true)) else {
        return;
    };
    ring.start(0, Access::Write, 100).expect("started");
    let error: io::Error = ring.wait().expect_err("an offset that direct I/O does not take");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    ring.start(1, Access::Write, 0).expect("started");
    assert_eq!(ring.wait().expect("written").len_bytes, BLOCK_BYTES);
    // Behind the file's end there is nothing.
    ring.start(0, Access::Read, 1 << 20).expect("started");
    assert_eq!(ring.wait().expect("read").len_bytes, 0);
    // What is under way when the ring goes is waited for.
    ring.start(0, Access::Read, 0).expect("started");
}

#[test]
#[should_panic(expected = "block 0 is under way")]
fn a_block_under_way_is_the_kernel_s() {
    let scratch = Scratch::new("lent");
    let Some(mut ring) = scratch.open().and_then(|file| ring(file, 2, false)) else {
        panic!("block 0 is under way, or would be: not run");
    };
    ring.start(0, Access::Write, 0).expect("started");
    ring.block(0);
}
