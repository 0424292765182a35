//! L0: what the XDP programs (`ebpf/programs`) and the process that loads them (`ebpf/host`) agree on: names of
//! programs, maps and settings, and what a program counts. Byte layouts of frames are in `dataplane-wire`.
//!
//! Every program takes from the wire only frames of the lab: whole UDP datagrams to this host's own addresses and to
//! [`setting::LOCAL_PORT`], whose payload begins with the magic and the version of `dataplane_wire::frame` and has one of
//! [`setting::KINDS`]; `steer_port` takes such datagrams whatever is in them. Everything else is passed up the stack untouched and counted by reason, so a program on an
//! interface that carries somebody's SSH session disturbs nothing. A program checks lengths and not checksums: those are
//! for whoever reads the frame in the end.
#![no_std]
#![forbid(unsafe_code)]

pub mod lost;
pub mod mark;
pub mod quorum;

/// The programs. Each is an object file of this name with a function of this name in it, and a second function
/// `NAME_frags` that accepts frames of several buffers (`xdp.frags`, Linux 5.18): what an MTU above a page needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Passes everything. The peer of a native XDP_TX or redirect over veth needs a program, and this one will do.
    Pass,
    /// Drops our frames and counts them: what a frame costs before it has an skb.
    CountDrop,
    /// Answers our echo requests out of the driver (XDP_TX).
    Echo,
    /// Hands our frames to the AF_XDP socket of their receive queue ([`map::SOCKETS`]).
    Steer,
    /// As [`Program::Steer`], whatever the datagrams to our port have in them: for a protocol that is not the lab's (RoCEv2).
    SteerPort,
    /// Writes when the driver saw a frame into its trailer (`dataplane_wire::trace`) and passes it.
    Stamp,
    /// Gives requests a slot, counts acknowledgements and answers ([`quorum`]); see there.
    QuorumLeader,
    /// Keeps the leader's entries and acknowledges them ([`quorum`]); see there.
    QuorumFollower,
    /// Drops a share of all frames by seed ([`lost`]) and passes the rest.
    Lossy,
    /// A switch's: forwards frames of any kind, whosever they are, from port to port ([`map::PORTS`], [`map::GROUP_PORTS`]).
    Hub,
    /// A switch's in user space: hands every frame to the AF_XDP socket of its receive queue ([`map::SOCKETS`]).
    TakeAll,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 11] = [
        Program::Pass,
        Program::CountDrop,
        Program::Echo,
        Program::Steer,
        Program::SteerPort,
        Program::Stamp,
        Program::QuorumLeader,
        Program::QuorumFollower,
        Program::Lossy,
        Program::Hub,
        Program::TakeAll,
    ];

    /// Name of the object and of its function for frames of one buffer.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Pass => "pass",
            Program::CountDrop => "count_drop",
            Program::Echo => "echo",
            Program::Steer => "steer",
            Program::SteerPort => "steer_port",
            Program::Stamp => "stamp",
            Program::QuorumLeader => "quorum_leader",
            Program::QuorumFollower => "quorum_follower",
            Program::Lossy => "lossy",
            Program::Hub => "hub",
            Program::TakeAll => "take_all",
        }
    }

    /// Name of the function for frames of several buffers.
    pub const fn name_frags(self) -> &'static str {
        match self {
            Program::Pass => "pass_frags",
            Program::CountDrop => "count_drop_frags",
            Program::Echo => "echo_frags",
            Program::Steer => "steer_frags",
            Program::SteerPort => "steer_port_frags",
            Program::Stamp => "stamp_frags",
            Program::QuorumLeader => "quorum_leader_frags",
            Program::QuorumFollower => "quorum_follower_frags",
            Program::Lossy => "lossy_frags",
            Program::Hub => "hub_frags",
            Program::TakeAll => "take_all_frags",
        }
    }
}

/// Read-only globals of a program, set before it is loaded; the verifier then knows their values. `pass` and `take_all` have none, `lossy` its own,
/// `hub` [`setting::GROUP_MAC`] alone, and `steer_port` all but [`setting::KINDS`] of those that every other has.
pub mod setting {
    /// `[u8; 8]`: the interface's own MAC address and two zeros; frames to another are a stranger's, also where a switch floods them.
    pub const LOCAL_MAC: &str = "LOCAL_MAC";
    /// `[u8; 4]`: this host's IPv4 address, or zeros for none.
    pub const LOCAL_IPV4: &str = "LOCAL_IPV4";
    /// `[u8; 16]`: this host's IPv6 address, or zeros for none.
    pub const LOCAL_IPV6: &str = "LOCAL_IPV6";
    /// `u16`, host byte order: the UDP destination port of the frames to take.
    pub const LOCAL_PORT: &str = "LOCAL_PORT";
    /// `u32`: bit n is set if frames of kind n (`dataplane_wire::frame::Kind`) are to be taken. `echo` takes echo
    /// requests only, whatever this says.
    pub const KINDS: &str = "KINDS";
    /// `u32`, `quorum_leader` only: how many sessions a replica has places for, at most [`super::quorum::SESSIONS_MAX`].
    pub const SESSION_COUNT: &str = "SESSION_COUNT";
    /// `[u8; 8]`: a MAC address that is ours too, and others', and two zeros; zeros for none.
    pub const GROUP_MAC: &str = "GROUP_MAC";
    /// `[u8; 4]`: an IPv4 address that is ours too, and others'; zeros for none.
    pub const GROUP_IPV4: &str = "GROUP_IPV4";
    /// `u32`, `stamp` only: which stamp of the trailer to write, an index into `dataplane_wire::trace`'s stamps.
    pub const STAMP_INDEX: &str = "STAMP_INDEX";
    /// `u64`, `lossy` only, which has but this and the next: how many of 2^64 frames are lost.
    pub const LOSS_THRESHOLD: &str = "LOSS_THRESHOLD";
    /// `u64`, `lossy` only: what decides which.
    pub const LOSS_SEED: &str = "LOSS_SEED";
}

/// Maps of a program.
pub mod map {
    /// A per-CPU array of `u64`, one for each [`super::Count`]. Every program has it but `pass` and `lossy`.
    pub const COUNTS: &str = "COUNTS";
    /// An XSKMAP from receive queue to AF_XDP socket; `steer`, `steer_port` and `take_all` only.
    pub const SOCKETS: &str = "SOCKETS";
    /// An array of one [`super::quorum::Control`], to be mapped; the programs of the quorum only, as the next three.
    pub const CONTROL: &str = "CONTROL";
    /// An array of [`super::quorum::Entry`], to be mapped.
    pub const RING: &str = "RING";
    /// An array of [`super::quorum::Session`], to be mapped; `quorum_leader` only.
    pub const SESSIONS: &str = "SESSIONS";
    /// A per-CPU array of `u64`, one for each [`super::quorum::Count`].
    pub const QUORUM_COUNTS: &str = "QUORUM_COUNTS";
    /// An array of `u64`, one for each [`super::Lossy`]; `lossy` only.
    pub const LOST: &str = "LOST";
    /// `hub` only: a DEVMAP from the last byte of a host's MAC address to the port behind which it is.
    pub const PORTS: &str = "PORTS";
    /// `hub` only: a DEVMAP of the ports that frames to [`super::setting::GROUP_MAC`] go to.
    pub const GROUP_PORTS: &str = "GROUP_PORTS";
    /// Ports that [`PORTS`] has room for: one for each byte.
    pub const PORTS_MAX: u32 = 256;
    /// Ports that [`GROUP_PORTS`] has room for. The kernel looks at each place for each frame to the group
    /// (kernel/bpf/devmap.c, `dev_map_redirect_multi`).
    pub const GROUP_PORTS_MAX: u32 = super::quorum::NODES_MAX as u32;
    /// Receive queues that [`SOCKETS`] has room for.
    pub const SOCKETS_MAX: u32 = 64;
}

/// What `lossy` counts: an index into [`map::LOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lossy {
    /// Frames that it saw.
    Seen = 0,
    /// Frames among them that it dropped.
    Dropped = 1,
}

impl Lossy {
    /// All of them, in the order of the map.
    pub const ALL: [Lossy; 2] = [Lossy::Seen, Lossy::Dropped];
}

/// How long a datagram, UDP header included, may be for a program to make its checksum. These are the bounds of loops, which
/// the verifier walks to their end.
pub mod summed {
    /// Of one buffer: none is longer than a page.
    pub const ONE_BUFFER_BYTES_MAX: usize = 4096;
    /// Of several: a jumbo frame.
    pub const FRAGS_BYTES_MAX: usize = 9216;
}

/// What a program counts: an index into [`map::COUNTS`]. A frame is counted once, as taken or by the first reason found
/// why it is passed up, in this order: `NotIp`, `IpOptions`, `NotUdp`, `Fragment`, a UDP header that was cut (`Length`),
/// `OtherPort`, `Stranger`, `NotOurs`, `OtherKind`, `Length`, `NoSocket` or `Unfit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Count {
    /// The program did with a frame what it is for.
    Taken = 0,
    /// Passed: neither IPv4 nor IPv6 behind at most two VLAN tags, or cut before the end of the IP header.
    NotIp = 1,
    /// Passed: another protocol than UDP, or IPv6 extension headers in front of it.
    NotUdp = 2,
    /// Passed: a fragment, whose port cannot be known.
    Fragment = 3,
    /// Passed: an IPv4 header of another length than five words: options, which no frame of ours has, or nonsense.
    IpOptions = 4,
    /// Passed: UDP to another port.
    OtherPort = 5,
    /// Passed: our port, but not our magic and version, or cut before the end of our header.
    NotOurs = 6,
    /// Passed: ours, of a kind that was not asked for.
    OtherKind = 7,
    /// Passed: the lengths of IP, UDP and our header disagree with each other, or more is announced than came.
    Length = 8,
    /// Passed: there is no socket for this receive queue.
    NoSocket = 9,
    /// Passed: the checksum looks as if it were left to a device, and is over more than a program may sum up ([`summed`]); or `stamp` found no trailer in the first buffer.
    Unfit = 10,
    /// Passed: our port, on another host: not our MAC address, or not our IP address. By `hub`: to no host behind any port.
    Stranger = 11,
}

impl Count {
    /// All of them, in the order of the map.
    pub const ALL: [Count; 12] = [
        Count::Taken,
        Count::NotIp,
        Count::NotUdp,
        Count::Fragment,
        Count::IpOptions,
        Count::OtherPort,
        Count::NotOurs,
        Count::OtherKind,
        Count::Length,
        Count::NoSocket,
        Count::Unfit,
        Count::Stranger,
    ];

    /// A name for records and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Count::Taken => "taken",
            Count::NotIp => "not_ip",
            Count::NotUdp => "not_udp",
            Count::Fragment => "fragment",
            Count::IpOptions => "ip_options",
            Count::OtherPort => "other_port",
            Count::NotOurs => "not_ours",
            Count::OtherKind => "other_kind",
            Count::Length => "length",
            Count::NoSocket => "no_socket",
            Count::Unfit => "unfit",
            Count::Stranger => "stranger",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stand_in_the_order_of_the_map() {
        for (index, count) in Count::ALL.into_iter().enumerate() {
            assert_eq!(count as usize, index, "{}", count.name());
        }
    }
}
