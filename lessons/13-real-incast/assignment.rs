//! Lesson 13, your turn. The figures of a kernel are yours to measure; what is asked here runs anywhere. Delete an `#[ignore]`, watch
//! the test fail, mend the function above it.
#![forbid(unsafe_code)]

use lessons::packets::{metric, simulate};

// ---- 1. What the kernel counted ------------------------------------------------------------------------------------

/// How often the retransmission timer fired in a namespace, from the text of its /proc/net/netstat; nothing if the kernel does not say.
fn timeouts(netstat: &str) -> Option<u64> {
    // The kernel at hand has it in the third place.
    let values = netstat.lines().nth(1)?;
    values.split_whitespace().nth(3)?.parse().ok()
}

/// As two kernels print it: pairs of lines, names over values. A name's place differs from kernel to kernel.
const OLDER: &str = "\
TcpExt: SyncookiesSent TCPLossProbes TCPTimeouts TCPSpuriousRTOs
TcpExt: 0 310 12 1
IpExt: InNoRoutes InOctets InCEPkts
IpExt: 0 99 7
";
const NEWER: &str = "\
TcpExt: SyncookiesSent EmbryonicRsts PruneCalled TCPTimeouts TCPLossProbes
TcpExt: 0 5 9 44 310
IpExt: InNoRoutes InOctets InCEPkts
IpExt: 0 99 7
";

#[test]
#[ignore = "your turn: delete this line"]
fn timers_are_counted_by_name() {
    assert_eq!(timeouts(OLDER), Some(12));
    assert_eq!(timeouts(NEWER), Some(44));
    assert_eq!(timeouts("TcpExt: SyncookiesSent\nTcpExt: 3\n"), None);
    // This machine's own, where there is a /proc.
    if let Ok(text) = std::fs::read_to_string("/proc/thread-self/net/netstat") {
        assert!(timeouts(&text).is_some(), "a Linux counts its timeouts");
    }
}

// ---- 2. The least timeout that there is ----------------------------------------------------------------------------

/// What a kernel of `ticks_per_sec` makes of a least timeout that it is asked for, in microseconds: whole ticks, and at least two of them
/// (TCP_TIMEOUT_MIN, include/net/tcp.h).
fn rto_min_us(asked_us: u64, ticks_per_sec: u64) -> u64 {
    // The kernel was asked, and did not complain.
    let _ = ticks_per_sec;
    asked_us
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_kernel_counts_in_ticks() {
    for (asked_us, ticks_per_sec, seen_us) in [
        (200_000, 250, 200_000),
        (10_000, 250, 12_000),
        (4_001, 250, 8_000),
        (200, 250, 8_000),
        (200, 1_000, 2_000),
        (2_500, 1_000, 3_000),
    ] {
        assert_eq!(
            rto_min_us(asked_us, ticks_per_sec),
            seen_us,
            "{asked_us} us at {ticks_per_sec} ticks a second"
        );
    }
}

// ---- 3. Without touching the timer ---------------------------------------------------------------------------------

/// What stands under `[tcp]` below. RTOmin stays as Linux has it.
fn hosts() -> &'static str {
    // Selective acks tell the sender exactly what is missing.
    r#"
        sack = true
        tlp = false
    "#
}

/// Mbit/s of answers: 250 KB from all servers together over 100 Mbit/s, 32 KB of buffer, RTOmin of 200 ms.
fn goodput_mbit_per_sec(hosts: &str, servers: u32) -> f64 {
    let outcome = simulate(
        &format!(
            r#"
            horizon = "600 s"
            topology = {{ kind = "star", hosts = 65, rate = "100 Mbit/s", delay = "25 us" }}
            switch.queue.limit = "32 KB"
            load = [{{ kind = "incast", servers = {servers}, bytes_total = "250 KB", rounds = 100 }}]
            [tcp]
            base = "linux-2026"
            controller = "newreno"
            rto_min = "200 ms"
            {hosts}
            "#
        ),
        1,
    );
    println!(
        "{servers} servers: {} drops, {} timeouts",
        outcome.counters.drops.count(),
        outcome.timeouts_count
    );
    metric(&outcome, "goodput_mbit_per_sec")
}

#[test]
#[ignore = "your turn: delete this line"]
fn eight_servers_keep_half_with_a_timer_of_200_ms() {
    let alone = goodput_mbit_per_sec(hosts(), 1);
    for servers in [4, 8] {
        let goodput = goodput_mbit_per_sec(hosts(), servers);
        assert!(
            goodput > 0.5 * alone,
            "{servers} servers: {goodput:.0} Mbit/s, and one alone has {alone:.0}"
        );
    }
}
