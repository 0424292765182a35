//! A thread that never sleeps, and real-time priority all the same.
//!
//! Linux lets real-time threads run for so much of each period (950 of 1,000 ms, `sched_rt_runtime_us`), and stops one that
//! has used that up for the rest of it, in one piece, whether anybody else wants the CPU or not (`sched_rt_runtime_exceeded`,
//! kernel/sched/rt.c; since Linux 6.12 only with CONFIG_RT_GROUP_SCHED). A thread that spins is stopped for 50 ms of every second.
//! Ordinary priority is no way out: nice levels count among the threads of one group, and a session is a group
//! (CONFIG_SCHED_AUTOGROUP), so any other program that wants the CPU gets half of it.
//!
//! So the thread steps back before it is stopped: an ordinary one for a tenth of the time, which costs two system calls if
//! nobody else is there.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

use super::thread::{Setting, fifo};

/// How often it steps back, or once in the kernel's period, if that is shorter. Rarely: where another thread waits for the CPU, each
/// time costs what the scheduler gives that one, 3 ms and more.
const CYCLE_US_MAX: i64 = 100_000;
/// Of what the kernel allows; the rest is for other real-time threads of this CPU, which the kernel counts, too.
const SHARE_OF_ALLOWED: f64 = 0.95;

/// What the kernel allows real-time threads, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// −1: all of it.
    runtime_us: i64,
    period_us: i64,
}

/// How long at a time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cycle {
    real_time_ns: u64,
    ordinary_ns: u64,
}

/// The priority of a thread that never sleeps and has a CPU to itself. It belongs to the thread that made it.
#[derive(Debug)]
pub struct Spinning {
    /// There is nothing to be done before that.
    next_ns: u64,
    is_real_time: bool,
    cycle: Cycle,
}

impl Spinning {
    /// For the calling thread, whose clock says `now_ns`: SCHED_FIFO as long as the kernel does not stop it for that, after a first pause; and
    /// what became of it. The thread's CPU must be its own, or who shares it hardly ever runs.
    pub fn begin(now_ns: u64) -> (Spinning, Setting) {
        Spinning::within(Bound::read(), now_ns)
    }

    fn within(bound: Bound, now_ns: u64) -> (Spinning, Setting) {
        let never = Spinning {
            next_ns: u64::MAX,
            is_real_time: false,
            cycle: Cycle {
                real_time_ns: 0,
                ordinary_ns: 0,
            },
        };
        // Also what it falls back to: among its own kind it is to be the first.
        let ordinary = become_ordinary();
        if bound.runtime_us == 0 {
            let fact = format!(
                "{}: the kernel lets no real-time thread run (sched_rt_runtime_us 0)",
                ordinary.fact
            );
            return (never, Setting { done: false, fact });
        }
        let real_time = fifo();
        if !real_time.done {
            let fact = format!("{}; {}", real_time.fact, ordinary.fact);
            return (never, Setting { done: false, fact });
        }
        let Some(cycle) = bound.cycle() else {
            return (never, real_time);
        };
        let fact = format!(
            "SCHED_FIFO for {} of every {} µs, else {}: the kernel would stop it after {} of {} µs",
            cycle.real_time_ns / 1_000,
            (cycle.real_time_ns + cycle.ordinary_ns) / 1_000,
            ordinary.fact,
            bound.runtime_us,
            bound.period_us
        );
        // The kernel counts the time of all real-time threads of this CPU, also of one that has just ended. To begin with the pause keeps both
        // together below its bound; to begin without one, after another's ninety milliseconds, does not.
        let is_real_time = !become_ordinary().done;
        let spinning = Spinning {
            next_ns: now_ns + cycle.ordinary_ns,
            is_real_time,
            cycle,
        };
        (spinning, Setting { done: true, fact })
    }

    /// In every turn of the thread's: steps back or up, when it is time.
    #[inline]
    pub fn turn(&mut self, now_ns: u64) {
        if now_ns >= self.next_ns {
            self.change(now_ns);
        }
    }

    #[cold]
    fn change(&mut self, now_ns: u64) {
        // What was granted once is granted again; if not, the thread is an ordinary one for a while longer.
        self.is_real_time = match self.is_real_time {
            true => !become_ordinary().done,
            false => fifo().done,
        };
        self.next_ns = now_ns
            + match self.is_real_time {
                true => self.cycle.real_time_ns,
                false => self.cycle.ordinary_ns,
            };
    }
}

impl Bound {
    /// As it is set; the kernel's defaults where it does not say (init_rt_bandwidth, kernel/sched/rt.c).
    fn read() -> Bound {
        let value = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
            text.trim().parse().ok()
        };
        Bound {
            runtime_us: value("sched_rt_runtime_us").unwrap_or(950_000),
            period_us: value("sched_rt_period_us").unwrap_or(1_000_000),
        }
    }

    /// `None`: no bound.
    fn cycle(self) -> Option<Cycle> {
        if self.runtime_us < 0 || self.period_us <= 0 {
            return None;
        }
        let cycle_us = self.period_us.min(CYCLE_US_MAX);
        let allowed = self.runtime_us as f64 / self.period_us as f64;
        let real_time_us = (cycle_us as f64 * allowed * SHARE_OF_ALLOWED) as u64;
        Some(Cycle {
            real_time_ns: 1_000 * real_time_us,
            ordinary_ns: 1_000 * (cycle_us as u64).saturating_sub(real_time_us),
        })
    }
}

fn become_ordinary() -> Setting {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    // The highest priority of that policy is nice −20.
    match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Max, policy) {
        Ok(()) => Setting {
            done: true,
            fact: "SCHED_OTHER, nice -20".to_owned(),
        },
        Err(error) => Setting {
            done: false,
            fact: format!("SCHED_OTHER, nice as inherited ({error:?})"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spinning_thread_keeps_below_what_the_kernel_allows() {
        let cycle = |runtime_us, period_us| Bound { runtime_us, period_us }.cycle();
        assert_eq!(
            cycle(950_000, 1_000_000),
            Some(Cycle {
                real_time_ns: 90_250_000,
                ordinary_ns: 9_750_000
            })
        );
        // Never longer at a time than a short period allows.
        let short = cycle(5_000, 10_000).expect("a bound");
        assert_eq!(short.real_time_ns + short.ordinary_ns, 10_000_000);
        assert!(short.real_time_ns < 5_000_000, "{short:?}");
        assert_eq!(cycle(-1, 1_000_000), None);
    }

    #[test]
    fn it_steps_back_and_up_by_its_clock_and_says_what_it_is() {
        // A thread of its own: the priority dies with it.
        let checked = std::thread::spawn(|| {
            let bound = Bound {
                runtime_us: 950_000,
                period_us: 1_000_000,
            };
            let (mut spinning, setting) = Spinning::within(bound, 1_000);
            if !setting.done {
                assert!(setting.fact.contains("SCHED_OTHER"), "{setting:?}");
                println!("skipped: no SCHED_FIFO here: {}", setting.fact);
                spinning.turn(u64::MAX - 1);
                assert!(!spinning.is_real_time);
                return;
            }
            assert!(setting.fact.contains("90250 of every 100000 µs"), "{setting:?}");
            assert!(!spinning.is_real_time, "it begins with a pause");
            spinning.turn(9_750_999);
            assert!(!spinning.is_real_time);
            spinning.turn(9_751_000);
            assert!(spinning.is_real_time);
            spinning.turn(100_000_999);
            assert!(spinning.is_real_time);
            spinning.turn(100_001_000);
            assert!(!spinning.is_real_time);
            let (mut unbounded, setting) = Spinning::within(
                Bound {
                    runtime_us: -1,
                    ..bound
                },
                0,
            );
            unbounded.turn(u64::MAX - 1);
            assert!(setting.fact.starts_with("SCHED_FIFO"), "{setting:?}");
            let (_, none) = Spinning::within(Bound { runtime_us: 0, ..bound }, 0);
            assert!(
                !none.done && none.fact.contains("lets no real-time thread run"),
                "{none:?}"
            );
        });
        checked.join().expect("the checks hold");
    }
}
