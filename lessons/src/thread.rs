//! What the kernel charges a thread, whether it sleeps, and a conversation between two threads, for lesson 4.

use std::{
    fs,
    ops::Sub,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use dataplane_ports::udp::{Batching, UdpPort, WaitHow};
use dataplane_waist::{Peer, Port};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeVal,
    },
    unistd::{Pid, gettid},
};

use crate::link::{self, PATIENCE};

/// What getrusage(2) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Times that the thread gave the CPU up, because it waited for something.
    pub voluntary_switches_count: u64,
    /// Times that the CPU was taken from it. sched_yield(2) counts here.
    pub involuntary_switches_count: u64,
    /// User and system time.
    pub cpu: Duration,
}

impl Cost {
    /// So far.
    ///
    /// # Panics
    /// If the kernel does not know `who` (RUSAGE_THREAD came with Linux 2.6.26).
    pub fn of(who: UsageWho) -> Cost {
        let usage = getrusage(who).expect("getrusage(2) knows threads");
        let duration = |time: TimeVal| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64);
        Cost {
            voluntary_switches_count: usage.voluntary_context_switches() as u64,
            involuntary_switches_count: usage.involuntary_context_switches() as u64,
            cpu: duration(usage.user_time()) + duration(usage.system_time()),
        }
    }
}

impl Sub for Cost {
    type Output = Cost;
    fn sub(self, earlier: Cost) -> Cost {
        Cost {
            voluntary_switches_count: self.voluntary_switches_count - earlier.voluntary_switches_count,
            involuntary_switches_count: self.involuntary_switches_count - earlier.involuntary_switches_count,
            cpu: self.cpu.saturating_sub(earlier.cpu),
        }
    }
}

/// The CPUs that this thread may run on.
pub fn usable_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

/// True if there is a CPU for each of two threads; prints why not otherwise.
pub fn has_two_cpus() -> bool {
    let cpus = usable_cpus();
    if cpus.len() < 2 {
        println!("skipped: a spinning thread and its partner need a CPU each; this process may use {cpus:?}");
    }
    cpus.len() >= 2
}

/// Keeps the calling thread on the `nth` of the usable CPUs. Where that is refused the lesson goes on unpinned.
fn pin(nth: usize) {
    let cpus = usable_cpus();
    if let Some(cpu) = cpus.get(nth % cpus.len().max(1)) {
        let mut only = CpuSet::new();
        if only.set(*cpu).is_ok() {
            let _ = sched_setaffinity(Pid::from_raw(0), &only);
        }
    }
}

/// True if the thread sleeps until something happens (state S of proc_pid_stat(5)), or does not exist any more.
fn is_asleep(tid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/self/task/{tid}/stat")) else {
        return true;
    };
    // The name before the state stands in parentheses and may contain anything, parentheses included.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// How a conversation goes.
#[derive(Clone, Copy, Debug)]
pub struct Conversation {
    /// How both ports wait, where they are asked to.
    pub wait: WaitHow,
    /// Messages, each sent some 50 µs after the reply to the one before.
    pub messages_count: usize,
    /// Send only once the kernel says that the receiver sleeps, so that each message has to wake it.
    pub asleep_first: bool,
    /// Silence before one more message at the end.
    pub silence: Duration,
}

/// Runs `receiver` in a thread on one CPU and talks to it from another. It has to answer every message, and to return
/// after the last one ([`answer`] does the answering).
///
/// # Panics
/// If an answer does not come within [`PATIENCE`].
pub fn converse<T: Send>(conversation: &Conversation, receiver: impl FnOnce(&mut UdpPort) -> T + Send) -> T {
    let (mut client, mut server) = link::udp_pair(conversation.wait, Batching::Single);
    let (say_tid, hear_tid) = mpsc::channel();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            pin(0);
            say_tid.send(gettid()).expect("the client listens");
            receiver(&mut server)
        });
        let talk = scope.spawn(move || {
            pin(1);
            let tid = hear_tid.recv().expect("the receiver says its number");
            for _ in 0..conversation.messages_count {
                let since = Instant::now();
                while conversation.asleep_first && !is_asleep(tid) && since.elapsed() < PATIENCE {
                    thread::yield_now();
                }
                ask(&mut client);
                thread::sleep(Duration::from_micros(50));
            }
            if !conversation.silence.is_zero() {
                thread::sleep(conversation.silence);
                ask(&mut client);
            }
        });
        let said = thread.join();
        talk.join().expect("every message is answered");
        said.expect("the receiver returns")
    })
}

fn ask(client: &mut UdpPort) {
    link::queue(client, 64);
    client.flush().expect("the port works");
    link::receive(client, 1);
}

/// Looks once and answers what is there; how many messages that was. Does not wait.
///
/// # Panics
/// If the port fails.
pub fn answer(port: &mut UdpPort) -> usize {
    let frames_count = port
        .rx_burst(&mut |frame| assert_eq!(frame.from, Peer(0), "one client"))
        .expect("the port works");
    for _ in 0..frames_count {
        link::queue(port, 64);
    }
    port.flush().expect("the port works");
    frames_count
}
