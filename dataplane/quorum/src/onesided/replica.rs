//! A replica, and its turn.

use std::collections::VecDeque;

use dataplane_waist::{Completion, Effects, Instant, Peer, StateMachine, Window, WindowError};

use super::{
    config::{Config, ConfigError, Start},
    election::Score,
    flights::{Flight, Flights, What},
    layout::{Beacon, Offer},
    leader::{Link, Reign, RemoteLog},
    requests::{QueuedRead, QueuedWrite, Waiting},
    transfer::Fetch,
};
use crate::sessions::Sessions;

/// A node's two windows.
pub struct Planes<'a> {
    /// Open: mailboxes, beacons, snapshots.
    pub background: &'a mut dyn Window,
    /// The log: granted to one.
    pub replication: &'a mut dyn Window,
}

/// What a replica has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub applied_count: u64,
    pub appended_count: u64,
    pub written_count: u64,
    pub repeated_count: u64,
    pub busy_count: u64,
    pub not_leader_count: u64,
    pub expired_count: u64,
    pub refused_count: u64,
    pub round_reads_count: u64,
    pub stale_reads_count: u64,
    pub stood_count: u64,
    pub led_count: u64,
    pub stepped_down_count: u64,
    pub refused_writes_count: u64,
    pub lost_links_count: u64,
    pub adopted_count: u64,
    pub repaired_count: u64,
    pub torn_count: u64,
    pub grants_count: u64,
    pub offers_count: u64,
    pub snapshots_fetched_count: u64,
    pub recovered_count: u64,
    pub dropped_slow_count: u64,
    pub recheck_failed_count: u64,
    pub spoilt_offers_count: u64,
    pub ring_full_count: u64,
    /// Writes that this node has posted to a peer's memory, all of them, and reads.
    pub posted_count: u64,
}

/// How often in a heartbeat a leader whose clients wait looks at what is not theirs: who asks for permission, what others' beacons say.
const CHORES_PER_HEARTBEAT: u32 = 8;

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// Polls its memory.
    Follower,
    /// Has asked for permission.
    Candidate,
    /// Writes.
    Leader,
}

/// An entry that we have written in this reign, when nobody else can write our memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emitted {
    pub(super) slot: u64,
    /// CRC-32C of the payload, once it is computed.
    pub(super) crc: Option<u32>,
    /// Whether it stands in our memory.
    pub(super) is_kept: bool,
}

/// Another node, as this one sees it.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) node: u32,
    pub(super) peer: Peer,
    pub(super) score: Score,
    /// As it was read last.
    pub(super) beacon: Option<Beacon>,
    pub(super) is_beacon_under_way: bool,
    /// Up to which of its requests for permission we have granted.
    pub(super) granted_number: u64,
    /// Up to which of its asks for a snapshot we have answered.
    pub(super) answered_ask: u64,
    pub(super) link: Link,
    pub(super) epoch: u64,
    /// The life that the link is to.
    pub(super) life: u64,
    /// An offer of its that did not hold, and until when it is not taken up again.
    pub(super) spoilt: Option<(Offer, Instant)>,
    pub(super) log: RemoteLog,
    /// Where a snapshot ends that it was offered, and until when the slots behind that are kept for it.
    pub(super) pin: Option<(u64, Instant)>,
}

/// A replica that replicates by writing memory.
pub struct Replica<S> {
    pub(super) config: Config,
    pub(super) machine: S,
    pub(super) sessions: Sessions,
    pub(super) others: Vec<Other>,
    pub(super) flights: [Flights; 2],
    pub(super) is_full: bool,
    pub(super) heartbeat: u64,
    pub(super) tick_at: Instant,
    /// Until then a leader that has entries under way looks at nothing else.
    pub(super) chores_at: Instant,
    pub(super) granted: Option<(u32, u64)>,
    pub(super) requests_count: u32,
    pub(super) hold_until: Instant,
    pub(super) failures_count: u32,
    pub(super) reign: Option<Reign>,
    /// The highest proposal that was seen anywhere.
    pub(super) proposal_seen: u64,
    pub(super) commit_end: u64,
    pub(super) applied_end: u64,
    pub(super) applied_proposal: u64,
    /// Where the log in our memory begins: what is in slots before was left there when a snapshot came.
    pub(super) log_begin: u64,
    pub(super) fetch: Option<Fetch>,
    pub(super) fetches_count: u64,
    pub(super) asked_at: Option<Instant>,
    pub(super) writes: VecDeque<QueuedWrite>,
    pub(super) reads: VecDeque<QueuedRead>,
    pub(super) waiting: VecDeque<Waiting>,
    /// Some follower may lack an entry that could be written to it.
    pub(super) may_write: bool,
    pub(super) published: Option<Beacon>,
    is_open: bool,
    pub(super) counters: Counters,
    pub(super) slot_buffer: Vec<u8>,
    /// The entry that is in there, if it is the one that we have written last.
    pub(super) emitted: Option<Emitted>,
    /// Of the entry that was written last: the next request's.
    pub(super) spare_payload: Vec<u8>,
    finished: Vec<Completion>,
    /// What was applied in this turn, for whoever watches: slot, proposal, checksum of the entry.
    pub(super) applied: Vec<(u64, u64, u32)>,
    /// Where a snapshot ends that was taken over in this turn.
    pub(super) installed: Option<u64>,
    /// What we begin to lead with, in the turn in which we begin: as above, everything behind what was applied by then.
    pub(super) took_over: Option<Vec<(u64, u64, u32)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    Background,
    Replication,
}

impl<S: StateMachine> Replica<S> {
    /// A replica whose windows are zero.
    ///
    /// # Errors
    /// A configuration that cannot be.
    pub fn new(config: Config, machine: S) -> Result<Replica<S>, ConfigError> {
        config.check()?;
        let other = |&(node, peer): &(u32, Peer)| Other {
            node,
            peer,
            score: Score::default(),
            beacon: None,
            is_beacon_under_way: false,
            granted_number: 0,
            answered_ask: 0,
            link: Link::Unasked,
            epoch: 0,
            life: 0,
            spoilt: None,
            log: RemoteLog::default(),
            pin: None,
        };
        Ok(Replica {
            others: config.peers.iter().map(other).collect(),
            sessions: Sessions::new(config.limits.sessions_max, config.limits.session_replies),
            is_full: config.start == Start::First || config.makes(super::Mutation::AmnesiaIgnored),
            config,
            machine,
            flights: Default::default(),
            heartbeat: 0,
            tick_at: Instant::ZERO,
            chores_at: Instant::ZERO,
            granted: None,
            requests_count: 0,
            hold_until: Instant::ZERO,
            failures_count: 0,
            reign: None,
            proposal_seen: 0,
            commit_end: 0,
            applied_end: 0,
            applied_proposal: 0,
            log_begin: 0,
            fetch: None,
            fetches_count: 0,
            asked_at: None,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            waiting: VecDeque::new(),
            may_write: true,
            published: None,
            is_open: false,
            counters: Counters::default(),
            slot_buffer: Vec::new(),
            emitted: None,
            spare_payload: Vec::new(),
            finished: Vec::new(),
            applied: Vec::new(),
            installed: None,
            took_over: None,
        })
    }

    /// Looks at everything once, and does what there is to do. To be called as often as can be; answers to clients go to `out`.
    pub fn turn(&mut self, now: Instant, planes: &mut Planes<'_>, out: &mut Effects) {
        if !self.is_open {
            self.is_open = planes.background.open().is_ok();
        }
        self.applied.clear();
        self.installed = None;
        self.took_over = None;
        if self.is_busy() && now < self.chores_at.min(self.tick_at) {
            // What waits for a slot goes on its way before it is looked what has come: whoever waits for that waits anyway.
            if self.may_write || !self.writes.is_empty() {
                self.write_entries(now, planes);
            }
            let heard_count = self.hear(now, planes, Plane::Replication);
            // Whoever waits for one answer looks many times: a look that finds nothing is short.
            if heard_count > 0 || self.has_round_to_begin() {
                self.write_on(now, planes, out);
            }
            return;
        }
        self.may_write = true;
        self.hear(now, planes, Plane::Replication);
        self.chores_at = now + self.config.timing.heartbeat / CHORES_PER_HEARTBEAT;
        self.hear(now, planes, Plane::Background);
        self.look_at_requests(now, planes);
        if now >= self.tick_at {
            self.tick(now, planes);
        }
        self.follow(planes, out);
        self.transfer(now, planes);
        self.lead(now, planes, out);
        self.publish(planes);
    }

    /// When there is something to do though nothing has happened to the windows.
    pub fn wake_at(&self) -> Instant {
        self.tick_at
    }

    /// Whether we lead, and clients wait for what we write.
    fn is_busy(&self) -> bool {
        self.leads().is_some() && !(self.waiting.is_empty() && self.writes.is_empty())
    }

    /// Takes in what is finished; says how much that was.
    fn hear(&mut self, now: Instant, planes: &mut Planes<'_>, plane: Plane) -> usize {
        let mut finished = std::mem::take(&mut self.finished);
        let window = planes.window(plane);
        let finished_count = window.poll_cq(&mut |completion| finished.push(completion));
        for Completion { wr_id, result } in finished.drain(..) {
            let mut bytes = Vec::new();
            planes.window(plane).take_read(wr_id, &mut bytes);
            let Some(flight) = self.flights[plane as usize].take(wr_id) else {
                continue;
            };
            match plane {
                Plane::Background => self.heard_background(now, flight, result, &bytes),
                Plane::Replication => self.heard_replication(now, flight, result, &bytes),
            }
        }
        self.finished = finished;
        finished_count
    }

    fn heard_background(&mut self, now: Instant, flight: Flight, result: Result<(), WindowError>, bytes: &[u8]) {
        let Flight { index, epoch, what } = flight;
        match what {
            What::Beacon => {
                self.others[index].is_beacon_under_way = false;
                if let Some(beacon) = Beacon::parse(bytes).filter(|_| result.is_ok()) {
                    self.on_beacon(now, index, beacon);
                }
            }
            What::Snapshot { fetch, at } => self.on_snapshot_part(fetch, at, result.is_ok().then_some(bytes)),
            What::Permission if result.is_err() && self.others[index].epoch == epoch => self.lose_link(now, index),
            _ => {}
        }
    }

    /// Posts a write; says whether it is under way.
    pub(super) fn post_write(
        &mut self,
        planes: &mut Planes<'_>,
        to: (Plane, usize),
        at: u64,
        bytes: &[u8],
        what: What,
    ) -> bool {
        let (plane, index) = to;
        let id = self.flights[plane as usize].next();
        let posted = planes.window(plane).write(self.others[index].peer, at, bytes, id);
        self.note_posted(plane, index, what, posted)
    }

    /// Posts a read; says whether it is under way.
    pub(super) fn post_read(
        &mut self,
        planes: &mut Planes<'_>,
        from: (Plane, usize),
        at: u64,
        len: usize,
        what: What,
    ) -> bool {
        let (plane, index) = from;
        let id = self.flights[plane as usize].next();
        let posted = planes.window(plane).read(self.others[index].peer, at, len as u32, id);
        self.note_posted(plane, index, what, posted)
    }

    fn note_posted(&mut self, plane: Plane, index: usize, what: What, posted: Result<(), WindowError>) -> bool {
        if posted.is_ok() {
            let epoch = self.others[index].epoch;
            self.flights[plane as usize].add(Flight { index, epoch, what });
            self.counters.posted_count += 1;
        }
        posted.is_ok()
    }

    fn publish(&mut self, planes: &mut Planes<'_>) {
        let beacon = Beacon {
            is_full: self.is_full,
            heartbeat: self.heartbeat,
            life: u64::from(self.config.life),
            applied_end: self.applied_end,
            applied_proposal: self.applied_proposal,
            granted: self.granted,
            leader: self.leader(),
            log_begin: self.log_begin,
        };
        if self.published != Some(beacon) {
            planes.background.store(0, &beacon.emit());
            self.published = Some(beacon);
        }
    }

    /// Our number.
    pub fn node(&self) -> u32 {
        self.config.node
    }

    /// What we are doing.
    pub fn role(&self) -> RoleName {
        match &self.reign {
            None => RoleName::Follower,
            Some(reign) if reign.is_settled() => RoleName::Leader,
            Some(_) => RoleName::Candidate,
        }
    }

    /// The proposal under which we lead, if we do.
    pub fn leads(&self) -> Option<u64> {
        self.reign.as_ref().filter(|reign| reign.is_settled())?.proposal
    }

    /// Everything before this slot is committed, as far as we know.
    pub fn commit_end(&self) -> u64 {
        self.commit_end
    }

    /// Everything before this slot is applied.
    pub fn applied_end(&self) -> u64 {
        self.applied_end
    }

    /// Whether our memory has all that we ever promised and acknowledged.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The machine.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// What the last turn has applied: slot, proposal, CRC-32C of the entry.
    pub fn applied(&self) -> &[(u64, u64, u32)] {
        &self.applied
    }

    /// If the last turn has taken over a snapshot: everything before this slot came with it.
    pub fn installed(&self) -> Option<u64> {
        self.installed
    }

    /// If we began to lead in the last turn: the log with which we did, behind what we had applied by then; as [`Replica::applied`].
    pub fn took_over(&self) -> Option<&[(u64, u64, u32)]> {
        self.took_over.as_deref()
    }

    /// In words, for whoever wonders why nothing happens.
    pub fn describe(&self) -> String {
        let links: Vec<String> = self
            .others
            .iter()
            .map(|other| {
                format!(
                    "{}: {:?} alive {} full {:?} applied {:?} granted {:?}",
                    other.node,
                    other.link,
                    other.score.is_alive(),
                    other.beacon.map(|beacon| beacon.is_full),
                    other.beacon.map(|beacon| beacon.applied_end),
                    other.beacon.and_then(|beacon| beacon.granted),
                )
            })
            .collect();
        format!(
            "node {}: {:?}, full {}, committed to {}, applied to {}, granted to {:?}, {:?}\n    {}",
            self.config.node,
            self.role(),
            self.is_full,
            self.commit_end,
            self.applied_end,
            self.granted,
            self.reign,
            links.join("\n    ")
        )
    }
}

impl Planes<'_> {
    pub(super) fn window(&mut self, plane: Plane) -> &mut dyn Window {
        match plane {
            Plane::Background => self.background,
            Plane::Replication => self.replication,
        }
    }
}
