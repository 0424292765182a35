//! The real log on a disk with sectors of 4096 bytes, which takes no shorter write and none that begins in a sector's middle.
#![forbid(unsafe_code)]

mod common;
#[path = "../../wal/tests/support/mod.rs"]
mod support;

#[path = "common/log.rs"]
mod log;

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use dataplane_faulty_disk::{Command, Side};
use dataplane_wal::{Buffer, Engine, FolderStorage, Storage};
use log::{disk_for, judge, judge_cut, run};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Workload, seed};

const SECTOR_BYTES: usize = 4096;
const STEPS_COUNT: usize = 40;
const PAYLOAD_BYTES_MAX: usize = 300;
const CUTS_COUNT: usize = 12;

#[test]
fn what_is_not_aligned_is_refused_by_such_a_disk() {
    let Some(disk) = common::disk() else { return };
    for (sector_bytes, takes_half) in [(512, true), (SECTOR_BYTES, false)] {
        let mounted = disk.mount_with_sectors(Side::Disk, "", sector_bytes).unwrap();
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(mounted.path().join("file"))
            .unwrap();
        let memory = Buffer::zeroed(SECTOR_BYTES);
        file.write_all_at(memory.bytes(), 0).unwrap();
        let half = file.write_at(&memory.bytes()[..512], 0);
        let shifted = file.write_at(&memory.bytes()[..512], 512);
        for outcome in [half, shifted] {
            match takes_half {
                true => assert_eq!(outcome.unwrap(), 512),
                false => assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EINVAL)),
            }
        }
        drop(file);
        mounted.unmount().unwrap();
    }
}

#[test]
fn the_log_writes_whole_sectors_and_a_power_loss_loses_nothing_that_was_acknowledged() {
    let mut rng = Pcg64Mcg::seed_from_u64(seed());
    for engine in Engine::ALL {
        let Some(mut disk) = disk_for(engine) else { continue };
        let mounted = disk.mount_with_sectors(Side::Disk, "", SECTOR_BYTES).unwrap();
        let align_bytes = FolderStorage::open(&mounted.path().join("asked"), engine)
            .unwrap()
            .align_bytes();
        // Through the page cache any length is well: the kernel reads and writes whole blocks.
        let expected_bytes = if engine == Engine::File { 512 } else { SECTOR_BYTES };
        assert_eq!(align_bytes, expected_bytes, "{}", engine.name());
        disk.tell(Command::Record).unwrap();
        let workload = Workload::random(rng.random(), STEPS_COUNT, PAYLOAD_BYTES_MAX);
        let run = run(&mut disk, mounted.path(), engine, &workload);
        assert!(
            run.failure.is_none(),
            "{}: {:?}",
            engine.name(),
            run.failure.map(|(error, _)| error)
        );
        let first = run.moments[0];
        let last = run.last();
        assert!(last.acked_count > 0, "{last:?}");
        mounted.unmount().unwrap();
        for _ in 0..CUTS_COUNT {
            let events_count = rng.random_range(first.events_count..=last.events_count);
            let cut = (events_count, rng.random(), rng.random_range(0..=100));
            judge_cut(&mut disk, engine, &workload, &run, cut)
                .unwrap_or_else(|error| panic!("{}: {error}", engine.name()));
        }
        // The log goes on where sectors are short, and the other way round.
        for sector_bytes in [512, SECTOR_BYTES] {
            let mounted = disk.mount_with_sectors(Side::Disk, "", sector_bytes).unwrap();
            judge(mounted.path(), engine, &workload, last).unwrap();
            mounted.unmount().unwrap();
        }
    }
}
