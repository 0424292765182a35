//! Network interfaces, and where the interrupts of devices land.

use dataplane_netns::{OffloadState, read_offloads};

use super::{
    facts::{Facts, put},
    parse,
    sysfs::Sysfs,
};

/// Physical interfaces described at most; a host with hundreds of virtual functions would fill the report.
const PHYSICAL_MAX: usize = 16;
/// An interrupt is busy from this many a second on, averaged since boot. Ours: below it, one request in thousands meets
/// one.
const BUSY_PER_SEC: f64 = 1.0;
/// Busy interrupts that are listed.
const BUSY_LISTED_MAX: usize = 8;

/// Facts of the physical interfaces and of those named. sysfs shows the interfaces of the network namespace in which it
/// was mounted, so an interface inside the lab's own namespaces is absent here.
pub fn read(machine: &Sysfs, interfaces: &[String], facts: &mut Facts) {
    let physical = machine
        .list("/sys/class/net")
        .into_iter()
        .filter(|name| machine.exists(&format!("/sys/class/net/{name}/device")))
        .take(PHYSICAL_MAX);
    let mut names: Vec<String> = physical.chain(interfaces.iter().cloned()).collect();
    names.sort();
    names.dedup();
    for name in names.iter().filter(|name| is_interface_name(name)) {
        interface(machine, name, facts);
    }
}

/// What the kernel lets an interface be called (net/core/dev.c, dev_valid_name): it cannot lead out of the folder.
fn is_interface_name(name: &str) -> bool {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.contains(odd)
}

/// The offloads of the interfaces that `facts` know, as ethtool's netlink family tells them to the calling thread.
pub fn offloads(facts: &mut Facts) {
    let of_interface = |fact: &String| Some(fact.strip_prefix("nic_")?.strip_suffix("_mtu_bytes")?.to_owned());
    let names: Vec<String> = facts.keys().filter_map(of_interface).collect();
    for name in names {
        let words = match read_offloads(&name) {
            OffloadState::Off => "none".to_owned(),
            OffloadState::On { features } => features.join(" "),
            OffloadState::Unknown { .. } => continue,
        };
        put(facts, &format!("nic_{name}_offloads"), Some(words));
    }
}

fn interface(machine: &Sysfs, name: &str, facts: &mut Facts) {
    let folder = format!("/sys/class/net/{name}");
    let mut fact = |what: &str, value: Option<String>| put(facts, &format!("nic_{name}_{what}"), value);
    let of = |attribute: &str| machine.text(&format!("{folder}/{attribute}"));
    fact("driver", machine.link_name(&format!("{folder}/device/driver")));
    fact("state", of("operstate"));
    fact("mtu_bytes", of("mtu"));
    // -1 is the driver's way to say that it does not know.
    fact(
        "speed_mbit_per_sec",
        of("speed").filter(|speed| !speed.starts_with('-')),
    );
    fact("numa_node", of("device/numa_node").filter(|node| node != "-1"));
    fact("gro_flush_timeout_ns", of("gro_flush_timeout"));
    fact("napi_defer_hard_irqs", of("napi_defer_hard_irqs"));
    let queues = machine.list(&format!("{folder}/queues"));
    let count = |kind: &str| queues.iter().filter(|queue| queue.starts_with(kind)).count();
    if !queues.is_empty() {
        fact("rx_queues_count", Some(count("rx-").to_string()));
        fact("tx_queues_count", Some(count("tx-").to_string()));
    }
    // A virtio device's interrupts belong to the PCI device above it.
    let irqs = ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .map(|place| machine.list(&format!("{folder}/{place}")))
        .find(|irqs| !irqs.is_empty())
        .unwrap_or_default();
    let mut numbers: Vec<u32> = irqs.iter().filter_map(|irq| irq.parse().ok()).collect();
    numbers.sort_unstable();
    let placed: Vec<String> = numbers
        .iter()
        .filter_map(|&irq| Some(format!("{irq} on {}", cpus_of(machine, irq)?)))
        .collect();
    fact("irq_cpus", (!placed.is_empty()).then(|| placed.join(", ")));
}

/// The CPUs on which an interrupt really arrives, or may arrive when the kernel does not tell.
fn cpus_of(machine: &Sysfs, irq: u32) -> Option<String> {
    let of = |name: &str| machine.text(&format!("/proc/irq/{irq}/{name}"));
    of("effective_affinity_list").or_else(|| of("smp_affinity_list"))
}

/// Facts about the devices' interrupts that come at least once a second: on which CPUs, and which they are.
pub fn interrupts(machine: &Sysfs, facts: &mut Facts) {
    let uptime_s = facts
        .get("uptime_s")
        .and_then(|text| parse::number(text))
        .filter(|seconds| *seconds > 0.0);
    let (Some(text), Some(uptime_s)) = (machine.text("/proc/interrupts"), uptime_s) else {
        return;
    };
    let mut busy: Vec<(f64, parse::Interrupt, String)> = parse::interrupts(&text)
        .into_iter()
        .map(|interrupt| (interrupt.total_count as f64 / uptime_s, interrupt))
        .filter(|(per_sec, _)| *per_sec >= BUSY_PER_SEC)
        .filter_map(|(per_sec, interrupt)| {
            let cpus = cpus_of(machine, interrupt.irq)?;
            Some((per_sec, interrupt, cpus))
        })
        .collect();
    busy.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut cpus: Vec<usize> = busy
        .iter()
        .filter_map(|(_, _, cpus)| parse::cpu_list(cpus))
        .flatten()
        .collect();
    cpus.sort_unstable();
    cpus.dedup();
    put(
        facts,
        "irq_busy_cpus",
        (!cpus.is_empty()).then(|| parse::emit_cpu_list(&cpus)),
    );
    let words: Vec<String> = busy
        .iter()
        .take(BUSY_LISTED_MAX)
        .map(|(per_sec, interrupt, cpus)| format!("{} {} {per_sec:.0}/s on {cpus}", interrupt.irq, interrupt.device))
        .collect();
    put(facts, "irq_busiest", (!words.is_empty()).then(|| words.join(", ")));
}
