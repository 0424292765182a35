//! The log on a real file system, through every engine that is here, is compared with the log in memory.
#![forbid(unsafe_code)]

mod support;

use dataplane_waist::{Log, MemoryLog};
use dataplane_wal::{Engine, FolderStorage};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Workload, contents, open, seed};

/// A folder of this test's own.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("dplab-wal-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn every_engine_keeps_what_a_log_in_memory_keeps() {
    let seed = seed();
    for engine in Engine::ALL {
        let folder = folder(engine.name());
        std::fs::create_dir_all(&folder).unwrap();
        match dataplane_wal::probe(&folder, engine) {
            Ok(dataplane_waist::Support::Native) => {}
            other => {
                println!("skipped: {} in {}: {other:?}", engine.name(), folder.display());
                continue;
            }
        }
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let workload = Workload::random(seed, 1500, 400);
        let mut model = MemoryLog::new();
        let mut wal = open(FolderStorage::open(&folder, engine).unwrap()).unwrap();
        for step in &workload.steps {
            step.apply(&mut wal).unwrap();
            step.apply(&mut model).unwrap();
            if rng.random_ratio(1, 30) {
                wal.sync().unwrap();
                model.sync().unwrap();
                assert_eq!(wal.wait().unwrap().end, model.durable().unwrap().end);
                if rng.random_ratio(1, 2) {
                    drop(wal);
                    wal = open(FolderStorage::open(&folder, engine).unwrap()).unwrap();
                }
                assert_eq!(
                    contents(&mut wal).unwrap(),
                    contents(&mut model).unwrap(),
                    "{}",
                    engine.name()
                );
                assert_eq!(wal.report().findings, []);
            }
        }
        println!("{}: {:?}", engine.name(), wal.stats());
        drop(wal);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
