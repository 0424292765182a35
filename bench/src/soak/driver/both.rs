//! The model and the real programs side by side: every call goes to both, and what comes of it is compared.

use std::net::SocketAddrV4;

use ebpf_host::{
    HostError,
    quorum::{Chain, Count, Grant, Kept, NODES_MAX, Seen, Session},
};

use super::{Bpf, Model, Program, Ran};

/// Both, of one node. What a history is told is the model's.
///
/// Every method panics where the two differ.
#[derive(Debug)]
pub struct Both {
    model: Model,
    bpf: Bpf,
    /// What both had counted when the last grant began: programs count from when they were loaded.
    begun: [Counted; 2],
    leads_and_appends: (bool, bool),
    /// There was a grant. Before, a program that is used again has its last history's state.
    is_begun: bool,
    /// The slots that the ring must have: from the last grant's first, or from what was drained.
    kept_begin: u64,
}

/// What one of the two had counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    counts: [u64; Count::ALL.len()],
    heard: u64,
    acked: [u64; NODES_MAX],
}

impl Counted {
    fn of(program: &dyn Program) -> Counted {
        let seen = program.seen();
        Counted {
            counts: Count::ALL.map(|count| program.count(count)),
            heard: seen.heard_count,
            acked: seen.acked_count,
        }
    }

    /// What has been counted since `before`.
    fn since(&self, before: &Counted) -> Counted {
        Counted {
            counts: std::array::from_fn(|index| self.counts[index] - before.counts[index]),
            heard: self.heard - before.heard,
            acked: std::array::from_fn(|node| self.acked[node] - before.acked[node]),
        }
    }
}

impl Both {
    /// As [`Bpf::of_parts`].
    ///
    /// # Errors
    /// As there.
    pub fn of_parts(node: u32, session_count: u32, appends: bool) -> Result<Both, HostError> {
        let model = Model::of_parts(node, session_count, appends, None);
        let bpf = Bpf::of_parts(node, session_count, appends)?;
        let begun = [Counted::of(&model), Counted::of(&bpf)];
        Ok(Both {
            model,
            bpf,
            begun,
            leads_and_appends: (false, appends),
            is_begun: false,
            kept_begin: 0,
        })
    }

    /// Compares what was counted since the last grant.
    ///
    /// # Panics
    /// If the two differ.
    pub fn settle(&self) {
        let [of_model, of_bpf] = [Counted::of(&self.model), Counted::of(&self.bpf)];
        assert_eq!(
            of_model.since(&self.begun[0]),
            of_bpf.since(&self.begun[1]),
            "what was counted under a grant, in the order of {:?}",
            Count::ALL.map(Count::name)
        );
    }
}

#[cfg(test)]
impl Both {
    /// What the part that acts has counted since its last grant.
    pub fn counted(&self, what: Count) -> u64 {
        self.model.count(what) - self.begun[0].counts[what as usize]
    }

    /// Compares every entry that the rings must have.
    ///
    /// # Panics
    /// If the two differ, or one has lost an entry.
    pub fn compare_rings(&self) {
        // Where the replica appends, there is nothing in a leader's ring.
        if self.leads_and_appends == (true, false) {
            return;
        }
        let (mut one, mut other) = (Kept::default(), Kept::default());
        for slot in self.kept_begin..self.model.seen().next {
            let are_kept = (self.model.entry(slot, &mut one), self.bpf.entry(slot, &mut other));
            assert_eq!(are_kept, (true, true), "slot {slot}");
            assert_eq!(one, other, "slot {slot}");
        }
    }
}

impl Program for Both {
    fn grant(&mut self, is_leader: bool, given: &Grant, chain: Option<Chain>, sessions: &[Session]) {
        self.settle();
        self.model.grant(is_leader, given, chain, sessions);
        self.bpf.grant(is_leader, given, chain, sessions);
        self.begun = [Counted::of(&self.model), Counted::of(&self.bpf)];
        self.leads_and_appends.0 = is_leader;
        self.is_begun = true;
        self.kept_begin = given.next;
    }

    fn revoke(&mut self) -> Option<u64> {
        let end = self.model.revoke();
        assert_eq!(end, self.bpf.revoke(), "where the grant ended");
        end
    }

    fn seen(&self) -> Seen {
        let (of_model, of_bpf) = (self.model.seen(), self.bpf.seen());
        let compared = |seen: &Seen| (seen.generation == 0, seen.next, seen.commit_end, seen.acked_end);
        if self.is_begun {
            assert_eq!(
                compared(&of_model),
                compared(&of_bpf),
                "no grant, next, committed, acknowledged"
            );
        }
        of_model
    }

    fn entry(&self, slot: u64, kept: &mut Kept) -> bool {
        let is_kept = self.model.entry(slot, kept);
        let mut other = Kept::default();
        assert_eq!(
            is_kept,
            self.bpf.entry(slot, &mut other),
            "whether slot {slot} is there"
        );
        assert!(!is_kept || *kept == other, "slot {slot}: {kept:?}, {other:?}");
        is_kept
    }

    fn drained(&mut self, end: u64) {
        self.model.drained(end);
        self.bpf.drained(end);
        self.kept_begin = self.kept_begin.max(end);
    }

    fn limit(&mut self, end: u64) {
        self.model.limit(end);
        self.bpf.limit(end);
    }

    fn appended(&mut self, end: u64) {
        self.model.appended(end);
        self.bpf.appended(end);
    }

    fn run(&mut self, from: SocketAddrV4, bytes: &[u8]) -> Ran {
        let ran = self.model.run(from, bytes);
        assert_eq!(ran, self.bpf.run(from, bytes), "a frame from {from}: {bytes:?}");
        self.seen();
        ran
    }

    fn count(&self, what: Count) -> u64 {
        self.model.count(what)
    }
}
