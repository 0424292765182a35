//! What is in flight, segment by segment: sent when, arrived, lost, sent again. The sums over it are kept as it changes.
//!
//! ```text
//!   acked │ front                                   back │ never sent
//!   ──────┼──────┬──────┬────────┬──────┬────────┬───────┼──────────
//!         │ lost │ lost │ sacked │      │ sacked │       │
//!         │ and resent  │        │      │        │       │
//! ```
//!
//! Records are contiguous and sorted by their start, so a sequence number is found by bisection.

use std::collections::VecDeque;

/// It arrived, by SACK.
pub const SACKED: u8 = 1;
/// It is thought lost.
pub const LOST: u8 = 2;
/// A retransmission of it is in flight.
pub const RESENT: u8 = 4;
/// It was sent more than once, so an ack does not say which copy arrived (Karn).
pub const EVER_RESENT: u8 = 8;

/// A segment in flight, with the state of the connection when it was sent last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    pub start: u64,
    pub sent_ns: u64,
    /// The connection's delivered bytes then, and when the last of them were delivered.
    pub delivered_bytes: u64,
    pub delivered_ns: u64,
    /// When the segment was sent that was delivered last then: the start of the sending interval.
    pub first_sent_ns: u64,
    /// The connection's lost bytes then.
    pub lost_bytes: u64,
    /// In flight then, itself included.
    pub tx_in_flight_bytes: u32,
    pub len_bytes: u32,
    pub flags: u8,
    pub is_app_limited: bool,
}

const _: () = assert!(size_of::<Record>() <= 64, "a record is a cache line");

impl Record {
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.len_bytes)
    }

    pub fn is(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

#[derive(Debug, Default)]
pub struct Scoreboard {
    records: VecDeque<Record>,
    outstanding_bytes: u64,
    sacked_bytes: u64,
    lost_bytes: u64,
    resent_bytes: u64,
    /// Lost, and not sent again yet.
    to_resend_bytes: u64,
    /// The end of the highest sacked record; 0 if none is.
    sacked_end: u64,
    /// Below this nothing waits to be sent again.
    resend_from: u64,
    sacked_count: u32,
}

impl Scoreboard {
    #[inline]
    pub fn outstanding_bytes(&self) -> u64 {
        self.outstanding_bytes
    }

    #[inline]
    pub fn sacked_bytes(&self) -> u64 {
        self.sacked_bytes
    }

    pub fn sacked_count(&self) -> u32 {
        self.sacked_count
    }

    pub fn sacked_end(&self) -> u64 {
        self.sacked_end
    }

    #[inline]
    pub fn to_resend_bytes(&self) -> u64 {
        self.to_resend_bytes
    }

    #[inline]
    pub fn resent_bytes(&self) -> u64 {
        self.resent_bytes
    }

    /// RFC 6675's pipe: what is in the network, as far as one knows. Sacked data counts if `count_sacked`.
    #[inline]
    pub fn pipe_bytes(&self) -> u64 {
        (self.outstanding_bytes + self.resent_bytes).saturating_sub(self.sacked_bytes + self.lost_bytes)
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn get(&self, index: usize) -> &Record {
        &self.records[index]
    }

    pub fn front(&self) -> Option<&Record> {
        self.records.front()
    }

    /// A new segment at the end.
    #[inline]
    pub fn push(&mut self, record: Record) {
        self.outstanding_bytes += u64::from(record.len_bytes);
        self.records.push_back(record);
    }

    /// The first record that ends behind `seq`.
    pub fn index_of(&self, seq: u64) -> usize {
        self.records.partition_point(|record| record.end() <= seq)
    }

    /// Changes a record's flags, and the sums with them.
    pub fn set_flags(&mut self, index: usize, flags: u8) {
        let record = &mut self.records[index];
        let old = std::mem::replace(&mut record.flags, flags);
        let (record, len) = (*record, u64::from(record.len_bytes));
        self.count(old, len, false);
        self.count(flags, len, true);
        if flags & SACKED != 0 {
            self.sacked_end = self.sacked_end.max(record.end());
        }
        if waits(flags) {
            self.resend_from = self.resend_from.min(record.start);
        }
    }

    fn count(&mut self, flags: u8, len_bytes: u64, is_added: bool) {
        let change = |sum: &mut u64, by: u64| *sum = if is_added { *sum + by } else { *sum - by };
        if flags & SACKED != 0 {
            change(&mut self.sacked_bytes, len_bytes);
            self.sacked_count = if is_added {
                self.sacked_count + 1
            } else {
                self.sacked_count - 1
            };
        }
        if flags & LOST != 0 {
            change(&mut self.lost_bytes, len_bytes);
        }
        if flags & RESENT != 0 {
            change(&mut self.resent_bytes, len_bytes);
        }
        if waits(flags) {
            change(&mut self.to_resend_bytes, len_bytes);
        }
    }

    /// Takes what lies below `ack` off the front, giving each record to `visit`; one that is acknowledged in part is shortened and
    /// visited with that part's length.
    #[inline]
    pub fn ack_to(&mut self, ack: u64, mut visit: impl FnMut(&Record)) {
        while let Some(front) = self.records.front_mut() {
            if front.start >= ack {
                break;
            }
            let mut acked = *front;
            let is_whole = acked.end() <= ack;
            if !is_whole {
                acked.len_bytes = (ack - acked.start) as u32;
                front.start = ack;
                front.len_bytes -= acked.len_bytes;
            }
            let len = u64::from(acked.len_bytes);
            self.outstanding_bytes -= len;
            if acked.flags != 0 {
                self.count(acked.flags, len, false);
                if !is_whole && acked.is(SACKED) {
                    // The rest is still one sacked record.
                    self.sacked_count += 1;
                }
            }
            visit(&acked);
            if !is_whole {
                break;
            }
            self.records.pop_front();
        }
        if self.sacked_end <= ack {
            self.sacked_end = 0;
        }
    }

    /// The lowest record that waits to be sent again.
    pub fn next_to_resend(&mut self) -> Option<usize> {
        if self.to_resend_bytes == 0 {
            return None;
        }
        let mut index = self.index_of(self.resend_from);
        while let Some(record) = self.records.get(index) {
            if waits(record.flags) {
                self.resend_from = record.start;
                return Some(index);
            }
            index += 1;
        }
        unreachable!(
            "{} bytes wait to be sent again and no record does",
            self.to_resend_bytes
        );
    }

    /// The record was sent again: what was true of its first copy is replaced.
    pub fn resent(&mut self, index: usize, now: Record) {
        let record = &mut self.records[index];
        let flags = record.flags;
        *record = Record {
            start: record.start,
            len_bytes: record.len_bytes,
            flags,
            ..now
        };
        self.set_flags(index, flags | RESENT | EVER_RESENT);
    }

    /// Forgets every SACK: the receiver has taken them back (RFC 2018 §8).
    pub fn forget_sacks(&mut self) {
        for index in 0..self.records.len() {
            let flags = self.records[index].flags;
            self.set_flags(index, flags & !SACKED);
        }
        self.sacked_end = 0;
    }

    /// Gives its memory back. Only when nothing is in flight.
    pub fn free(&mut self) {
        debug_assert!(self.records.is_empty());
        self.records = VecDeque::new();
    }

    /// Its heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
    }
}

fn waits(flags: u8) -> bool {
    flags & (LOST | RESENT | SACKED) == LOST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(lens: &[u32]) -> Scoreboard {
        let mut board = Scoreboard::default();
        let mut start = 0;
        for &len_bytes in lens {
            board.push(Record {
                start,
                len_bytes,
                ..Record::default()
            });
            start += u64::from(len_bytes);
        }
        board
    }

    #[test]
    fn the_pipe_is_what_was_sent_less_what_arrived_or_was_lost() {
        let mut board = board(&[100, 100, 100, 100]);
        board.set_flags(0, LOST);
        board.set_flags(2, SACKED);
        assert_eq!((board.pipe_bytes(), board.to_resend_bytes()), (200, 100));
        assert_eq!(board.next_to_resend(), Some(0));
        board.resent(0, Record::default());
        assert_eq!((board.pipe_bytes(), board.to_resend_bytes()), (300, 0));
        assert_eq!(board.next_to_resend(), None);
        board.ack_to(300, |_| {});
        assert_eq!(
            (board.pipe_bytes(), board.sacked_bytes(), board.sacked_end()),
            (100, 0, 0)
        );
    }

    #[test]
    fn a_record_may_be_acknowledged_in_part() {
        let mut board = board(&[100, 100]);
        board.set_flags(0, LOST);
        let mut seen = Vec::new();
        board.ack_to(30, |record| seen.push((record.start, record.len_bytes)));
        assert_eq!(seen, [(0, 30)]);
        assert_eq!((board.outstanding_bytes(), board.to_resend_bytes()), (170, 70));
        assert_eq!(board.front().map(|record| record.start), Some(30));
    }
}
