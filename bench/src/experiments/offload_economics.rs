//! `offload-economics`: how much CPU time of the hosts a commit takes on each plane, and from how many commits a second on a card pays.

use std::collections::BTreeMap;

use super::{
    cycles::{FORMULA, metric},
    judge::{self, Bound, measured},
    virtual_time::Simulated,
    xdp_quorum::{
        Cell, SOCKET,
        placement::Placement,
        run_cells,
        ways::{DRIVER, ECHO, USER},
    },
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    record::{Better, Outcome, Row},
    table::{Arm, Table},
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "user: replicas in user space over kernel sockets; driver: XDP programs do the normal case, in hosts or on cards (placement); \
              echo: one server, what a request and an answer take. These run here. pipeline: as the driver on cards, with an FPGA for \
              the card; one-sided: a leader that writes into its followers' memory. These are modelled from what was measured",
    full: &[ECHO, USER, DRIVER, PIPELINE, ONE_SIDED],
    tour: &[ECHO, USER],
    smallest: USER,
    allowed: Allowed::Words,
};

const PLACEMENT: Axis = Axis {
    name: "placement",
    meaning: "driver: programs at the hosts' own interfaces, or on cards in front of them, which are namespaces of this machine",
    full: &["host", "dpu"],
    tour: &["host"],
    smallest: "host",
    allowed: Allowed::Words,
};

const RECEIVE: Axis = Axis {
    name: "receive",
    meaning: "who does receive work: a kernel thread for each interface, so that hosts and cards are charged for their own",
    full: &["thread"],
    tour: &["thread"],
    smallest: "thread",
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas",
    full: &["3", "5"],
    tour: &["3"],
    smallest: "3",
    allowed: Allowed::Words,
};

const POST_NS: Axis = Axis {
    name: "post_ns",
    meaning: "assumed, one-sided: the leader's CPU time to post a write to one follower and to find its completion",
    full: &["300"],
    tour: &["300"],
    smallest: "300",
    allowed: Allowed::Number(0.0, 100_000.0),
};

const CORE: Axis = Axis {
    name: "core_usd_per_hour",
    meaning: "assumed: what an hour of a core is worth",
    full: &["0.01", "0.04"],
    tour: &["0.04"],
    smallest: "0.04",
    allowed: Allowed::Number(0.000_1, 100.0),
};

const CARD: Axis = Axis {
    name: "card_usd",
    meaning: "assumed: what a card costs more than the network card without it, for each host",
    full: &["500", "2000"],
    tour: &["500"],
    smallest: "500",
    allowed: Allowed::Number(1.0, 1_000_000.0),
};

const YEARS: Axis = Axis {
    name: "card_years",
    meaning: "assumed: how long a card is used",
    full: &["4"],
    tour: &["4"],
    smallest: "4",
    allowed: Allowed::Number(0.1, 50.0),
};

const PIPELINE: &str = "pipeline";
const ONE_SIDED: &str = "one-sided";
const HOURS_PER_YEAR: f64 = 8_766.0;

const CLAIMS: &[Claim] = &[
    Claim {
        id: "offload-frees-hosts",
        sentence: "Programs on cards leave the hosts at most a quarter of the CPU time that a commit among three takes in user space",
        source: Source::Ours {
            seen: "1.5 of 18.3 µs stayed in hosts whose programs were on cards; iPipe (SIGCOMM 2019) saves 3.1 cores of a host",
        },
        invariant: "CPU time of all replicas' processes and of the kernel threads that receive for their hosts, for each answered put; the \
                    client's is left out. One request in flight, one CPU, threaded NAPI. Decided by paired ratios.",
        judge: frees_hosts,
    },
    Claim {
        id: "offload-driver-is-no-offload",
        sentence: "Programs in the hosts' own drivers take less of the hosts' CPU time than user space does, and it is still the hosts'",
        source: Source::Ours {
            seen: "18.3 µs with programs in hosts, where user space takes three processes' wake-ups",
        },
        invariant: "As offload-frees-hosts: the driver's ÷ user space's is at most 0.9, paired by round.",
        judge: driver_takes_less,
    },
    Claim {
        id: "offload-pays-beyond-a-core",
        sentence: "A card for each host pays for itself only at a rate of commits for which user space would keep more than one core of a \
                   host busy",
        source: Source::Ours {
            seen: "arithmetic: what is saved is core time, so that a card that costs as much as k cores must save k",
        },
        invariant: "Break-even is the card's cost for each hour ÷ what the CPU time saved by a commit is worth, at every price that is on the \
                    axes; prices are assumptions. The busiest host of user space is the leader's, by its measured CPU time for each commit. \
                    It holds if all break-even rates lie above that host's one core.",
        judge: pays_beyond_a_core,
    },
];

/// See the module.
#[derive(Debug)]
pub struct OffloadEconomics;

impl Experiment for OffloadEconomics {
    fn id(&self) -> &'static str {
        "offload-economics"
    }

    fn title(&self) -> &'static str {
        "What an offload frees"
    }

    fn question(&self) -> &'static str {
        "How much CPU time of the hosts does each plane take for a commit, and when would a card pay for itself?"
    }

    fn how(&self) -> &'static str {
        "The replicas of xdp-quorum with a kernel thread for each interface, so that receive work is charged to the host or card that \
         does it: in user space, with programs in the hosts, with programs on cards. What runs here is measured. A pipeline's hosts are \
         modelled as those of the cards, since they do the same: they empty a ring. A one-sided leader is modelled as an echo and a \
         post for each follower, its followers as nothing. Prices are axes, and assumptions; a rate of commits from which on the time \
         saved is worth a card follows from them."
    }

    fn axes(&self) -> &'static [Axis] {
        &[WAY, PLACEMENT, RECEIVE, REPLICAS, POST_NS, CORE, CARD, YEARS]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![SOCKET]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes in network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let ways = lab.values(&WAY);
        let replicas: Vec<usize> = lab.numbers(&REPLICAS).into_iter().map(|count| count as usize).collect();
        let places = lab.values(&PLACEMENT);
        let mut cells = Vec::new();
        for way in &ways {
            match way.as_str() {
                ECHO => cells.push(threaded(ECHO, 1, false)),
                USER => cells.extend(replicas.iter().map(|&count| threaded(USER, count, false))),
                DRIVER => {
                    for place in &places {
                        cells.extend(replicas.iter().map(|&count| threaded(DRIVER, count, place == "dpu")));
                    }
                }
                _ => {}
            }
        }
        if !cells.is_empty() {
            run_cells(self, lab, cells)?;
        }
        for &count in &replicas {
            for way in &ways {
                if lab.interrupted() {
                    return Ok(());
                }
                for row in modelled(lab, way, count) {
                    lab.record(row)?;
                }
            }
        }
        Ok(())
    }
}

fn threaded(way: &str, replicas_count: usize, on_card: bool) -> Cell {
    Cell {
        placement: Placement::threaded(on_card),
        ..Cell::plain(way, replicas_count)
    }
}

/// What the leader's host and all hosts take for a commit, in ns; and what it rests on.
struct HostCpu {
    leader: f64,
    all: f64,
    from: String,
}

fn measured_axes<'a>(way: &'a str, place: &'a str, count: &'a str) -> [(&'static str, &'a str); 3] {
    [(WAY.name, way), (PLACEMENT.name, place), (REPLICAS.name, count)]
}

/// The median over valid rounds.
fn median(table: &Table, (way, place, count): (&str, &str, &str), name: &str) -> Option<f64> {
    let axes = measured_axes(way, place, count);
    let rows = table.arm(Arm::of(SOCKET, &axes));
    let mut values: Vec<f64> = rows.into_iter().filter_map(|row| metric(row, name)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

fn host_cpu(table: &Table, way: &str, count: usize, post_ns: f64) -> Option<HostCpu> {
    let name = count.to_string();
    match way {
        PIPELINE => {
            let cards = (DRIVER, "dpu", name.as_str());
            Some(HostCpu {
                leader: median(table, cards, "leader_cpu_per_op")?,
                all: median(table, cards, "hosts_cpu_per_op")?,
                from: "modelled: the hosts of way=driver placement=dpu, which empty the same ring".to_owned(),
            })
        }
        ONE_SIDED => {
            let echo = median(table, (ECHO, "host", "1"), "hosts_cpu_per_op")?;
            let leader = echo + (count - 1) as f64 * post_ns;
            Some(HostCpu {
                leader,
                all: leader,
                from: format!(
                    "modelled: an echo's host, and {post_ns} ns for each of {} followers, whose CPUs do nothing",
                    count - 1
                ),
            })
        }
        _ => None,
    }
}

/// Rows of a modelled way: one for each of the prices.
fn modelled(lab: &Lab<'_>, way: &str, count: usize) -> Vec<Row> {
    if way != PIPELINE && way != ONE_SIDED {
        return Vec::new();
    }
    let name = count.to_string();
    let user = median(&lab.table, (USER, "host", &name), "hosts_cpu_per_op");
    let mut rows = Vec::new();
    for post_ns in lab.numbers(&POST_NS) {
        let Some((of, user)) = host_cpu(&lab.table, way, count, post_ns).zip(user) else {
            lab.say(&format!(
                "way={way} with {count} replicas is left out: it is modelled from rows of user, driver on cards and echo, which this run has not"
            ));
            return rows;
        };
        for core in lab.numbers(&CORE) {
            for card in lab.numbers(&CARD) {
                for years in lab.numbers(&YEARS) {
                    let prices = Prices { core, card, years };
                    rows.push(row(lab, (way, count, post_ns), &of, user, &prices));
                }
            }
        }
    }
    rows
}

/// Assumed, all of them.
struct Prices {
    core: f64,
    card: f64,
    years: f64,
}

impl Prices {
    /// Commits a second from which on cards for all hosts cost less than the CPU time that they save; none if they save nothing.
    fn break_even_per_sec(&self, hosts_count: usize, saved_ns: f64) -> Option<f64> {
        let card_per_hour = self.card / (self.years * HOURS_PER_YEAR);
        let cores = hosts_count as f64 * card_per_hour / self.core;
        (saved_ns > 0.0).then(|| cores / (saved_ns / 1e9))
    }
}

fn row(lab: &Lab<'_>, (way, count, post_ns): (&str, usize, f64), of: &HostCpu, user_ns: f64, prices: &Prices) -> Row {
    let axis = [
        (WAY.name, way.to_owned()),
        (REPLICAS.name, count.to_string()),
        (POST_NS.name, post_ns.to_string()),
        (CORE.name, prices.core.to_string()),
        (CARD.name, prices.card.to_string()),
        (YEARS.name, prices.years.to_string()),
    ];
    let axis: BTreeMap<String, String> = axis.map(|(name, value)| (name.to_owned(), value)).into();
    let mut row = Simulated::by(FORMULA, lab, ("offload-economics", axis), lab.choice.seed, 0.0);
    let saved_ns = user_ns - of.all;
    row.put("hosts_cpu_per_op", of.all, "ns", Better::Lower);
    row.put("leader_cpu_per_op", of.leader, "ns", Better::Lower);
    row.put("saved_cpu_per_op", saved_ns, "ns", Better::Higher);
    if let Some(rate) = prices.break_even_per_sec(count, saved_ns) {
        row.put("break_even_rate", rate, "1/s", Better::Lower);
    }
    row.fact(
        "yardstick",
        "arithmetic over this run's measured rows; nothing was sent",
    );
    row.fact("rests_on", &*of.from);
    row.fact("assumed", "prices, years and post_ns: axes, and nobody's figures");
    row.fact(
        "caveat",
        "CPU time on one core of a virtual machine with one request in flight: batches make all planes cheaper, user space most. A card's \
         power, its engineers and its failures are not in the price",
    );
    row.into_row()
}

fn ratio(table: &Table, what: &str, (way, place): (&'static str, &'static str), bound: Bound) -> Judgement {
    judge::ratio(
        table,
        what,
        (
            Arm::of(SOCKET, &measured_axes(way, place, "3")),
            Arm::of(SOCKET, &measured_axes(USER, "host", "3")),
        ),
        |row| metric(row, "hosts_cpu_per_op"),
        bound,
    )
}

fn frees_hosts(table: &Table) -> Judgement {
    let what = "hosts' CPU for a commit, programs on cards ÷ user space, three replicas";
    ratio(table, what, (DRIVER, "dpu"), Bound::AtMost(0.25))
}

fn driver_takes_less(table: &Table) -> Judgement {
    let what = "hosts' CPU for a commit, programs in hosts ÷ user space, three replicas";
    ratio(table, what, (DRIVER, "host"), Bound::AtMost(0.9))
}

fn pays_beyond_a_core(table: &Table) -> Judgement {
    let modelled: Vec<&Row> = table
        .valid()
        .filter(|row| row.axis.get(WAY.name).is_some_and(|way| way == PIPELINE))
        .collect();
    let mut figures = Vec::new();
    let mut holds = true;
    for row in modelled {
        let get = |axis: &Axis| row.axis.get(axis.name).map_or("", String::as_str);
        let Some(leader_ns) = median(table, (USER, "host", get(&REPLICAS)), "leader_cpu_per_op") else {
            continue;
        };
        let core_per_sec = 1e9 / leader_ns;
        let rate = metric(row, "break_even_rate");
        holds &= rate.is_none_or(|rate| rate > core_per_sec);
        let what = format!(
            "break-even among {}, a core at {} $/h, a card at {} $",
            get(&REPLICAS),
            get(&CORE),
            get(&CARD)
        );
        figures.push(measured(what, rate, "1/s", format!("> {core_per_sec:.0}"), 1));
    }
    match figures.is_empty() {
        true => {
            Judgement::not_measured("it is modelled from rows of user and of driver on cards, which this run has not")
        }
        false => Judgement::new(if holds { Outcome::Holds } else { Outcome::Fails }, figures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn a_card_that_costs_as_much_as_a_core_must_save_one() {
        let prices = Prices {
            core: 0.04,
            card: 0.04 * HOURS_PER_YEAR,
            years: 1.0,
        };
        // 10 µs saved by each commit: 100,000 of them are a core; three hosts have three cards.
        let rate = prices.break_even_per_sec(3, 10_000.0).expect("it saves");
        assert!((rate - 300_000.0).abs() < 1e-6, "{rate}");
        assert_eq!(prices.break_even_per_sec(3, 0.0), None);
    }

    #[test]
    fn a_break_even_below_a_core_is_seen() {
        let judge = |rate: f64| {
            let mut user = row_of(
                &[("way", USER), ("placement", "host"), ("replicas", "3")],
                &[("leader_cpu_per_op", 20_000.0)],
            );
            user.backend = SOCKET.to_owned();
            let pipeline = row_of(&[("way", PIPELINE), ("replicas", "3")], &[("break_even_rate", rate)]);
            pays_beyond_a_core(&Table {
                rows: vec![user, pipeline],
                seed: 1,
            })
            .outcome
        };
        assert_eq!(judge(60_000.0), Outcome::Holds);
        assert_eq!(judge(40_000.0), Outcome::Fails);
    }
}
