//! A process that is killed takes its programs, links and maps with it.
#![forbid(unsafe_code)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use ebpf_abi::map;
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
/// (BPF_OBJ_NAME_LEN, include/uapi/linux/bpf.h).
const PROGRAMS: [&str; 2] = ["count_drop_frag", "steer_frags"];

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

/// Programs, maps and links by the kernel's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Objects {
    /// What a process has open, as /proc tells it (bpf_prog_show_fdinfo and its like, kernel/bpf/syscall.c).
    fn held_by(pid: &str) -> Objects {
        let mut held = Objects::default();
        let files = fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten()
            .flatten();
        for text in files.filter_map(|file| fs::read_to_string(file.path()).ok()) {
            for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
                let set = match key {
                    "prog_id" => &mut held.programs,
                    "map_id" => &mut held.maps,
                    "link_id" => &mut held.links,
                    _ => continue,
                };
                set.extend(value.trim().parse::<u32>());
            }
        }
        held
    }

    /// Programs and maps of ours that are younger than `base` and that no process has open: what a dead one left behind. Tests
    /// that run beside this one have theirs open. `overlooked` is a process that does not count as one.
    fn orphans_since(base: &Newest, overlooked: Option<u32>) -> Objects {
        let named = |name: Option<&str>, names: &[&str]| name.is_some_and(|name| names.contains(&name));
        let programs = loaded_programs().flatten();
        let programs = programs.filter(|info| info.id() > base.program && named(info.name_as_str(), &PROGRAMS));
        let maps = loaded_maps().flatten();
        let maps = maps.filter(|info| info.id() > base.map && named(info.name_as_str(), &[map::COUNTS, map::SOCKETS]));
        let mut orphans = Objects {
            programs: programs.map(|info| info.id()).collect(),
            maps: maps.map(|info| info.id()).collect(),
            links: BTreeSet::new(),
        };
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = names.map(|process| process.file_name().to_string_lossy().into_owned());
        // Not "self", which is one of them under another name.
        for pid in names.filter_map(|name| name.parse::<u32>().ok()) {
            if Some(pid) == overlooked {
                continue;
            }
            let held = Objects::held_by(&pid.to_string());
            orphans.programs.retain(|id| !held.programs.contains(id));
            orphans.maps.retain(|id| !held.maps.contains(id));
        }
        orphans
    }

    /// Whether nothing of this is left in the kernel.
    fn are_gone(&self) -> bool {
        loaded_programs()
            .flatten()
            .all(|info| !self.programs.contains(&info.id()))
            && loaded_maps().flatten().all(|info| !self.maps.contains(&info.id()))
            && loaded_links().flatten().all(|info| !self.links.contains(&info.id()))
    }
}

/// The highest numbers given away so far.
struct Newest {
    program: u32,
    map: u32,
}

impl Newest {
    fn now() -> Newest {
        Newest {
            program: loaded_programs().flatten().map(|info| info.id()).max().unwrap_or(0),
            map: loaded_maps().flatten().map(|info| info.id()).max().unwrap_or(0),
        }
    }
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

/// So that the test below can fail.
#[test]
fn what_nobody_has_open_would_be_found() {
    let base = Newest::now();
    let settings = Settings {
        frags: true,
        ..Settings::default()
    };
    let Some(loaded) = load("orphans", Program::Steer, &settings) else {
        return;
    };
    let id = loaded.program_id().expect("it has one");
    let me = std::process::id();
    assert!(Objects::held_by("self").programs.contains(&id));
    assert!(!Objects::orphans_since(&base, None).programs.contains(&id));
    let orphans = Objects::orphans_since(&base, Some(me));
    assert!(orphans.programs.contains(&id) && orphans.maps.len() >= 2, "{orphans:?}");
    drop(loaded);
    wait("it is left", || {
        !Objects::orphans_since(&base, Some(me)).programs.contains(&id)
    });
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
        let base = Newest::now();
        let mut victim = Victim::start(host);
        let pid = victim.0.id().to_string();
        let mut held = Objects::default();
        let mut look = || {
            held = Objects::held_by(&pid);
            !held.links.is_empty()
        };
        // Every fourth as soon as something is attached; the others anywhere between the start, loading, attaching and
        // detaching.
        let delay_ms = rng.random_range(0..400);
        if kill % 4 == 1 {
            wait("the victim attaches nothing", look);
        } else {
            std::thread::sleep(Duration::from_millis(delay_ms));
            look();
        }
        victim.kill_dash_nine();
        programs_count += held.programs.len();
        links_count += held.links.len();
        let at = format!("DPLAB_SEED={seed}, kill {kill} after {delay_ms} ms");
        wait(&format!("{at}: {held:?} is left"), || held.are_gone());
        wait(&format!("{at}: something that nobody owns is left"), || {
            Objects::orphans_since(&base, None) == Objects::default()
        });
        wait(&format!("{at}: the interface is not free"), || {
            attach_once(host).is_ok()
        });
        assert!(!ip_link_says_xdp(host), "{at}: `ip link` shows a program");
    }
    println!("{kills_count} kills took {programs_count} programs and {links_count} links with them");
    assert!(
        kills_count < 2 || links_count > 0,
        "no kill hit an attached program, so nothing was tested"
    );
}
