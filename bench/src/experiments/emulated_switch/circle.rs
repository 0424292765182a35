//! Frames that never end: both hosts' drivers send back whatever comes (the program `hub`), so that a handful of frames goes round through
//! the switch for as long as the hosts are there. It takes no sender, whose socket would be slower than the switch.
//!
//! ```text
//!   ┌▶ h0 ══▶ p0 ─▶┐        ┌─▶ p1 ══▶ h1 ─┐      to an address that nobody has, so the switch sends each
//!   └─ h0 ◀══ p0 ◀─┘ switch └── p1 ◀══ h1 ◀┘      to the only port by which it did not come
//! ```

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_netns::{NapiThreads, Network};
use dataplane_ports::xdp::{Socket, SocketOptions, TxRequest, Umem, UmemOptions};
use dataplane_wire::{
    ethernet::{self, EtherType, Mac},
    internet::PROTOCOL_UDP,
    ipv4, udp,
};
use ebpf_host::{Hub, HubPort};

use super::flood::PORT;
use crate::host::pin_other;

/// As many as lie between a veth and its peer (VETH_RING_SIZE, drivers/net/veth.c): wherever all of them are, none is lost.
const FRAMES_COUNT: usize = 256;
/// Of no host.
const NOBODY: Mac = Mac([0x02, 0, 0, 0, 0xff, 0xee]);
/// A group that nobody sends to.
const NO_GROUP: Mac = Mac([0x03, 0, 0, 0, 0xff, 0xef]);
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(5);

/// Hosts that send everything back.
#[derive(Debug)]
pub(super) struct Circle {
    // Before the programs, by which the hosts have NAPI.
    _threads: Vec<NapiThreads>,
    _mirrors: Vec<Hub>,
}

impl Circle {
    /// Gives both hosts their program, which works on kernel threads on `cpu`: else the switch's thread would do the hosts' work.
    ///
    /// # Errors
    /// A program or a thread was refused.
    pub fn close(network: &Network, cpu: Option<usize>) -> anyhow::Result<Circle> {
        let (mut threads, mut mirrors) = (Vec::new(), Vec::new());
        for host in network.hosts() {
            let interface = host.interface().name.as_str();
            let back = HubPort {
                interface,
                mac: NOBODY,
                is_in_group: false,
            };
            let (mirror, napi) = host.run(|| -> anyhow::Result<_> {
                let mirror = Hub::attach(&[back], NO_GROUP)?;
                Ok((mirror, NapiThreads::start(interface)?))
            })??;
            napi.pids().iter().for_each(|&pid| pin_other(pid, cpu));
            mirrors.push(mirror);
            threads.push(napi);
        }
        Ok(Circle {
            _threads: threads,
            _mirrors: mirrors,
        })
    }

    /// Puts frames of that size into the circle and lets them go round for `duration`. How many.
    ///
    /// # Errors
    /// The socket that they come from failed.
    pub fn run(network: &Network, frame_bytes: usize, duration: Duration, stop: &AtomicBool) -> anyhow::Result<u64> {
        let host = &network.hosts()[0];
        let (umem, mut free) = Umem::new(&UmemOptions {
            frame_bytes: 2048,
            ..UmemOptions::new(FRAMES_COUNT)
        })?;
        let options = SocketOptions::new(&host.interface().name, FRAMES_COUNT as u32);
        let mut socket = host.run(|| Socket::open(&umem, &options))??;
        let started = Instant::now();
        let goes_on = || started.elapsed() < duration && !stop.load(Ordering::Relaxed);
        for mut frame in free.drain(..) {
            write(network, &mut umem.bytes_mut(&mut frame)[..frame_bytes]);
            if socket.tx(frame, 0..frame_bytes, false, TxRequest::default()).is_err() {
                unreachable!("the ring has a place for each frame");
            }
        }
        socket.publish_tx();
        while socket.tx_pending_count()? > 0 && goes_on() {
            // No room at this moment: again.
            let _ = socket.kick();
        }
        while goes_on() {
            thread::sleep(LOOK);
        }
        Ok(FRAMES_COUNT as u64)
    }
}

/// A UDP datagram over IPv4 between the two hosts, in a frame to nobody, without a checksum (RFC 768).
fn write(network: &Network, frame: &mut [u8]) {
    let [from, to] = network.hosts() else {
        unreachable!("two hosts")
    };
    let ethernet = ethernet::Header {
        dst: NOBODY,
        src: Mac(from.mac()),
        vlan: None,
        ether_type: EtherType::IPV4,
    };
    ethernet::emit(&ethernet, frame);
    let internet = ipv4::Header {
        src: from.ipv4(),
        dst: to.ipv4(),
        protocol: PROTOCOL_UDP,
        hops_left: 64,
        traffic_class: 0,
        identification: 0,
        dont_fragment: true,
    };
    let packet = &mut frame[ethernet.len_bytes()..];
    let udp_bytes = (packet.len() - ipv4::HEADER_BYTES) as u16;
    let udp = &mut packet[ipv4::HEADER_BYTES..];
    udp[udp::field::SRC_PORT].copy_from_slice(&PORT.to_be_bytes());
    udp[udp::field::DST_PORT].copy_from_slice(&PORT.to_be_bytes());
    udp[udp::field::LEN].copy_from_slice(&udp_bytes.to_be_bytes());
    ipv4::emit(&internet, &[], packet);
}
