//! Snapshots, for whoever lacks slots that were used again: published in the owner's memory, read from there.

use dataplane_waist::{Instant, StateMachine};
use dataplane_wire::checksum::crc32c;

use super::{
    config::Mutation,
    flights::What,
    layout::{self, ASK_AT, OFFER_AT, OFFER_BYTES, Offer, SNAPSHOT_AT, WORD_BYTES},
    replica::{Plane, Planes, Replica},
};
use crate::transfer::{self, Contents};

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct Fetch {
    number: u64,
    index: usize,
    offer: Offer,
    bytes: Vec<u8>,
    is_under_way: bool,
    has_failed: bool,
}

/// So many heartbeats are the slots kept that come behind an offered snapshot.
const PIN_HEARTBEATS: u32 = 40;

/// A snapshot is asked for again after so many heartbeats.
const ASK_HEARTBEATS: u32 = 3;

/// An offer that did not hold is tried again after so many heartbeats, if it is still there then: its owner may only not have answered.
const SPOILT_HEARTBEATS: u32 = 3;

impl<S: StateMachine> Replica<S> {
    /// Answers who asks for a snapshot; fetches what is offered.
    pub(super) fn transfer(&mut self, now: Instant, planes: &mut Planes<'_>) {
        for index in 0..self.others.len() {
            let at = layout::mailbox_at(self.others[index].node);
            let mut word = [0; WORD_BYTES];
            planes.background.load(at + ASK_AT, &mut word);
            let ask = layout::parse_word(&word);
            if ask > self.others[index].answered_ask && self.offer(now, index, planes) {
                self.others[index].answered_ask = ask;
            }
        }
        if self.leads().is_some() {
            self.fetch = None;
            return;
        }
        match &self.fetch {
            None => self.look_for_offer(now, planes),
            Some(fetch) if fetch.has_failed => {
                let (index, offer) = (fetch.index, fetch.offer);
                self.fetch = None;
                self.spoil(now, index, offer);
            }
            Some(fetch) if fetch.bytes.len() as u64 == fetch.offer.len_bytes => self.install(now),
            Some(_) => self.read_part(planes),
        }
    }

    /// Asks for one. It is the lowest number that asks, so it does not ask in vain.
    pub(super) fn ask_for_snapshot(&mut self, now: Instant, index: usize, planes: &mut Planes<'_>) {
        let pause = self.config.timing.heartbeat * ASK_HEARTBEATS;
        if self.asked_at.is_some_and(|asked_at| now < asked_at + pause) {
            return;
        }
        let number = u64::from(self.config.life) << 32 | (self.heartbeat & 0xFFFF_FFFF);
        let at = layout::mailbox_at(self.config.node) + ASK_AT;
        if self.post_write(
            planes,
            (Plane::Background, index),
            at,
            &number.to_ne_bytes(),
            What::Transfer,
        ) {
            self.asked_at = Some(now);
        }
    }

    /// Publishes what we have applied, and lets a peer know; says whether that is under way.
    pub(super) fn offer(&mut self, now: Instant, index: usize, planes: &mut Planes<'_>) -> bool {
        let bytes = transfer::save(self.config.members(), &self.sessions, &self.machine);
        assert!(
            bytes.len() <= self.config.layout.snapshot_bytes_max,
            "a snapshot of {} bytes, and room for {}: snapshot_bytes_max must hold the whole store",
            bytes.len(),
            self.config.layout.snapshot_bytes_max
        );
        planes.background.store(SNAPSHOT_AT, &bytes);
        let offer = Offer {
            crc: crc32c(&bytes),
            end: self.applied_end,
            proposal: self.applied_proposal,
            len_bytes: bytes.len() as u64,
        };
        let at = layout::mailbox_at(self.config.node) + OFFER_AT;
        let posted = self.post_write(planes, (Plane::Background, index), at, &offer.emit(), What::Transfer);
        if posted {
            self.counters.offers_count += 1;
            let until = now + self.config.timing.heartbeat * PIN_HEARTBEATS;
            self.others[index].pin = Some((offer.end, until));
        }
        posted
    }

    fn look_for_offer(&mut self, now: Instant, planes: &mut Planes<'_>) {
        for index in 0..self.others.len() {
            let mut bytes = [0; OFFER_BYTES];
            planes
                .background
                .load(layout::mailbox_at(self.others[index].node) + OFFER_AT, &mut bytes);
            let spoilt = self.others[index].spoilt.filter(|&(_, until)| now < until);
            let wanted = |offer: &Offer| {
                offer.end > self.applied_end
                    && offer.len_bytes <= self.config.layout.snapshot_bytes_max as u64
                    && spoilt.is_none_or(|(spoilt, _)| spoilt != *offer)
            };
            if let Some(offer) = Offer::parse(&bytes).filter(wanted) {
                self.fetches_count += 1;
                self.fetch = Some(Fetch {
                    number: self.fetches_count,
                    index,
                    offer,
                    bytes: Vec::new(),
                    is_under_way: false,
                    has_failed: false,
                });
                return self.read_part(planes);
            }
        }
    }

    fn read_part(&mut self, planes: &mut Planes<'_>) {
        let Some(fetch) = self.fetch.as_ref().filter(|fetch| !fetch.is_under_way) else {
            return;
        };
        let at = fetch.bytes.len();
        let len = (fetch.offer.len_bytes as usize - at).min(self.config.limits.request_bytes_max);
        let what = What::Snapshot {
            fetch: fetch.number,
            at,
        };
        let from = (Plane::Background, fetch.index);
        let posted = self.post_read(planes, from, SNAPSHOT_AT + at as u64, len, what);
        if let Some(fetch) = &mut self.fetch {
            fetch.is_under_way = posted;
        }
    }

    /// The offer does not hold. Its owner may have lost the next one on its way to us, so we must not wait for it: what others offer
    /// is looked at, and we may ask again.
    fn spoil(&mut self, now: Instant, index: usize, offer: Offer) {
        self.counters.spoilt_offers_count += 1;
        let pause = self.config.timing.heartbeat * SPOILT_HEARTBEATS;
        if self.config.makes(Mutation::OfferBelieved) {
            self.asked_at = Some(now);
            return;
        }
        self.others[index].spoilt = Some((offer, now + pause));
    }

    /// `None`: the owner does not answer.
    pub(super) fn on_snapshot_part(&mut self, number: u64, at: usize, bytes: Option<&[u8]>) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.number == number) else {
            return;
        };
        fetch.is_under_way = false;
        match bytes.filter(|_| at == fetch.bytes.len()) {
            Some(bytes) => fetch.bytes.extend_from_slice(bytes),
            None => fetch.has_failed = true,
        }
    }

    fn install(&mut self, now: Instant) {
        let Some(fetch) = self.fetch.take() else { return };
        let offer = fetch.offer;
        if offer.end <= self.applied_end || self.leads().is_some() {
            return;
        }
        // Another one was published while we read it, or since it was offered.
        if crc32c(&fetch.bytes) != offer.crc {
            return self.spoil(now, fetch.index, offer);
        }
        let Ok(Contents { sessions, .. }) = transfer::load(&fetch.bytes, &self.sessions, &mut self.machine) else {
            return self.spoil(now, fetch.index, offer);
        };
        self.sessions = sessions;
        self.applied_end = offer.end;
        self.applied_proposal = offer.proposal;
        self.log_begin = offer.end;
        self.installed = Some(offer.end);
        self.commit_end = self.commit_end.max(offer.end);
        self.counters.snapshots_fetched_count += 1;
    }
}
