//! A pcapng file of simulated packets, as if somebody had run tcpdump at a host or held a probe to a cable.
//!
//! ```text
//!   PacketSim ─▶ Tap ─▶ at a wanted place? ─▶ Ethernet, IPv4, TCP written out (frames) ─▶ blocks (pcapng)
//! ```
//!
//! Times are virtual, in nanoseconds since 1970 began. Payload is zeros, except of datagrams that are real.

mod frames;
mod pcapng;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use dataplane_sim::{
    SimTime,
    packet::{Packet, Tap, TapEvent, Topology},
};

use self::{
    frames::Frames,
    pcapng::{Direction, Writer},
};
use super::{Header, Payloads, Setup};

/// Where packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracePlace {
    /// At a host: what its network card sends, and what it gets.
    Host(u32),
    /// At the beginning of a link: what goes on it, and what its queue or its wire loses.
    Link(u32),
    /// At the link whose queue the scenario looks at.
    Queue,
}

/// What a trace keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// Where.
    pub places: Vec<TracePlace>,
    /// No more packets than that are written; the others are counted.
    pub packets_max: u64,
    /// Longer frames are cut to this; their true length is kept beside them.
    pub snap_bytes: u32,
}

/// A trace of one run, being written.
#[derive(Debug)]
pub struct Trace {
    state: Arc<Mutex<State<BufWriter<File>>>>,
}

/// What became of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceCounts {
    /// Packets in the file.
    pub written_count: u64,
    /// Packets that passed when the file was full.
    pub cut_count: u64,
}

impl Trace {
    /// Begins a file. `about` stands in its head.
    ///
    /// # Errors
    /// A place that the network does not have, or the file's.
    pub fn create(path: &Path, setup: &Setup, options: &TraceOptions, about: &str) -> io::Result<Trace> {
        let file = BufWriter::new(File::create(path)?);
        let state = State::new(file, setup, options, about)?;
        Ok(Trace {
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// What the simulator tells.
    ///
    /// # Panics
    /// If a thread panicked with the trace in its hands.
    pub(super) fn tap(&self, payloads: &Payloads) -> TraceTap {
        let mut state = self
            .state
            .lock()
            .expect("no thread of a simulation panics with a trace in its hands");
        state.frames.payloads = payloads.clone();
        drop(state);
        TraceTap(Arc::clone(&self.state))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// What could not be written, of any packet.
    pub fn finish(self) -> io::Result<TraceCounts> {
        let mut state = self
            .state
            .lock()
            .expect("no thread of a simulation panics with a trace in its hands");
        state.finish()
    }
}

/// The tap of a group; the groups of a run write into one file.
#[derive(Debug)]
pub(super) struct TraceTap(Arc<Mutex<State<BufWriter<File>>>>);

impl Tap<Header> for TraceTap {
    fn on_packet(&mut self, now: SimTime, link: u32, event: TapEvent, packet: &Packet<Header>) {
        let mut state = self
            .0
            .lock()
            .expect("no thread of a simulation panics with a trace in its hands");
        state.on_packet(now, link, event, packet);
    }
}

/// An interface of the file, and what is heard there.
#[derive(Clone, Copy, Debug)]
struct Interface {
    place: TracePlace,
    /// What was lost at a link has an interface of its own.
    is_lost: bool,
}

#[derive(Debug)]
struct State<W: Write> {
    writer: Writer<W>,
    frames: Frames,
    interfaces: Vec<Interface>,
    /// By link: the host where it begins, and where it ends, if there are any.
    ends: Vec<(Option<u32>, Option<u32>)>,
    packets_max: u64,
    counts: TraceCounts,
    error: Option<io::Error>,
}

impl<W: Write> State<W> {
    fn new(file: W, setup: &Setup, options: &TraceOptions, about: &str) -> io::Result<State<W>> {
        let topology = &setup.topology;
        let host = |node: u32| (node < topology.hosts_count).then_some(node);
        let mut writer = Writer::new(file, about)?;
        let mut interfaces = Vec::new();
        for place in &options.places {
            let place = match place {
                TracePlace::Queue => TracePlace::Link(setup.watched_link),
                other => *other,
            };
            let name = name(topology, place)?;
            writer.interface(&name, options.snap_bytes)?;
            interfaces.push(Interface { place, is_lost: false });
            if let TracePlace::Link(_) = place {
                writer.interface(&format!("{name}, lost"), options.snap_bytes)?;
                interfaces.push(Interface { place, is_lost: true });
            }
        }
        Ok(State {
            writer,
            frames: Frames::new(setup, options.snap_bytes as usize),
            interfaces,
            ends: topology
                .links
                .iter()
                .map(|link| (host(link.from), host(link.to)))
                .collect(),
            packets_max: options.packets_max,
            counts: TraceCounts {
                written_count: 0,
                cut_count: 0,
            },
            error: None,
        })
    }

    fn on_packet(&mut self, now: SimTime, link: u32, event: TapEvent, packet: &Packet<Header>) {
        // Sequence numbers of the other direction follow from questions, wherever they are seen.
        self.frames.note(packet);
        for number in 0..self.interfaces.len() {
            let Interface { place, is_lost } = self.interfaces[number];
            let (begins, ends) = self.ends[link as usize];
            let heard = match (place, event) {
                (TracePlace::Host(host), TapEvent::Sent) if begins == Some(host) => Some(Direction::Out),
                (TracePlace::Host(host), TapEvent::Delivered) if ends == Some(host) => Some(Direction::In),
                (TracePlace::Link(wanted), TapEvent::Sent) if wanted == link && !is_lost => Some(Direction::Unknown),
                (TracePlace::Link(wanted), TapEvent::Dropped(_) | TapEvent::Lost) if wanted == link && is_lost => {
                    Some(Direction::Unknown)
                }
                _ => None,
            };
            if let Some(direction) = heard {
                self.write(number as u32, now, direction, event, packet);
            }
        }
    }

    fn write(&mut self, interface: u32, now: SimTime, direction: Direction, event: TapEvent, packet: &Packet<Header>) {
        if self.counts.written_count >= self.packets_max || self.error.is_some() {
            self.counts.cut_count += 1;
            return;
        }
        let comment = match event {
            TapEvent::Dropped(why) => format!("dropped: {why:?}"),
            TapEvent::Lost => "lost on the wire".to_owned(),
            TapEvent::Sent | TapEvent::Delivered => String::new(),
        };
        let frame = self.frames.frame(packet);
        let written = self
            .writer
            .packet(interface, now, direction, frame, packet.bytes, &comment);
        match written {
            Ok(()) => self.counts.written_count += 1,
            Err(error) => self.error = Some(error),
        }
    }

    fn finish(&mut self) -> io::Result<TraceCounts> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        for interface in 0..self.interfaces.len() as u32 {
            let cut_count = self.counts.cut_count;
            self.writer.statistics(interface, cut_count)?;
        }
        self.writer.flush()?;
        Ok(self.counts)
    }
}

/// An interface's name, for people.
fn name(topology: &Topology, place: TracePlace) -> io::Result<String> {
    let node = |node: u32| match node.checked_sub(topology.hosts_count) {
        None => format!("host {node}"),
        Some(switch) => format!("switch {switch}"),
    };
    let missing = |what: &str, number: u32, count: usize| {
        let message = format!(
            "there is no {what} {number} here: they are numbered from 0 to {}",
            count - 1
        );
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    match place {
        TracePlace::Host(host) if host < topology.hosts_count => Ok(format!("host {host}")),
        TracePlace::Host(host) => Err(missing("host", host, topology.hosts_count as usize)),
        TracePlace::Link(number) => match topology.links.get(number as usize) {
            Some(link) => Ok(format!("link {number}, {} to {}", node(link.from), node(link.to))),
            None => Err(missing("link", number, topology.links.len())),
        },
        TracePlace::Queue => Ok("queue".to_owned()),
    }
}

#[cfg(test)]
mod tests;
