//! A reign: from asking for permission to being refused.
//!
//! ```text
//!  a link:  Idle ─▶ Asked ─▶ Header ─▶ Known ─▶ Promising ─▶ Reading ─▶ Rechecking ─▶ Read ─▶ Confirmed      in the fast path
//!            ▲     granted?  promise   chosen    higher one    its log   still ours?  settled     │
//!            └──────────────────────── unreachable ───────────────────────────────────────────◀───┤
//!                                                                  Behind ◀── too far, too slow ──┘
//! ```
//!
//! A majority of links goes through it together when a reign begins; those that come later go through the same.

use dataplane_waist::{Effects, Instant, StateMachine};

use super::{
    config::Mutation,
    flights::What,
    layout::{self, MIN_PROPOSAL_AT, PERMISSION_AT, WORD_BYTES},
    replica::{Plane, Planes, Replica},
};

/// A leader's, or who wants to be one.
#[derive(Debug)]
pub(super) struct Reign {
    /// Chosen when a majority's promises are known.
    pub(super) proposal: Option<u64>,
    /// Where our own entries begin and what we have written: when a majority's logs are known.
    pub(super) log: Option<OwnLog>,
    /// The round that began last.
    pub(super) round: u64,
    pub(super) wants_round: bool,
    /// A heartbeat's time has passed: let followers know what is committed.
    pub(super) must_tell: bool,
    pub(super) full_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OwnLog {
    /// The slot of our first entry, which is empty.
    pub(super) begin: u64,
    pub(super) end: u64,
    /// The proposal of the last entry.
    pub(super) last: u64,
}

impl Reign {
    pub(super) fn is_settled(&self) -> bool {
        self.log.is_some()
    }
}

/// How far a follower is with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// There is no reign.
    Unasked,
    /// It is to be asked for permission. `again`: it had granted it in this reign.
    Idle { retry_at: Instant, again: bool },
    /// Its answer is looked for, until then: somebody else may have asked right after us.
    Asked { number: u64, until: Instant },
    /// Its promise is being read.
    Header,
    /// It is known. `verify`: who lost its memory waits for a round that begins after that was seen.
    Known { min_proposal: u64, verify: Option<u64> },
    /// A higher one is being written.
    Promising,
    /// Its log is being read.
    Reading { next: u64, is_under_way: bool },
    /// It has been; whether it still had our promise then is being read.
    Rechecking { is_under_way: bool },
    /// It is known.
    Read,
    /// It gets what we write.
    Confirmed(Progress),
    /// It needs a snapshot first, which is offered again at that time.
    Behind { offer_at: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The next slot that is written to it.
    pub(super) next: u64,
    /// Everything before has been.
    pub(super) acked_end: u64,
    pub(super) round_acked: u64,
    /// Whether it counts.
    pub(super) is_voter: bool,
    /// Who lost its memory counts when it has everything before this slot, and has been told so.
    pub(super) target: u64,
    pub(super) is_told: bool,
}

/// A follower's log behind what it, and we, have applied.
#[derive(Debug, Default)]
pub(super) struct RemoteLog {
    pub(super) from: u64,
    /// Proposals, and the slots' bytes.
    pub(super) entries: Vec<(u64, Vec<u8>)>,
    /// The proposal of the entry before `from`, which is committed.
    pub(super) before: u64,
}

impl RemoteLog {
    pub(super) fn end(&self) -> u64 {
        self.from + self.entries.len() as u64
    }

    pub(super) fn last_proposal(&self) -> u64 {
        self.entries.last().map_or(self.before, |(proposal, _)| *proposal)
    }
}

/// A lost link is tried again after so many heartbeats.
const RETRY_HEARTBEATS: u32 = 2;

/// Permission is asked for again after so many heartbeats.
const ASK_HEARTBEATS: u32 = 10;

/// A failed reign doubles the pause before the next so many times at most.
const DOUBLINGS_MAX: u32 = 5;

impl<S: StateMachine> Replica<S> {
    /// Asks everybody for permission.
    pub(super) fn stand(&mut self, now: Instant, planes: &mut Planes<'_>) {
        let number = self.next_number();
        if !self.grant_ourselves(number, planes) {
            return;
        }
        self.counters.stood_count += 1;
        self.reign = Some(Reign {
            proposal: None,
            log: None,
            round: 0,
            wants_round: false,
            must_tell: false,
            full_since: None,
        });
        for other in &mut self.others {
            other.epoch += 1;
            other.link = Link::Idle {
                retry_at: now,
                again: false,
            };
        }
    }

    /// A request's number: larger than all before, of earlier lives too.
    fn next_number(&mut self) -> u64 {
        self.requests_count += 1;
        u64::from(self.config.life) << 32 | u64::from(self.requests_count)
    }

    /// Ends the reign, if there is one. What was under way may still be committed by the next leader.
    pub(super) fn step_down(&mut self, now: Instant) {
        if self.reign.take().is_none() {
            return;
        }
        self.emitted = None;
        self.counters.stepped_down_count += 1;
        self.waiting.clear();
        self.writes.clear();
        self.reads.clear();
        for other in &mut self.others {
            other.epoch += 1;
            other.link = Link::Unasked;
            other.log = Default::default();
            other.pin = None;
        }
        // By number, so that two that stand at once do not do so for ever.
        let pause = self.config.timing.heartbeat * (1 + self.config.node);
        self.hold_until = now + pause * (1 << self.failures_count);
        self.failures_count = (self.failures_count + 1).min(DOUBLINGS_MAX);
    }

    /// The follower does not answer, or is not who it was.
    pub(super) fn lose_link(&mut self, now: Instant, index: usize) {
        let other = &mut self.others[index];
        let again = match other.link {
            Link::Unasked => return,
            Link::Idle { again, .. } => again,
            Link::Asked { .. } => false,
            _ => true,
        };
        other.epoch += 1;
        other.log = Default::default();
        other.link = Link::Idle {
            retry_at: now + self.config.timing.heartbeat * RETRY_HEARTBEATS,
            again,
        };
        self.counters.lost_links_count += 1;
    }

    /// What a leader does in a turn, or who wants to be one.
    pub(super) fn lead(&mut self, now: Instant, planes: &mut Planes<'_>, out: &mut Effects) {
        for index in 0..self.others.len() {
            if self.reign.is_none() {
                return;
            }
            self.advance(now, index, planes);
        }
        self.choose_proposal(planes);
        self.settle(now, planes);
        self.write_on(now, planes, out);
    }

    /// Gives slots to what waits for one, and writes them.
    pub(super) fn write_entries(&mut self, now: Instant, planes: &mut Planes<'_>) {
        self.propose(now, planes);
        self.send_entries(planes);
        self.keep_entry(planes);
        self.sum_up();
        self.may_write = !self.has_sent_all();
    }

    /// What a leader does in every turn. An answer goes out before the next entry.
    pub(super) fn write_on(&mut self, now: Instant, planes: &mut Planes<'_>, out: &mut Effects) {
        if self.leads().is_some() {
            self.commit(planes, out);
            self.write_entries(now, planes);
            self.begin_round(planes);
            self.tell(planes);
            self.serve_reads(out);
        }
    }

    fn advance(&mut self, now: Instant, index: usize, planes: &mut Planes<'_>) {
        let other = &self.others[index];
        match other.link {
            Link::Idle { retry_at, again } if now >= retry_at => {
                // It was ours and is another's: we are not the leader any more, or the other will be told so by us.
                let granted_to = other.beacon.and_then(|beacon| beacon.granted).map(|(node, _)| node);
                if again && granted_to.is_some_and(|node| node != self.config.node) {
                    return self.step_down(now);
                }
                // What we wrote before may be under way still. With a new permission it would land, also over what another leader has
                // written there meanwhile.
                let is_clear = !self.flights[Plane::Replication as usize].has_any_to(index);
                if !is_clear && !self.config.makes(Mutation::AskedEarly) {
                    return;
                }
                let number = self.next_number();
                let at = layout::mailbox_at(self.config.node) + PERMISSION_AT;
                let to = (Plane::Background, index);
                if self.post_write(planes, to, at, &number.to_ne_bytes(), What::Permission) {
                    let until = now + self.config.timing.heartbeat * ASK_HEARTBEATS;
                    self.others[index].link = Link::Asked { number, until };
                }
            }
            Link::Asked { number, until } => {
                let Some(beacon) = other.beacon.filter(|it| it.granted == Some((self.config.node, number))) else {
                    if now >= until {
                        self.others[index].epoch += 1;
                        self.others[index].link = Link::Idle {
                            retry_at: now,
                            again: false,
                        };
                    }
                    return self.read_beacon(index, planes);
                };
                let from = (Plane::Replication, index);
                if self.post_read(planes, from, 0, layout::HEADER_BYTES, What::Header) {
                    self.others[index].life = beacon.life;
                    self.others[index].link = Link::Header;
                }
            }
            Link::Known { min_proposal, verify } => self.promise(now, index, (min_proposal, verify), planes),
            Link::Reading {
                next,
                is_under_way: false,
            } => self.read_slots(index, next, planes),
            Link::Rechecking { is_under_way: false } => {
                let from = (Plane::Replication, index);
                let is_under_way = self.post_read(planes, from, MIN_PROPOSAL_AT, WORD_BYTES, What::Recheck);
                self.others[index].link = Link::Rechecking { is_under_way };
            }
            Link::Read => self.confirm(now, index, planes),
            Link::Confirmed(progress) => self.finish_recovery(index, progress, planes),
            Link::Behind { offer_at } => self.help(now, index, offer_at, planes),
            Link::Idle { .. } | Link::Unasked | Link::Header | Link::Promising => {}
            Link::Reading { .. } | Link::Rechecking { .. } => {}
        }
    }
}
