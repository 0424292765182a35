//! Lesson 11, solved: a question is as late as its last answer, first windows meet in the buffer, and a timer waits for nothing.
#![forbid(unsafe_code)]

use lessons::packets::{metric, simulate};

// ---- 1. As late as the last -----------------------------------------------------------------------------------------

/// Of all answers, this share comes late. How large a share of the questions is late, if each needs an answer of every server?
fn late_questions_ratio(late_answers_ratio: f64, servers_count: u32) -> f64 {
    // Late unless all are in time. The sum of the shares is near as long as it is small; for forty of them it is not.
    1.0 - (1.0 - late_answers_ratio).powf(f64::from(servers_count))
}

#[test]
fn a_question_is_late_when_one_answer_is() {
    // Each cable loses one packet in 400. A loss costs 10 ms, everything else less than one.
    let late = |servers: u32, rounds: u32| {
        let outcome = simulate(
            &format!(
                r#"
                horizon = "600 s"
                topology = {{ kind = "star", hosts = 41, rate = "1 Gbit/s", delay = "20 us", loss_ratio = 0.0025 }}
                tcp = {{ rto_min = "10 ms", ack_delay = "0 ns" }}
                load = [{{ kind = "incast", servers = {servers}, bytes = "1 KB", rounds = {rounds} }}]
                "#
            ),
            1,
        );
        let took_ns = outcome.rounds_ns();
        took_ns.iter().filter(|took_ns| **took_ns > 5_000_000).count() as f64 / took_ns.len() as f64
    };
    // With one server a question is its answer.
    let late_answers_ratio = late(1, 20_000);
    for servers in [1, 10, 40] {
        let (simulated, said) = (late(servers, 1_000), late_questions_ratio(late_answers_ratio, servers));
        println!("{servers} servers: {simulated:.3} of the questions are late, {said:.3} were foretold");
        assert!(
            (simulated - said).abs() < 0.05,
            "{servers} servers: {simulated:.3} of the questions are late, and not {said:.3}"
        );
    }
}

// ---- 2. What meets in the buffer ------------------------------------------------------------------------------------

/// How many servers may answer at the same time, each with a first window of so many packets, before the port's buffer overflows? All
/// links have the same rate.
fn servers_max(buffer_packets: u32, window_packets: u32) -> u32 {
    // A burst is over when one server has sent its window, at the rate of a link. The port has sent one window in that time, whatever it
    // could do in a millisecond, and the windows of all others wait.
    buffer_packets / window_packets + 1
}

#[test]
fn first_windows_meet_in_the_buffer() {
    let drops_count = |buffer: u32, window: u32, servers: u32| {
        let outcome = simulate(
            &format!(
                r#"
                horizon = "60 s"
                topology = {{ kind = "star", hosts = 61, rate = "1 Gbit/s", delay = "20 us" }}
                switch.queue.limit = "{buffer} packets"
                tcp = {{ rto_min = "10 ms", ack_delay = "1 ms", initial_window = {window} }}
                load = [{{ kind = "incast", servers = {servers}, bytes = "{bytes} B", rounds = 3, fresh = true }}]
                "#,
                bytes = window * 1_448
            ),
            1,
        );
        outcome.counters.drops.count()
    };
    for (buffer, window) in [(100, 10), (64, 10), (50, 4)] {
        let fit = servers_max(buffer, window);
        let (within, beyond) = (drops_count(buffer, window, fit), drops_count(buffer, window, fit + 2));
        println!(
            "{buffer} packets of buffer, windows of {window}: {fit} servers lose {within}, {} lose {beyond}",
            fit + 2
        );
        assert_eq!(within, 0, "{fit} windows of {window} packets do not fit into {buffer}");
        assert!(beyond > 0, "{fit} windows of {window} packets do not fill {buffer}");
    }
}

// ---- 3. Mend the hosts ----------------------------------------------------------------------------------------------

/// What stands under `[tcp]` in the scenario below. Its hosts are yours, the switch is not.
fn hosts() -> &'static str {
    // They lose as much as before, and find out a thousand times sooner. A full buffer of 64 KB takes half a millisecond to send, so
    // after one millisecond without an answer there is none. 10 ms still cost a third: an answer takes less than that.
    r#"
        rto_min = "1 ms"
        initial_window = 3
    "#
}

/// Mbit/s of answers: 1 MB from all servers together, 64 KB of buffer, and the hosts that are asked for.
fn goodput_mbit_per_sec(hosts: &str, servers: u32) -> f64 {
    let outcome = simulate(
        &format!(
            r#"
            horizon = "600 s"
            topology = {{ kind = "star", hosts = 17, rate = "1 Gbit/s", delay = "25 us" }}
            switch.queue.limit = "64 KB"
            load = [{{ kind = "incast", servers = {servers}, bytes_total = "1 MB", rounds = 50 }}]
            [tcp]
            ack_delay = "0 ns"
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
fn sixteen_servers_keep_nine_tenths() {
    let alone = goodput_mbit_per_sec(hosts(), 1);
    for servers in [4, 8, 16] {
        let goodput = goodput_mbit_per_sec(hosts(), servers);
        assert!(
            goodput > 0.9 * alone,
            "{servers} servers: {goodput:.0} Mbit/s, and one alone has {alone:.0}"
        );
    }
}

/// Why the first try did not help: the window grows until something is lost, wherever it begins.
#[test]
fn a_gentle_beginning_loses_as_much() {
    let alone = goodput_mbit_per_sec("rto_min = \"200 ms\"", 1);
    let gentle = goodput_mbit_per_sec("rto_min = \"200 ms\"\ninitial_window = 1", 16);
    assert!(gentle < 0.1 * alone, "{gentle:.0} of {alone:.0} Mbit/s");
}

/// A twentieth of the timer is not a twentieth of the trouble: 10 ms are longer than an answer.
#[test]
fn a_timer_that_is_longer_than_the_answer_still_costs() {
    let alone = goodput_mbit_per_sec("rto_min = \"10 ms\"", 1);
    let sixteen = goodput_mbit_per_sec("rto_min = \"10 ms\"", 16);
    assert!(
        sixteen > 0.4 * alone && sixteen < 0.8 * alone,
        "{sixteen:.0} of {alone:.0} Mbit/s"
    );
}
