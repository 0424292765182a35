//! The points on the way of a request and its reply, and the stages between them. Each stage ends where the next begins, so
//! the stages of a request add up to its round trip, and what does not add up is a stamp that is wrong.
//!
//! ```text
//!   client   app ─▶ scheduler ─▶ driver ┐                    ┌▶ driver ─▶ stack ─▶ app
//!                                       ▼                    │
//!   server                  driver ─▶ stack ─▶ app ─ app ─▶ driver
//! ```
//!
//! An AF_XDP ring has neither scheduler nor stack, and the one XDP program of its interface feeds it: of its way the programs
//! and the drivers that a frame leaves by are known.

use dataplane_ports::stamped::StampClock;
use serde::{Deserialize, Serialize};

use crate::measure::Recorder;

/// A point on the way, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Point {
    /// The client's program is about to send.
    ClientSend = 0,
    /// The request enters the client's packet scheduler.
    ClientScheduled,
    /// The client's driver passes it to its device.
    ClientSent,
    /// The XDP program at the server's interface has it.
    ServerDriver,
    /// The server's network stack has it.
    ServerStack,
    /// The server's program has it.
    ServerReceive,
    /// The server's program is about to send the reply.
    ServerReply,
    /// The server's driver passes it to its device.
    ServerSent,
    /// The XDP program at the client's interface has it.
    ClientDriver,
    /// The client's network stack has it.
    ClientStack,
    /// The client's program has it.
    ClientReceive,
}

/// How many points there are.
pub const POINTS_COUNT: usize = 11;

impl Point {
    /// All points, in order.
    pub const ALL: [Point; POINTS_COUNT] = [
        Point::ClientSend,
        Point::ClientScheduled,
        Point::ClientSent,
        Point::ServerDriver,
        Point::ServerStack,
        Point::ServerReceive,
        Point::ServerReply,
        Point::ServerSent,
        Point::ClientDriver,
        Point::ClientStack,
        Point::ClientReceive,
    ];

    /// Which clock its stamp is read from.
    fn clock(self, stations: Stations) -> StampClock {
        match (self, stations) {
            (Point::ClientSent | Point::ServerSent, Stations::Ring) => StampClock::Tai,
            (
                Point::ClientScheduled
                | Point::ClientSent
                | Point::ServerStack
                | Point::ServerSent
                | Point::ClientStack,
                _,
            ) => StampClock::Realtime,
            _ => StampClock::Monotonic,
        }
    }

    /// Who stamps.
    fn stamped_by(self, stations: Stations) -> &'static str {
        match self {
            Point::ClientSent | Point::ServerSent if stations == Stations::Ring => "AF_XDP, completion",
            Point::ClientSend | Point::ServerReceive | Point::ServerReply | Point::ClientReceive => "the program",
            Point::ClientScheduled => "SO_TIMESTAMPING, SCHED",
            Point::ClientSent | Point::ServerSent => "SO_TIMESTAMPING, SND",
            Point::ServerStack | Point::ClientStack => "SO_TIMESTAMPING, software RX",
            Point::ServerDriver | Point::ClientDriver => "XDP, bpf_ktime_get_ns",
        }
    }
}

/// Who stamps on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stations {
    /// Two sockets.
    Socket,
    /// Two sockets, and an XDP program at each of their interfaces.
    SocketAndDriver,
    /// Two AF_XDP rings.
    Ring,
}

impl Stations {
    /// The points that are stamped, in order.
    pub fn points(self) -> Vec<Point> {
        let is_stamped = |point: &Point| match point {
            Point::ClientSend
            | Point::ClientSent
            | Point::ServerReceive
            | Point::ServerReply
            | Point::ServerSent
            | Point::ClientReceive => true,
            Point::ClientScheduled | Point::ServerStack | Point::ClientStack => self != Stations::Ring,
            Point::ServerDriver | Point::ClientDriver => self == Stations::SocketAndDriver,
        };
        Point::ALL.into_iter().filter(is_stamped).collect()
    }

    /// What the rows of such a breakdown are called.
    pub fn back_end(self) -> &'static str {
        match self {
            Stations::Socket | Stations::SocketAndDriver => super::NAME,
            Stations::Ring => super::NAME_RING,
        }
    }
}

/// When one request and its reply passed each point, in nanoseconds of CLOCK_MONOTONIC; 0 where it was not stamped.
pub type Way = [u64; POINTS_COUNT];

/// From one stamped point to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where it begins.
    pub from: Point,
    /// Where it ends.
    pub to: Point,
}

/// The name of the whole round trip among the stages.
pub const TOTAL: &str = "total";

/// The names of the stages in which somebody is woken; the receive path from the stack's stamp to the socket is in them
/// too.
pub const WAKEUPS: [&str; 2] = ["05 server stack to app", "10 client stack to app"];

impl Stage {
    /// What a row calls it; sorted by name they are in order.
    pub fn name(self) -> &'static str {
        match (self.from, self.to) {
            (Point::ClientSend, Point::ClientSent) => "01 client app to driver",
            (Point::ClientSend, _) => "01 client app to scheduler",
            (Point::ClientScheduled, _) => "02 client scheduler to driver",
            (Point::ClientSent, Point::ServerDriver) => "03 driver to server driver",
            (Point::ClientSent, Point::ServerReceive) => "03 driver to server app",
            (Point::ClientSent, _) => "03 driver to server stack",
            (Point::ServerDriver, _) => "04 server driver to stack",
            (Point::ServerStack, _) => WAKEUPS[0],
            (Point::ServerReceive, _) => "06 server app",
            (Point::ServerReply, _) => "07 server app to driver",
            (Point::ServerSent, Point::ClientDriver) => "08 driver to client driver",
            (Point::ServerSent, Point::ClientReceive) => "08 driver to client app",
            (Point::ServerSent, _) => "08 driver to client stack",
            (Point::ClientDriver, _) => "09 client driver to stack",
            (Point::ClientStack | Point::ClientReceive, _) => WAKEUPS[1],
        }
    }

    /// Who made the two stamps, and of which clocks they are, for a row's facts.
    pub fn clocks(self, stations: Stations) -> String {
        let end = |point: Point| format!("{} ({})", point.clock(stations).name(), point.stamped_by(stations));
        format!("{} to {}", end(self.from), end(self.to))
    }
}

/// The stages of many requests.
#[derive(Clone, Debug)]
pub struct Stages {
    stations: Stations,
    points: Vec<Point>,
    /// One for each stage.
    durations: Vec<Recorder>,
    total: Recorder,
    incomplete_count: u64,
    out_of_order_count: u64,
}

impl Stages {
    /// Nothing yet.
    pub fn new(stations: Stations) -> Stages {
        let points = stations.points();
        Stages {
            stations,
            durations: vec![Recorder::new(); points.len() - 1],
            total: Recorder::new(),
            points,
            incomplete_count: 0,
            out_of_order_count: 0,
        }
    }

    /// Who stamps.
    pub fn stations(&self) -> Stations {
        self.stations
    }

    /// Records one request that was answered, if all its stamps were made. A stage that ends before it begins counts as 0,
    /// and as out of order if the clocks' `error_ns` does not explain it.
    pub fn record(&mut self, way: &Way, error_ns: u64) {
        if self.points.iter().any(|point| way[*point as usize] == 0) {
            self.incomplete_count += 1;
            return;
        }
        for (pair, recorder) in self.points.windows(2).zip(&mut self.durations) {
            let (from_ns, to_ns) = (way[pair[0] as usize], way[pair[1] as usize]);
            recorder.record(to_ns.saturating_sub(from_ns));
            self.out_of_order_count += u64::from(from_ns > to_ns.saturating_add(error_ns));
        }
        let (first_ns, last_ns) = (way[Point::ClientSend as usize], way[Point::ClientReceive as usize]);
        self.total.record(last_ns.saturating_sub(first_ns));
    }

    /// Counts one request that was answered and cannot be told in stages.
    pub fn record_incomplete(&mut self) {
        self.incomplete_count += 1;
    }

    /// Counts one request without a reply.
    pub fn record_lost(&mut self) {
        self.total.record_lost();
    }

    /// Each stage with its durations, in order.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, &Recorder)> {
        let stages = self.points.windows(2).map(|pair| Stage {
            from: pair[0],
            to: pair[1],
        });
        stages.zip(&self.durations)
    }

    /// Round trips, lost requests included.
    pub fn total(&self) -> &Recorder {
        &self.total
    }

    /// Mean of the round trips that were told in stages, in nanoseconds.
    pub fn total_mean_ns(&self) -> f64 {
        self.total.histogram().mean()
    }

    /// Sum of the stages' means, in nanoseconds: what [`Stages::total_mean_ns`] must be.
    pub fn sum_of_means_ns(&self) -> f64 {
        self.durations.iter().map(|recorder| recorder.histogram().mean()).sum()
    }

    /// Answered requests that lack a stamp.
    pub fn incomplete_count(&self) -> u64 {
        self.incomplete_count
    }

    /// Stages that ended before they began, by more than the clocks' error.
    pub fn out_of_order_count(&self) -> u64 {
        self.out_of_order_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with the number of its stages.
    const ALL: [(Stations, usize); 3] = [
        (Stations::Socket, 8),
        (Stations::SocketAndDriver, 10),
        (Stations::Ring, 5),
    ];

    /// A way whose every stage takes a little longer than the one before.
    fn way(start_ns: u64, stations: Stations) -> Way {
        let mut way = [0; POINTS_COUNT];
        let mut at_ns = start_ns;
        for (index, point) in stations.points().into_iter().enumerate() {
            at_ns += 100 * index as u64;
            way[point as usize] = at_ns;
        }
        way
    }

    #[test]
    fn stages_add_up_to_the_round_trip() {
        for (stations, count) in ALL {
            let mut stages = Stages::new(stations);
            (1..1000).for_each(|index| stages.record(&way(index * 1_000_000, stations), 30));
            assert_eq!(stages.stages().count(), count);
            let (sum_ns, total_ns) = (stages.sum_of_means_ns(), stages.total_mean_ns());
            assert!((sum_ns / total_ns - 1.0).abs() < 0.002, "{sum_ns} and {total_ns}");
            assert_eq!((stages.incomplete_count(), stages.out_of_order_count()), (0, 0));
        }
    }

    #[test]
    fn a_stamp_out_of_order_is_counted_and_spoils_the_sum() {
        let mut stages = Stages::new(Stations::Socket);
        let mut wrong = way(1_000_000, Stations::Socket);
        wrong[Point::ServerStack as usize] -= 5_000;
        stages.record(&wrong, 30);
        assert_eq!(stages.out_of_order_count(), 1);
        assert!(stages.sum_of_means_ns() > 1.5 * stages.total_mean_ns());
        let mut within = way(1_000_000, Stations::Socket);
        within[Point::ServerReply as usize] = within[Point::ServerReceive as usize] - 20;
        stages.record(&within, 30);
        assert_eq!(stages.out_of_order_count(), 1, "the clocks' error explains it");
    }

    #[test]
    fn a_missing_stamp_leaves_the_whole_request_out() {
        let mut stages = Stages::new(Stations::SocketAndDriver);
        stages.record(&way(1_000_000, Stations::Socket), 30);
        assert_eq!((stages.incomplete_count(), stages.total().total_count()), (1, 0));
    }

    #[test]
    fn names_are_unique_and_in_order() {
        for (stations, _) in ALL {
            let stages = Stages::new(stations);
            let names: Vec<&str> = stages.stages().map(|(stage, _)| stage.name()).collect();
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
            assert!(names.last().is_some_and(|last| *last < TOTAL));
            let wakeups_count = names.iter().filter(|name| WAKEUPS.contains(name)).count();
            assert_eq!(
                wakeups_count,
                if stations == Stations::Ring { 0 } else { 2 },
                "a ring has no stack"
            );
        }
    }
}
