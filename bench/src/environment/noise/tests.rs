//! One fact at a time: what accuses a machine, and what does not.

use super::*;

fn facts(pairs: &[(&str, &str)]) -> Facts {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn names(pairs: &[(&str, &str)]) -> Vec<String> {
    sources(&facts(pairs)).into_iter().map(|source| source.name).collect()
}

/// A machine on which nothing is wrong, with every fact that a source looks at.
const QUIET: &[(&str, &str)] = &[
    ("build_profile", "release"),
    ("cpus_allowed", "0-3"),
    ("cpus_online", "0-7"),
    ("cpus_isolated", "4-7"),
    ("steal_ratio_since_boot", "0.000000"),
    ("load_average", "0.01 0.02 0.00 1/200 4242"),
    ("cpu_pressure_percent_10s", "0"),
    ("hiccups_gap_ns_max", "4100"),
    ("hiccups_lost_ratio", "0.000000"),
    ("governor", "performance"),
    ("clock_source", "tsc"),
    ("sleep_late_ns_p50", "52000"),
    ("sleep_late_ns_p99", "60000"),
    ("cpuidle_exit_us_max", "2"),
    ("irq_busy_cpus", "0-3"),
    ("irq_busiest", "40 mlx5_comp0 9/s on 0"),
    ("smt_active", "0"),
    ("turbo", "false"),
    ("thp", "madvise"),
    ("numa_nodes_count", "2"),
    ("numa_balancing", "0"),
    ("ksm_run", "0"),
    (
        "capabilities",
        "cap_net_admin cap_net_raw cap_ipc_lock cap_sys_admin cap_sys_nice",
    ),
    ("rtprio_limit", "0"),
    ("memlock_limit_bytes", "8388608"),
];

/// [`QUIET`] with some facts changed.
fn quiet_but(changed: &[(&str, &str)]) -> Vec<String> {
    let mut all = facts(QUIET);
    all.extend(facts(changed));
    sources(&all).into_iter().map(|source| source.name).collect()
}

#[test]
fn a_quiet_machine_and_an_unknown_one_are_not_accused() {
    assert!(names(QUIET).is_empty(), "{:?}", names(QUIET));
    assert!(names(&[]).is_empty());
}

#[test]
fn each_fact_accuses_its_own_source() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("debug_build", &[("build_profile", "debug")]),
        ("cpu_quota", &[("cgroup_cpu_limit_cpus", "1.5")]),
        (
            "few_cpus",
            &[("cpus_allowed", "0-1"), ("cpus_isolated", ""), ("irq_busy_cpus", "")],
        ),
        ("steal", &[("steal_ratio_since_boot", "0.0123")]),
        ("load", &[("load_average", "3.20 1.00 0.50 9/200 4242")]),
        ("load", &[("cpu_pressure_percent_10s", "12.5")]),
        ("hiccups", &[("hiccups_gap_ns_max", "250000")]),
        ("hiccups", &[("hiccups_lost_ratio", "0.0200")]),
        ("governor", &[("governor", "performance on 0-3, powersave on 4-7")]),
        ("hypervisor", &[("hypervisor", "KVM")]),
        ("clock_source", &[("clock_source", "hpet")]),
        ("sleep_lateness", &[("sleep_late_ns_p99", "4000000")]),
        ("idle_states", &[("cpuidle_exit_us_max", "133")]),
        ("irq", &[("irq_busy_cpus", "0-4")]),
        ("smt", &[("smt_active", "1")]),
        ("turbo", &[("turbo", "true")]),
        ("thp", &[("thp", "always")]),
        ("numa_balancing", &[("numa_balancing", "1")]),
        ("ksm", &[("ksm_run", "1")]),
        (
            "capability",
            &[("capabilities", "cap_net_admin cap_net_raw cap_ipc_lock cap_sys_admin")],
        ),
        (
            "memlock",
            &[("capabilities", "cap_net_admin cap_net_raw cap_sys_admin cap_sys_nice")],
        ),
    ];
    for (name, changed) in cases {
        let got = quiet_but(changed);
        assert_eq!(got, [*name], "{changed:?}");
    }
    let accused: std::collections::BTreeSet<_> = cases.iter().map(|(name, _)| name).collect();
    assert_eq!(accused.len(), SOURCES.len(), "every source has a case");
}

#[test]
fn what_would_help_is_asked_of_the_facts() {
    let of = |pairs: &[(&str, &str)]| sources(&facts(pairs)).remove(0);
    let clock = of(&[("clock_source", "hpet"), ("clock_sources_available", "tsc hpet")]);
    assert!(clock.mend.is_some_and(|mend| mend.contains("tsc")));
    let clock = of(&[("clock_source", "hpet"), ("clock_sources_available", "hpet acpi_pm")]);
    assert_eq!(clock.mend, None, "tsc is not to be had");

    let boost = of(&[("turbo", "true"), ("cpufreq_driver", "acpi-cpufreq")]);
    assert!(boost.mend.is_some_and(|mend| mend.contains("boost")));
    let quota = of(&[
        ("cgroup_cpu_limit_cpus", "2"),
        ("cgroup_cpu_limit_file", "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us"),
    ]);
    assert!(
        quota
            .mend
            .is_some_and(|mend| mend.starts_with("echo -1 | sudo tee /sys/fs/cgroup/cpu/a/cpu.cfs_quota_us"))
    );
    let stalls = [
        ("hiccups_gap_ns_max", "900000"),
        ("hiccups_lost_ratio", "0.1"),
        ("cpus_online", "0-7"),
    ];
    assert!(of(&stalls).mend.is_some_and(|mend| mend.contains("isolcpus=6,7")));
    let stalls = [
        ("hiccups_gap_ns_max", "900000"),
        ("hiccups_lost_ratio", "0.1"),
        ("cpus_online", "0-1"),
    ];
    assert_eq!(of(&stalls).mend, None, "with two CPUs none can be set apart");
    let narrow = of(&[("cpus_allowed", "0"), ("cpus_online", "0-3")]);
    assert_eq!(narrow.mend.as_deref(), Some("taskset -c 0-3 dplab run"));
}

#[test]
fn root_of_a_user_namespace_is_not_root_of_the_machine() {
    assert!(quiet_but(&[("uid_map", "0 0 4294967295")]).is_empty());
    assert_eq!(quiet_but(&[("uid_map", "0 1000 1")]), ["capability", "memlock"]);
}

#[test]
fn a_real_time_limit_stands_in_for_the_capability() {
    assert!(
        quiet_but(&[
            ("capabilities", "cap_net_admin cap_net_raw cap_ipc_lock cap_sys_admin"),
            ("rtprio_limit", "99"),
        ])
        .is_empty()
    );
}

#[test]
fn interrupts_count_only_where_one_measures() {
    let few = |busy: &'static str| {
        names(&[
            ("cpus_allowed", "0-3"),
            ("irq_busy_cpus", busy),
            ("irq_busiest", "36 disk 50/s on 1"),
        ])
    };
    assert!(few("0-1").is_empty(), "two CPUs are free of them");
    assert_eq!(few("0-2"), ["irq"]);
    let mend = sources(&facts(&[
        ("cpus_allowed", "0-3"),
        ("cpus_isolated", "0,2"),
        ("irq_busy_cpus", "2"),
        ("irq_busiest", "36 disk 50/s on 2, 40 eth0-rx 9/s on 2"),
    ]))
    .remove(0)
    .mend
    .expect("there is a CPU to spare");
    assert!(mend.contains("for i in 36 40;") && mend.contains("echo 1 "), "{mend}");
}
