//! The points on the way of a request and its reply, and the stages between them. Each stage ends where the next begins, so
//! the stages of a request add up to its round trip, and what does not add up is a stamp that is wrong.
//!
//! ```text
//!   client   app ─▶ scheduler ─▶ driver ┐                    ┌▶ driver ─▶ stack ─▶ app
//!                                       ▼                    │
//!   server                  driver ─▶ stack ─▶ app ─ app ─▶ driver
//! ```
//!
//! Between two machines no stamp of one is compared with one of the other. What the server accounts for, by differences of its own
//! stamps, is taken from the time that the client saw pass between its last stamp on the way out and its first on the way back; the
//! rest is one stage, the wire in both directions.
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

    /// Is it at the server's end?
    fn is_server(self) -> bool {
        (Point::ServerDriver..=Point::ServerSent).contains(&self)
    }

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

/// Whose clocks the two ends read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// Those of one machine.
    Shared,
    /// Each those of its own machine.
    Separate,
}

impl Clocks {
    /// How exactly durations of a breakdown are known, in nanoseconds, when the ends know their own clocks so exactly. A stage
    /// of separate clocks may have the errors of both.
    pub fn error_ns(self, client_ns: u64, server_ns: u64) -> u64 {
        match self {
            Clocks::Shared => client_ns.max(server_ns),
            Clocks::Separate => client_ns.saturating_add(server_ns),
        }
    }
}

/// When one request and its reply passed each point, in nanoseconds of CLOCK_MONOTONIC of the point's machine; 0 where it was
/// not stamped.
pub type Way = [u64; POINTS_COUNT];

/// A part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From one stamped point to the next, by one machine's clocks.
    Between {
        /// Where it begins.
        from: Point,
        /// Where it ends.
        to: Point,
    },
    /// From one machine to the other and back: the client's time from `left` to `returned` without the server's from `arrived` to
    /// `replied`.
    BothWays {
        /// The client's last point on the way out.
        left: Point,
        /// The server's first.
        arrived: Point,
        /// The server's last.
        replied: Point,
        /// The client's first on the way back.
        returned: Point,
    },
}

/// The name of the whole round trip among the stages.
pub const TOTAL: &str = "total";

/// The name of the one stage between two machines.
pub const WIRE: &str = "03 the wire, both ways";

/// The names of the stages in which somebody is woken; the receive path from the stack's stamp to the socket is in them
/// too.
pub const WAKEUPS: [&str; 2] = ["05 server stack to app", "10 client stack to app"];

impl Stage {
    /// What a row calls it; sorted by name they are in order.
    pub fn name(self) -> &'static str {
        let Stage::Between { from, to } = self else {
            return WIRE;
        };
        match (from, to) {
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
        match self {
            Stage::Between { from, to } => format!("{} to {}", end(from), end(to)),
            Stage::BothWays {
                left,
                arrived,
                replied,
                returned,
            } => format!(
                "the client's {} to {}, less the server's {} to {}",
                end(left),
                end(returned),
                end(arrived),
                end(replied)
            ),
        }
    }

    /// How long it took, in nanoseconds; less than nothing if stamps are out of order.
    fn duration_ns(self, way: &Way) -> i64 {
        let between = |from: Point, to: Point| way[to as usize].wrapping_sub(way[from as usize]).cast_signed();
        match self {
            Stage::Between { from, to } => between(from, to),
            Stage::BothWays {
                left,
                arrived,
                replied,
                returned,
            } => between(left, returned).saturating_sub(between(arrived, replied)),
        }
    }

    /// The stages between `points`, which are in order.
    fn all(points: &[Point], clocks: Clocks) -> Vec<Stage> {
        let mut stages = Vec::new();
        // The client's last point and the server's first.
        let mut outward = None;
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            if clocks == Clocks::Shared || from.is_server() == to.is_server() {
                stages.push(Stage::Between { from, to });
            } else if let Some((left, arrived)) = outward {
                stages.push(Stage::BothWays {
                    left,
                    arrived,
                    replied: from,
                    returned: to,
                });
            } else {
                outward = Some((from, to));
            }
        }
        stages.sort_by_key(|stage| stage.name());
        stages
    }
}

/// The stages of many requests.
#[derive(Clone, Debug)]
pub struct Stages {
    stations: Stations,
    points: Vec<Point>,
    stages: Vec<Stage>,
    /// One for each stage.
    durations: Vec<Recorder>,
    total: Recorder,
    incomplete_count: u64,
    /// By how much stages ended before they began.
    out_of_order: Recorder,
}

impl Stages {
    /// Nothing yet.
    pub fn new(stations: Stations, clocks: Clocks) -> Stages {
        let points = stations.points();
        let stages = Stage::all(&points, clocks);
        Stages {
            stations,
            durations: vec![Recorder::new(); stages.len()],
            total: Recorder::new(),
            points,
            stages,
            incomplete_count: 0,
            out_of_order: Recorder::new(),
        }
    }

    /// Who stamps.
    pub fn stations(&self) -> Stations {
        self.stations
    }

    /// Records one request that was answered, if all its stamps were made. A stage that ends before it begins counts as 0,
    /// and as out of order.
    pub fn record(&mut self, way: &Way) {
        if self.points.iter().any(|point| way[*point as usize] == 0) {
            self.incomplete_count += 1;
            return;
        }
        for (stage, recorder) in self.stages.iter().zip(&mut self.durations) {
            let duration_ns = stage.duration_ns(way);
            recorder.record(duration_ns.max(0).unsigned_abs());
            if duration_ns < 0 {
                self.out_of_order.record(duration_ns.unsigned_abs());
            }
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
        self.stages.iter().copied().zip(&self.durations)
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

    /// Stages that ended before they began, by more than the clocks' `error_ns`.
    pub fn out_of_order_count(&self, error_ns: u64) -> u64 {
        let by = self.out_of_order.histogram();
        let counts = by
            .iter_recorded()
            .filter(|bucket| bucket.value_iterated_to() > error_ns);
        counts.map(|bucket| bucket.count_at_value()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with the number of its stages.
    const ALL: [(Stations, Clocks, usize); 6] = [
        (Stations::Socket, Clocks::Shared, 8),
        (Stations::SocketAndDriver, Clocks::Shared, 10),
        (Stations::Ring, Clocks::Shared, 5),
        (Stations::Socket, Clocks::Separate, 7),
        (Stations::SocketAndDriver, Clocks::Separate, 9),
        (Stations::Ring, Clocks::Separate, 4),
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
        for (stations, clocks, count) in ALL {
            let mut stages = Stages::new(stations, clocks);
            (1..1000).for_each(|index| stages.record(&way(index * 1_000_000, stations)));
            assert_eq!(stages.stages().count(), count);
            let (sum_ns, total_ns) = (stages.sum_of_means_ns(), stages.total_mean_ns());
            assert!((sum_ns / total_ns - 1.0).abs() < 0.002, "{sum_ns} and {total_ns}");
            assert_eq!((stages.incomplete_count(), stages.out_of_order_count(0)), (0, 0));
        }
    }

    #[test]
    fn clocks_that_are_hours_apart_change_nothing_between_machines() {
        for stations in [Stations::Socket, Stations::SocketAndDriver, Stations::Ring] {
            let told = |apart_ns: i64| {
                let mut way = way(86_400_000_000_000, stations);
                for point in Point::ALL.into_iter().filter(|point| point.is_server()) {
                    let at_ns = &mut way[point as usize];
                    *at_ns = if *at_ns == 0 {
                        0
                    } else {
                        at_ns.strict_add_signed(apart_ns)
                    };
                }
                let mut stages = Stages::new(stations, Clocks::Separate);
                stages.record(&way);
                assert_eq!(stages.out_of_order_count(0), 0);
                let told = stages
                    .stages()
                    .map(|(stage, durations)| (stage.name(), durations.histogram().max()));
                told.collect::<Vec<_>>()
            };
            let same = told(0);
            assert_eq!(told(7_200_000_000_000), same);
            assert_eq!(told(-7_200_000_000_000), same);
            // Stage n takes n times 100 ns, and these two are between machines.
            let points = stations.points();
            let of_server = |point: &Point| point.is_server();
            let there = points.iter().position(of_server).expect("it has a server");
            let back = points.iter().rposition(of_server).expect("it has a server") + 1;
            let wire = same.iter().find(|(name, _)| *name == WIRE).expect("a wire");
            assert_eq!(wire.1, 100 * (there + back) as u64);
        }
    }

    #[test]
    fn a_server_that_accounts_for_more_than_the_client_saw_is_out_of_order() {
        let mut wrong = way(1_000_000, Stations::Socket);
        wrong[Point::ServerSent as usize] += 50_000;
        let mut stages = Stages::new(Stations::Socket, Clocks::Separate);
        stages.record(&wrong);
        assert_eq!(stages.out_of_order_count(60), 1);
        assert!(stages.sum_of_means_ns() > 1.5 * stages.total_mean_ns());
        assert_eq!(Clocks::Separate.error_ns(20, 30), 50);
        assert_eq!(Clocks::Shared.error_ns(20, 30), 30);
    }

    #[test]
    fn a_stamp_out_of_order_is_counted_and_spoils_the_sum() {
        let mut stages = Stages::new(Stations::Socket, Clocks::Shared);
        let mut wrong = way(1_000_000, Stations::Socket);
        wrong[Point::ServerStack as usize] -= 5_000;
        stages.record(&wrong);
        assert_eq!(stages.out_of_order_count(30), 1);
        assert!(stages.sum_of_means_ns() > 1.5 * stages.total_mean_ns());
        let mut within = way(1_000_000, Stations::Socket);
        within[Point::ServerReply as usize] = within[Point::ServerReceive as usize] - 20;
        stages.record(&within);
        assert_eq!(stages.out_of_order_count(30), 1, "the clocks' error explains it");
        assert_eq!(stages.out_of_order_count(10), 2, "a smaller one would not");
    }

    #[test]
    fn a_missing_stamp_leaves_the_whole_request_out() {
        let mut stages = Stages::new(Stations::SocketAndDriver, Clocks::Shared);
        stages.record(&way(1_000_000, Stations::Socket));
        assert_eq!((stages.incomplete_count(), stages.total().total_count()), (1, 0));
    }

    #[test]
    fn names_are_unique_and_in_order() {
        for (stations, clocks, _) in ALL {
            let stages = Stages::new(stations, clocks);
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
