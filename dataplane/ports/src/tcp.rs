//! What the kernel says of a TCP connection (`TCP_INFO`), and how fast it may send. No port: connections are other people's
//! transport, looked at from outside.

use std::{io, os::fd::AsFd, time::Duration};

use crate::sys::tcp as sys;

/// As much of `struct tcp_info` (include/uapi/linux/tcp.h) as is read here, and room for what later kernels append.
const INFO_BYTES: usize = 320;

/// A connection, as its own end of it sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The retransmission timeout that a timer set now would have.
    pub rto: Duration,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Shortest round trip.
    pub rtt_min: Duration,
    /// The congestion window.
    pub window_segments: u32,
    /// The slow start threshold.
    pub ssthresh_segments: u32,
    /// Segments retransmitted so far.
    pub retransmits_count: u32,
    /// Times that the retransmission timer fired; nothing before Linux 6.7.
    pub timeouts_count: Option<u16>,
    /// Segments known to have arrived.
    pub delivered_count: u32,
    /// Those whose ack said that they were marked.
    pub delivered_ce_count: u32,
    /// Payload bytes sent, retransmissions included.
    pub sent_bytes: u64,
    /// Payload bytes sent again.
    pub retransmitted_bytes: u64,
    /// Payload bytes that the other end has acknowledged.
    pub acked_bytes: u64,
    /// Payload bytes that came in order.
    pub received_bytes: u64,
    /// Time in which something waited to be sent or acknowledged (tcpi_busy_time).
    pub busy: Duration,
    /// Of it, time in which the receiver's window bounded what was in flight.
    pub window_offered_limited: Duration,
    /// And time in which the send buffer did.
    pub send_buffer_limited: Duration,
    /// How fast it paces, in bytes per second; `u64::MAX` for not at all.
    pub pacing_bytes_per_sec: u64,
    /// The highest rate that it may pace at, as it was asked for; `u64::MAX` for any.
    pub pacing_bytes_per_sec_max: u64,
}

/// Asks the kernel about a connection.
///
/// # Errors
/// Not a TCP socket.
pub fn info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    let mut bytes = [0; INFO_BYTES];
    let len = sys::info(socket.as_fd(), &mut bytes)?;
    Ok(parse(&bytes[..len]))
}

/// Paces the connection at `bytes_per_sec` at most, whether or not its controller paces.
///
/// # Errors
/// Not a TCP socket.
pub fn set_pacing_max(socket: &impl AsFd, bytes_per_sec: u64) -> io::Result<()> {
    sys::set_max_pacing_rate(socket.as_fd(), bytes_per_sec)
}

/// The structure has only ever grown at its end; what a kernel does not have is 0 or nothing.
fn parse(bytes: &[u8]) -> TcpInfo {
    let at = |offset: usize, len: usize| bytes.get(offset..offset + len);
    let u32_at = |offset| at(offset, 4).map_or(0, |word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
    let u64_at = |offset| at(offset, 8).map_or(0, |word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
    let us = |offset| Duration::from_micros(u32_at(offset).into());
    TcpInfo {
        rto: us(8),
        rtt: us(68),
        ssthresh_segments: u32_at(76),
        window_segments: u32_at(80),
        retransmits_count: u32_at(100),
        pacing_bytes_per_sec: u64_at(104),
        pacing_bytes_per_sec_max: u64_at(112),
        acked_bytes: u64_at(120),
        received_bytes: u64_at(128),
        rtt_min: us(148),
        busy: Duration::from_micros(u64_at(168)),
        window_offered_limited: Duration::from_micros(u64_at(176)),
        send_buffer_limited: Duration::from_micros(u64_at(184)),
        delivered_count: u32_at(192),
        delivered_ce_count: u32_at(196),
        sent_bytes: u64_at(200),
        retransmitted_bytes: u64_at(208),
        // tcpi_total_rto, since Linux 6.7.
        timeouts_count: at(240, 2).map(|word| u16::from_ne_bytes(word.try_into().expect("two bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_connection_over_loopback_says_what_it_did() {
        const BYTES: usize = 100_000;
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut sender = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (mut receiver, _) = listener.accept().expect("a client waits");
        set_pacing_max(&sender, 50_000_000).expect("it is a socket");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; BYTES];
            receiver.read_exact(&mut bytes).map(|()| receiver)
        });
        sender.write_all(&[1; BYTES]).expect("the other end reads");
        let receiver = reader.join().expect("no panic").expect("all of it arrives");
        let (sent, received) = (info(&sender).expect("TCP"), info(&receiver).expect("TCP"));
        assert_eq!(received.received_bytes, BYTES as u64);
        assert!(sent.sent_bytes >= BYTES as u64 && sent.delivered_count > 0);
        assert_eq!(sent.sent_bytes - sent.retransmitted_bytes, BYTES as u64);
        assert_eq!(sent.pacing_bytes_per_sec_max, 50_000_000);
        assert!(sent.window_segments > 0 && sent.rto > Duration::ZERO && sent.rtt > Duration::ZERO);
        assert_eq!(sent.delivered_ce_count, 0);
        assert!(
            sent.busy >= sent.window_offered_limited + sent.send_buffer_limited,
            "{sent:?}"
        );
        assert!(sent.busy < Duration::from_secs(3_600), "{sent:?}");
    }

    #[test]
    fn an_older_kernels_answer_is_read_as_far_as_it_goes() {
        let info = parse(&[1; 104]);
        assert_eq!(info.window_segments, 0x0101_0101);
        assert_eq!((info.sent_bytes, info.timeouts_count), (0, None));
    }

    #[test]
    fn what_is_no_connection_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        assert!(info(&socket).is_err());
    }
}
