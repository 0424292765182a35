//! Appending and syncing take no memory once the log is warm: counted by an allocator that stands in for the real one.
#![forbid(unsafe_code)]

use dataplane_waist::{Log, Support, Term};
use dataplane_wal::{Engine, FolderStorage, Wal, WalOptions};

fn commits(wal: &mut Wal, count: u64) {
    for index in 0..count {
        for _ in 0..3 {
            let slot = wal.end();
            wal.append(slot, Term(1), &[7; 300]).expect("the disk is well");
        }
        wal.set_state(&index.to_be_bytes()).expect("the disk is well");
        wal.sync().expect("the disk is well");
        wal.durable().expect("the disk is well");
    }
    wal.wait().expect("the disk is well");
}

#[test]
fn a_warm_log_takes_no_memory() {
    for engine in Engine::ALL {
        let folder = std::env::temp_dir().join(format!("dplab-wal-memory-{}-{}", engine.name(), std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        match dataplane_wal::probe(&folder, engine) {
            Ok(Support::Native) => {}
            other => {
                println!("skipped: {} in {}: {other:?}", engine.name(), folder.display());
                continue;
            }
        }
        let storage = FolderStorage::open(&folder, engine).expect("it was probed");
        let mut wal = Wal::open(Box::new(storage), WalOptions::new(1)).expect("the folder is empty");
        commits(&mut wal, 50);
        let before = wal.stats().commits_count;
        let counted = allocation_counter::measure(|| commits(&mut wal, 200));
        // A ring that is busy gathers, the more the longer a commit takes that says more than entries do.
        let commits_count = wal.stats().commits_count - before;
        assert!((5..=200).contains(&commits_count), "{}: {commits_count}", engine.name());
        assert_eq!(counted.count_total, 0, "{}: {counted:?}", engine.name());
        drop(wal);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0; 10])));
    assert_eq!(counted.count_total, 1, "otherwise the test proves nothing");
}
