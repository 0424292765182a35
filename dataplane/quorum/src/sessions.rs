//! Client sessions: a request that comes twice is one request (Raft §8, thesis §6.3). Part of the replicated state, so
//! every replica remembers, and forgets, the same.

use std::cmp::Ordering;

use dataplane_waist::Slot;
use dataplane_wire::{
    Reject,
    quorum::{VALUE_BYTES_MAX, reply::Outcome},
};

use crate::remainder::remainder;

/// The sessions, in a table of fixed size.
///
/// A session's number names its place in the table (`number % sessions_max`), so that looking it up costs one remainder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    sessions: Vec<Session>,
    sessions_max: usize,
    replies_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    id: u64,
    last_used: Slot,
    /// Of the requests that were answered; 0 for none.
    newest: u64,
    /// By `sequence % replies_max`; grows to that length as it is used.
    replies: Vec<Remembered>,
}

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remembered {
    sequence: u64,
    answer: Option<Answer>,
}

/// The answers that commands which change something can get, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Absent,
    Mismatch(Box<[u8]>),
    Refused(u8),
}

impl Answer {
    fn of(outcome: Outcome<'_>) -> Option<Answer> {
        match outcome {
            Outcome::Done => Some(Answer::Done),
            Outcome::Absent => Some(Answer::Absent),
            Outcome::Mismatch(value) => Some(Answer::Mismatch(value.into())),
            Outcome::Refused { reason } => Some(Answer::Refused(reason)),
            _ => None,
        }
    }

    fn outcome(&self) -> Outcome<'_> {
        match self {
            Answer::Done => Outcome::Done,
            Answer::Absent => Outcome::Absent,
            Answer::Mismatch(value) => Outcome::Mismatch(value),
            Answer::Refused(reason) => Outcome::Refused { reason: *reason },
        }
    }
}

/// What a session knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// Not seen: apply it.
    New,
    /// Applied before; this was the answer.
    Answered(Outcome<'a>),
    /// The session is not known (any more), or the number is older than it remembers. Whether the request was applied is
    /// not known either.
    Expired,
}

impl Sessions {
    /// No session yet.
    pub fn new(sessions_max: usize, replies_max: usize) -> Sessions {
        Sessions {
            sessions: Vec::with_capacity(sessions_max),
            sessions_max,
            replies_max,
        }
    }

    /// How many are open.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Opens one, by the entry in `slot`, and says its number. The table full, the one unused for longest goes.
    pub fn open(&mut self, slot: Slot) -> u64 {
        let oldest = || {
            let by_use = self
                .sessions
                .iter()
                .enumerate()
                .min_by_key(|(index, session)| (session.last_used, *index));
            by_use.map_or(0, |(index, _)| index)
        };
        let index = match self.sessions.len() < self.sessions_max {
            true => self.sessions.len(),
            false => oldest(),
        };
        // Slot 0 is a leader's empty entry, so no session has the number 0, which stands for "no session yet".
        let session = Session {
            id: slot.0 * self.sessions_max as u64 + index as u64,
            last_used: slot,
            newest: 0,
            replies: Vec::new(),
        };
        let id = session.id;
        match self.sessions.get_mut(index) {
            Some(place) => *place = session,
            None => self.sessions.push(session),
        }
        id
    }

    /// Every session, with the newest request of it that was answered; each at its own place ([`Sessions::place_of`]).
    pub fn newest(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.sessions.iter().map(|session| (session.id, session.newest))
    }

    /// Where a session of that number stands, if there is one.
    pub fn place_of(&self, client: u64) -> usize {
        remainder(client, self.sessions_max as u64) as usize
    }

    /// As [`Sessions::place_of`]; nothing if there is none of that number.
    pub(crate) fn place_if_open(&self, client: u64) -> Option<usize> {
        let place = self.place_of(client);
        let is_open = self.sessions.get(place).is_some_and(|session| session.id == client);
        is_open.then_some(place)
    }

    /// What is known of a client's request.
    pub fn look_up(&self, client: u64, sequence: u64) -> Known<'_> {
        let Some(session) = self.find(client) else {
            return Known::Expired;
        };
        let index = remainder(sequence, self.replies_max as u64) as usize;
        let remembered = session.replies.get(index);
        let Some((known, answer)) = remembered.and_then(|it| it.answer.as_ref().map(|answer| (it.sequence, answer)))
        else {
            return Known::New;
        };
        match known.cmp(&sequence) {
            Ordering::Less => Known::New,
            Ordering::Equal => Known::Answered(answer.outcome()),
            Ordering::Greater => Known::Expired,
        }
    }

    /// Remembers the answer to a request that was applied in `slot`.
    pub fn remember(&mut self, client: u64, sequence: u64, slot: Slot, outcome: Outcome<'_>) {
        let replies_max = self.replies_max;
        let Some(session) = self.find_mut(client) else { return };
        session.last_used = slot;
        // What an answer is not kept of is not remembered either.
        let answer = Answer::of(outcome);
        if answer.is_some() {
            session.newest = session.newest.max(sequence);
        }
        let index = remainder(sequence, replies_max as u64) as usize;
        if session.replies.len() <= index {
            let empty = Remembered {
                sequence: 0,
                answer: None,
            };
            session.replies.resize(index + 1, empty);
        }
        session.replies[index] = Remembered { sequence, answer };
    }

    fn find(&self, client: u64) -> Option<&Session> {
        let index = self.place_of(client);
        self.sessions.get(index).filter(|session| session.id == client)
    }

    fn find_mut(&mut self, client: u64) -> Option<&mut Session> {
        let index = self.place_of(client);
        self.sessions.get_mut(index).filter(|session| session.id == client)
    }

    /// Appends all of it to `out`.
    pub fn save(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_be_bytes());
        put(out, self.sessions_max as u64);
        put(out, self.replies_max as u64);
        put(out, self.sessions.len() as u64);
        for session in &self.sessions {
            put(out, session.id);
            put(out, session.last_used.0);
            let answered = || session.replies.iter().filter(|remembered| remembered.answer.is_some());
            put(out, answered().count() as u64);
            for remembered in answered() {
                put(out, remembered.sequence);
                match remembered.answer.as_ref().expect("filtered") {
                    Answer::Done => out.push(0),
                    Answer::Absent => out.push(1),
                    Answer::Mismatch(value) => {
                        out.push(2);
                        put(out, value.len() as u64);
                        out.extend_from_slice(value);
                    }
                    Answer::Refused(reason) => out.extend_from_slice(&[3, *reason]),
                }
            }
        }
    }

    /// Takes what [`Sessions::save`] wrote off the front of `bytes`.
    ///
    /// # Errors
    /// Why it is not that, or that it was written with other bounds: replicas of one cluster must forget alike.
    pub fn load(&self, bytes: &mut &[u8]) -> Result<Sessions, Reject> {
        let (sessions_max, replies_max) = (number(bytes)?, number(bytes)?);
        if (sessions_max, replies_max) != (self.sessions_max as u64, self.replies_max as u64) {
            return Err(Reject::Version);
        }
        let count = number(bytes)?;
        if count > sessions_max {
            return Err(Reject::Length);
        }
        let mut loaded = Sessions::new(self.sessions_max, self.replies_max);
        for index in 0..count {
            let (id, last_used) = (number(bytes)?, Slot(number(bytes)?));
            if id % sessions_max != index {
                return Err(Reject::Length);
            }
            loaded.sessions.push(Session {
                id,
                last_used,
                newest: 0,
                replies: Vec::new(),
            });
            let answers_count = number(bytes)?;
            if answers_count > replies_max {
                return Err(Reject::Length);
            }
            for _ in 0..answers_count {
                let sequence = number(bytes)?;
                let value;
                let outcome = match take(bytes, 1)?[0] {
                    0 => Outcome::Done,
                    1 => Outcome::Absent,
                    2 => {
                        let len_bytes = usize::try_from(number(bytes)?).map_err(|_| Reject::Length)?;
                        if len_bytes > VALUE_BYTES_MAX {
                            return Err(Reject::Length);
                        }
                        value = take(bytes, len_bytes)?;
                        Outcome::Mismatch(value)
                    }
                    3 => Outcome::Refused {
                        reason: take(bytes, 1)?[0],
                    },
                    _ => return Err(Reject::Kind),
                };
                loaded.remember(id, sequence, last_used, outcome);
            }
        }
        Ok(loaded)
    }
}

fn take<'a>(bytes: &mut &'a [u8], len_bytes: usize) -> Result<&'a [u8], Reject> {
    let (front, rest) = bytes.split_at_checked(len_bytes).ok_or(Reject::Short)?;
    *bytes = rest;
    Ok(front)
}

fn number(bytes: &mut &[u8]) -> Result<u64, Reject> {
    let (front, rest) = bytes.split_first_chunk::<8>().ok_or(Reject::Short)?;
    *bytes = rest;
    Ok(u64::from_be_bytes(*front))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_twice_is_answered_as_the_first_time() {
        let mut sessions = Sessions::new(4, 8);
        let id = sessions.open(Slot(1));
        assert_eq!(sessions.look_up(id, 5), Known::New);
        sessions.remember(id, 5, Slot(2), Outcome::Mismatch(b"other"));
        assert_eq!(sessions.look_up(id, 5), Known::Answered(Outcome::Mismatch(b"other")));
        // Out of order within the bound is new, older than the bound is not known.
        assert_eq!(sessions.look_up(id, 4), Known::New);
        sessions.remember(id, 13, Slot(3), Outcome::Done);
        assert_eq!(sessions.look_up(id, 5), Known::Expired);
        assert_eq!(sessions.look_up(id + 4, 5), Known::Expired);
    }

    /// As [`Sessions::newest`] says it, from what is remembered.
    fn newest_remembered(sessions: &Sessions) -> Vec<(u64, u64)> {
        let of = |session: &Session| {
            let answered = session.replies.iter().filter(|remembered| remembered.answer.is_some());
            (
                session.id,
                answered.map(|remembered| remembered.sequence).max().unwrap_or(0),
            )
        };
        sessions.sessions.iter().map(of).collect()
    }

    #[test]
    fn the_newest_request_of_each_session_is_known_in_any_order_after_loading_and_in_a_place_that_was_taken_over() {
        let mut sessions = Sessions::new(3, 4);
        let ids = [1, 2, 7, 9].map(|slot| sessions.open(Slot(slot)));
        assert_eq!(
            sessions.place_of(ids[3]),
            sessions.place_of(ids[0]),
            "the first had to go"
        );
        assert!(sessions.newest().all(|(_, newest)| newest == 0));
        for (index, sequence) in [(1, 9), (3, 5), (1, 7), (2, 3), (3, 6), (1, 8), (0, 99)] {
            sessions.remember(ids[index], sequence, Slot(20), Outcome::Done);
            assert_eq!(sessions.newest().collect::<Vec<_>>(), newest_remembered(&sessions));
        }
        assert_eq!(sessions.newest().nth(sessions.place_of(ids[1])), Some((ids[1], 9)));
        let mut bytes = Vec::new();
        sessions.save(&mut bytes);
        let loaded = Sessions::new(3, 4).load(&mut &bytes[..]).expect("just saved");
        assert_eq!(loaded.newest().collect::<Vec<_>>(), newest_remembered(&sessions));
    }

    #[test]
    fn the_session_unused_for_longest_makes_room() {
        let mut sessions = Sessions::new(2, 8);
        let (first, second) = (sessions.open(Slot(1)), sessions.open(Slot(2)));
        sessions.remember(first, 1, Slot(3), Outcome::Done);
        let third = sessions.open(Slot(4));
        assert_eq!(sessions.look_up(second, 1), Known::Expired);
        assert_eq!(sessions.look_up(first, 1), Known::Answered(Outcome::Done));
        assert_eq!(sessions.look_up(third, 1), Known::New);
        assert_eq!(sessions.count(), 2);
    }

    #[test]
    fn saved_and_loaded_is_the_same_and_cuts_are_refused() {
        let mut sessions = Sessions::new(3, 4);
        let ids = [1, 2, 7].map(|slot| sessions.open(Slot(slot)));
        for (index, id) in ids.into_iter().enumerate() {
            for sequence in 0..6 {
                let outcome = match sequence % 4 {
                    0 => Outcome::Done,
                    1 => Outcome::Absent,
                    2 => Outcome::Mismatch(b"value"),
                    _ => Outcome::Refused { reason: 4 },
                };
                sessions.remember(id, sequence + index as u64, Slot(20 + sequence), outcome);
            }
        }
        let mut bytes = Vec::new();
        sessions.save(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(Sessions::new(3, 4).load(&mut rest).as_ref(), Ok(&sessions));
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            assert_eq!(Sessions::new(3, 4).load(&mut &bytes[..cut]), Err(Reject::Short));
        }
        assert_eq!(Sessions::new(4, 4).load(&mut &bytes[..]), Err(Reject::Version));
    }
}
