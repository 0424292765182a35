//! A wire in another network namespace than the test's.

use std::{fs::File, io, net::IpAddr, path::PathBuf, thread, time::Duration};

use dataplane_netns::Host;
use dataplane_waist::MonotonicClock;
use nix::sched::{CloneFlags, setns};
use rdma::{
    Transmit, Wire,
    roce::{ReceiveHow, RoceOptions, RoceWire},
    wire::{Packet, QpNumber},
};

/// Where sockets are opened, though one thread drives both ends.
#[derive(Clone)]
pub enum Place {
    /// In a host of ours.
    Host(Host),
    /// In the namespace that this file stands for.
    At(PathBuf),
}

impl Place {
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Place::Host(host) => host.run(work).expect("a host of ours"),
            // A thread that ends needs no way back.
            Place::At(path) => thread::scope(|scope| {
                let entering = scope.spawn(move || {
                    let namespace = File::open(path).expect("a namespace that is there");
                    setns(namespace, CloneFlags::CLONE_NEWNET).expect("leave to enter it");
                    work()
                });
                entering.join().expect("the work's own panic")
            }),
        }
    }
}

/// A wire whose sockets are all opened in its place.
pub struct Inside {
    place: Place,
    wire: RoceWire,
}

impl Inside {
    pub fn open(place: &Place, local: IpAddr) -> Inside {
        let receive = if local.is_ipv4() {
            ReceiveHow::Raw
        } else {
            ReceiveHow::Datagram
        };
        let options = RoceOptions {
            receive,
            ..RoceOptions::new(local)
        };
        let wire = place.run(|| RoceWire::open(&options));
        Inside {
            place: place.clone(),
            wire: wire.expect("its port is free there"),
        }
    }

    pub fn wire(&self) -> &RoceWire {
        &self.wire
    }
}

impl Wire for Inside {
    type Clock = MonotonicClock;

    fn name(&self) -> &'static str {
        self.wire.name()
    }
    fn local(&self) -> IpAddr {
        self.wire.local()
    }
    fn clock(&self) -> MonotonicClock {
        self.wire.clock()
    }
    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        let wire = &mut self.wire;
        self.place.run(|| wire.connect(qp, to))
    }
    fn disconnect(&mut self, qp: QpNumber) {
        self.wire.disconnect(qp);
    }
    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        self.wire.receive(packets_max, sink)
    }
    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        self.wire.send(transmit, packet)
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.wire.wait(max)
    }
}
