//! What a history with programs adds to its plan, drawn from streams of its own.

use dataplane_sim::{Fault, HostId, SimTime};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::{ChainPlan, DriverPlan, SESSIONS_MAX};
use crate::{
    replicas::{FanOut, Parts},
    soak::{
        ambush::{Aim, Ambush},
        plan::{ELECTION_MIN, Options, Plan},
    },
};

/// Draws what a history with programs adds, from a stream of its own, and takes out of the plan what its durability cannot
/// survive: a program that acknowledges from memory says nothing about a host that dies.
pub fn draw(plan: &mut Plan, options: &Options) {
    let mut rng = Pcg64Mcg::seed_from_u64(plan.seed.rotate_left(16) ^ 0x6472_6976_6572);
    let mut waits_for_disk = rng.random_bool(0.5);
    let mut parts = draw_parts(plan.seed, options);
    let chain = draw_chain(plan, options, parts == Parts::ALL && !waits_for_disk);
    if chain.is_some() {
        (parts, waits_for_disk) = (Parts::ALL, false);
        plan.ambushes.sort_by_key(|ambush| ambush.at);
    }
    plan.limits.sessions_max = SESSIONS_MAX as usize;
    let (replicas_count, healed_at) = (plan.replicas_count, plan.healed_at);
    let swaps = (0..rng.random_range(0..4)).map(|_| {
        let at = SimTime::from_ps(rng.random_range(0..healed_at.as_ps()));
        (at, HostId(rng.random_range(0..replicas_count)))
    });
    let swaps = if options.has_faults {
        swaps.collect()
    } else {
        Vec::new()
    };
    for client in &mut plan.clients {
        // Puts are what a program takes.
        client.puts_ratio = *[0.4, 0.7, 1.0].choose(&mut rng).expect("three");
        client.reads_ratio = client
            .reads_ratio
            .min(*[0.1, 0.3, 1.0].choose(&mut rng).expect("three"));
    }
    plan.driver = Some(DriverPlan {
        kind: options.driver,
        parts,
        waits_for_disk,
        seed: rng.random(),
        hold_ratio: *[0.0, 0.1, 0.3, 0.6].choose(&mut rng).expect("four"),
        race_ratio: *[0.1, 0.4, 0.8].choose(&mut rng).expect("three"),
        swaps,
        in_flight_slots: plan.limits.in_flight_slots,
        chain,
        flaw: options.flaw,
    });
    if !waits_for_disk {
        plan.faults.retain(|scheduled| !ends_a_process(&scheduled.fault));
        plan.ambushes.retain(|ambush| ambush.aim != Aim::SecondVote);
    }
}

/// Two histories in three have all parts. A mistake is one of all parts: its seeds say which history shows it.
fn draw_parts(seed: u64, options: &Options) -> Parts {
    let mut rng = Pcg64Mcg::seed_from_u64(seed.rotate_left(32) ^ 0x0070_6172_7473);
    if options.flaw.is_some() || rng.random_bool(0.67) {
        return Parts::ALL;
    }
    let (acknowledges, counts) = *[(true, false), (false, true), (true, true)]
        .choose(&mut rng)
        .expect("three");
    Parts {
        acknowledges,
        counts,
        ..Parts::NONE
    }
}

/// A third of the histories in which programs do all of it: two in three of those that could, since a program in a chain waits for
/// no disk. A mistake is one of a chain, or of flooding: its seeds say which history shows it.
fn draw_chain(plan: &mut Plan, options: &Options, may_be: bool) -> Option<ChainPlan> {
    let mut rng = Pcg64Mcg::seed_from_u64(plan.seed.rotate_left(48) ^ 0x6368_6169_6e73);
    let is_drawn = rng.random_bool(0.67) && may_be;
    let is_chain = match (options.fan_out, options.flaw) {
        (Some(fan_out), _) => fan_out == FanOut::Chain,
        (None, Some(flaw)) => flaw.is_of_chains(),
        (None, None) => is_drawn,
    };
    if !is_chain {
        return None;
    }
    if !options.has_faults {
        return Some(ChainPlan {
            lost_ratio: 0.0,
            restarts: Vec::new(),
        });
    }
    let restarts = (0..rng.random_range(0..4)).map(|_| {
        let at = SimTime::from_ps(rng.random_range(0..plan.healed_at.as_ps()));
        let away = ELECTION_MIN.mul_f64(rng.random_range(0.05..6.0));
        let host = HostId(rng.random_range(0..plan.replicas_count));
        (at, host, SimTime::from_ns(away.as_nanos() as u64))
    });
    let restarts = restarts.collect();
    if plan.replicas_count > 2 && rng.random_bool(0.3) {
        let latest = SimTime::from_ps(plan.healed_at.as_ps() / 4 * 3);
        plan.ambushes.push(Ambush {
            at: SimTime::from_ps(rng.random_range(0..latest.as_ps())),
            aim: Aim::EndOfChain,
            seed: rng.random(),
        });
    }
    Some(ChainPlan {
        restarts,
        lost_ratio: *[0.0, 0.01, 0.05, 0.2].choose(&mut rng).expect("four"),
    })
}

/// Whether somebody loses what is in memory only.
fn ends_a_process(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Crash { .. }
            | Fault::FailWrite { .. }
            | Fault::FailSync { .. }
            | Fault::Damage { .. }
            | Fault::LyingDisk { .. }
    )
}
