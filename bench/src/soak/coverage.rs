//! Which paths were taken: a soak that takes none of them proves nothing, however long it runs.

use dataplane_quorum::{Counters, NODES_MAX, driver::DriverCounters};
use dataplane_sim::{Fault, FrameCounts};

use super::{
    client::ClientCounts,
    driver::{ChainCounts, DriverCounts, DriverPlan},
};
use crate::replicas::Parts;

/// Counters over one or many histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Of the replicas that have ended, and of those that run.
    ended: Totals,
    running: [Counters; NODES_MAX],
    driver_ended: DriverTotals,
    driver_running: [(DriverCounters, DriverCounts); NODES_MAX],
    /// Histories with programs that acknowledge from memory: nobody dies in them.
    pub memory_histories_count: u64,
    /// Histories with programs that leave acknowledging to the replica's disk.
    pub disk_histories_count: u64,
    /// Histories in which programs do some of it, and the replicas the rest.
    pub partial_histories_count: u64,
    /// Histories whose entries visit the followers in a chain.
    pub chain_histories_count: u64,
    /// Changes of members in them.
    pub chain_changes_count: u64,
    /// Processes in them that ended in good order and came back.
    pub chain_restarts_count: u64,
    /// Operations of clients.
    pub ops_count: u64,
    /// Requests that were sent again.
    pub retries_count: u64,
    /// Answers that sent a client to another replica.
    pub redirects_count: u64,
    /// Sessions that a client found gone.
    pub expired_count: u64,
    /// Changes of members asked for.
    pub changes_asked_count: u64,
    /// And made.
    pub changes_count: u64,
    /// Faults that began.
    pub faults_count: u64,
    /// Of these, crashes.
    pub crashes_count: u64,
    /// Ambushes that found their moment.
    pub ambushes_count: u64,
    /// Processes that ended by an error of their disk.
    pub disk_errors_count: u64,
    /// Terms that had a leader.
    pub terms_count: u64,
    /// Frames sent, lost and doubled.
    pub frames: FrameCounts,
    /// Histories whose answers the check could not judge within its limits: neither passed nor failed.
    pub undecided_count: u64,
    /// The longest time from the last fault's end until everything was answered and even, in steps of 5 ms.
    pub recovery_ms_max: u64,
}

macro_rules! totals {
    ($($field:ident),* $(,)?) => {
        /// The replicas' own counters, added up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is dataplane_quorum::Counters' field of the same name")]
        pub struct Totals {
            $(pub $field: u64,)*
        }

        impl Totals {
            fn add_counters(&mut self, counters: &Counters) {
                $(self.$field += counters.$field;)*
            }

            fn add(&mut self, other: &Totals) {
                $(self.$field += other.$field;)*
            }

            /// Name and count of each.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    };
}

totals!(
    applied_count,
    appended_count,
    repeated_count,
    busy_count,
    not_leader_count,
    expired_count,
    refused_count,
    lease_reads_count,
    index_reads_count,
    stale_reads_count,
    fast_entries_count,
    general_entries_count,
    held_count,
    gaps_count,
    resent_count,
    truncated_count,
    elections_count,
    led_count,
    stepped_down_count,
    snapshots_count,
    snapshots_installed_count,
);

/// What programs did, and what was handed over, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DriverTotals([u64; DriverTotals::NAMES.len()], ChainCounts);

impl DriverTotals {
    const NAMES: [&str; 11] = [
        "driver_grants_count",
        "driver_revokes_count",
        "driver_entries_count",
        "driver_answered_count",
        "driver_waited_count",
        "driver_up_count",
        "driver_dropped_count",
        "driver_slots_count",
        "driver_sent_count",
        "driver_raced_count",
        "driver_swaps_count",
    ];

    fn add_counters(&mut self, (handed, nic): &(DriverCounters, DriverCounts)) {
        let counts = [
            handed.grants_count,
            handed.revokes_count,
            handed.entries_count,
            handed.answered_count,
            handed.waited_count,
            nic.up_count,
            nic.dropped_count,
            nic.slots_count,
            nic.answers_count,
            nic.raced_count,
            nic.swaps_count,
        ];
        self.add(&DriverTotals(counts, nic.chain));
    }

    fn add(&mut self, other: &DriverTotals) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
        self.1.add(&other.1);
    }
}

impl Coverage {
    pub(super) fn driver_histories(&mut self, plan: &DriverPlan) {
        match plan.waits_for_disk {
            true => self.disk_histories_count += 1,
            false => self.memory_histories_count += 1,
        }
        self.partial_histories_count += u64::from(plan.parts != Parts::ALL);
        self.chain_histories_count += u64::from(plan.chain.is_some());
    }

    /// A hand-over's counters as they stand.
    pub(super) fn watch_driver(&mut self, node: u32, counts: (DriverCounters, DriverCounts)) {
        self.driver_running[node as usize] = counts;
    }

    /// A replica's counters as they stand.
    pub(super) fn watch(&mut self, node: u32, counters: &Counters) {
        self.running[node as usize] = *counters;
    }

    /// They begin again.
    pub(super) fn restarted(&mut self, node: u32) {
        if let Some(counters) = self.running.get_mut(node as usize) {
            self.ended.add_counters(counters);
            *counters = Counters::default();
        }
        if let Some(counts) = self.driver_running.get_mut(node as usize) {
            self.driver_ended.add_counters(counts);
            *counts = Default::default();
        }
    }

    pub(super) fn fault(&mut self, fault: &Fault) {
        self.faults_count += 1;
        self.crashes_count += u64::from(matches!(fault, Fault::Crash { .. }));
    }

    pub(super) fn add_client(&mut self, counts: &ClientCounts) {
        self.retries_count += counts.retries_count;
        self.redirects_count += counts.redirects_count;
        self.expired_count += counts.expired_count;
        self.changes_count += counts.changes_count;
    }

    pub(super) fn add_sim(&mut self, counts: FrameCounts) {
        self.frames.sent_count += counts.sent_count;
        self.frames.lost_count += counts.lost_count;
        self.frames.duplicated_count += counts.duplicated_count;
        self.frames.delivered_count += counts.delivered_count;
        self.frames.to_nobody_count += counts.to_nobody_count;
    }

    /// The replicas' counters.
    pub fn totals(&self) -> Totals {
        let mut totals = self.ended;
        for counters in &self.running {
            totals.add_counters(counters);
        }
        totals
    }

    fn driver_totals(&self) -> DriverTotals {
        let mut totals = self.driver_ended;
        for counts in &self.driver_running {
            totals.add_counters(counts);
        }
        totals
    }

    /// Adds another history's.
    pub fn add(&mut self, other: &Coverage) {
        self.driver_ended.add(&other.driver_totals());
        self.memory_histories_count += other.memory_histories_count;
        self.disk_histories_count += other.disk_histories_count;
        self.partial_histories_count += other.partial_histories_count;
        self.chain_histories_count += other.chain_histories_count;
        self.chain_changes_count += other.chain_changes_count;
        self.chain_restarts_count += other.chain_restarts_count;
        self.ended.add(&other.totals());
        self.ops_count += other.ops_count;
        self.retries_count += other.retries_count;
        self.redirects_count += other.redirects_count;
        self.expired_count += other.expired_count;
        self.changes_asked_count += other.changes_asked_count;
        self.changes_count += other.changes_count;
        self.faults_count += other.faults_count;
        self.crashes_count += other.crashes_count;
        self.ambushes_count += other.ambushes_count;
        self.disk_errors_count += other.disk_errors_count;
        self.terms_count += other.terms_count;
        self.add_sim(other.frames);
        self.undecided_count += other.undecided_count;
        self.recovery_ms_max = self.recovery_ms_max.max(other.recovery_ms_max);
    }

    /// Everything with a name, as a report lists it.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let mut list = vec![
            ("ops_count", self.ops_count),
            ("retries_count", self.retries_count),
            ("redirects_count", self.redirects_count),
            ("sessions_expired_count", self.expired_count),
            ("changes_asked_count", self.changes_asked_count),
            ("changes_count", self.changes_count),
            ("faults_count", self.faults_count),
            ("crashes_count", self.crashes_count),
            ("ambushes_count", self.ambushes_count),
            ("disk_errors_count", self.disk_errors_count),
            ("terms_count", self.terms_count),
            ("frames_count", self.frames.sent_count),
            ("frames_lost_count", self.frames.lost_count),
            ("frames_duplicated_count", self.frames.duplicated_count),
        ];
        list.extend(self.totals().list());
        if self.memory_histories_count + self.disk_histories_count > 0 {
            list.push(("driver_memory_histories", self.memory_histories_count));
            list.push(("driver_disk_histories", self.disk_histories_count));
            list.push(("driver_partial_histories", self.partial_histories_count));
            list.extend(DriverTotals::NAMES.into_iter().zip(self.driver_totals().0));
        }
        if self.chain_histories_count > 0 {
            list.push(("chain_histories", self.chain_histories_count));
            list.extend(ChainCounts::NAMES.into_iter().zip(self.driver_totals().1.0));
            list.push(("chain_restarts_count", self.chain_restarts_count));
            list.push(("chain_changes_count", self.chain_changes_count));
        }
        list
    }

    /// Paths that were never taken. After some hundred histories with faults there is none.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = self.list().into_iter().filter(|(_, count)| *count == 0);
        never.map(|(name, _)| name).collect()
    }
}
