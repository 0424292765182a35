//! The formats of `/proc` and `/sys`, as pure functions. Any text gives an answer; none panics.

/// More CPUs than any Linux kernel counts (CONFIG_NR_CPUS is at most 8192 on x86): a bound for malformed lists.
const CPUS_MAX: usize = 8192;

/// A list of CPUs or nodes, as cpuset(7) writes it: `0-3,8,10-11`. The empty text is the empty list.
pub fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// The inverse of [`cpu_list`]. `cpus` ascend.
pub fn emit_cpu_list(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let words: Vec<String> = parts
        .iter()
        .map(|(first, last)| {
            if first == last {
                format!("{first}")
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    words.join(",")
}

/// What `/proc/cpuinfo` says of the first CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuInfo {
    /// `model name`; on ARM, which has none, the implementer and part numbers.
    pub model: Option<String>,
    /// Revision of the microcode.
    pub microcode: Option<String>,
    /// The CPU flag `hypervisor`: CPUID leaf 1, ECX bit 31. `None` where there are no x86 flags.
    pub hypervisor: Option<bool>,
}

/// Parses `/proc/cpuinfo`, whose fields differ by architecture.
pub fn cpu_info(text: &str) -> CpuInfo {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    };
    let arm = || {
        Some(format!(
            "implementer {} part {}",
            field("CPU implementer")?,
            field("CPU part")?
        ))
    };
    CpuInfo {
        model: field("model name").map(str::to_owned).or_else(arm),
        microcode: field("microcode").map(str::to_owned),
        hypervisor: field("flags").map(|flags| flags.split_ascii_whitespace().any(|flag| flag == "hypervisor")),
    }
}

/// The value of `key` in lines of `KEY=value`, quotes removed: os-release(5), kernel configurations, uevent files.
pub fn assignment<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?
        .trim();
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(inner.unwrap_or(value)).filter(|value| !value.is_empty())
}

/// The value of `key` in lines of `key:  value`: `/proc/self/status`, `/proc/meminfo`.
pub fn colon_field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

/// The choice in brackets: `always [madvise] never` is `madvise`. Some kernels write the choice in parentheses.
pub fn chosen(text: &str) -> Option<&str> {
    text.split_ascii_whitespace().find_map(|word| {
        let inner = |open, close| word.strip_prefix(open)?.strip_suffix(close);
        inner('[', ']').or_else(|| inner('(', ')'))
    })
}

/// Load averages of one, five and fifteen minutes from `/proc/loadavg`.
pub fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace();
    let mut averages = [0.0; 3];
    for average in &mut averages {
        *average = number(words.next()?)?;
    }
    Some(averages)
}

/// A finite number that is not negative.
pub fn number(word: &str) -> Option<f64> {
    word.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// Soft limit called `name` in `/proc/self/limits`: a number or `unlimited`.
pub fn soft_limit<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    // "Max locked memory" must not answer for "Max locked memory something".
    if !line.starts_with(' ') {
        return None;
    }
    let soft = line.split_ascii_whitespace().next()?;
    (soft == "unlimited" || soft.parse::<u64>().is_ok()).then_some(soft)
}

/// The folders of the process's control groups: (controllers, path) from `/proc/self/cgroup`; version 2 has no
/// controllers there (man 7 cgroups).
pub fn cgroups(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            path.starts_with('/').then_some((controllers, path))
        })
        .collect()
}

/// CPUs' worth of time that a quota allows: `200000 100000` is 2. `None` for `max` and for -1, which are no quota.
pub fn quota_cpus(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (number(quota)?, number(period)?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The ten-second average of `some` in a pressure file, in percent of time (Documentation/accounting/psi.rst).
pub fn pressure_some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let avg10 = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    number(avg10)
}

/// A numbered line of `/proc/interrupts`: a device's interrupt, not the kernel's own (`LOC`, `RES`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub irq: u32,
    /// How often it came, on all CPUs.
    pub total_count: u64,
    /// The last word of its line: the device and its queue.
    pub device: String,
}

/// Parses `/proc/interrupts`. Its header says how many columns count.
pub fn interrupts(text: &str) -> Vec<Interrupt> {
    let Some(header) = text.lines().next() else {
        return Vec::new();
    };
    let cpus_count = header
        .split_ascii_whitespace()
        .filter(|word| word.starts_with("CPU"))
        .count();
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let (irq, rest) = line.trim_start().split_once(':')?;
            let mut words = rest.split_ascii_whitespace();
            let mut total_count = 0u64;
            for _ in 0..cpus_count {
                total_count = total_count.saturating_add(words.next()?.parse().ok()?);
            }
            Some(Interrupt {
                irq: irq.parse().ok()?,
                total_count,
                device: words.next_back().unwrap_or("unnamed").to_owned(),
            })
        })
        .collect()
}

/// include/uapi/linux/capability.h, by number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Names of the capabilities in a mask as `/proc/self/status` writes it, separated by spaces; `none` for an empty mask.
/// A bit that is newer than this list is named by its number.
pub fn capability_names(mask_hex: &str) -> Option<String> {
    let mask = u64::from_str_radix(mask_hex.trim(), 16).ok()?;
    let names: Vec<String> = (0..64)
        .filter(|bit| mask >> bit & 1 == 1)
        .map(|bit| {
            CAPABILITIES
                .get(bit)
                .map_or_else(|| format!("cap_{bit}"), |name| format!("cap_{name}"))
        })
        .collect();
    Some(if names.is_empty() {
        "none".into()
    } else {
        names.join(" ")
    })
}

#[cfg(test)]
mod tests;
