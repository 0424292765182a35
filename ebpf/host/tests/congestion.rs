//! DCTCP as a BPF program: its arithmetic against RFC 8257's equations and against the simulator's controller, its registration, a
//! connection that uses it, and what kill -9 leaves.
#![cfg(feature = "bpf-cc")]
#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dataplane_transports::{
    AckSample, Controller, LossSample, Phase,
    controllers::{Dctcp as Model, DctcpOptions},
};
use ebpf_host::congestion::{ALPHA_ONE, Dctcp, DctcpAck, DctcpRecovery, DctcpReplay};
use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpCongestion};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const MSS_BYTES: u32 = 1448;
/// The kernel unregisters in the background, and slowly on a busy machine.
const KERNEL_WAIT_MAX: Duration = Duration::from_secs(60);
/// The victim ends by itself if nobody kills it.
const VICTIM_LIFE_MAX: Duration = Duration::from_secs(60);
const ROLE: &str = "DPLAB_CONGESTION_VICTIM";

/// A test's object, or the reason why the test does not run.
fn or_skipped<T>(test: &str, object: Result<T, ebpf_host::HostError>) -> Option<T> {
    match object {
        Ok(object) => Some(object),
        Err(error) if nix::unistd::geteuid().is_root() && fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) => {
            panic!("{test}: {error}")
        }
        Err(error) => {
            println!("{test}: not run: {error}");
            None
        }
    }
}

fn available() -> Vec<String> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").expect("IPv4 is here");
    text.split_whitespace().map(str::to_owned).collect()
}

fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + KERNEL_WAIT_MAX;
    while !is_done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Windows, each as the marks of its segments. The first has one segment: a connection's first window under observation ends with its
/// first ack (as in Linux).
fn windows(seed: u64, windows_count: usize) -> Vec<Vec<bool>> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut windows = vec![vec![rng.random_bool(0.5)]];
    windows.extend((1..windows_count).map(|_| {
        let share = [0.0, 0.0, 0.05, 0.3, 1.0][rng.random_range(0..5)];
        let segments_count = rng.random_range(2..60);
        (0..segments_count).map(|_| rng.random_bool(share)).collect()
    }));
    windows
}

/// RFC 8257 §3.3 written down once more, in doubles: alpha = alpha × (1 - g) + g × M, from 1.
fn equation(alpha: f64, marks: &[bool]) -> f64 {
    let share = marks.iter().filter(|mark| **mark).count() as f64 / marks.len() as f64;
    alpha * (1.0 - 1.0 / 16.0) + share / 16.0
}

/// The same marks through the program in the kernel, through the equations and through the simulator's controller: the same estimate
/// within 1/1024 after every window, each reduction the RFC's, and windows that stay close to the simulator's: it counts bytes and keeps,
/// across a reduction, those that have not made it grow yet; the program counts segments and, as Linux, forgets them.
#[test]
fn marks_do_what_the_equations_say_and_what_the_simulator_does() {
    const BEGIN_SEGMENTS: u32 = 200;
    for seed in 1..=6 {
        let Some(mut kernel) = or_skipped("marks", DctcpReplay::begin(BEGIN_SEGMENTS)) else {
            return;
        };
        let begin_bytes = u64::from(BEGIN_SEGMENTS * MSS_BYTES);
        let mut model = Model::new(MSS_BYTES, begin_bytes, DctcpOptions::default());
        let series = windows(seed, 150);
        // Sequence numbers wrap on the way; the simulator's do not.
        let base = u32::MAX - 40 * MSS_BYTES;
        let (mut end, mut reduced_end, mut alpha) = (0u64, 0u64, 1.0);
        let mut window = BEGIN_SEGMENTS;
        let mut worst = (0.0f64, 0.0f64, 0.0f64);
        let mut reductions_count = 0;
        for (index, marks) in series.iter().enumerate() {
            let next_bytes = series
                .get(index + 1)
                .map_or(0, |next| next.len() as u64 * u64::from(MSS_BYTES));
            let window_end = end + marks.len() as u64 * u64::from(MSS_BYTES);
            for mark in marks {
                end += u64::from(MSS_BYTES);
                // The last ack of a window finds the next one sent: there the window after it ends.
                let sent_end = if end == window_end {
                    end + next_bytes
                } else {
                    window_end
                };
                let ack = DctcpAck {
                    acked_bytes: MSS_BYTES.into(),
                    una: base.wrapping_add(end as u32),
                    nxt: base.wrapping_add(sent_end as u32),
                    delivered_segments: 1,
                    in_flight_segments: 1,
                    packets_out_max: 100_000,
                    is_marked: *mark,
                    ..DctcpAck::default()
                };
                let state = kernel.ack(&ack).expect("it runs");
                let reduces = *mark && end >= reduced_end;
                if reduces {
                    let left = window - (f64::from(window) * f64::from(state.alpha) / f64::from(2 * ALPHA_ONE)) as u32;
                    assert_eq!(state.window_segments, left.max(2), "seed {seed}, byte {end}");
                    assert_eq!(state.ssthresh_segments, state.window_segments);
                    reduced_end = sent_end;
                    reductions_count += 1;
                } else {
                    assert!(state.window_segments == window || state.window_segments == window + 1);
                }
                window = state.window_segments;
                model.on_ack(&AckSample {
                    acked_bytes: MSS_BYTES.into(),
                    acked_end: end,
                    sent_end,
                    ece: *mark,
                    is_window_limited: true,
                    phase: if end < reduced_end || reduces {
                        Phase::Cwr
                    } else {
                        Phase::Open
                    },
                    ..AckSample::default()
                });
                if reduces {
                    model.on_ecn(&LossSample::default());
                }
                let kernels = f64::from(state.alpha) / f64::from(ALPHA_ONE);
                worst.0 = worst.0.max((kernels - f64::from(model.alpha())).abs());
                let models_segments = model.window_bytes() as f64 / f64::from(MSS_BYTES);
                worst.2 = worst.2.max((f64::from(window) - models_segments).abs());
                if end == window_end {
                    alpha = equation(alpha, marks);
                    worst.1 = worst.1.max((kernels - alpha).abs());
                }
            }
        }
        println!(
            "seed {seed}: {reductions_count} reductions; alpha off the simulator's by {:.6}, off the equations by {:.6}; window by {:.2} \
             segments",
            worst.0, worst.1, worst.2
        );
        assert!(
            worst.0 < 1.0 / 1024.0 && worst.1 < 1.0 / 1024.0,
            "seed {seed}: {worst:?}"
        );
        assert!(worst.2 <= 4.0, "seed {seed}: {worst:?}");
        assert!(reductions_count > 20, "seed {seed}: too few marks to say anything");
    }
}

/// Linux's own estimate, in 1/1024, sticks at 15; RFC 8257 §4.2 warns of it.
#[test]
fn an_estimate_without_marks_goes_to_nothing() {
    let Some(mut kernel) = or_skipped("no marks", DctcpReplay::begin(10)) else {
        return;
    };
    let mut alphas = Vec::new();
    for round in 1..400 {
        let ack = DctcpAck {
            acked_bytes: MSS_BYTES.into(),
            una: round * MSS_BYTES,
            nxt: (round + 1) * MSS_BYTES,
            delivered_segments: 1,
            ..DctcpAck::default()
        };
        alphas.push(kernel.ack(&ack).expect("it runs").alpha);
    }
    assert!(alphas.windows(2).all(|pair| pair[1] < pair[0] || pair[1] == 0));
    assert_eq!(alphas.last(), Some(&0));
}

/// RFC 8257 §3.5 and RFC 6937: half for a loss, once, and sending in proportion to what arrives until the flight is as small.
#[test]
fn a_loss_halves_once_and_recovery_sends_in_proportion() {
    let Some(mut kernel) = or_skipped("loss", DctcpReplay::begin(40)) else {
        return;
    };
    let (mut in_flight, mut sent) = (39, 0);
    let mut flights = Vec::new();
    for round in 1..40u32 {
        let state = kernel
            .ack(&DctcpAck {
                una: 1,
                nxt: 40 * MSS_BYTES,
                delivered_segments: 1,
                in_flight_segments: in_flight,
                prr_out_segments: sent,
                packets_out_max: 40,
                recovery: DctcpRecovery::Recovery,
                is_marked: round % 3 == 0,
                ..DctcpAck::default()
            })
            .expect("it runs");
        assert_eq!(state.ssthresh_segments, 20, "halved once, whatever else is marked");
        let sendable = state.window_segments.saturating_sub(in_flight);
        assert!(round > 1 || sendable == 1, "the first retransmission leaves at once");
        sent += sendable;
        in_flight += sendable;
        flights.push(in_flight);
        in_flight -= 1;
    }
    assert!(flights.windows(2).all(|pair| pair[1] <= pair[0]), "{flights:?}");
    assert!(
        (19..=20).contains(flights.last().expect("there are some")),
        "{flights:?}"
    );
}

/// Two are there under two names, a connection uses one, and dropping takes it off the list.
#[test]
fn it_is_registered_used_and_gone() {
    let Some(first) = or_skipped("registration", Dctcp::load()) else {
        return;
    };
    let second = Dctcp::load().expect("a second one fits beside the first");
    let names = [first.name().to_owned(), second.name().to_owned()];
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| available().contains(name)), "{names:?}");

    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let name = OsString::from(&names[0]);
    setsockopt(&listener, TcpCongestion, &name).expect("a listener hands it to its connections");
    let mut client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    setsockopt(&client, TcpCongestion, &name).expect("it is registered");
    let (mut server, _) = listener.accept().expect("a client waits");
    assert_eq!(getsockopt(&server, TcpCongestion).expect("it has one"), name);
    const BYTES: usize = 4 << 20;
    let writer = std::thread::spawn(move || client.write_all(&vec![7; BYTES]).map(|()| client));
    let mut received = vec![0; BYTES];
    server.read_exact(&mut received).expect("all of it arrives");
    assert!(received.iter().all(|byte| *byte == 7));
    let client = writer.join().expect("no panic").expect("all of it leaves");
    let totals = first.totals().expect("they can be read");
    assert!(totals.acks_count > 10, "{totals:?}");
    // Loopback marks and loses nothing.
    assert_eq!(
        (
            totals.marked_acks_count,
            totals.mark_reductions_count,
            totals.ce_segments_count
        ),
        (0, 0, 0),
        "{totals:?}"
    );
    assert_eq!(second.totals().expect("they can be read").acks_count, 0);

    // A connection keeps the programs, and yet nobody can choose them any more.
    drop(first);
    wait("it is still listed", || !available().contains(&names[0]));
    assert!(setsockopt(&listener, TcpCongestion, &name).is_err());
    drop((client, server, second));
    wait("the second is still listed", || !available().contains(&names[1]));
}

/// Registers one, tells its name, and waits to be killed. A test by form, so that it needs no binary of its own.
#[test]
#[ignore = "a role: started by the test below, and killed"]
fn victim() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let dctcp = Dctcp::load().expect("the test has loaded one");
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    setsockopt(&listener, TcpCongestion, &OsString::from(dctcp.name())).expect("it is registered");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let _server = listener.accept().expect("a client waits");
    // The test's own harness keeps what a test prints, so it goes past it.
    writeln!(std::io::stderr(), "name {}", dctcp.name()).expect("somebody reads");
    std::thread::sleep(VICTIM_LIFE_MAX);
    drop(client);
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kill_9_takes_it_off_the_list() {
    if or_skipped("kill -9", Dctcp::load()).is_none() {
        return;
    }
    let exe = std::env::current_exe().expect("this test");
    let child = Command::new(exe)
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut victim = Victim(child);
    let stderr = BufReader::new(victim.0.stderr.take().expect("it is a pipe"));
    let name = stderr
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("name ").map(str::to_owned))
        .expect("it tells its name");
    assert!(available().contains(&name), "{name} in {:?}", available());
    victim.0.kill().expect("it runs");
    victim.0.wait().expect("it is gone");
    wait(&format!("{name} is left"), || !available().contains(&name));
}
