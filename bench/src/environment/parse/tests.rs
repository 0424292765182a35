//! Real files of several machines, and no panic for anything else.

use proptest::prelude::*;

use super::*;

const EPYC_GUEST: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nmicrocode\t: 0x1000065\n\
    flags\t\t: fpu vme rdtscp lm hypervisor lahf_lm\n\nprocessor\t: 1\nmodel name\t: another\n";
const XEON_METAL: &str = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz\nmicrocode\t: 0xd0003a5\n\
    flags\t\t: fpu vme de pse tsc msr constant_tsc nonstop_tsc\n";
const GRAVITON: &str = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd evtstrm\nCPU implementer\t: 0x41\n\
    CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n";
const INTERRUPTS_GUEST: &str = "           CPU0       CPU1       \n 24:          1          0  IO-APIC   5-edge      ACPI:Ged\n \
    36:          0      60313 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0\nNMI:          0          0   \
    Non-maskable interrupts\nERR:          0\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
    Max locked memory         8388608              unlimited            bytes     \n\
    Max nice priority         0                    0                    \n\
    Max realtime priority     unlimited            unlimited            \n";

#[test]
fn cpu_lists() {
    assert_eq!(cpu_list("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
    assert_eq!(cpu_list(""), Some(vec![]));
    assert_eq!(cpu_list("3,1,1-2"), Some(vec![1, 2, 3]));
    for text in [
        "x",
        "3-1",
        "0-",
        "-1",
        "0-4294967295",
        "99999999999999999999",
        "0x3",
        "1 2",
    ] {
        assert_eq!(cpu_list(text), None, "{text:?}");
    }
    assert_eq!(emit_cpu_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    assert_eq!(emit_cpu_list(&[]), "");
}

#[test]
fn cpu_info_of_three_machines() {
    let guest = cpu_info(EPYC_GUEST);
    assert_eq!(guest.model.as_deref(), Some("AMD EPYC"));
    assert_eq!(guest.hypervisor, Some(true));
    let metal = cpu_info(XEON_METAL);
    assert_eq!(metal.model.as_deref(), Some("Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz"));
    assert_eq!(
        (metal.microcode.as_deref(), metal.hypervisor),
        (Some("0xd0003a5"), Some(false))
    );
    let arm = cpu_info(GRAVITON);
    assert_eq!(arm.model.as_deref(), Some("implementer 0x41 part 0xd0c"));
    assert_eq!(arm.hypervisor, None, "no flags: unknown, not \"no\"");
    assert_eq!(cpu_info(""), CpuInfo::default());
}

#[test]
fn assignments_and_fields() {
    let os = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian\"\nID=alpine\nEMPTY=\n";
    assert_eq!(assignment(os, "PRETTY_NAME"), Some("Debian GNU/Linux 12 (bookworm)"));
    assert_eq!(assignment(os, "ID"), Some("alpine"));
    assert_eq!((assignment(os, "EMPTY"), assignment(os, "VERSION")), (None, None));
    let config = "CONFIG_HZ_250=y\n# CONFIG_HZ_1000 is not set\nCONFIG_HZ=250\n";
    assert_eq!(assignment(config, "CONFIG_HZ"), Some("250"));
    assert_eq!(assignment(config, "CONFIG_HZ_1000"), None);
    let status = "CapEff:\t000001fffeffffff\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n";
    assert_eq!(colon_field(status, "Cpus_allowed_list"), Some("0-1"));
    assert_eq!(
        colon_field("MemTotal:       24684092 kB\n", "MemTotal"),
        Some("24684092 kB")
    );
    assert_eq!(colon_field(status, "Cpus"), None);
}

#[test]
fn choices() {
    assert_eq!(chosen("always [madvise] never"), Some("madvise"));
    assert_eq!(chosen("none voluntary (full) lazy"), Some("full"));
    assert_eq!(chosen("always madvise"), None);
    assert_eq!(chosen("[] ["), Some(""), "odd, and no panic");
}

#[test]
fn limits_and_loads_and_pressure() {
    assert_eq!(soft_limit(LIMITS, "Max locked memory"), Some("8388608"));
    assert_eq!(soft_limit(LIMITS, "Max realtime priority"), Some("unlimited"));
    assert_eq!(soft_limit(LIMITS, "Max locked"), None);
    assert_eq!(soft_limit(LIMITS, "Limit"), None);
    assert_eq!(load_averages("0.47 0.36 0.35 3/112 17347"), Some([0.47, 0.36, 0.35]));
    assert_eq!(load_averages("0.47 NaN 0.35"), None);
    assert_eq!(load_averages("0.47"), None);
    let psi = "some avg10=3.09 avg60=1.21 avg300=1.23 total=33496201\nfull avg10=9.00 avg60=0.00\n";
    assert_eq!(pressure_some_avg10(psi), Some(3.09));
    assert_eq!(pressure_some_avg10("full avg10=9.00"), None);
}

#[test]
fn control_groups_and_quotas() {
    let mixed = "9:name=systemd:/\n2:cpu,cpuacct:/docker/ab:c\n0::/user.slice/session-1.scope\nrubbish\n";
    assert_eq!(
        cgroups(mixed),
        [
            ("name=systemd", "/"),
            ("cpu,cpuacct", "/docker/ab:c"),
            ("", "/user.slice/session-1.scope")
        ]
    );
    assert_eq!(quota_cpus("150000", "100000"), Some(1.5));
    for (quota, period) in [("max", "100000"), ("-1", "100000"), ("1", "0"), ("", "")] {
        assert_eq!(quota_cpus(quota, period), None, "{quota:?} {period:?}");
    }
}

#[test]
fn interrupts_of_a_guest() {
    let found = interrupts(INTERRUPTS_GUEST);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[1],
        Interrupt {
            irq: 36,
            total_count: 60313,
            device: "virtio1-req.0".into()
        }
    );
    assert!(interrupts("").is_empty());
    assert!(interrupts("CPU0 CPU1\n 5: 1\n").is_empty(), "a column is missing");
}

#[test]
fn capabilities_by_name() {
    assert_eq!(capability_names("0000000000000000").as_deref(), Some("none"));
    assert_eq!(
        capability_names("0000000000003000").as_deref(),
        Some("cap_net_admin cap_net_raw")
    );
    assert_eq!(
        capability_names("000001ffffffffff").map(|names| names.split(' ').count()),
        Some(41)
    );
    assert_eq!(capability_names("8000000000000000").as_deref(), Some("cap_63"));
    assert_eq!(capability_names("x"), None);
}

proptest! {
    #[test]
    fn cpu_lists_come_back(cpus in prop::collection::btree_set(0usize..CPUS_MAX, 0..64)) {
        let cpus: Vec<usize> = cpus.into_iter().collect();
        prop_assert_eq!(cpu_list(&emit_cpu_list(&cpus)), Some(cpus));
    }

    #[test]
    fn any_text_is_answered(text in "(?s).{0,300}") {
        all_parsers(&text);
    }

    /// Real files with a piece cut out: closer to the formats than random text is.
    #[test]
    fn damaged_files_are_answered(which in 0usize..5, from in 0usize..300, len in 0usize..300) {
        let file = [EPYC_GUEST, GRAVITON, INTERRUPTS_GUEST, LIMITS, "0::/a\n1:cpu:/b\n"][which];
        let text: String = file.chars().enumerate().filter(|(at, _)| !(from..from + len).contains(at)).map(|(_, c)| c).collect();
        all_parsers(&text);
    }
}

fn all_parsers(text: &str) {
    let _ = (
        cpu_list(text),
        cpu_info(text),
        chosen(text),
        load_averages(text),
        number(text),
    );
    let _ = (
        assignment(text, "A"),
        colon_field(text, "A"),
        soft_limit(text, "Max locked memory"),
    );
    let _ = (
        cgroups(text),
        quota_cpus(text, text),
        pressure_some_avg10(text),
        interrupts(text),
        capability_names(text),
    );
}
