//! The price of a small commit quorum: how many crashes each setting survives, tried one by one, and whether everything that
//! was acknowledged is still there after many leaders have died.

use std::time::Duration;

use dataplane_quorum::{ReadMode, Timing};
use dataplane_sim::{Crash, Fault, HostId, Latency, LinkOptions, SimTime};
use dataplane_wire::quorum::members::Members;

use super::DELAY;
use crate::{
    caller::{Caller, Kind, Load},
    experiments::virtual_time::Setup,
    sim_cluster::SimCluster,
};

/// How long a cluster has to go on after crashes: tens of the longest election time-outs.
const PATIENCE: SimTime = SimTime::from_ms(5_000);
/// Puts that must be answered after the crashes.
const PUTS: u64 = 20;
/// Between two leaders' deaths: enough for an election, mostly.
const LIVES: SimTime = SimTime::from_ms(700);
/// How long a leader stays dead.
const DEAD: SimTime = SimTime::from_ms(400);

/// Replicas with their logs on disk, side by side, with the timers of one rack.
pub fn setup(members: Members, seed: u64) -> Setup {
    Setup {
        seed,
        members,
        link: LinkOptions {
            latency: Latency::fixed(DELAY),
            ..LinkOptions::default()
        },
        sync: Latency::fixed(SimTime::from_us(100)),
        timing: Timing::LOCAL,
        reads: ReadMode::Index,
        callers_count: 1,
        in_flight_max: 1,
    }
}

/// How many replicas may die for good, at the same time, so that the others still answer puts; the leader is one of them, or
/// none.
pub fn survives_count(members: Members, seed: u64, with_leader: bool) -> anyhow::Result<u32> {
    for dead_count in 1..members.count() {
        if !goes_on(members, seed, with_leader, dead_count)? {
            return Ok(dead_count - 1);
        }
    }
    Ok(members.count() - 1)
}

fn goes_on(members: Members, seed: u64, with_leader: bool, dead_count: u32) -> anyhow::Result<bool> {
    let setup = setup(members, seed);
    let mut cluster = setup.start()?;
    let leader = cluster.leader().map(|leader| leader.node());
    let followers = (0..members.count()).filter(|&node| Some(node) != leader);
    let victims: Vec<u32> = match with_leader {
        true => leader.into_iter().chain(followers).take(dead_count as usize).collect(),
        false => followers.take(dead_count as usize).collect(),
    };
    for victim in victims {
        kill(&mut cluster, victim, SimTime::FOREVER);
    }
    let host = setup.caller(0);
    let load = Load {
        kind: Kind::Put,
        in_flight: 1,
        pause: Duration::ZERO,
        ops_count: PUTS,
    };
    cluster.with_client(host, |caller, now| caller.begin(now, load));
    let until = cluster.sim.now() + PATIENCE;
    let is_done = cluster.run_until(until, |cluster, _| cluster.client(host).is_done())?;
    cluster.compare()?;
    Ok(is_done && cluster.client(host).done.len() as u64 == PUTS)
}

fn kill(cluster: &mut SimCluster<Caller>, node: u32, lasts: SimTime) {
    cluster.sim.inject(Fault::Crash {
        host: HostId(node),
        crash: Crash::Power,
        lasts,
    });
}

/// What a life of dying leaders came to.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// Leaders that were killed.
    pub killed_count: u64,
    /// Terms that had a leader.
    pub terms_count: u64,
    /// Puts that were answered meanwhile.
    pub acknowledged_count: u64,
    /// Versions that were acknowledged and are newer than what is read at the end: must be 0.
    pub forgotten_count: u64,
}

/// Puts go on while every leader dies, loses power, and comes back.
pub fn lives(members: Members, seed: u64, killed_count: u64) -> anyhow::Result<(Lives, SimCluster<Caller>)> {
    let setup = setup(members, seed);
    let mut cluster = setup.start()?;
    let host = setup.caller(0);
    let load = Load {
        kind: Kind::Put,
        in_flight: 1,
        pause: Duration::from_millis(1),
        ops_count: u64::MAX,
    };
    cluster.with_client(host, |caller, now| caller.begin(now, load));
    let mut killed = 0;
    for _ in 0..killed_count {
        if let Some(leader) = cluster.leader().map(|leader| leader.node()) {
            kill(&mut cluster, leader, DEAD);
            killed += 1;
        }
        let until = cluster.sim.now() + LIVES;
        cluster.run_until(until, |_, _| false)?;
    }
    cluster.with_client(host, |caller, _| caller.stop());
    // The last put is answered, or given up at its deadline.
    let until = cluster.sim.now() + PATIENCE + PATIENCE + PATIENCE;
    cluster.run_until(until, |cluster, _| cluster.client(host).is_done())?;
    let done = &cluster.client(host).done;
    let acknowledged_count = done.len() as u64;
    let newest = done.iter().map(|done| done.version).max().unwrap_or(0);
    let read = Load {
        kind: Kind::Read,
        ops_count: 1,
        ..load
    };
    setup.call(&mut cluster, 0, read)?;
    cluster.compare()?;
    let read = cluster.client(host).done.first().map_or(0, |done| done.version);
    let lives = Lives {
        killed_count: killed,
        terms_count: cluster.observer().led_terms_count() as u64,
        acknowledged_count,
        forgotten_count: newest.saturating_sub(read),
    };
    Ok((lives, cluster))
}
