//! What things cost unless somebody says otherwise. Each figure has its source; none is a measurement of this crate.

use crate::{Latency, SimTime};

/// What stands around a frame of the lab on the wire, and is time on it: preamble and start delimiter 8, Ethernet header
/// 14, frame check sequence 4, gap 12 (IEEE 802.3 §3.1.1 and §4.4.2); IPv4 header 20 (RFC 791 §3.1); UDP header 8
/// (RFC 768).
pub const ETHERNET_IP_UDP_BYTES: u64 = 8 + 14 + 4 + 12 + 20 + 8;

/// From a host's last bit sent to the other's process: 5 to 10 µs, now and then up to 100 µs more. The floor is half of
/// the 10 µs round trip that Rumble et al. say is possible in a data centre (It's Time for Low Latency, HotOS'11, §1);
/// spread and tail are chosen, wide enough that no protocol can lean on them.
pub const LINK: Latency = Latency {
    min: SimTime::from_us(5),
    spread: SimTime::from_us(5),
    tail_ratio: 0.01,
    tail: SimTime::from_us(100),
};

/// A sync: 80 to 120 µs, now and then up to 5 ms more. Around the 83 µs that `fio --ioengine=psync --bs=4k --fdatasync=1`
/// takes on the virtual NVMe disk that the lab was written on; the tail is chosen: half of the 10 ms that etcd's
/// documentation allows the 99th percentile of this (docs/op-guide/hardware, "Disks").
pub const SYNC: Latency = Latency {
    min: SimTime::from_us(80),
    spread: SimTime::from_us(40),
    tail_ratio: 0.01,
    tail: SimTime::from_ms(5),
};

/// A turn of a host, besides its frames: 1 µs. Chosen: the order of one system call with its entry and exit. What
/// matters is that it is not zero, so that a host that falls behind takes several frames in one turn.
pub const TURN: SimTime = SimTime::from_us(1);

/// A frame received or sent: 500 ns, chosen as [`TURN`] is: half of a system call that carries several frames.
pub const FRAME: SimTime = SimTime::from_ns(500);

/// From a process's end by an error to its next start: 100 ms, as systemd.service(5) has it (`RestartSec=`).
pub const RESTART: SimTime = SimTime::from_ms(100);
