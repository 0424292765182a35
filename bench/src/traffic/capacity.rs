//! What the thread that drives all sockets can carry: a link that it cannot overrun shows no incast.

use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::Context;
use dataplane_netns::{Host, Network, NetworkOptions, Topology};

use super::{Flows, Pattern};

/// An Ethernet's, as on the links that are emulated.
const MTU_BYTES: u32 = 1500;

/// Payload in bits a second from so many senders to one receiver over the kernel's own bridge, offloads off, for so long: every
/// packet goes through both stacks one by one, as it does over an emulated switch.
///
/// # Errors
/// No namespaces, or a connection broke.
pub fn capacity(senders_count: usize, time: Duration, stop: &AtomicBool) -> anyhow::Result<f64> {
    let options = NetworkOptions {
        mtu_bytes: MTU_BYTES,
        publish_names: false,
        ..NetworkOptions::new(Topology::Star {
            hosts: senders_count + 1,
        })
    };
    let network = Network::build(&options).context("making hosts around a bridge")?;
    let [client, senders @ ..] = network.hosts() else {
        anyhow::bail!("a star without hosts");
    };
    let senders: Vec<&Host> = senders.iter().collect();
    let mut flows = Flows::open(client, &senders, "cubic", None)?;
    let pattern = Pattern {
        long_count: senders_count,
        stagger: Duration::ZERO,
        questions: None,
        time_max: time,
        sample_every: None,
        spins: false,
    };
    let done = pattern.run(&mut flows, stop)?;
    drop(flows);
    network.remove()?;
    Ok(done.long_bits_per_sec())
}
