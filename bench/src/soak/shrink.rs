//! From a failing history to a short one that fails in the same way.

use std::cell::Cell;

use dataplane_sim as sim;

use super::{finding::Finding, plan::Plan, runner::run_plan};

/// A smaller plan that fails as the whole one does.
#[derive(Debug)]
pub struct Shrunk {
    /// With fewer faults, and clients that ask less.
    pub plan: Plan,
    /// How it fails.
    pub finding: Finding,
    /// How many histories were run to find it.
    pub tried_count: u32,
}

/// Drops faults, then ambushes and operations, as long as the history fails in the same way; at most `tries_max` histories are run.
pub fn shrink(plan: &Plan, finding: &Finding, tries_max: u32) -> Shrunk {
    let tried_count = Cell::new(0);
    let fails = |plan: &Plan| -> Option<Finding> {
        if tried_count.get() == tries_max {
            return None;
        }
        tried_count.set(tried_count.get() + 1);
        let found = run_plan(plan).finding?;
        (found.kind == finding.kind).then_some(found)
    };
    let mut small = plan.clone();
    let faults = match fails(plan) {
        Some(_) => sim::shrink(&plan.faults, |faults| {
            // The first call is the whole list again, which is known to fail.
            faults.len() == plan.faults.len() || {
                let mut tried = plan.clone();
                tried.faults = faults.to_vec();
                fails(&tried).is_some()
            }
        }),
        None => plan.faults.clone(),
    };
    small.faults = faults;
    for index in (0..small.ambushes.len()).rev() {
        let mut tried = small.clone();
        tried.ambushes.remove(index);
        if fails(&tried).is_some() {
            small = tried;
        }
    }
    // Fewer clients, then fewer operations, then no changes of members.
    for index in (0..small.clients.len()).rev() {
        if small.clients.len() == 1 {
            break;
        }
        let mut tried = small.clone();
        tried.clients.remove(index);
        // The hosts of the clients stand behind those of the replicas.
        tried.hosts.remove(tried.hosts.len() - small.clients.len() + index);
        if fails(&tried).is_some() {
            small = tried;
        }
    }
    for divisor in [2, 4, 8, 16] {
        let mut tried = small.clone();
        for client in &mut tried.clients {
            client.ops_count /= divisor;
        }
        if fails(&tried).is_some() {
            small = tried;
        }
    }
    let mut tried = small.clone();
    tried.changes.clear();
    if fails(&tried).is_some() {
        small = tried;
    }
    let finding = run_plan(&small).finding.unwrap_or_else(|| finding.clone());
    Shrunk {
        plan: small,
        finding,
        tried_count: tried_count.get(),
    }
}
