//! Snapshots: taken when enough was applied, sent in chunks to a follower that lacks what they stand for.

use dataplane_waist::{Effects, Instant, Slot, Snapshot, StateMachine, Tail, Term};
use dataplane_wire::{
    Reject,
    checksum::crc32c,
    frame,
    quorum::{
        members::{self, Members},
        snapshot::{self, SnapshotChunk, SnapshotReport},
    },
};

use crate::{
    follower::Follower,
    replica::{Replica, Role},
    replicate::Mode,
    sessions::Sessions,
};

/// The snapshot that stands for the log's beginning.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) snapshot: Snapshot,
    pub(crate) members: Members,
    crc: u32,
}

/// A snapshot on its way to a follower.
#[derive(Debug)]
pub(crate) struct Outgoing {
    kept: Kept,
    /// What the follower has, and what it was sent.
    received_bytes: u64,
    /// What it said last. Less than `received_bytes` from an old answer; or because it has lost what it had.
    reported_bytes: u64,
    sent_bytes: u64,
}

/// A snapshot on its way from the leader.
#[derive(Debug)]
pub(crate) struct Incoming {
    end: Slot,
    last_term: Term,
    total_bytes: u64,
    crc: u32,
    bytes: Vec<u8>,
}

/// How many chunks may be under way to one follower.
const CHUNKS_UNDER_WAY: u64 = 8;

impl Kept {
    pub(crate) fn new(snapshot: Snapshot, members: Members) -> Kept {
        Kept {
            crc: crc32c(&snapshot.bytes),
            snapshot,
            members,
        }
    }
}

impl Outgoing {
    /// Behind the last slot that it stands for.
    pub(crate) fn end(&self) -> Slot {
        self.kept.snapshot.end
    }

    /// Whether the follower has said that it has all of it.
    pub(crate) fn has_arrived(&self) -> bool {
        self.reported_bytes == self.kept.snapshot.bytes.len() as u64
    }
}

/// A snapshot's contents.
pub(crate) struct Contents {
    pub(crate) members: Members,
    pub(crate) sessions: Sessions,
}

/// Members, sessions, machine.
pub(crate) fn save<S: StateMachine>(members: Members, sessions: &Sessions, machine: &S) -> Vec<u8> {
    let mut bytes = members.encode().to_vec();
    sessions.save(&mut bytes);
    machine.save(&mut bytes);
    bytes
}

/// Loads `machine` from what [`save`] wrote, and says the rest. `sessions` gives the bounds.
pub(crate) fn load<S: StateMachine>(bytes: &[u8], sessions: &Sessions, machine: &mut S) -> Result<Contents, Reject> {
    let (head, mut rest) = bytes.split_first_chunk::<{ members::BYTES }>().ok_or(Reject::Short)?;
    let members = Members::parse(head)?;
    let sessions = sessions.load(&mut rest)?;
    machine.load(rest)?;
    Ok(Contents { members, sessions })
}

impl<S: StateMachine> Replica<S> {
    /// Takes a snapshot when its time has come, and forgets what it stands for.
    pub(crate) fn take_snapshot_if_due(&mut self, out: &mut Effects) {
        let limits = self.config.limits;
        let before = self.snapshot.as_ref().map_or(Slot(0), |kept| kept.snapshot.end);
        let applied = self.applied_end.0 - before.0;
        if applied == 0 || (applied < limits.snapshot_slots && self.window.fill_ratio() < 0.5) {
            return;
        }
        let end = self.applied_end;
        let committed = self.memberships.iter().rev().find(|&&(from, _)| from <= end);
        let members = committed.expect("the first membership counts from the beginning").1;
        let snapshot = Snapshot {
            end,
            last_term: self.window.term_before(end).expect("it was just applied"),
            tail: Tail::Keep,
            bytes: save(members, &self.sessions, &self.machine).into(),
        };
        if out.install(snapshot.clone()).is_err() {
            return;
        }
        self.counters.snapshots_count += 1;
        self.snapshot = Some(Kept::new(snapshot, members));
        let keep_from = self.memberships.iter().rposition(|&(from, _)| from <= end).unwrap_or(0);
        self.memberships.drain(..keep_from);
        self.window
            .forget_before(Slot(end.0.saturating_sub(limits.catch_up_slots)));
        if self.window.fill_ratio() > 0.75 {
            self.window.forget_before(end);
        }
    }

    /// Begins to send the snapshot that stands to a follower.
    pub(crate) fn transfer(&mut self, index: usize, out: &mut Effects) {
        let Some(kept) = self.snapshot.clone() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        let progress = &mut leader.followers[index];
        progress.mode = Mode::Transferring(Outgoing {
            kept,
            received_bytes: 0,
            reported_bytes: 0,
            sent_bytes: 0,
        });
        self.send_chunks(index, out);
    }

    pub(crate) fn resend_chunks(&mut self, index: usize, out: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Mode::Transferring(outgoing) = &mut leader.followers[index].mode {
            // Nothing has got on for a while, so the last answer was no old one.
            outgoing.received_bytes = outgoing.reported_bytes;
            outgoing.sent_bytes = outgoing.received_bytes;
            // Nothing of it has arrived, so a newer one is as good a beginning, and a better end.
            if let Some(kept) = self.snapshot.as_ref().filter(|_| outgoing.received_bytes == 0) {
                outgoing.kept = kept.clone();
            }
        }
        self.send_chunks(index, out);
    }

    fn send_chunks(&mut self, index: usize, out: &mut Effects) {
        let sender = self.sender();
        let room_bytes = self.config.limits.frame_bytes_max - frame::HEADER_BYTES - snapshot::CHUNK_HEADER_BYTES;
        let chunk_bytes = room_bytes.min(snapshot::CHUNK_BYTES_MAX) as u64;
        let term = self.state.term.0;
        let Role::Leader(leader) = &mut self.role else { return };
        let progress = &mut leader.followers[index];
        let peer = progress.peer;
        let Mode::Transferring(outgoing) = &mut progress.mode else {
            return;
        };
        let Outgoing { kept, .. } = outgoing;
        let total_bytes = kept.snapshot.bytes.len() as u64;
        while outgoing.sent_bytes < total_bytes
            && outgoing.sent_bytes < outgoing.received_bytes + CHUNKS_UNDER_WAY * chunk_bytes
        {
            let at = outgoing.sent_bytes;
            let end = (at + chunk_bytes).min(total_bytes);
            let chunk = SnapshotChunk {
                term,
                end: kept.snapshot.end.0,
                last_term: kept.snapshot.last_term.0,
                sender,
                members: kept.members,
                total_bytes,
                offset_bytes: at,
                snapshot_crc: kept.crc,
                bytes: &kept.snapshot.bytes[at as usize..end as usize],
            };
            let len_bytes = frame::HEADER_BYTES + chunk.payload_bytes();
            if out.send(peer, len_bytes, |bytes| chunk.emit(bytes)).is_err() {
                return;
            }
            outgoing.sent_bytes = end;
        }
    }

    pub(crate) fn on_snapshot_report(&mut self, now: Instant, node: u32, report: &SnapshotReport, out: &mut Effects) {
        if !self.admit(node, report.sender) || Term(report.term) != self.state.term {
            return;
        }
        let retransmit = self.config.timing.retransmit;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(index) = leader.index_of(node) else { return };
        let progress = &mut leader.followers[index];
        let Mode::Transferring(outgoing) = &mut progress.mode else {
            return;
        };
        if Slot(report.end) != outgoing.kept.snapshot.end {
            return;
        }
        outgoing.reported_bytes = report.received_bytes.min(outgoing.kept.snapshot.bytes.len() as u64);
        if report.received_bytes > outgoing.received_bytes {
            outgoing.received_bytes = report.received_bytes.min(outgoing.sent_bytes);
            progress.moved_at = now;
            progress.patience = retransmit;
        }
        self.send_chunks(index, out);
        self.is_urgent = true;
    }

    pub(crate) fn on_snapshot_chunk(&mut self, now: Instant, node: u32, chunk: &SnapshotChunk<'_>, out: &mut Effects) {
        if !self.admit(node, chunk.sender) || Term(chunk.term) != self.state.term {
            return;
        }
        let snapshot_bytes_max = self.config.limits.snapshot_bytes_max as u64;
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        if follower.leader != Some(node) {
            return;
        }
        self.heard = Some(now);
        if Slot(chunk.end) <= self.commit_end || chunk.total_bytes > snapshot_bytes_max {
            self.counters.bad_snapshots_count += u64::from(chunk.total_bytes > snapshot_bytes_max);
            return;
        }
        let is_same = |incoming: &Incoming| {
            (incoming.end, incoming.total_bytes, incoming.crc)
                == (Slot(chunk.end), chunk.total_bytes, chunk.snapshot_crc)
        };
        if !follower.incoming.as_ref().is_some_and(is_same) {
            follower.incoming = Some(Incoming {
                end: Slot(chunk.end),
                last_term: Term(chunk.last_term),
                total_bytes: chunk.total_bytes,
                crc: chunk.snapshot_crc,
                bytes: Vec::new(),
            });
        }
        let Some(incoming) = &mut follower.incoming else { return };
        if chunk.offset_bytes == incoming.bytes.len() as u64 {
            incoming.bytes.extend_from_slice(chunk.bytes);
        }
        let (end, received_bytes) = (incoming.end, incoming.bytes.len() as u64);
        if received_bytes == incoming.total_bytes {
            // What is here stays here. The leader gets no answer, so it sends a chunk again, to a turn that may have room.
            if !out.has_room_to_install() {
                return;
            }
            if let Some(incoming) = follower.incoming.take()
                && !self.install(incoming, out)
            {
                return;
            }
        }
        let report = SnapshotReport {
            term: self.state.term.0,
            end: end.0,
            sender: self.sender(),
            received_bytes,
        };
        if let Some(peer) = self.nodes.peer(node) {
            let len_bytes = frame::HEADER_BYTES + snapshot::REPORT_BYTES;
            let _ = out.send(peer, len_bytes, |bytes| report.emit(bytes));
        }
    }

    /// Becomes what the snapshot says; says whether it was sound. The turn must have room for it: the log has to follow whatever
    /// becomes of window and machine, or the next entry would leave a gap in it.
    fn install(&mut self, incoming: Incoming, out: &mut Effects) -> bool {
        if crc32c(&incoming.bytes) != incoming.crc {
            self.counters.bad_snapshots_count += 1;
            return false;
        }
        let (end, last_term) = (incoming.end, incoming.last_term);
        let contents = match load(&incoming.bytes, &self.sessions, &mut self.machine) {
            Ok(contents) => contents,
            Err(_) => {
                self.counters.bad_snapshots_count += 1;
                return false;
            }
        };
        // Where our log has the snapshot's last entry, what is behind it may stay (Raft §7).
        let keeps = self.window.term_before(end) == Some(last_term) && end <= self.window.end();
        let snapshot = Snapshot {
            end,
            last_term,
            tail: if keeps { Tail::Keep } else { Tail::Drop },
            bytes: incoming.bytes.into(),
        };
        self.sessions = contents.sessions;
        self.memberships.retain(|&(from, _)| keeps && from > end);
        self.memberships.insert(0, (end, contents.members));
        match keeps {
            true => self.window.forget_before(end),
            false => {
                self.window.restart(end, last_term);
                // Its slots are safe once the log says so.
                self.durable_end = Slot(0);
            }
        }
        self.commit_end = end;
        self.applied_end = end;
        self.counters.snapshots_installed_count += 1;
        if let Role::Follower(Follower { matched_end, fast, .. }) = &mut self.role {
            *matched_end = (*matched_end).max(end);
            fast.next = self.window.end();
            fast.synced = *matched_end == self.window.end();
        }
        out.install(snapshot.clone()).expect("room was asked for");
        self.snapshot = Some(Kept::new(snapshot, contents.members));
        let is_synced = matches!(&self.role, Role::Follower(follower) if follower.fast.synced);
        if is_synced {
            // What came before its turn may be next now. Left there it would hide that something is missing: a gap is reported up
            // to what is held.
            self.take_held(out);
        }
        true
    }
}
