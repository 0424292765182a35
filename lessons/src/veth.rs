//! Two hosts of our own and one veth pair between them, for lessons 6 and 7: programs on its ends, questions across it,
//! and what the interfaces count.

use std::{
    collections::BTreeSet,
    fs, io,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use dataplane_wire::{
    ethernet::Mac,
    frame::{self, Kind},
};
use ebpf_host::{Attachment, Count, HostError, Loaded, Mode, Program, Settings, kinds};

/// The UDP port that programs and sockets of the lessons take.
pub const PORT: u16 = 4001;

/// After so long without an answer those that are missing count as lost. Over a veth they come in microseconds; on a machine
/// that is busy with something else, later.
const SILENCE: Duration = Duration::from_secs(2);
/// Counters that stood still for so long are read.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Two hosts, the client first. `None`, with the reason printed, where this process may not make them or may not load
/// programs.
///
/// # Panics
/// If both are allowed and fail all the same.
pub fn pair() -> Option<Network> {
    match prepare() {
        Privilege::Root => {}
        // In a user namespace of its own a process may build networks, and may not load programs.
        Privilege::UserNamespace => {
            println!("skipped: needs root: an XDP program wants CAP_BPF and CAP_NET_ADMIN outside any user namespace");
            return None;
        }
        Privilege::None { why } => {
            println!("skipped: needs two network namespaces: {why}");
            return None;
        }
    }
    match Loaded::load(Program::Pass, &Settings::default()) {
        Ok(_) => {}
        Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. } | HostError::OldKernel { .. })) => {
            println!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    }
    let options = NetworkOptions {
        // Frames of one buffer, so that every program fits.
        mtu_bytes: 1500,
        publish_names: false,
        ..NetworkOptions::new(Topology::Pair)
    };
    Some(Network::build(&options).expect("root can build a pair"))
}

/// Client and server of a pair.
pub fn ends(network: &Network) -> (&Host, &Host) {
    (&network.hosts()[0], &network.hosts()[1])
}

/// Puts `program` on `host`'s interface, for frames of ours to this host. It stays as long as the answer is held.
///
/// # Panics
/// If it cannot be loaded or attached.
pub fn attach(host: &Host, program: Program, mode: Mode) -> Attachment {
    let settings = Settings {
        local_mac: Mac(host.mac()),
        local_ipv4: Some(host.ipv4()),
        local_port: PORT,
        kinds: kinds(&[Kind::EchoRequest]),
        ..Settings::default()
    };
    let loaded = Loaded::load(program, &settings).unwrap_or_else(|error| panic!("{error}"));
    host.run(|| loaded.attach(&host.interface().name, mode))
        .expect("the thread comes back")
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Sends `asked_count` echo requests from `client` to `server`; how many were answered.
///
/// # Panics
/// If a socket fails.
pub fn ask(client: &Host, server: &Host, asked_count: u64) -> u64 {
    let socket = client
        .run(|| UdpSocket::bind((client.ipv4(), 0)))
        .expect("the thread comes back")
        .expect("a free port");
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    for slot in 0..asked_count {
        let header = frame::Header {
            kind: Kind::EchoRequest,
            term: 0,
            slot,
            sent_ns: 0,
        };
        let mut request = [0; 64];
        frame::emit(&header, &mut request);
        socket.send_to(&request, (server.ipv4(), PORT)).expect("it is sent");
    }
    let mut answered = BTreeSet::new();
    let mut answer = [0; 128];
    while (answered.len() as u64) < asked_count {
        match socket.recv(&mut answer) {
            Ok(len_bytes) => {
                let reply = frame::parse(&answer[..len_bytes]).expect("a frame of the lab's").header;
                assert_eq!(reply.kind, Kind::EchoReply);
                answered.insert(reply.slot);
            }
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => break,
            Err(error) => panic!("{error}"),
        }
    }
    answered.len() as u64
}

/// What was asked, and what everybody on the way counted meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Questions sent by the client.
    pub asked: u64,
    /// Answers that its socket got.
    pub answered: u64,
    /// Questions that the program answered: it said XDP_TX.
    pub taken: u64,
    /// The client's interface. Frames of others (neighbour discovery, ICMP) are counted too.
    pub client: InterfaceCounts,
    /// The server's.
    pub server: InterfaceCounts,
}

/// Asks, and reads the counters before and after.
///
/// # Panics
/// If a socket fails or the counters cannot be read.
pub fn observe((client, server): (&Host, &Host), echo: &Attachment, asked: u64) -> Evidence {
    let taken = || echo.counts().expect("it counts").get(Count::Taken);
    let interfaces = || (InterfaceCounts::of(client), InterfaceCounts::of(server));
    let (taken_before, before) = (taken(), interfaces());
    let answered = ask(client, server, asked);
    // A driver adds up after a batch, which may be after its frames have arrived.
    let since = Instant::now();
    let mut after = interfaces();
    loop {
        thread::sleep(SETTLE);
        let now = interfaces();
        if now == after || since.elapsed() > SETTLE_MAX {
            break;
        }
        after = now;
    }
    Evidence {
        asked,
        answered,
        taken: taken() - taken_before,
        client: after.0.since(&before.0),
        server: after.1.since(&before.1),
    }
}

/// What an interface counted since it was made, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounts {
    /// Taken in.
    pub rx: u64,
    /// Taken in and dropped.
    pub rx_dropped: u64,
    /// Sent.
    pub tx: u64,
    /// Not sent, dropped.
    pub tx_dropped: u64,
}

impl InterfaceCounts {
    /// What `host`'s interface says in /proc/net/dev, which `ip -s link` prints too.
    ///
    /// # Panics
    /// If the interface is not there.
    pub fn of(host: &Host) -> InterfaceCounts {
        let name = &host.interface().name;
        // The namespace is the thread's, not the process's.
        let text = host
            .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
            .expect("the thread comes back")
            .expect("every kernel has it");
        parse(&text, name).unwrap_or_else(|| panic!("{name} is not in\n{text}"))
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &InterfaceCounts) -> InterfaceCounts {
        InterfaceCounts {
            rx: self.rx - earlier.rx,
            rx_dropped: self.rx_dropped - earlier.rx_dropped,
            tx: self.tx - earlier.tx,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
        }
    }
}

/// Eight numbers of what came and eight of what went behind the name: bytes, packets, errors, drops, and others.
fn parse(text: &str, interface: &str) -> Option<InterfaceCounts> {
    let numbers = text.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    })?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    Some(InterfaceCounts {
        rx: *numbers.get(1)?,
        rx_dropped: *numbers.get(3)?,
        tx: *numbers.get(9)?,
        tx_dropped: *numbers.get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_by_column() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0:    1306      13    1    2    0     0          0         3     4306      23    0    5    0     0       0          0
";
        let expected = InterfaceCounts {
            rx: 13,
            rx_dropped: 2,
            tx: 23,
            tx_dropped: 5,
        };
        assert_eq!(parse(text, "eth0"), Some(expected));
        assert_eq!(parse(text, "eth"), None);
        assert_eq!(parse("eth0: 1 2 3", "eth0"), None);
    }
}
