//! Two ends with connections between them, over any provider of RDMA that is here: what asks, and whose memory it is. Each is
//! driven by one thread.

use anyhow::Context;
use dataplane_ports::xdp::Mac;
use dataplane_waist::{Support, WrId};
use ebpf_host::Mode;
use rdma::{
    Access, Device, EndpointCounters, Init, Local, Memory, Provider, Qp, QpOptions, ReceiveRequest, Registered, Remote,
    Rts, Wire,
    roce::{self, ReceiveHow, RoceDevice, RoceOptions},
    shm,
    verbs::{self, VerbsDevice, VerbsOptions},
};

use super::{
    af_xdp::{self, XdpWireOptions},
    wires::{open_roce, open_shm},
};
use crate::{
    place::{End, Place},
    record::ModeRecord,
};

/// A provider of RDMA, and what moves its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Packets in memory that both ends share.
    Shm,
    /// RoCEv2 over UDP sockets.
    RoceUdp,
    /// RoCEv2 over AF_XDP sockets.
    RoceAfXdp,
    /// A device of libibverbs.
    Verbs,
}

impl Via {
    /// All of them.
    pub const ALL: [Via; 4] = [Via::Shm, Via::RoceUdp, Via::RoceAfXdp, Via::Verbs];
    /// Those of which both ends are this project's own.
    pub const SOFTWARE: [Via; 3] = [Via::Shm, Via::RoceUdp, Via::RoceAfXdp];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Via::Shm => "rdma-shm",
            Via::RoceUdp => "rdma-roce",
            Via::RoceAfXdp => "rdma-roce-af-xdp",
            Via::Verbs => "rdma-verbs",
        }
    }

    /// What moves the bytes, for a row.
    pub const fn moved_by(self) -> &'static str {
        match self {
            Via::Shm => "memory that both ends share",
            Via::RoceUdp => {
                "UDP sockets, which believe that the identification is 0: they are two of this project's own"
            }
            Via::RoceAfXdp => "AF_XDP sockets in copy mode, fed by a program in the driver; headers of our own",
            Via::Verbs => "a device of libibverbs",
        }
    }

    /// How its numbers come to be: libibverbs says of its devices whether they are software.
    pub fn mode(self) -> ModeRecord {
        let by = match self {
            Via::Shm | Via::RoceUdp | Via::RoceAfXdp => "software: no NIC".to_owned(),
            Via::Verbs => match verbs::probe() {
                Ok(Support::Native) => return ModeRecord::Native,
                Ok(Support::Emulated { by }) => by,
                // It was here when it was opened; nothing is called native that does not say so.
                Ok(Support::Absent { why }) => format!("not known any more: {why}"),
                Err(error) => format!("not known: {error}"),
            },
        };
        ModeRecord::Emulated { by }
    }

    /// Why it cannot be measured between the ends of `place`, if it cannot.
    pub fn absence(self, place: &Place) -> Option<String> {
        let support = match self {
            Via::Shm => shm::probe(),
            Via::RoceUdp => return None,
            Via::RoceAfXdp if !place.is_veth() => {
                return Some("it needs two hosts as network namespaces, and they need root".to_owned());
            }
            Via::RoceAfXdp => {
                let interface = place.endpoint(End::Client).interface;
                let asked = place.inside(End::Client, || af_xdp::probe(&interface));
                match asked {
                    Ok(support) => support,
                    Err(error) => return Some(format!("{error:#}")),
                }
            }
            Via::Verbs => verbs::probe(),
        };
        match support {
            Ok(Support::Native | Support::Emulated { .. }) => None,
            Ok(Support::Absent { why }) => Some(why),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Opens both ends, each in its host, for so many connections, and lets `then` have them.
    ///
    /// # Errors
    /// What could not be opened, or what `then` says.
    pub fn open<T: WithEnds>(self, place: &Place, connections_count: usize, then: T) -> anyhow::Result<T::Out> {
        match self {
            Via::Shm => then.run(both(open_shm(2)?)?),
            Via::RoceUdp => then.run(open_roce_udp(place)?),
            Via::RoceAfXdp => {
                let open = |end, other| {
                    let other = place.endpoint(other);
                    let options = XdpWireOptions {
                        local: place.endpoint(end),
                        neighbours: vec![(other.addr.ip(), Mac(other.mac))],
                        mode: Mode::Native,
                        // Of the path MTU that is the default a packet is one frame.
                        frames_max: connections_count as u32 * QpOptions::default().window_packets as u32,
                    };
                    place.inside(end, || af_xdp::open(&options))?
                };
                then.run([open(End::Client, End::Server)?, open(End::Server, End::Client)?])
            }
            Via::Verbs => {
                let open = |end| -> anyhow::Result<VerbsDevice> {
                    Ok(place.inside(end, || VerbsDevice::open(&VerbsOptions::default()))??)
                };
                then.run([open(End::Client)?, open(End::Server)?])
            }
        }
    }
}

fn open_roce_udp(place: &Place) -> anyhow::Result<[RoceDevice; 2]> {
    if !place.has_fixed_addresses() {
        // One host, on which each end needs an address of its own.
        return both(open_roce(4, 2)?);
    }
    let open = |end| -> anyhow::Result<RoceDevice> {
        let options = RoceOptions {
            // The raw socket that other kinds of peers need is a second delivery of each packet.
            receive: ReceiveHow::Datagram,
            ..RoceOptions::new(place.endpoint(end).addr.ip())
        };
        Ok(place.inside(end, || roce::open(&options))??)
    };
    Ok([open(End::Client)?, open(End::Server)?])
}

fn both<P>(devices: Vec<P>) -> anyhow::Result<[P; 2]> {
    devices.try_into().ok().context("two devices were asked for")
}

/// What is done with two ends of whichever provider.
pub trait WithEnds {
    /// What comes of it.
    type Out;
    /// Does it. The first end asks, the second has the memory.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn run<P: Counting + Send>(self, ends: [P; 2]) -> anyhow::Result<Self::Out>;
}

/// A provider that may tell what its endpoint counted.
pub trait Counting: Provider {
    /// `None`: a device's own, which it does not tell.
    fn endpoint_counters(&self) -> Option<EndpointCounters>;
}

impl<W: Wire> Counting for Device<W> {
    fn endpoint_counters(&self) -> Option<EndpointCounters> {
        Some(*self.counters())
    }
}

impl Counting for VerbsDevice {
    fn endpoint_counters(&self) -> Option<EndpointCounters> {
        None
    }
}

/// What two ends are to have.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Connections between them.
    pub connections_count: usize,
    /// Each end's memory.
    pub memory_bytes: usize,
    /// How queue pairs behave.
    pub qp: QpOptions,
}

/// One end of a pair.
#[derive(Debug)]
pub struct Side<P> {
    /// The device.
    pub provider: P,
    /// Its queue pairs: the n-th is connected to the other's n-th.
    pub qps: Vec<Qp<Rts>>,
    own: Registered,
    theirs: Registered,
}

impl<P: Provider> Side<P> {
    /// A piece of this end's memory.
    pub fn local(&self, at_bytes: u64, len_bytes: u32) -> Local {
        Local {
            key: self.own.key,
            at_bytes,
            len_bytes,
        }
    }

    /// A place in the other end's memory.
    pub fn remote(&self, at_bytes: u64) -> Remote {
        Remote {
            address: self.theirs.address.wrapping_add(at_bytes),
            rkey: self.theirs.key.0,
        }
    }

    /// Posts room for `len_bytes` on queue pair `index`.
    ///
    /// # Errors
    /// As [`Provider::post_receive`].
    pub fn post_receive(&mut self, index: usize, len_bytes: u32) -> anyhow::Result<()> {
        let into = self.local(0, len_bytes);
        let request = ReceiveRequest { wr_id: WrId(0), into };
        Ok(self.provider.post_receive(&self.qps[index], request)?)
    }
}

struct Half<P> {
    provider: P,
    qps: Vec<Qp<Init>>,
    own: Registered,
}

fn prepare<P: Provider>(mut provider: P, shape: &Shape) -> anyhow::Result<Half<P>> {
    let pd = provider.create_pd();
    let own = provider.register(pd, Memory::new(shape.memory_bytes), Access::ALL);
    let qps = (0..shape.connections_count).map(|_| {
        let qp = provider.create_qp(pd, &shape.qp)?;
        anyhow::Ok(provider.init(qp))
    });
    Ok(Half {
        qps: qps.collect::<anyhow::Result<_>>()?,
        own,
        provider,
    })
}

/// Connects two ends; one process has both, so no handshake is needed.
///
/// # Errors
/// No room, or the peer cannot be reached.
pub fn connect<P: Provider>(place: &Place, ends: [P; 2], shape: &Shape) -> anyhow::Result<[Side<P>; 2]> {
    let [near, far] = ends;
    let halves = [prepare(near, shape)?, prepare(far, shape)?];
    let addresses = |half: &Half<P>| -> Vec<_> { half.qps.iter().map(|qp| half.provider.address(qp)).collect() };
    let others = [addresses(&halves[1]), addresses(&halves[0])];
    let theirs = [halves[1].own, halves[0].own];
    let mut sides = Vec::new();
    for (((half, others), theirs), end) in halves
        .into_iter()
        .zip(others)
        .zip(theirs)
        .zip([End::Client, End::Server])
    {
        let Half { mut provider, qps, own } = half;
        let mut connected = Vec::new();
        for (qp, other) in qps.into_iter().zip(others) {
            let other = other.context("a queue pair has an address")?;
            let qp = place.inside(end, || provider.ready_to_receive(qp, &other))??;
            connected.push(provider.ready_to_send(qp));
        }
        sides.push(Side {
            provider,
            qps: connected,
            own,
            theirs,
        });
    }
    both(sides)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdma::{Data, Operation, SendRequest};

    use super::*;

    struct WriteAndLook<'a>(&'a Place);

    impl WithEnds for WriteAndLook<'_> {
        type Out = ();

        fn run<P: Counting + Send>(self, ends: [P; 2]) -> anyhow::Result<()> {
            let shape = Shape {
                connections_count: 3,
                memory_bytes: 4096,
                qp: QpOptions::default(),
            };
            let [mut near, mut far] = connect(self.0, ends, &shape)?;
            for index in 0..shape.connections_count {
                let request = SendRequest {
                    wr_id: WrId(index as u64),
                    operation: Operation::Write {
                        data: Data::Inline(&[7; 64]),
                        to: near.remote(64 * index as u64),
                        imm: None,
                    },
                    signalled: true,
                };
                near.provider.post_send(&near.qps[index], &request)?;
            }
            let (begun, mut done) = (Instant::now(), Vec::new());
            while done.len() < shape.connections_count {
                near.provider.progress()?;
                far.provider.progress()?;
                near.provider.poll_cq(8, &mut |completion| done.push(completion));
                anyhow::ensure!(begun.elapsed() < Duration::from_secs(10), "{done:?}");
            }
            assert!(done.iter().all(|completion| completion.result == Ok(())), "{done:?}");
            Ok(())
        }
    }

    #[test]
    fn every_connection_of_every_provider_that_is_here_writes() {
        let place = Place::prepare(&dataplane_netns::prepare()).expect("namespaces, or loopback");
        for via in Via::ALL {
            match via.absence(&place) {
                None => via
                    .open(&place, 1, WriteAndLook(&place))
                    .unwrap_or_else(|error| panic!("{}: {error:#}", via.name())),
                Some(why) => println!("{}: skipped: {why}", via.name()),
            }
        }
    }
}
