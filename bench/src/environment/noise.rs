//! What about a machine makes latencies noisy: derived from its facts alone, worst first.
//!
//! Each source is a function from facts to what was seen; a fact that is absent accuses nobody. The order of [`SOURCES`]
//! is the order of the answer: first what makes figures wrong, then what makes them vary by milliseconds, then by
//! microseconds, then what only keeps parts of the lab from running. The thresholds are ours.

use super::{
    NoiseSource,
    facts::{Facts, cpus_usable},
    parse,
};

type Source = fn(&Facts) -> Option<NoiseSource>;

const SOURCES: &[Source] = &[
    debug_build,
    cpu_quota,
    few_cpus,
    steal,
    load,
    hiccups,
    governor,
    hypervisor,
    clock_source,
    sleep_lateness,
    idle_states,
    irq,
    smt,
    turbo,
    thp,
    numa_balancing,
    ksm,
    capability,
    memlock,
];

/// The noise sources that `facts` show, worst first; empty for a quiet machine.
pub fn sources(facts: &Facts) -> Vec<NoiseSource> {
    SOURCES.iter().filter_map(|source| source(facts)).collect()
}

fn source(name: &str, seen: impl Into<String>, why: &str, mend: Option<&str>) -> Option<NoiseSource> {
    Some(NoiseSource {
        name: name.to_owned(),
        seen: seen.into(),
        why: why.to_owned(),
        mend: mend.map(str::to_owned),
    })
}

fn word<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
    facts.get(name).map(String::as_str)
}

fn number(facts: &Facts, name: &str) -> Option<f64> {
    parse::number(facts.get(name)?)
}

fn cpus(facts: &Facts, name: &str) -> Option<Vec<usize>> {
    parse::cpu_list(facts.get(name)?).filter(|cpus| !cpus.is_empty())
}

fn has_capability(facts: &Facts, name: &str) -> Option<bool> {
    Some(facts.get("capabilities")?.split(' ').any(|held| held == name))
}

/// Held over the machine, not only over what belongs to a user namespace of our own. Scheduling and locked memory ask for
/// that: capable() in kernel/sched/syscalls.c and mm/mlock.c looks at the first user namespace alone.
fn has_capability_over_machine(facts: &Facts, name: &str) -> Option<bool> {
    // The first user namespace maps every id to itself (man 7 user_namespaces).
    let is_first = word(facts, "uid_map").is_none_or(|map| map == "0 0 4294967295");
    Some(has_capability(facts, name)? && is_first)
}

fn debug_build(facts: &Facts) -> Option<NoiseSource> {
    if word(facts, "build_profile")? != "debug" {
        return None;
    }
    source(
        "debug_build",
        "dplab was built without optimisation",
        "the generator and the servers are several times slower than they need be: the run measures the build",
        Some("cargo run --release -- run"),
    )
}

fn cpu_quota(facts: &Facts) -> Option<NoiseSource> {
    let limit = number(facts, "cgroup_cpu_limit_cpus")?;
    let throttled = number(facts, "cgroup_throttled_count").filter(|count| *count > 0.0);
    let so_far = throttled.map_or(String::new(), |count| format!(", throttled {count} times so far"));
    // Version 2 says "max" for no quota, version 1 says -1.
    let mend = word(facts, "cgroup_cpu_limit_file").map(|file| {
        let none = if file.ends_with("cpu.max") { "max" } else { "-1" };
        format!("echo {none} | sudo tee {file}   # on the host, if this is a container")
    });
    source(
        "cpu_quota",
        format!("the control group may use {limit} CPUs' worth of time{so_far}"),
        "spinning threads use up the quota and are then stopped for the rest of each period, usually 100 ms: \
         stalls of tens of milliseconds that no back end caused",
        mend.as_deref(),
    )
}

fn few_cpus(facts: &Facts) -> Option<NoiseSource> {
    facts.get("cpus_allowed")?;
    let usable = cpus_usable(facts);
    let online = cpus(facts, "cpus_online").map_or(usable.len(), |online| online.len());
    if usable.len() >= 3 {
        return None;
    }
    let mend = (online > usable.len()).then(|| format!("taskset -c 0-{} dplab run", online - 1));
    source(
        "few_cpus",
        format!("{} of {online} CPUs may be used", usable.len()),
        "client, server and the kernel's own work share CPUs: whoever spins keeps another from running, and the \
         scheduler's slice (milliseconds) becomes the tail",
        mend.as_deref(),
    )
}

fn steal(facts: &Facts) -> Option<NoiseSource> {
    let ratio = number(facts, "steal_ratio_since_boot").filter(|ratio| *ratio >= 0.001)?;
    source(
        "steal",
        format!(
            "{:.2} % of all CPU time since boot was taken by the hypervisor",
            ratio * 100.0
        ),
        "while another guest runs, every request here waits; no clock in this machine stops meanwhile",
        Some("move to a dedicated host, or measure when steal in `vmstat 1` is 0"),
    )
}

fn load(facts: &Facts) -> Option<NoiseSource> {
    let [minute, ..] = parse::load_averages(word(facts, "load_average")?)?;
    let cpus_count = cpus(facts, "cpus_online").map_or(1, |cpus| cpus.len());
    let pressure = number(facts, "cpu_pressure_percent_10s").unwrap_or(0.0);
    if minute < 0.1 * cpus_count as f64 && pressure < 1.0 {
        return None;
    }
    source(
        "load",
        format!(
            "load average {minute} over one minute on {cpus_count} CPUs; tasks waited for a CPU {pressure} % of the last 10 s"
        ),
        "other programs take the CPU in the middle of a request, evict the caches and raise the kernel's timers",
        Some("top   # stop what is on top, wait a minute, measure again"),
    )
}

fn hiccups(facts: &Facts) -> Option<NoiseSource> {
    let gap_ns_max = number(facts, "hiccups_gap_ns_max")?;
    let lost = number(facts, "hiccups_lost_ratio")?;
    if gap_ns_max < 100_000.0 && lost < 0.001 {
        return None;
    }
    let tried = word(facts, "hiccups_cpus").unwrap_or("?");
    // Two CPUs to measure on, if that leaves two for everything else.
    let mend = cpus(facts, "cpus_online").filter(|online| online.len() >= 4 && !facts.contains_key("cpus_isolated"));
    let mend = mend.map(|online| {
        let [.., a, b] = online[..] else {
            unreachable!("four or more")
        };
        format!("boot with isolcpus={a},{b} nohz_full={a},{b} rcu_nocbs={a},{b}   # then: taskset -c {a},{b} dplab run")
    });
    source(
        "hiccups",
        format!(
            "a thread that did nothing but read the clock was stopped for up to {:.0} µs and lost {:.2} % of its time \
             (worst of CPUs {tried})",
            gap_ns_max / 1000.0,
            lost * 100.0
        ),
        "every program on this CPU is stopped as long; latencies of this size are the machine's, whatever moved the packets",
        mend.as_deref(),
    )
}

fn governor(facts: &Facts) -> Option<NoiseSource> {
    let governor = word(facts, "governor").filter(|word| *word != "performance")?;
    source(
        "governor",
        format!("frequency governor {governor}"),
        "the clock frequency follows the load, so light loads are measured on a slower CPU than heavy ones",
        Some("sudo cpupower frequency-set -g performance"),
    )
}

fn hypervisor(facts: &Facts) -> Option<NoiseSource> {
    let hypervisor = word(facts, "hypervisor")?;
    source(
        "hypervisor",
        format!("a virtual machine ({hypervisor})"),
        "interrupts, timers and idle cost exits to the hypervisor, and its other guests are invisible here: ratios within \
         one run hold, absolute figures belong to this machine",
        None,
    )
}

fn clock_source(facts: &Facts) -> Option<NoiseSource> {
    let clock = word(facts, "clock_source")?;
    // The architectural timer is ARM's counterpart: both are read in user space.
    if clock == "tsc" || clock == "arch_sys_counter" {
        return None;
    }
    let available = word(facts, "clock_sources_available").unwrap_or("");
    let mend = available
        .split(' ')
        .any(|name| name == "tsc")
        .then_some("echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource");
    source(
        "clock_source",
        format!("clock source {clock}"),
        "reading the time may take a system call or a slow device instead of some 20 ns, twice per request",
        mend,
    )
}

fn sleep_lateness(facts: &Facts) -> Option<NoiseSource> {
    let p50 = number(facts, "sleep_late_ns_p50")?;
    let p99 = number(facts, "sleep_late_ns_p99")?;
    if p50 < 100_000.0 && p99 < 1_000_000.0 {
        return None;
    }
    source(
        "sleep_lateness",
        format!(
            "sleeping threads woke {:.0} µs late (median), {:.0} µs (99th percentile)",
            p50 / 1e3,
            p99 / 1e3
        ),
        "a blocking receive wakes as late: it is charged to the back end that waits by sleeping",
        Some("sudo chrt --fifo 50 dplab run   # a real-time thread has no timer slack"),
    )
}

fn idle_states(facts: &Facts) -> Option<NoiseSource> {
    let exit_us = number(facts, "cpuidle_exit_us_max").filter(|us| *us >= 10.0)?;
    let states = word(facts, "cpuidle_states").unwrap_or("");
    source(
        "idle_states",
        format!("idle states that take up to {exit_us} µs to leave ({states})"),
        "at low load the CPU falls asleep between requests, and each one pays for waking it",
        Some("sudo cpupower idle-set --disable-by-latency 10"),
    )
}

/// Device interrupts on the CPUs to measure on: the isolated ones if there are any, else any two that are free of them.
fn irq(facts: &Facts) -> Option<NoiseSource> {
    let busy = cpus(facts, "irq_busy_cpus")?;
    let usable = cpus_usable(facts);
    let isolated = cpus(facts, "cpus_isolated");
    let hit = match &isolated {
        Some(isolated) => isolated.iter().any(|cpu| busy.contains(cpu)),
        None => usable.iter().filter(|cpu| !busy.contains(cpu)).count() < 2,
    };
    if !hit {
        return None;
    }
    let busiest = word(facts, "irq_busiest").unwrap_or("");
    // The CPU for everything that is not measured. With two CPUs there is none to spare.
    let house = (0..)
        .find(|cpu| !isolated.as_ref().is_some_and(|isolated| isolated.contains(cpu)))
        .unwrap_or(0);
    let numbers: Vec<&str> = busiest
        .split(", ")
        .filter_map(|entry| entry.split(' ').next())
        .collect();
    let mend = (usable.len() >= 3).then(|| {
        format!(
            "for i in {}; do echo {house} | sudo tee /proc/irq/$i/smp_affinity_list; done   # after: systemctl stop irqbalance",
            numbers.join(" ")
        )
    });
    source(
        "irq",
        format!("device interrupts on the CPUs to measure on: {busiest}"),
        "each one stops the thread under it for some microseconds and runs the network stack's softirq there",
        mend.as_deref(),
    )
}

fn smt(facts: &Facts) -> Option<NoiseSource> {
    if word(facts, "smt_active")? != "1" {
        return None;
    }
    source(
        "smt",
        "simultaneous multithreading is on",
        "two threads share one core's units and caches: a neighbour on the sibling CPU slows a request without being \
         visible in its own CPU's load",
        Some("echo off | sudo tee /sys/devices/system/cpu/smt/control"),
    )
}

fn turbo(facts: &Facts) -> Option<NoiseSource> {
    if word(facts, "turbo")? != "true" {
        return None;
    }
    let mend = if word(facts, "cpufreq_driver").is_some_and(|driver| driver.starts_with("intel")) {
        "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
    } else {
        "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
    };
    source(
        "turbo",
        "turbo frequencies are allowed",
        "the frequency depends on how many cores are busy and on temperature, so later rounds may run slower than early ones",
        Some(mend),
    )
}

fn thp(facts: &Facts) -> Option<NoiseSource> {
    if word(facts, "thp")? != "always" {
        return None;
    }
    source(
        "thp",
        "transparent huge pages: always",
        "page faults may compact memory before they return, and khugepaged takes locks of the address space meanwhile",
        Some("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"),
    )
}

fn numa_balancing(facts: &Facts) -> Option<NoiseSource> {
    let nodes = number(facts, "numa_nodes_count")?;
    if nodes < 2.0 || word(facts, "numa_balancing")? == "0" {
        return None;
    }
    source(
        "numa_balancing",
        format!("automatic NUMA balancing over {nodes} nodes"),
        "the kernel unmaps pages to see who touches them; each touch is then a page fault on the request path",
        Some("sudo sysctl kernel.numa_balancing=0"),
    )
}

fn ksm(facts: &Facts) -> Option<NoiseSource> {
    if word(facts, "ksm_run")? != "1" {
        return None;
    }
    source(
        "ksm",
        "kernel samepage merging runs",
        "its scanner takes CPU time and cache, and a write to a merged page is a page fault",
        Some("echo 2 | sudo tee /sys/kernel/mm/ksm/run"),
    )
}

fn capability(facts: &Facts) -> Option<NoiseSource> {
    let real_time_allowed = number(facts, "rtprio_limit").is_some_and(|limit| limit > 0.0)
        || word(facts, "rtprio_limit") == Some("unlimited");
    let needed = [
        ("cap_net_admin", "own veth pairs"),
        ("cap_sys_admin", "own namespaces"),
        ("cap_net_raw", "AF_PACKET"),
        ("cap_sys_nice", "SCHED_FIFO"),
    ];
    let mut missing = Vec::new();
    for (name, gives) in needed {
        let given = match name {
            "cap_sys_nice" => has_capability_over_machine(facts, name)? || real_time_allowed,
            _ => has_capability(facts, name)?,
        };
        if !given {
            missing.push(format!("{name} ({gives})"));
        }
    }
    if missing.is_empty() {
        return None;
    }
    source(
        "capability",
        format!("missing: {}", missing.join(", ")),
        "packets then share this host's network stack and scheduler with everything else, and some back ends stay away",
        Some("sudo setcap cap_net_admin,cap_sys_admin,cap_net_raw,cap_sys_nice+ep target/release/dplab"),
    )
}

/// What the rings of io_uring, AF_PACKET and AF_XDP together may lock; below it some of them are refused.
const MEMLOCK_WANTED_BYTES: f64 = (64 << 20) as f64;

fn memlock(facts: &Facts) -> Option<NoiseSource> {
    let limit = number(facts, "memlock_limit_bytes").filter(|limit| *limit < MEMLOCK_WANTED_BYTES)?;
    if has_capability_over_machine(facts, "cap_ipc_lock")? {
        return None;
    }
    source(
        "memlock",
        format!("at most {:.0} KiB of memory may be locked", limit / 1024.0),
        "registered buffers and packet rings beyond it are refused, and what is not locked may cost page faults",
        Some("sudo prlimit --pid $$ --memlock=unlimited   # then run dplab in this shell"),
    )
}

#[cfg(test)]
mod tests;
