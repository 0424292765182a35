//! Which fact stands in which file. A fact keeps the kernel's own words where it has some; its name ends with the unit
//! where it is a number.

use std::{collections::BTreeMap, io::Read};

use super::{CpuTimes, build, cpu_times, nic, parse, sysfs::Sysfs};

/// Names and values.
pub type Facts = BTreeMap<String, String>;

/// A kernel configuration has about 300 kB; this bounds what a malformed archive can unfold to.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

const CPU: &str = "/sys/devices/system/cpu";

/// Facts that are one whole file.
const WHOLE_FILES: &[(&str, &str)] = &[
    ("kernel", "/proc/sys/kernel/osrelease"),
    ("kernel_build", "/proc/sys/kernel/version"),
    ("cmdline", "/proc/cmdline"),
    ("cpus_online", "/sys/devices/system/cpu/online"),
    ("cpus_isolated", "/sys/devices/system/cpu/isolated"),
    ("nohz_full", "/sys/devices/system/cpu/nohz_full"),
    ("smt", "/sys/devices/system/cpu/smt/control"),
    ("smt_active", "/sys/devices/system/cpu/smt/active"),
    ("cpufreq_driver", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
    ("cpuidle_driver", "/sys/devices/system/cpu/cpuidle/current_driver"),
    ("cpuidle_governor", "/sys/devices/system/cpu/cpuidle/current_governor"),
    (
        "clock_source",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    ),
    (
        "clock_sources_available",
        "/sys/devices/system/clocksource/clocksource0/available_clocksource",
    ),
    ("dmi_vendor", "/sys/class/dmi/id/sys_vendor"),
    ("dmi_product", "/sys/class/dmi/id/product_name"),
    ("load_average", "/proc/loadavg"),
    ("io_uring_disabled", "/proc/sys/kernel/io_uring_disabled"),
    ("bpf_jit_enable", "/proc/sys/net/core/bpf_jit_enable"),
    (
        "unprivileged_bpf_disabled",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
    ),
    (
        "unprivileged_userns_clone",
        "/proc/sys/kernel/unprivileged_userns_clone",
    ),
    (
        "apparmor_restrict_unprivileged_userns",
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    ),
    ("user_namespaces_max", "/proc/sys/user/max_user_namespaces"),
    ("sched_rt_runtime_us", "/proc/sys/kernel/sched_rt_runtime_us"),
    ("numa_balancing", "/proc/sys/kernel/numa_balancing"),
    ("busy_poll_us", "/proc/sys/net/core/busy_poll"),
    ("timer_slack_ns", "/proc/self/timerslack_ns"),
];

/// Reads every fact that `machine` tells. `interfaces` are described beside the physical ones.
pub fn read(machine: &Sysfs, interfaces: &[String]) -> Facts {
    let mut facts = Facts::new();
    put(&mut facts, "build_profile", Some(build::profile()));
    put(&mut facts, "build_version", Some(build::version()));
    put(&mut facts, "git_commit", build::git_commit());
    put(&mut facts, "architecture", Some(std::env::consts::ARCH));
    for (name, path) in WHOLE_FILES {
        put(&mut facts, name, machine.text(path));
    }
    let release = machine
        .text("/etc/os-release")
        .or_else(|| machine.text("/usr/lib/os-release"));
    let distribution = release
        .as_deref()
        .and_then(|text| parse::assignment(text, "PRETTY_NAME"));
    put(&mut facts, "distribution", distribution);
    processor(machine, &mut facts);
    idle_states(machine, &mut facts);
    kernel_configuration(machine, &mut facts);
    virtualisation(machine, &mut facts);
    memory(machine, &mut facts);
    limits(machine, &mut facts);
    control_group(machine, &mut facts);
    pressure(machine, &mut facts);
    nic::read(machine, interfaces, &mut facts);
    nic::interrupts(machine, &mut facts);
    facts
}

/// The CPUs on which this process may measure: the isolated ones first (a process starts beside them, and may be pinned
/// there), then those it may use anyway. Empty when the facts do not tell.
pub fn cpus_usable(facts: &Facts) -> Vec<usize> {
    let of = |name: &str| {
        facts
            .get(name)
            .and_then(|list| parse::cpu_list(list))
            .unwrap_or_default()
    };
    let allowed = of("cpus_allowed");
    let mut cpus = of("cpus_isolated");
    cpus.extend(
        allowed
            .into_iter()
            .filter(|cpu| !cpus.contains(cpu))
            .collect::<Vec<_>>(),
    );
    cpus
}

pub(super) fn put(facts: &mut Facts, name: &str, value: Option<impl Into<String>>) {
    if let Some(value) = value {
        facts.insert(name.to_owned(), value.into());
    }
}

fn processor(machine: &Sysfs, facts: &mut Facts) {
    if let Some(text) = machine.text("/proc/cpuinfo") {
        let cpu = parse::cpu_info(&text);
        put(facts, "cpu_model", cpu.model);
        put(facts, "microcode", cpu.microcode);
        put(facts, "cpuid_hypervisor", cpu.hypervisor.map(|flag| flag.to_string()));
    }
    put(facts, "governor", by_cpu(machine, "cpufreq/scaling_governor"));
    put(
        facts,
        "energy_performance_preference",
        by_cpu(machine, "cpufreq/energy_performance_preference"),
    );
    // The two drivers' switches mean opposite things.
    let switch = |path: &str, on: &str, off: &str| {
        let word = machine.text(&format!("{CPU}/{path}"))?;
        (word == on || word == off).then(|| (word == on).to_string())
    };
    let pstate = switch("intel_pstate/no_turbo", "0", "1");
    let boost = switch("cpufreq/boost", "1", "0");
    put(facts, "turbo", pstate.or(boost));
    let nodes = machine
        .text("/sys/devices/system/node/online")
        .and_then(|list| parse::cpu_list(&list));
    put(facts, "numa_nodes_count", nodes.map(|nodes| nodes.len().to_string()));

    let folder = format!("{CPU}/vulnerabilities");
    let answers: Vec<(String, String)> = machine
        .list(&folder)
        .into_iter()
        .filter_map(|name| Some((name.clone(), machine.text(&format!("{folder}/{name}"))?)))
        .collect();
    if !answers.is_empty() {
        let (clean, affected): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, said)| said == "Not affected");
        let mut words: Vec<String> = affected.iter().map(|(name, said)| format!("{name}: {said}")).collect();
        words.push(format!("{} not affected", clean.len()));
        put(facts, "mitigations", Some(words.join(" | ")));
    }
}

/// One attribute of every online CPU: the word alone when all agree, else each word with its CPUs.
fn by_cpu(machine: &Sysfs, attribute: &str) -> Option<String> {
    let online = parse::cpu_list(&machine.text(&format!("{CPU}/online"))?)?;
    let mut cpus_by_word: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for cpu in online {
        if let Some(word) = machine.text(&format!("{CPU}/cpu{cpu}/{attribute}")) {
            cpus_by_word.entry(word).or_default().push(cpu);
        }
    }
    match cpus_by_word.len() {
        0 => None,
        1 => cpus_by_word.into_keys().next(),
        _ => {
            let words = cpus_by_word
                .iter()
                .map(|(word, cpus)| format!("{word} on {}", parse::emit_cpu_list(cpus)));
            Some(words.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Idle states of the first CPU. All CPUs of one kind have the same; switching one off is usually done for all.
fn idle_states(machine: &Sysfs, facts: &mut Facts) {
    let folder = format!("{CPU}/cpu0/cpuidle");
    let (mut words, mut exit_us_max) = (Vec::new(), None);
    for state in machine.list(&folder) {
        let of = |attribute| machine.text(&format!("{folder}/{state}/{attribute}"));
        let (Some(name), Some(exit_us)) = (of("name"), of("latency").and_then(|us| us.parse::<u64>().ok())) else {
            continue;
        };
        let disabled = of("disable").is_some_and(|word| word != "0");
        if !disabled {
            exit_us_max = exit_us_max.max(Some(exit_us));
        }
        words.push(format!(
            "{name} {exit_us} µs{}",
            if disabled { " (disabled)" } else { "" }
        ));
    }
    put(facts, "cpuidle_states", (!words.is_empty()).then(|| words.join(", ")));
    put(facts, "cpuidle_exit_us_max", exit_us_max.map(|us| us.to_string()));
}

fn kernel_configuration(machine: &Sysfs, facts: &mut Facts) {
    let release = facts.get("kernel").cloned().unwrap_or_default();
    let config = unfold(machine).or_else(|| machine.text(&format!("/boot/config-{release}")));
    let set = |name: &str| config.as_deref().and_then(|config| parse::assignment(config, name)) == Some("y");
    if let Some(config) = &config {
        put(facts, "hz", parse::assignment(config, "CONFIG_HZ"));
    }
    let built = [
        ("CONFIG_PREEMPT_RT", "real-time"),
        ("CONFIG_PREEMPT", "full"),
        ("CONFIG_PREEMPT_LAZY", "lazy"),
        ("CONFIG_PREEMPT_VOLUNTARY", "voluntary"),
        ("CONFIG_PREEMPT_NONE", "none"),
    ];
    // debugfs knows what is in force; the command line overrides the configuration; the configuration is the default.
    let in_force = machine
        .text("/sys/kernel/debug/sched/preempt")
        .and_then(|text| parse::chosen(&text).map(str::to_owned));
    let asked = facts.get("cmdline").and_then(|line| {
        line.split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("preempt="))
            .map(str::to_owned)
    });
    let configured = built
        .iter()
        .find(|(name, _)| set(name))
        .map(|(_, word)| (*word).to_owned());
    put(facts, "preemption", in_force.or(asked).or(configured));
}

fn unfold(machine: &Sysfs) -> Option<String> {
    let bytes = machine.bytes("/proc/config.gz")?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .take(CONFIG_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn virtualisation(machine: &Sysfs, facts: &mut Facts) {
    // A clock source of a hypervisor is registered only under that hypervisor.
    let clocks = facts.get("clock_sources_available").cloned().unwrap_or_default();
    let by_clock = [("kvm-clock", "KVM"), ("hyperv", "Hyper-V"), ("xen", "Xen")]
        .iter()
        .find(|(clock, _)| clocks.contains(clock))
        .map(|(_, name)| (*name).to_owned());
    let flagged = facts.get("cpuid_hypervisor").map(String::as_str) == Some("true");
    let unnamed = flagged.then(|| "present, does not name itself".to_owned());
    put(
        facts,
        "hypervisor",
        machine.text("/sys/hypervisor/type").or(by_clock).or(unnamed),
    );

    let mut hints = Vec::new();
    for path in ["/.dockerenv", "/run/.containerenv"] {
        if machine.exists(path) {
            hints.push(path.to_owned());
        }
    }
    hints.extend(machine.text("/run/systemd/container"));
    let groups = machine.text("/proc/self/cgroup").unwrap_or_default();
    for word in ["docker", "kubepods", "libpod", "lxc", "containerd"] {
        if groups.contains(word) {
            hints.push(format!("control group of {word}"));
        }
    }
    put(facts, "container_hints", (!hints.is_empty()).then(|| hints.join(", ")));
}

fn memory(machine: &Sysfs, facts: &mut Facts) {
    if let Some(text) = machine.text("/proc/meminfo") {
        put(facts, "memory_total", parse::colon_field(&text, "MemTotal"));
        put(facts, "memory_available", parse::colon_field(&text, "MemAvailable"));
    }
    let huge = machine.text("/sys/kernel/mm/transparent_hugepage/enabled");
    put(facts, "thp", huge.as_deref().and_then(parse::chosen));
    let ksm = machine.text("/sys/kernel/mm/ksm/run");
    put(facts, "ksm_run", ksm);
}

fn limits(machine: &Sysfs, facts: &mut Facts) {
    if let Some(text) = machine.text("/proc/self/limits") {
        put(
            facts,
            "memlock_limit_bytes",
            parse::soft_limit(&text, "Max locked memory"),
        );
        put(facts, "rtprio_limit", parse::soft_limit(&text, "Max realtime priority"));
    }
    if let Some(text) = machine.text("/proc/self/status") {
        put(facts, "cpus_allowed", parse::colon_field(&text, "Cpus_allowed_list"));
        let names = parse::colon_field(&text, "CapEff").and_then(parse::capability_names);
        put(facts, "capabilities", names);
        let uids = machine.text("/proc/self/uid_map");
        let uids = uids.map(|map| map.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        put(facts, "uid_map", uids);
        put(facts, "seccomp", parse::colon_field(&text, "Seccomp"));
    }
}

/// The narrowest CPU quota on the way from the process's control group up to the root, and the CPUs it may use.
fn control_group(machine: &Sysfs, facts: &mut Facts) {
    let Some(text) = machine.text("/proc/self/cgroup") else {
        return;
    };
    let mut narrowest: Option<(f64, String)> = None;
    for (controllers, path) in parse::cgroups(&text) {
        let roots: &[&str] = match controllers {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            v1 if v1.split(',').any(|name| name == "cpu") => &["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"],
            v1 if v1.split(',').any(|name| name == "cpuset") => &["/sys/fs/cgroup/cpuset"],
            _ => continue,
        };
        for root in roots {
            for folder in upwards(path) {
                if let Some((cpus, file)) = quota(machine, &format!("{root}{folder}"))
                    && narrowest.as_ref().is_none_or(|(least, _)| cpus < *least)
                {
                    narrowest = Some((cpus, file));
                }
            }
            let of = |name: &str| machine.text(&format!("{root}{}/{name}", path.trim_end_matches('/')));
            put(
                facts,
                "cpuset",
                of("cpuset.cpus.effective").or_else(|| of("cpuset.effective_cpus")),
            );
            let throttled = of("cpu.stat").as_deref().and_then(throttled_count);
            put(
                facts,
                "cgroup_throttled_count",
                throttled.map(|count| count.to_string()),
            );
        }
    }
    if let Some((cpus, file)) = narrowest {
        put(facts, "cgroup_cpu_limit_cpus", Some(cpus.to_string()));
        put(facts, "cgroup_cpu_limit_file", Some(file));
    }
}

/// `/a/b` gives `/a/b`, `/a` and the root's empty name. A path of another namespace (`/../x`) is not walked.
fn upwards(path: &str) -> Vec<&str> {
    if path.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    let mut rest = path.trim_end_matches('/');
    let mut folders = vec![rest];
    while let Some((above, _)) = rest.rsplit_once('/') {
        folders.push(above);
        rest = above;
    }
    folders
}

/// The quota of the control group at `folder`, in CPUs, and the file that sets it.
fn quota(machine: &Sysfs, folder: &str) -> Option<(f64, String)> {
    let file = format!("{folder}/cpu.max");
    if let Some(text) = machine.text(&file) {
        let (quota, period) = text.split_once(' ')?;
        return Some((parse::quota_cpus(quota, period)?, file));
    }
    let file = format!("{folder}/cpu.cfs_quota_us");
    let period = machine.text(&format!("{folder}/cpu.cfs_period_us"))?;
    Some((parse::quota_cpus(&machine.text(&file)?, &period)?, file))
}

fn throttled_count(cpu_stat: &str) -> Option<u64> {
    cpu_stat
        .lines()
        .find_map(|line| line.strip_prefix("nr_throttled "))
        .and_then(|count| count.parse().ok())
}

fn pressure(machine: &Sysfs, facts: &mut Facts) {
    let text = machine.text("/proc/pressure/cpu");
    let percent = text.as_deref().and_then(parse::pressure_some_avg10);
    put(
        facts,
        "cpu_pressure_percent_10s",
        percent.map(|percent| percent.to_string()),
    );
    if let Some(times) = machine.text("/proc/stat").as_deref().and_then(CpuTimes::parse) {
        let ratio = cpu_times::steal_ratio(&CpuTimes::default(), &times);
        put(facts, "steal_ratio_since_boot", Some(format!("{ratio:.6}")));
    }
    let uptime = machine.text("/proc/uptime");
    let seconds = uptime
        .as_deref()
        .and_then(|text| text.split(' ').next())
        .and_then(parse::number);
    put(facts, "uptime_s", seconds.map(|seconds| seconds.to_string()));
}

#[cfg(test)]
mod tests;
