//! One end of a connection: quinn-proto's endpoint and connection, and the application above them, which writes or reads.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use dataplane_queue::Ecn;
use dataplane_sim::{
    SimTime,
    packet::{HostApi, Packet},
};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, EndpointConfig, Event,
    ServerConfig, StreamEvent, StreamId, Transmit,
};

use super::{Payloads, tls::SERVER_NAME};
use crate::packet_sim::hosts::{FRAME_BYTES_MIN, Header, Sending, TIMERS};

/// Ethernet, IPv4 and UDP around a datagram.
const HEADERS_BYTES: u32 = 14 + 20 + 8;
/// QUIC's port (RFC 9000 has none of its own; HTTP/3 is at 443).
const PORT: u16 = 443;
/// What the application hands over at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(super) struct End {
    flow: u32,
    /// This host and the other.
    hosts: (u32, u32),
    /// The end that connects and writes.
    is_client: bool,
    endpoint: Endpoint,
    client: Option<ClientConfig>,
    connection: Option<(ConnectionHandle, Connection)>,
    /// The stream that is written, or read.
    stream: Option<StreamId>,
    to_write_bytes: u64,
    received_bytes: u64,
    /// When so much has come, the flow is whole.
    due_bytes: u64,
    is_whole: bool,
    /// A datagram, or several, as quinn-proto writes them.
    buffer: Vec<u8>,
    /// What a server's endpoint answers by itself.
    responses: Vec<(Transmit, Vec<u8>)>,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an end of flow {} at host {}", self.flow, self.hosts.0)
    }
}

impl End {
    pub fn client(flow: u32, hosts: (u32, u32), config: ClientConfig, seed: [u8; 32]) -> End {
        End::new(flow, hosts, None, Some(config), seed, u64::MAX)
    }

    pub fn server(flow: u32, hosts: (u32, u32), config: ServerConfig, seed: [u8; 32], due_bytes: u64) -> End {
        End::new(flow, hosts, Some(Arc::new(config)), None, seed, due_bytes)
    }

    fn new(
        flow: u32,
        hosts: (u32, u32),
        server: Option<Arc<ServerConfig>>,
        client: Option<ClientConfig>,
        seed: [u8; 32],
        due_bytes: u64,
    ) -> End {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some(seed));
        End {
            flow,
            hosts,
            is_client: client.is_some(),
            endpoint: Endpoint::new(Arc::new(config), server, true, None),
            client,
            connection: None,
            stream: None,
            to_write_bytes: 0,
            received_bytes: 0,
            due_bytes,
            is_whole: false,
            buffer: Vec::new(),
            responses: Vec::new(),
        }
    }

    pub fn host(&self) -> u32 {
        self.hosts.0
    }

    /// A client connects, to write so much.
    ///
    /// # Panics
    /// If quinn-proto does not take its own configuration.
    pub fn open(&mut self, now: Instant, bytes: u64) {
        self.to_write_bytes += bytes;
        if let Some(config) = self.client.take() {
            let connected = self.endpoint.connect(now, config, address(self.hosts.1), SERVER_NAME);
            self.connection = Some(connected.expect("an address and a name that are good"));
        }
    }

    /// A datagram has come.
    pub fn on_datagram(&mut self, now: Instant, bytes: &[u8], ecn: Ecn) {
        let ecn = match ecn {
            Ecn::NotCapable => None,
            Ecn::Capable => Some(EcnCodepoint::Ect0),
            Ecn::Experienced => Some(EcnCodepoint::Ce),
        };
        let (from, to) = (address(self.hosts.1), address(self.hosts.0).ip());
        self.buffer.clear();
        let event = self
            .endpoint
            .handle(now, from, Some(to), ecn, BytesMut::from(bytes), &mut self.buffer);
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.endpoint.accept(incoming, now, &mut self.buffer, None) {
                    Ok(accepted) => self.connection = Some(accepted),
                    Err(refused) => {
                        let response = refused.response.map(|transmit| (transmit, self.buffer.clone()));
                        self.responses.extend(response);
                    }
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.responses.push((transmit, self.buffer.clone())),
            None => (),
        }
    }

    pub fn on_timeout(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection {
            connection.handle_timeout(now);
        }
    }

    /// Lets the application and the connection do what they can, sends what may leave, and waits for what is next.
    pub fn pump(&mut self, base: Instant, now: Instant, payloads: &Payloads, host: &mut HostApi<'_, Header>) {
        for (transmit, bytes) in std::mem::take(&mut self.responses) {
            self.send(&transmit, &bytes, payloads, host);
        }
        let timer = if self.is_client { TIMERS.0 } else { TIMERS.1 };
        loop {
            self.endpoint_events();
            self.application();
            let Some((_, connection)) = &mut self.connection else {
                break;
            };
            self.buffer.clear();
            let mut buffer = std::mem::take(&mut self.buffer);
            let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) else {
                self.buffer = buffer;
                break;
            };
            self.send(&transmit, &buffer, payloads, host);
            self.buffer = buffer;
        }
        let wake_at = self
            .connection
            .as_mut()
            .and_then(|(_, connection)| connection.poll_timeout());
        match wake_at {
            // A timer that has passed is due now: instants of one nanosecond are as fine as quinn's.
            Some(at) => {
                let ns = at.saturating_duration_since(base).as_nanos() as u64;
                host.set_timer(self.flow, timer, SimTime::from_ns(ns));
            }
            None => host.cancel_timer(self.flow, timer),
        }
    }

    fn endpoint_events(&mut self) {
        let Some((handle, connection)) = &mut self.connection else {
            return;
        };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
    }

    /// What a program would do that is told of events: write while there is room, read what has come.
    fn application(&mut self) {
        let Some((_, connection)) = &mut self.connection else {
            return;
        };
        let mut is_readable = false;
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected if self.to_write_bytes > 0 => self.stream = connection.streams().open(Dir::Uni),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    self.stream = connection.streams().accept(Dir::Uni);
                    is_readable = true;
                }
                Event::Stream(StreamEvent::Readable { .. }) => is_readable = true,
                _ => (),
            }
        }
        let Some(stream) = self.stream else { return };
        if is_readable && let Ok(mut chunks) = connection.recv_stream(stream).read(true) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.received_bytes += chunk.bytes.len() as u64;
            }
            // Whether there is a frame to be sent is asked next, whatever it says.
            let _ = chunks.finalize();
        }
        while self.to_write_bytes > 0 {
            let len = self.to_write_bytes.min(ZEROS.len() as u64) as usize;
            let mut chunk = [Bytes::from_static(&ZEROS[..len])];
            match connection.send_stream(stream).write_chunks(&mut chunk) {
                Ok(written) if written.bytes > 0 => self.to_write_bytes -= written.bytes as u64,
                // Blocked: an event tells when there is room.
                _ => return,
            }
            if self.to_write_bytes == 0 {
                // It cannot have been stopped: the other end reads all.
                let _ = connection.send_stream(stream).finish();
            }
        }
    }

    fn send(&self, transmit: &Transmit, bytes: &[u8], payloads: &Payloads, host: &mut HostApi<'_, Header>) {
        let bytes = &bytes[..transmit.size];
        for datagram in bytes.chunks(transmit.segment_size.unwrap_or(bytes.len()).max(1)) {
            let is_ack = datagram.len() < 100;
            host.send(Packet {
                flow: self.flow,
                from: self.hosts.0,
                to: self.hosts.1,
                bytes: (datagram.len() as u32 + HEADERS_BYTES).max(FRAME_BYTES_MIN),
                priority: 0,
                ecn: match transmit.ecn {
                    None => Ecn::NotCapable,
                    Some(EcnCodepoint::Ect0 | EcnCodepoint::Ect1) => Ecn::Capable,
                    Some(EcnCodepoint::Ce) => Ecn::Experienced,
                },
                is_control: is_ack,
                is_trimmed: false,
                is_returned: false,
                path: 0,
                header: Header::Datagram {
                    place: payloads.insert(datagram),
                },
            });
        }
    }

    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Has everything come, and was that not said before?
    pub fn is_whole_now(&mut self) -> bool {
        let is_now = !self.is_whole && self.received_bytes >= self.due_bytes;
        self.is_whole |= is_now;
        is_now
    }

    pub fn sending(&self) -> Sending {
        let Some((_, connection)) = &self.connection else {
            return Sending::default();
        };
        let path = connection.stats().path;
        let metrics = connection.congestion_state().metrics();
        Sending {
            window_bytes: path.cwnd,
            // quinn-proto does not say what is in flight.
            in_flight_bytes: 0,
            srtt_ns: connection.rtt().as_nanos() as u64,
            is_slow_start: metrics.ssthresh.is_some_and(|threshold| path.cwnd < threshold),
            // Probe timeouts are not counted either.
            timeouts_count: 0,
            segments_count: path.sent_packets,
            retransmissions_count: path.lost_packets,
        }
    }
}

/// 10.0.0.1 and up, as in traces.
fn address(host: u32) -> SocketAddr {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + host);
    SocketAddr::new(IpAddr::V4(ip), PORT)
}
