//! Frames on the control channel: a length, a kind, a body. Every length has a bound before anything is allocated, and
//! every read and write a deadline.
//!
//! ```text
//!  0        4      5
//!  ┌────────┬──────┬──────────────┐
//!  │ length │ kind │ body …       │   length: of the body, big endian
//!  └────────┴──────┴──────────────┘
//! ```

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Length and kind.
pub const HEADER_BYTES: usize = 5;
/// The longest body before the peer is known.
pub const HANDSHAKE_BYTES_MAX: usize = 1024;
/// The longest body afterwards: a captured environment has some 20 kB.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No, and why, in words. Ends the connection.
    Refusal,
    /// The client's greeting.
    Greeting,
    /// The agent's answer to it.
    Challenge,
    /// The client knows the key.
    ClientProof,
    /// So does the agent.
    AgentProof,
    /// A message of a session, with its code.
    Sealed,
}

const KINDS: [Kind; 6] = [
    Kind::Refusal,
    Kind::Greeting,
    Kind::Challenge,
    Kind::ClientProof,
    Kind::AgentProof,
    Kind::Sealed,
];

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub body: Vec<u8>,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond the bound.
    #[error("a message of {len_bytes} bytes was announced, and at most {bytes_max} are taken")]
    TooLong {
        /// What was announced.
        len_bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Nothing is called that.
    #[error("{0} is no kind of message; is this another protocol?")]
    UnknownKind(u8),
    /// The connection ended between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The connection ended inside a frame.
    #[error("the connection was closed in the middle of a message")]
    Truncated,
    /// The deadline passed.
    #[error("nothing more came in time")]
    Late,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> FrameError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => FrameError::Truncated,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => FrameError::Late,
            _ => FrameError::Io(error),
        }
    }
}

impl Frame {
    /// The frame as bytes.
    ///
    /// # Panics
    /// When the body is longer than [`BODY_BYTES_MAX`]: who sends bounds what it says.
    pub fn emit(kind: Kind, body: &[u8]) -> Vec<u8> {
        assert!(body.len() <= BODY_BYTES_MAX, "a body of {} bytes", body.len());
        let code = KINDS
            .iter()
            .position(|known| *known == kind)
            .expect("every kind is listed") as u8;
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.push(code);
        bytes.extend_from_slice(body);
        bytes
    }

    /// Reads one frame, whose body has at most `body_bytes_max` bytes.
    ///
    /// # Errors
    /// [`FrameError`]; what follows on the connection cannot be understood then.
    pub fn read(from: &mut impl Read, body_bytes_max: usize) -> Result<Frame, FrameError> {
        let mut first = [0];
        match from.read(&mut first) {
            Ok(0) => return Err(FrameError::Closed),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rest = [0; HEADER_BYTES - 1];
        from.read_exact(&mut rest)?;
        let [kind] = rest[3..] else { unreachable!("four bytes") };
        let len_bytes = u32::from_be_bytes([first[0], rest[0], rest[1], rest[2]]) as usize;
        let Some(kind) = KINDS.get(usize::from(kind)).copied() else {
            return Err(FrameError::UnknownKind(kind));
        };
        if len_bytes > body_bytes_max {
            return Err(FrameError::TooLong {
                len_bytes,
                bytes_max: body_bytes_max,
            });
        }
        let mut body = vec![0; len_bytes];
        from.read_exact(&mut body)?;
        Ok(Frame { kind, body })
    }
}

/// A stream with a deadline for all that is done through it: a peer that sends a byte now and then gains nothing.
#[derive(Debug)]
pub struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Timed<'a> {
    /// `within` from now.
    pub fn new(stream: &'a TcpStream, within: Duration) -> Timed<'a> {
        Timed {
            stream,
            deadline: Instant::now() + within,
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        loop {
            match self.stream.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A peer's words, fit for a terminal and a log: bounded, on one line, without control characters.
pub fn harmless(bytes: &[u8]) -> String {
    const CHARS_MAX: usize = 300;
    String::from_utf8_lossy(bytes)
        .chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
            match Frame::read(&mut bytes.as_slice(), HANDSHAKE_BYTES_MAX) {
                Ok(frame) => {
                    let emitted = Frame::emit(frame.kind, &frame.body);
                    prop_assert_eq!(&bytes[..emitted.len()], &emitted[..]);
                }
                Err(FrameError::TooLong { len_bytes, .. }) => prop_assert!(len_bytes > HANDSHAKE_BYTES_MAX),
                Err(FrameError::Closed) => prop_assert!(bytes.is_empty()),
                Err(FrameError::UnknownKind(kind)) => prop_assert!(usize::from(kind) >= KINDS.len()),
                Err(FrameError::Truncated) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
        }

        #[test]
        fn what_is_emitted_is_read(kind in 0..KINDS.len(), body in prop::collection::vec(any::<u8>(), 0..600)) {
            let bytes = Frame::emit(KINDS[kind], &body);
            let frame = Frame::read(&mut bytes.as_slice(), BODY_BYTES_MAX).unwrap();
            prop_assert_eq!(frame, Frame { kind: KINDS[kind], body });
            for cut in 1..bytes.len() {
                let error = Frame::read(&mut &bytes[..cut], BODY_BYTES_MAX).unwrap_err();
                prop_assert!(matches!(error, FrameError::Truncated), "{cut}: {error}");
            }
        }

        #[test]
        fn words_of_a_stranger_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let words = harmless(&bytes);
            prop_assert!(words.chars().count() <= 300 && !words.chars().any(char::is_control));
        }
    }

    #[test]
    fn a_peer_that_trickles_gains_no_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let trickle = std::thread::spawn(move || {
            // One byte every ten milliseconds, of a body that was announced to be long, until nobody reads any more.
            let mut frame = Frame::emit(Kind::Greeting, &[7; HANDSHAKE_BYTES_MAX]).into_iter();
            while let Some(byte) = frame.next()
                && slow.write_all(&[byte]).is_ok()
            {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let error = Frame::read(
            &mut Timed::new(&stream, Duration::from_millis(100)),
            HANDSHAKE_BYTES_MAX,
        )
        .unwrap_err();
        assert!(matches!(error, FrameError::Late), "{error}");
        drop(stream);
        trickle.join().unwrap();
    }

    #[test]
    fn a_huge_length_is_refused_before_it_is_believed() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 5];
        let error = Frame::read(&mut bytes.as_slice(), BODY_BYTES_MAX).unwrap_err();
        assert!(
            matches!(
                error,
                FrameError::TooLong {
                    len_bytes: 0xffff_ffff,
                    ..
                }
            ),
            "{error}"
        );
    }
}
