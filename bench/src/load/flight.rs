//! Requests under way: a fixed table that knows, for each number, when it was meant to go, when it went, and whether
//! its reply came. Both loops send and receive through it, so they differ only in when they ask.

use std::time::Duration;

use dataplane_echo::{RequestTemplate, reply};
use dataplane_waist::{Clock, Instant, Peer, Port, PortStats, TxError};
use dataplane_wire::Reject;

use super::{
    outcome::{LoadError, LoadResult, port_stats_between},
    series::{SERIES_POINTS_MAX, Series},
    thread::ThreadUsage,
};
use crate::measure::Recorder;

/// The shortest and the longest time-out. A lost request is known as lost only then, and the run ends no earlier.
pub const TIMEOUT_MIN: Duration = Duration::from_micros(1);
/// See [`TIMEOUT_MIN`].
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// The most requests in flight at once: 32 MB of table.
pub(super) const SLOTS_MAX: usize = 1 << 20;
/// The fewest slots.
const SLOTS_MIN: usize = 1 << 10;

/// How long a sleeping client rests at most before it looks whether it is to stop.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(20);

/// What both loops are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlightOptions {
    pub frame_bytes: usize,
    pub timeout: Duration,
    pub client_id: u32,
    pub series_points_count: usize,
    /// The time that the series spans.
    pub span: Duration,
    /// Requests that may be in flight at once; rounded up to a power of two within the table's bounds.
    pub in_flight_max: usize,
    /// Does a request have an intended send time of its own?
    pub has_schedule: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Answered,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    seq: u64,
    intended_ns: u64,
    sent_ns: u64,
    state: State,
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    received: u64,
    lost: u64,
    late: u64,
    duplicate: u64,
    corrupted: u64,
    tx_full: u64,
    evicted: u64,
    rejects: [u64; Reject::ALL.len()],
}

/// The table, and everything that is recorded from it.
#[derive(Debug)]
pub(super) struct Flight {
    client_id: u32,
    server: Peer,
    template: RequestTemplate,
    timeout_ns: u64,
    has_schedule: bool,
    /// `slots[seq & mask]`.
    slots: Box<[Slot]>,
    mask: u64,
    /// The number of the next request.
    next_seq: u64,
    /// No request below this number waits.
    oldest_seq: u64,
    waiting_count: usize,
    start_ns: u64,
    last_sent_ns: u64,
    last_answer_ns: u64,
    latency: Recorder,
    service: Recorder,
    schedule_lag: Recorder,
    series: Series,
    counts: Counts,
    port_before: PortStats,
    usage_before: ThreadUsage,
}

impl Flight {
    /// Checks the options against their bounds and the port, and allocates everything that the run needs.
    pub(super) fn new(port: &dyn Port, server: Peer, options: &FlightOptions) -> Result<Flight, LoadError> {
        let template = RequestTemplate::new(options.client_id, options.frame_bytes)?;
        let caps = port.caps();
        if options.frame_bytes > caps.frame_bytes_max {
            return Err(LoadError::TooLong {
                port: caps.name,
                frame_bytes_max: caps.frame_bytes_max,
                frame_bytes: options.frame_bytes,
            });
        }
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&options.timeout) {
            return Err(LoadError::Option {
                option: "the time-out",
                seen: format!("{:?}", options.timeout),
                bound: "1 µs to 60 s",
            });
        }
        if options.series_points_count > SERIES_POINTS_MAX {
            return Err(LoadError::Option {
                option: "the number of points in the time series",
                seen: options.series_points_count.to_string(),
                bound: "at most 600",
            });
        }
        let slots_count = options.in_flight_max.clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        // No request has this number, and writing it touches the table's memory.
        let empty = Slot {
            seq: u64::MAX,
            intended_ns: 0,
            sent_ns: 0,
            state: State::Answered,
        };
        Ok(Flight {
            client_id: options.client_id,
            server,
            template,
            timeout_ns: options.timeout.as_nanos() as u64,
            has_schedule: options.has_schedule,
            slots: vec![empty; slots_count].into_boxed_slice(),
            mask: slots_count as u64 - 1,
            next_seq: 0,
            oldest_seq: 0,
            waiting_count: 0,
            start_ns: 0,
            last_sent_ns: 0,
            last_answer_ns: 0,
            latency: Recorder::new(),
            service: Recorder::new(),
            schedule_lag: Recorder::new(),
            series: Series::new(options.series_points_count, options.span.as_nanos() as u64),
            counts: Counts::default(),
            port_before: port.stats(),
            usage_before: ThreadUsage::now(),
        })
    }

    /// The run begins; offsets of the series count from here.
    pub(super) fn start(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.last_sent_ns = start_ns;
        self.last_answer_ns = start_ns;
        self.usage_before = ThreadUsage::now();
    }

    /// Requests that wait for their reply.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting_count
    }

    /// Passes over numbers whose slot still waits, so that nothing is given up while fewer wait than there are slots.
    /// For loops whose number of waiting requests is small; costs a step for each of them.
    pub(super) fn skip_waiting_slots(&mut self) {
        while self.waiting_count < self.slots.len()
            && self.slots[(self.next_seq & self.mask) as usize].state == State::Waiting
        {
            self.next_seq += 1;
        }
    }

    /// Queues the next request, meant for `intended_ns` (`None`: for now). It leaves at the latest with the port's next
    /// flush. Says when it was sent.
    pub(super) fn send(
        &mut self,
        port: &mut dyn Port,
        clock: &dyn Clock,
        intended_ns: Option<u64>,
    ) -> Result<u64, LoadError> {
        let seq = self.next_seq;
        let index = (seq & self.mask) as usize;
        if self.slots[index].state == State::Waiting {
            self.lose(index);
            self.counts.evicted += 1;
        }
        let sent_ns = clock.now().as_ns();
        let intended_ns = intended_ns.unwrap_or(sent_ns);
        self.slots[index] = Slot {
            seq,
            intended_ns,
            sent_ns,
            state: State::Waiting,
        };
        self.next_seq += 1;
        self.waiting_count += 1;
        self.counts.sent += 1;
        self.last_sent_ns = sent_ns;
        self.series.sent(intended_ns.saturating_sub(self.start_ns));
        if self.has_schedule {
            self.schedule_lag.record(sent_ns.saturating_sub(intended_ns));
        }

        let Flight { template, server, .. } = self;
        let mut stamp = |frame: &mut [u8]| template.stamp(frame, seq, intended_ns);
        let mut queued = port.tx(*server, template.frame_bytes(), &mut stamp);
        if queued == Err(TxError::Full) {
            port.flush().map_err(|error| LoadError::Port {
                doing: "sending",
                error,
            })?;
            queued = port.tx(*server, template.frame_bytes(), &mut stamp);
        }
        match queued {
            Ok(()) => {}
            // The question was due and could not be asked: to whoever waits for the answer, that is a lost request.
            Err(TxError::Full) => {
                self.counts.tx_full += 1;
                self.lose(index);
            }
            Err(TxError::NoPeer) => return Err(LoadError::NoPeer),
            Err(TxError::TooLong) => {
                let caps = port.caps();
                return Err(LoadError::TooLong {
                    port: caps.name,
                    frame_bytes_max: caps.frame_bytes_max,
                    frame_bytes: self.template.frame_bytes(),
                });
            }
        }
        Ok(sent_ns)
    }

    /// Takes in at most one burst of replies; says how many frames came.
    pub(super) fn receive(&mut self, port: &mut dyn Port, clock: &dyn Clock) -> Result<usize, LoadError> {
        // Each frame is stamped on its own: a port that makes a system call per frame may hand over frames that came
        // after the first was stamped.
        let frames_count = port.rx_burst(&mut |frame| match frame.from == self.server {
            true => self.on_frame(frame.bytes, clock.now().as_ns()),
            false => self.counts.rejects[Reject::Stranger.index()] += 1,
        });
        frames_count.map_err(|error| LoadError::Port {
            doing: "receiving",
            error,
        })
    }

    fn on_frame(&mut self, bytes: &[u8], now_ns: u64) {
        let reply = match reply(bytes, self.client_id) {
            Ok(reply) => reply,
            Err(reason) => {
                self.counts.rejects[reason.index()] += 1;
                return;
            }
        };
        let index = (reply.seq & self.mask) as usize;
        let slot = self.slots[index];
        if slot.seq != reply.seq {
            // Its slot is another's by now, so its own time-out is long past; or its number was never sent.
            match reply.seq < self.next_seq {
                true => self.counts.late += 1,
                false => self.counts.corrupted += 1,
            }
            return;
        }
        if bytes.len() != self.template.frame_bytes() || !reply.payload_intact || reply.sent_ns != slot.intended_ns {
            self.counts.corrupted += 1;
            return;
        }
        match slot.state {
            State::Answered => self.counts.duplicate += 1,
            State::Lost => {
                self.counts.late += 1;
                self.slots[index].state = State::Answered;
            }
            // It came in the same turn in which its time ran out.
            State::Waiting if now_ns.saturating_sub(slot.sent_ns) > self.timeout_ns => {
                self.lose(index);
                self.counts.late += 1;
                self.slots[index].state = State::Answered;
            }
            State::Waiting => {
                let latency_ns = now_ns.saturating_sub(slot.intended_ns);
                self.latency.record(latency_ns);
                self.service.record(now_ns.saturating_sub(slot.sent_ns));
                self.series
                    .answered(slot.intended_ns.saturating_sub(self.start_ns), latency_ns);
                self.slots[index].state = State::Answered;
                self.waiting_count -= 1;
                self.counts.received += 1;
                self.last_answer_ns = now_ns;
            }
        }
    }

    fn lose(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.state = State::Lost;
        let offset_ns = slot.intended_ns.saturating_sub(self.start_ns);
        self.waiting_count -= 1;
        self.counts.lost += 1;
        self.latency.record_lost();
        self.service.record_lost();
        self.series.lost(offset_ns);
    }

    /// Gives up the requests whose time is over at `now_ns`; says when the next one's will be. Requests are sent in
    /// the order of their numbers, so the oldest number runs out first.
    pub(super) fn expire(&mut self, now_ns: u64) -> Option<u64> {
        while self.oldest_seq < self.next_seq {
            let index = (self.oldest_seq & self.mask) as usize;
            let slot = self.slots[index];
            if slot.seq == self.oldest_seq && slot.state == State::Waiting {
                let expires_ns = slot.sent_ns.saturating_add(self.timeout_ns);
                if now_ns <= expires_ns {
                    // A time-out counts as passed only after it.
                    return Some(expires_ns + 1);
                }
                self.lose(index);
            }
            self.oldest_seq += 1;
        }
        None
    }

    /// Rests in the port's way until `until_ns`, a frame, or [`WAIT_MAX`].
    pub(super) fn rest(&self, port: &mut dyn Port, now_ns: u64, until_ns: u64) -> Result<(), LoadError> {
        let max = Duration::from_nanos(until_ns.saturating_sub(now_ns)).min(WAIT_MAX);
        port.wait(max).map_err(|error| LoadError::Port {
            doing: "waiting",
            error,
        })
    }

    /// Ends the run: what it was, at `now`, out of `scheduled` requests in `span` (a closed loop has neither).
    pub(super) fn finish(
        self,
        port: &dyn Port,
        now: Instant,
        scheduled: Option<(u64, Duration)>,
        interrupted: bool,
    ) -> LoadResult {
        let usage = ThreadUsage::now().since(&self.usage_before);
        let elapsed_ns = now.as_ns().saturating_sub(self.start_ns);
        let seconds = |ns: u64| (ns as f64 / 1e9).max(1e-9);
        // A run that was stopped early is judged by the time that it had.
        let span_ns = match (scheduled, interrupted) {
            (Some((_, span)), false) => span.as_nanos() as u64,
            _ => elapsed_ns,
        };
        let sending_ns = span_ns.max(self.last_sent_ns.saturating_sub(self.start_ns));
        let answering_ns = span_ns.max(self.last_answer_ns.saturating_sub(self.start_ns));
        let sent_rate_per_s = self.counts.sent as f64 / seconds(sending_ns);
        LoadResult {
            latency: self.latency,
            service: self.service,
            schedule_lag: self.schedule_lag,
            scheduled_count: scheduled.map_or(self.counts.sent, |(requests_count, _)| requests_count),
            sent_count: self.counts.sent,
            received_count: self.counts.received,
            lost_count: self.counts.lost,
            abandoned_count: self.waiting_count as u64,
            late_count: self.counts.late,
            duplicate_count: self.counts.duplicate,
            corrupted_count: self.counts.corrupted,
            tx_full_count: self.counts.tx_full,
            evicted_count: self.counts.evicted,
            rejects: self.counts.rejects,
            start_ns: self.start_ns,
            elapsed: Duration::from_nanos(elapsed_ns),
            offered_rate_per_s: scheduled.map_or(sent_rate_per_s, |(requests_count, span)| {
                requests_count as f64 / span.as_secs_f64().max(1e-9)
            }),
            sent_rate_per_s,
            achieved_rate_per_s: self.counts.received as f64 / seconds(answering_ns),
            series: self.series.points(),
            cpu_ns: usage.cpu_ns,
            voluntary_switches_count: usage.voluntary_switches_count,
            involuntary_switches_count: usage.involuntary_switches_count,
            port: port_stats_between(self.port_before, port.stats()),
            interrupted,
        }
    }
}
