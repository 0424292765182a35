//! Whole machines, made of files.

use super::super::sysfs::FakeMachine;
use super::*;

/// A bare-metal server, tuned for latency, with a 100 Gbit/s NIC.
fn tuned_server() -> FakeMachine {
    let machine = FakeMachine::new(&[
        ("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
        (
            "/proc/cmdline",
            "root=/dev/sda1 isolcpus=2-3 nohz_full=2-3 preempt=none\n",
        ),
        (
            "/proc/cpuinfo",
            "model name\t: Intel(R) Xeon(R) Gold 6330\nflags\t\t: fpu tsc\n",
        ),
        (
            "/proc/meminfo",
            "MemTotal:       24684092 kB\nMemAvailable:   24064368 kB\n",
        ),
        ("/proc/loadavg", "0.00 0.01 0.05 1/512 4242\n"),
        ("/proc/stat", "cpu  1000 0 1000 98000 0 0 0 0 0 0\n"),
        ("/proc/uptime", "1000.00 3900.00\n"),
        (
            "/proc/interrupts",
            "  CPU0 CPU1 CPU2 CPU3\n 40: 9000 0 0 0 PCI-MSI 1-edge mlx5_comp0\n 41: 5 0 0 0 PCI-MSI 2-edge idle\n",
        ),
        ("/proc/irq/40/smp_affinity_list", "0-3\n"),
        ("/proc/irq/40/effective_affinity_list", "0\n"),
        (
            "/proc/self/status",
            "CapEff:\t0000000000803000\nCpus_allowed_list:\t0-3\n",
        ),
        ("/proc/self/uid_map", "         0          0 4294967295\n"),
        (
            "/proc/self/limits",
            "Max locked memory         unlimited            unlimited            bytes\n",
        ),
        ("/proc/self/cgroup", "0::/user.slice/user-1000.slice\n"),
        ("/sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n"),
        ("/sys/fs/cgroup/user.slice/user-1000.slice/cpu.max", "max 100000\n"),
        (
            "/sys/fs/cgroup/user.slice/user-1000.slice/cpu.stat",
            "nr_periods 5\nnr_throttled 3\n",
        ),
        ("/sys/devices/system/cpu/online", "0-3\n"),
        ("/sys/devices/system/cpu/isolated", "2-3\n"),
        ("/sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
        ("/sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL\n"),
        ("/sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "0\n"),
        ("/sys/devices/system/cpu/cpu0/cpuidle/state1/name", "C6\n"),
        ("/sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "133\n"),
        ("/sys/devices/system/cpu/cpu0/cpuidle/state1/disable", "1\n"),
        ("/sys/devices/system/node/online", "0-1\n"),
        ("/sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n"),
        ("/sys/devices/system/cpu/vulnerabilities/l1tf", "Not affected\n"),
        (
            "/sys/devices/system/cpu/vulnerabilities/spectre_v1",
            "Mitigation: usercopy\n",
        ),
        (
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        ),
        ("/sys/class/net/eth0/mtu", "9000\n"),
        ("/sys/class/net/eth0/speed", "100000\n"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n"),
        ("/sys/class/net/eth0/device/msi_irqs/40", "msix\n"),
        ("/sys/class/net/veth0/mtu", "1500\n"),
        ("/sys/class/net/veth0/speed", "-1\n"),
    ]);
    for cpu in 0..4 {
        let governor = if cpu < 2 { "powersave\n" } else { "performance\n" };
        machine.write(
            &format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"),
            governor.as_bytes(),
        );
    }
    machine.link(
        "/sys/class/net/eth0/device/driver",
        "../../../bus/pci/drivers/mlx5_core",
    );
    machine
}

#[test]
fn a_tuned_server() {
    let machine = tuned_server();
    let facts = read(&machine.sysfs(), &["veth0".into(), "veth0".into()]);
    for (name, value) in [
        ("kernel", "6.1.0-18-amd64"),
        ("cpu_model", "Intel(R) Xeon(R) Gold 6330"),
        ("cpuid_hypervisor", "false"),
        ("cpus_isolated", "2-3"),
        ("governor", "performance on 2-3, powersave on 0-1"),
        ("turbo", "false"),
        ("numa_nodes_count", "2"),
        ("mitigations", "spectre_v1: Mitigation: usercopy | 2 not affected"),
        ("cpuidle_states", "POLL 0 µs, C6 133 µs (disabled)"),
        ("cpuidle_exit_us_max", "0"),
        ("preemption", "none"),
        ("thp", "madvise"),
        ("memory_total", "24684092 kB"),
        ("memlock_limit_bytes", "unlimited"),
        ("uid_map", "0 0 4294967295"),
        ("capabilities", "cap_net_admin cap_net_raw cap_sys_nice"),
        ("cgroup_cpu_limit_cpus", "1.5"),
        ("cgroup_cpu_limit_file", "/sys/fs/cgroup/user.slice/cpu.max"),
        ("cgroup_throttled_count", "3"),
        ("steal_ratio_since_boot", "0.000000"),
        ("nic_eth0_driver", "mlx5_core"),
        ("nic_eth0_speed_mbit_per_sec", "100000"),
        ("nic_eth0_rx_queues_count", "2"),
        ("nic_eth0_irq_cpus", "40 on 0"),
        ("nic_veth0_mtu_bytes", "1500"),
        ("irq_busy_cpus", "0"),
        ("irq_busiest", "40 mlx5_comp0 9/s on 0"),
    ] {
        assert_eq!(facts.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(cpus_usable(&facts), [2, 3, 0, 1]);
    for name in [
        "hypervisor",
        "hz",
        "cpu_pressure_percent_10s",
        "nic_veth0_speed_mbit_per_sec",
        "container_hints",
    ] {
        assert_eq!(facts.get(name), None, "{name} was not there to read");
    }
}

#[test]
fn a_container_with_version_1_groups() {
    let machine = FakeMachine::new(&[
        ("/.dockerenv", ""),
        ("/proc/self/cgroup", "3:cpuset:/docker/abc\n2:cpu,cpuacct:/docker/abc\n"),
        ("/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "50000\n"),
        ("/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n"),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
        ("/sys/fs/cgroup/cpuset/docker/abc/cpuset.effective_cpus", "0-1\n"),
        (
            "/sys/devices/system/clocksource/clocksource0/available_clocksource",
            "tsc kvm-clock\n",
        ),
        ("/proc/cpuinfo", "flags\t: hypervisor\n"),
    ]);
    let facts = read(&machine.sysfs(), &[]);
    assert_eq!(facts["cgroup_cpu_limit_cpus"], "0.5");
    assert_eq!(facts["cpuset"], "0-1");
    assert_eq!(facts["hypervisor"], "KVM");
    assert_eq!(facts["container_hints"], "/.dockerenv, control group of docker");
}

#[test]
fn the_configuration_is_unfolded_and_a_bad_one_is_absent() {
    let machine = FakeMachine::new(&[]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"CONFIG_HZ=250\nCONFIG_PREEMPT_NONE=y\n").expect("memory takes bytes");
    let gzip = gzip.finish().expect("memory takes bytes");
    machine.write("/proc/config.gz", &gzip);
    let facts = read(&machine.sysfs(), &[]);
    assert_eq!((facts["hz"].as_str(), facts["preemption"].as_str()), ("250", "none"));

    machine.write("/proc/config.gz", &gzip[..gzip.len() / 2]);
    let facts = read(&machine.sysfs(), &[]);
    assert_eq!((facts.get("hz"), facts.get("preemption")), (None, None));
}

#[test]
fn nothing_to_read_leaves_only_what_the_build_knows() {
    let machine = FakeMachine::new(&[]);
    let mut facts = read(&machine.sysfs(), &["eth0".into()]);
    for name in ["build_profile", "build_version", "git_commit", "architecture"] {
        facts.remove(name);
    }
    assert!(facts.is_empty(), "{facts:?}");
}

#[test]
fn every_file_may_hold_rubbish() {
    for rubbish in [
        &b"\xff\xfe\0\0"[..],
        b"99999999999999999999999",
        b"-",
        b":::::",
        b"[ ] ( ) , = -1",
    ] {
        let machine = FakeMachine::new(&[]);
        for (_, path) in WHOLE_FILES {
            machine.write(path, rubbish);
        }
        for path in [
            "cpuinfo",
            "meminfo",
            "stat",
            "uptime",
            "interrupts",
            "self/status",
            "self/limits",
            "self/cgroup",
            "pressure/cpu",
            "config.gz",
        ] {
            machine.write(&format!("/proc/{path}"), rubbish);
        }
        let facts = read(&machine.sysfs(), &["eth0".into()]);
        let _ = super::super::noise::sources(&facts);
        assert!(!facts.contains_key("steal_ratio_since_boot"));
    }
}

#[test]
fn a_group_in_another_namespace_is_not_walked() {
    assert_eq!(upwards("/a/b"), ["/a/b", "/a", ""]);
    assert_eq!(upwards("/"), [""]);
    assert!(upwards("/../x").is_empty());
}
