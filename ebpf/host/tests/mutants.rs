//! The programs against their model, without an interface: every truncation of every golden frame, and mutants of them.
//!
//! The soak: `DPLAB_MUTATIONS=1000000 cargo test --release -p ebpf-host --test mutants -- --nocapture` (nextest would end it
//! after five minutes).
#![forbid(unsafe_code)]

mod support;

use ebpf_host::{Count, FRAME_BYTES_MIN, Program, Settings};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use support::{
    SETTINGS,
    frames::{self, Named, goldens},
    judge::{Judge, judges},
};

/// Counters are read once in so many runs.
const BATCH: usize = 1_000;

/// Every prefix of every golden frame that the kernel takes at all.
#[test]
fn every_truncation_gets_its_verdict() {
    for mut judge in judges("truncations", SETTINGS) {
        for Named { name, bytes } in goldens() {
            for len in FRAME_BYTES_MIN..bytes.len() {
                if let Err(fault) = judge.run(&bytes[..len]) {
                    panic!("{name}, the first {len} bytes: {fault}");
                }
            }
            if let Err(fault) = judge.settle() {
                panic!("a truncation of {name}: {fault}");
            }
        }
    }
}

/// So many of each golden frame; `DPLAB_MUTATIONS` sets another number (the soak takes 1,000,000), `DPLAB_SEED` another seed.
const MUTATIONS_DEFAULT: u64 = 2_000;

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn mutants_get_their_verdicts(program: Program, frags: bool) {
    let settings = Settings { frags, ..SETTINGS };
    let Some(mut judge) = Judge::new("mutations", program, settings) else {
        return;
    };
    let mutations = from_env("DPLAB_MUTATIONS", MUTATIONS_DEFAULT);
    let seed = from_env("DPLAB_SEED", 0x5eed);
    let mut mutant = Vec::new();
    let mut taken_count = 0;
    let mut runs_count = 0u64;
    for (index, Named { name, bytes }) in goldens().iter().enumerate() {
        let mut rng = Pcg64Mcg::seed_from_u64(seed ^ (index as u64) << 32);
        for mutation in 0..mutations {
            frames::mutate(&mut rng, bytes, &mut mutant);
            if mutant.len() < FRAME_BYTES_MIN {
                continue;
            }
            let at = || format!("DPLAB_SEED={seed}, mutation {mutation} of {name}");
            match judge.run(&mutant) {
                Ok((expected, _)) => taken_count += u64::from(expected.count == Some(Count::Taken)),
                Err(fault) => panic!("{}: {fault}", at()),
            }
            runs_count += 1;
            if runs_count.is_multiple_of(BATCH as u64)
                && let Err(fault) = judge.settle()
            {
                panic!("{} or one of the {BATCH} runs before: {fault}", at());
            }
        }
    }
    if let Err(fault) = judge.settle() {
        panic!("DPLAB_SEED={seed}, at the end: {fault}");
    }
    println!("{}: {runs_count} mutants, {taken_count} of them taken", program.name());
    assert!(
        matches!(
            program,
            Program::Pass | Program::Steer | Program::SteerPort | Program::Hub | Program::TakeAll
        ) || taken_count > 0,
        "no mutant came through, so nothing was tested"
    );
}

#[test]
fn mutants_get_their_verdicts_from_pass() {
    mutants_get_their_verdicts(Program::Pass, false);
}

#[test]
fn mutants_get_their_verdicts_from_count_drop() {
    mutants_get_their_verdicts(Program::CountDrop, false);
}

#[test]
fn mutants_get_their_verdicts_from_echo() {
    mutants_get_their_verdicts(Program::Echo, false);
}

#[test]
fn mutants_get_their_verdicts_from_steer() {
    mutants_get_their_verdicts(Program::Steer, false);
}

#[test]
fn mutants_get_their_verdicts_from_steer_port() {
    mutants_get_their_verdicts(Program::SteerPort, false);
}

#[test]
fn mutants_get_their_verdicts_from_take_all() {
    mutants_get_their_verdicts(Program::TakeAll, false);
}

#[test]
fn mutants_get_their_verdicts_from_stamp() {
    mutants_get_their_verdicts(Program::Stamp, false);
}

#[test]
fn mutants_get_their_verdicts_from_echo_for_several_buffers() {
    mutants_get_their_verdicts(Program::Echo, true);
}

#[test]
fn mutants_get_their_verdicts_from_stamp_for_several_buffers() {
    mutants_get_their_verdicts(Program::Stamp, true);
}
