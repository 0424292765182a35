//! A process that is killed takes its programs, links and maps with it.
#![forbid(unsafe_code)]

mod support;

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use ebpf_host::{HostError, Loaded, Mode, Program, Settings};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::load;

/// Set for the process that is to be killed: the interface.
const INTERFACE: &str = "DPLAB_KILL_INTERFACE";
/// The kernel frees a program in the background, after a grace period, and slowly on a busy machine.
const KERNEL_WAIT_MAX: Duration = Duration::from_secs(60);
/// The victim ends by itself if nobody kills it.
const VICTIM_LIFE_MAX: Duration = Duration::from_secs(60);
/// The programs that the victim loads, by the first 15 bytes of their names, which is what the kernel keeps
/// (BPF_OBJ_NAME_LEN, include/uapi/linux/bpf.h). Other tests load these for an instant at most.
const NAMES: [&str; 2] = ["count_drop_frag", "steer_frags"];

/// Attaches and detaches until it is killed. A test by form, so that it needs no binary of its own.
#[test]
#[ignore = "a role: started by the test below, and killed"]
fn victim() {
    let Ok(interface) = std::env::var(INTERFACE) else {
        return;
    };
    let settings = Settings {
        frags: true,
        ..Settings::default()
    };
    let deadline = Instant::now() + VICTIM_LIFE_MAX;
    let mut turn = 0;
    while Instant::now() < deadline {
        let program = [Program::CountDrop, Program::Steer][turn / 2 % 2];
        let mode = [Mode::Native, Mode::Generic][turn % 2];
        let loaded = Loaded::load(program, &settings).expect("it loads");
        let attachment = loaded.attach(&interface, mode).expect("the interface is free");
        std::thread::sleep(Duration::from_millis(30));
        drop(attachment);
        turn += 1;
    }
}

struct Victim(Child);

impl Victim {
    fn start(host: &Host) -> Victim {
        let exe = std::env::current_exe().expect("this test");
        let child = host.run(|| {
            Command::new(exe)
                .args(["--exact", "victim", "--ignored"])
                .env(INTERFACE, &host.interface().name)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        Victim(child.expect("the thread comes back").expect("it starts"))
    }

    fn kill_dash_nine(&mut self) {
        assert_eq!(
            self.0.try_wait().expect("it can be asked"),
            None,
            "the victim ended by itself"
        );
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is in the kernel: what vanishes while it is listed is left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Seen {
    /// Programs of [`NAMES`] that were loaded after the program `base`, with their maps and links.
    fn since(base: u32) -> Seen {
        let mut seen = Seen::default();
        for info in loaded_programs().flatten() {
            let is_named = info.name_as_str().is_some_and(|name| NAMES.contains(&name));
            if info.id() > base && is_named {
                seen.programs.insert(info.id());
                seen.maps.extend(info.map_ids().ok().flatten().unwrap_or_default());
            }
        }
        for link in loaded_links().flatten() {
            if seen.programs.contains(&link.program_id()) {
                seen.links.insert(link.id());
            }
        }
        seen
    }

    /// Whether anything of this is left.
    fn is_gone(&self) -> bool {
        loaded_programs()
            .flatten()
            .all(|info| !self.programs.contains(&info.id()))
            && loaded_maps().flatten().all(|info| !self.maps.contains(&info.id()))
            && loaded_links().flatten().all(|info| !self.links.contains(&info.id()))
    }
}

fn last_program_id() -> u32 {
    loaded_programs().flatten().map(|info| info.id()).max().unwrap_or(0)
}

fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + KERNEL_WAIT_MAX;
    while !is_done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What `ip link` says about XDP on the host's interface; nothing where there is no `ip`.
fn ip_link_says_xdp(host: &Host) -> bool {
    let output = host.run(|| {
        Command::new("ip")
            .args(["link", "show", "dev", &host.interface().name])
            .output()
    });
    match output.expect("the thread comes back") {
        Ok(output) => {
            assert!(output.status.success());
            String::from_utf8_lossy(&output.stdout).contains("xdp")
        }
        Err(_) => false,
    }
}

fn attach_once(host: &Host) -> Result<(), HostError> {
    let loaded = Loaded::load(Program::Pass, &Settings::default()).expect("it loads");
    let attachment = host.run(|| loaded.attach(&host.interface().name, Mode::Native));
    attachment.expect("the thread comes back").map(drop)
}

/// `DPLAB_KILLS` sets how many (the soak takes 50), `DPLAB_SEED` other moments.
#[test]
fn kill_9_leaves_no_program_link_or_map() {
    if prepare() != Privilege::Root || load("kill -9", Program::Pass, &Settings::default()).is_none() {
        println!("kill -9: not run: needs root, for network namespaces and for BPF");
        return;
    }
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (kills_count, seed) = (number("DPLAB_KILLS", 4), number("DPLAB_SEED", 9));
    let options = NetworkOptions {
        mtu_bytes: 1500,
        publish_names: false,
        ..NetworkOptions::new(Topology::Pair)
    };
    let network = Network::build(&options).expect("root can build a pair");
    let host = &network.hosts()[0];
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let (mut programs_count, mut links_count) = (0, 0);
    for kill in 0..kills_count {
        let base = last_program_id();
        let mut victim = Victim::start(host);
        if kill % 4 != 0 {
            wait("the victim loads nothing", || !Seen::since(base).programs.is_empty());
        }
        // Anywhere between its start, its loading, attaching and detaching.
        let delay_ms = rng.random_range(0..150);
        std::thread::sleep(Duration::from_millis(delay_ms));
        let mut alive = Seen::since(base);
        victim.kill_dash_nine();
        // What it loaded between the look and the kill.
        let late = Seen::since(base);
        alive.programs.extend(late.programs);
        alive.maps.extend(late.maps);
        alive.links.extend(late.links);
        programs_count += alive.programs.len();
        links_count += alive.links.len();
        let at = format!("DPLAB_SEED={seed}, kill {kill} after {delay_ms} ms");
        wait(&format!("{at}: {alive:?} is left"), || alive.is_gone());
        wait(&format!("{at}: the interface is not free"), || {
            attach_once(host).is_ok()
        });
        assert!(!ip_link_says_xdp(host), "{at}: `ip link` shows a program");
        assert_eq!(Seen::since(base), Seen::default(), "{at}");
    }
    println!("{kills_count} kills took {programs_count} programs and {links_count} links with them");
    assert!(programs_count > 0, "no kill hit a loaded program");
}
