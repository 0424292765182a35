//! The server's own process: opens its port or attaches its program, gives up its privileges, says so, and works until its
//! stdin closes.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, bail};
use caps::{CapSet, Capability, CapsHashSet};
use dataplane_waist::MonotonicClock;
use ebpf_host::{Count, Mode, Program};
use nix::sys::{prctl, signal::Signal};
use serde::Serialize;

use super::{
    REPORT_BYTES_MAX, Ready, Role, ServerConfig, ServerReport,
    node::{Signals, serve},
};
use crate::{
    backends::{self, Kind, Opened, xdp},
    host::{self, Seat},
    sink::{self, Expected},
};

/// The server's process: everything behind [`super::SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read, a port that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: ServerConfig = serde_json::from_str(config).context("reading the server's configuration")?;
    die_with(config.parent_pid)?;
    let backend =
        backends::sink_by_name(&config.backend).with_context(|| format!("no back end {:?}", config.backend))?;
    match (backend.kind, config.role) {
        (Kind::XdpEcho(mode, _), Role::Echo { .. }) => return serve_in_driver(&config, mode),
        (Kind::XdpEcho(mode, _), Role::Sink { .. }) => return sink_in_driver(&config, Program::Echo, mode),
        (Kind::XdpDrop(mode, _), _) => return sink_in_driver(&config, Program::CountDrop, mode),
        _ => {}
    }
    let Opened {
        port,
        addr,
        closer,
        keeps: _program,
    } = backend.open(&config.wiring)?;
    settle_and_say_ready(config.role.end_name(), addr, config.seat)?;
    // A sink still takes in what is on its way.
    let may_close = matches!(config.role, Role::Echo { .. });
    let expected = Arc::new(Expected::default());
    let to_tell = expected.clone();
    let hear = move |words: &str| to_tell.hear(words);
    let stop = stop_at_eof(hear, move || {
        if let Some(closer) = closer.filter(|_| may_close) {
            closer.close();
        }
    });
    host::own_files();
    let signals = Signals {
        stop: &stop,
        pause: &AtomicBool::new(false),
        expected: &expected,
    };
    let report = serve(port, config.role, host::process_cpu_ns, signals)?;
    say(&report)
}

/// The server is a program in the kernel: this process only holds it, and reads its counters in the end. It cannot be
/// stopped (a stall does nothing to it), burns no time per request, and drops nothing that it could tell of.
fn serve_in_driver(config: &ServerConfig, mode: Mode) -> anyhow::Result<()> {
    let attachment = xdp::attach(Program::Echo, &config.wiring.local, mode)?;
    let mut facts = BTreeMap::from([("server_program".to_owned(), format!("{}, {mode}", Program::Echo.name()))]);
    // Before Linux 6.0 a map may be read with this capability only (kernel/bpf/syscall.c, `__sys_bpf`).
    let kept = CapsHashSet::from([Capability::CAP_BPF]);
    facts.insert("privileges".to_owned(), keep_privileges(&kept));
    say(&Ready {
        addr: Some(config.wiring.local.addr),
        facts,
    })?;
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("waiting to be ended")?;
    let counts = attachment.counts().context("reading what the program counted")?;
    let rejects = counts
        .non_zero()
        .filter(|(count, _)| *count != Count::Taken)
        .map(|(count, frames_count)| (count.name().to_owned(), frames_count))
        .collect();
    say(&ServerReport {
        rx_frames_count: counts.get(Count::Taken),
        rejects,
        ..ServerReport::default()
    })
}

/// The sink is a program in the kernel, which drops what it has counted or sends it back: this process only holds it, and
/// reads its counters until they stand still. The program's work is done on the CPU of whoever brings the frames there; this
/// process has none.
fn sink_in_driver(config: &ServerConfig, program: Program, mode: Mode) -> anyhow::Result<()> {
    let attachment = xdp::attach(program, &config.wiring.local, mode)?;
    let mut facts = BTreeMap::from([("sink_program".to_owned(), format!("{}, {mode}", program.name()))]);
    let kept = CapsHashSet::from([Capability::CAP_BPF]);
    facts.insert("privileges".to_owned(), keep_privileges(&kept));
    say(&Ready {
        addr: Some(config.wiring.local.addr),
        facts,
    })?;
    let expected = Expected::default();
    expected.hear(&words_until_eof().context("waiting to be ended")?);
    let taken_count = || -> anyhow::Result<u64> {
        let counts = attachment.counts().context("reading what the program counted")?;
        Ok(counts.get(Count::Taken))
    };
    let report = sink::drain(&MonotonicClock::new(), &expected, taken_count)?;
    say(&ServerReport {
        rx_frames_count: report.received_count,
        sink: Some(report),
        ..ServerReport::default()
    })
}

/// One line for the parent.
///
/// # Errors
/// Nobody reads stdout.
pub fn say(line: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    io::stdout().flush().context("telling the parent")
}

/// Ends this process when its parent does, however that ends.
///
/// # Errors
/// The parent is gone already.
pub fn die_with(parent_pid: u32) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("asking to die with the parent")?;
    if nix::unistd::getppid().as_raw() as u32 != parent_pid {
        bail!("the parent is gone already");
    }
    Ok(())
}

/// Takes a server's seat, drops every privilege, and says on stdout that it is ready at `addr`.
///
/// # Errors
/// Nobody reads stdout.
pub fn settle_and_say_ready(end_name: &str, addr: Option<SocketAddr>, seat: Seat) -> anyhow::Result<()> {
    say_ready(addr, host::settle(end_name, seat))
}

/// Drops every privilege, and says on stdout that the process is ready at `addr`; `facts` say how it runs.
///
/// # Errors
/// Nobody reads stdout.
pub fn say_ready(addr: Option<SocketAddr>, mut facts: BTreeMap<String, String>) -> anyhow::Result<()> {
    facts.insert("privileges".to_owned(), drop_privileges());
    say(&Ready { addr, facts })
}

/// As [`say_ready`], by a process that goes on to exchange programs and to read their maps, which takes CAP_BPF where other
/// programs may not (before Linux 5.19; kernel/bpf/syscall.c, `__sys_bpf`).
///
/// # Errors
/// As there.
pub fn say_ready_with_programs(addr: Option<SocketAddr>, mut facts: BTreeMap<String, String>) -> anyhow::Result<()> {
    let kept = CapsHashSet::from([Capability::CAP_BPF]);
    facts.insert("privileges".to_owned(), keep_privileges(&kept));
    say(&Ready { addr, facts })
}

/// What is set when stdin closes: the parent wants a server to end. `hear` is called before that with the parent's last
/// words, `then` after it.
pub fn stop_at_eof(hear: impl FnOnce(&str) + Send + 'static, then: impl FnOnce() + Send + 'static) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let on_eof = stop.clone();
    thread::spawn(move || {
        hear(&words_until_eof().unwrap_or_default());
        on_eof.store(true, Ordering::Release);
        then();
    });
    stop
}

/// Waits until the parent closes our stdin; what it wrote there before.
fn words_until_eof() -> io::Result<String> {
    let mut words = String::new();
    io::stdin().take(REPORT_BYTES_MAX).read_to_string(&mut words)?;
    Ok(words)
}

/// Gives up every capability: from here on only frames are handled, and nobody's frame needs them.
///
/// Says what came of it.
pub fn drop_privileges() -> String {
    keep_privileges(&CapsHashSet::new())
}

/// Gives up every capability but `kept`.
fn keep_privileges(kept: &CapsHashSet) -> String {
    let none = CapsHashSet::new();
    // What is permitted bounds what is effective, so it goes last.
    for (set, kept) in [
        (CapSet::Inheritable, &none),
        (CapSet::Effective, kept),
        (CapSet::Permitted, kept),
    ] {
        if let Err(error) = caps::set(None, set, kept) {
            return format!("kept: {error}");
        }
    }
    match prctl::set_no_new_privs() {
        Ok(()) if kept.is_empty() => "dropped".to_owned(),
        Ok(()) => format!("dropped, but for {kept:?}"),
        Err(error) => format!("dropped, but new ones could be gained: {error}"),
    }
}
