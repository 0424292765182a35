//! Who is there? Both ends show that they know the key, without saying it, before either obeys or believes the other.
//!
//! ```text
//! client                                              agent
//!   Greeting    magic, version, nonce ─────────────────▶
//!   ◀───────────────────── magic, version, nonce    Challenge
//!   ClientProof HMAC(key, "client", both) ─────────────▶
//!   ◀───────────────── HMAC(key, "agent", both)    AgentProof
//!   Sealed ◀───────────────────────────────────────▶ Sealed
//! ```
//!
//! The client shows it first, because it is the agent that strangers can reach: a stranger gets nothing to try keys on.
//! Labels differ by role, so a proof sent back proves nothing; nonces are fresh on both sides, so a recorded one proves
//! nothing either. The session's keys are made from the same nonces.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use hmac::Mac;

use super::{
    channel::{Frame, FrameError, HANDSHAKE_BYTES_MAX, Kind, Timed, harmless},
    key::{Key, code_of, nonce},
    session::{CODE_BYTES, Session},
};

/// The protocol's version: of this handshake and of everything behind it. Both ends must speak the same.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"DPLABAGT";
const NONCE_BYTES: usize = 32;
const HELLO_BYTES: usize = MAGIC.len() + 2 + NONCE_BYTES;

/// A handshake takes no longer, or is given up.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No frame came.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side said no.
    #[error("refused: {0}")]
    Refused(String),
    /// A frame out of turn, or with a body that makes no sense.
    #[error("what came does not speak the protocol of dplab's agent")]
    Nonsense,
    /// Another version.
    #[error(
        "the other end speaks version {theirs} of the protocol, and this one {VERSION}; run the same dplab on both machines"
    )]
    Version {
        /// What it speaks.
        theirs: u16,
    },
    /// Another key.
    #[error("the two ends do not have the same key; both machines need a copy of one key file")]
    Key,
    /// The system gave no randomness.
    #[error("{0:#}")]
    Randomness(anyhow::Error),
}

/// Greeting and challenge look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hello {
    version: u16,
    nonce: [u8; NONCE_BYTES],
}

impl Hello {
    fn emit(self) -> Vec<u8> {
        [&MAGIC[..], &self.version.to_be_bytes(), &self.nonce].concat()
    }

    fn parse(body: &[u8]) -> Option<Hello> {
        let rest = body.strip_prefix(&MAGIC)?;
        let (version, nonce) = rest.split_first_chunk::<2>()?;
        Some(Hello {
            version: u16::from_be_bytes(*version),
            nonce: nonce.try_into().ok()?,
        })
    }
}

/// Everything that both sides sign.
struct Transcript {
    bytes: Vec<u8>,
}

impl Transcript {
    fn new(greeting: Hello, challenge: Hello) -> Transcript {
        Transcript {
            bytes: [greeting.emit(), challenge.emit()].concat(),
        }
    }

    fn code(&self, key: &Key, label: &str) -> super::key::HmacSha256 {
        // The label's length comes first, so that no label can be read as the beginning of another.
        code_of(key, &[&[label.len() as u8], label.as_bytes(), &self.bytes])
    }

    fn proof(&self, key: &Key, label: &str) -> Vec<u8> {
        self.code(key, label).finalize().into_bytes().to_vec()
    }

    fn session_key(&self, key: &Key, label: &str) -> Key {
        Key::new(&self.proof(key, label)).expect("a code is long enough")
    }
}

const CLIENT_PROOF: &str = "dplab agent: the client knows the key";
const AGENT_PROOF: &str = "dplab agent: the agent knows the key";
const TO_AGENT: &str = "dplab agent: from client to agent";
const TO_CLIENT: &str = "dplab agent: from agent to client";

fn expect(frame: Frame, kind: Kind) -> Result<Vec<u8>, HandshakeError> {
    match frame.kind {
        Kind::Refusal => Err(HandshakeError::Refused(harmless(&frame.body))),
        _ if frame.kind == kind => Ok(frame.body),
        _ => Err(HandshakeError::Nonsense),
    }
}

/// The client's side.
///
/// # Errors
/// [`HandshakeError`]; nothing was asked of the agent then.
pub fn greet(stream: &mut (impl Read + Write), key: &Key) -> Result<Session, HandshakeError> {
    let greeting = Hello {
        version: VERSION,
        nonce: nonce().map_err(HandshakeError::Randomness)?,
    };
    let send = |kind, body: &[u8], stream: &mut dyn Write| {
        stream.write_all(&Frame::emit(kind, body)).map_err(FrameError::from)
    };
    send(Kind::Greeting, &greeting.emit(), stream)?;
    let body = expect(Frame::read(stream, HANDSHAKE_BYTES_MAX)?, Kind::Challenge)?;
    let challenge = Hello::parse(&body).ok_or(HandshakeError::Nonsense)?;
    if challenge.version != VERSION {
        return Err(HandshakeError::Version {
            theirs: challenge.version,
        });
    }
    let transcript = Transcript::new(greeting, challenge);
    send(Kind::ClientProof, &transcript.proof(key, CLIENT_PROOF), stream)?;
    let proof = expect(Frame::read(stream, HANDSHAKE_BYTES_MAX)?, Kind::AgentProof)?;
    let code = transcript.code(key, AGENT_PROOF);
    code.verify_slice(&proof).map_err(|_| HandshakeError::Key)?;
    Ok(Session::new(
        transcript.session_key(key, TO_AGENT),
        transcript.session_key(key, TO_CLIENT),
    ))
}

/// The agent's side.
///
/// # Errors
/// [`HandshakeError`]; the peer is to be told ([`refuse`]) and sent away.
pub fn admit(stream: &mut (impl Read + Write), key: &Key) -> Result<Session, HandshakeError> {
    let frame = Frame::read(stream, HANDSHAKE_BYTES_MAX)?;
    if frame.kind != Kind::Greeting {
        return Err(HandshakeError::Nonsense);
    }
    let greeting = Hello::parse(&frame.body).ok_or(HandshakeError::Nonsense)?;
    if greeting.version != VERSION {
        return Err(HandshakeError::Version {
            theirs: greeting.version,
        });
    }
    let challenge = Hello {
        version: VERSION,
        nonce: nonce().map_err(HandshakeError::Randomness)?,
    };
    let send = |kind, body: &[u8], stream: &mut dyn Write| {
        stream.write_all(&Frame::emit(kind, body)).map_err(FrameError::from)
    };
    send(Kind::Challenge, &challenge.emit(), stream)?;
    let frame = Frame::read(stream, HANDSHAKE_BYTES_MAX)?;
    if frame.kind != Kind::ClientProof || frame.body.len() != CODE_BYTES {
        return Err(HandshakeError::Nonsense);
    }
    let transcript = Transcript::new(greeting, challenge);
    let code = transcript.code(key, CLIENT_PROOF);
    code.verify_slice(&frame.body).map_err(|_| HandshakeError::Key)?;
    send(Kind::AgentProof, &transcript.proof(key, AGENT_PROOF), stream)?;
    Ok(Session::new(
        transcript.session_key(key, TO_CLIENT),
        transcript.session_key(key, TO_AGENT),
    ))
}

/// Tells a peer why it is sent away, and closes so that it can read that: a socket that is closed with unread bytes is
/// reset, and the reset may overtake the words.
pub fn refuse(stream: &TcpStream, why: &str) {
    const FAREWELL_MAX: Duration = Duration::from_millis(500);
    const UNREAD_BYTES_MAX: u64 = 64 * 1024;
    let words: String = why.chars().take(HANDSHAKE_BYTES_MAX / 4).collect();
    let mut timed = Timed::new(stream, FAREWELL_MAX);
    if timed.write_all(&Frame::emit(Kind::Refusal, words.as_bytes())).is_ok()
        && stream.shutdown(Shutdown::Write).is_ok()
    {
        let _ = std::io::copy(&mut timed.take(UNREAD_BYTES_MAX), &mut std::io::sink());
    }
}

const _: () = assert!(HELLO_BYTES <= HANDSHAKE_BYTES_MAX && CODE_BYTES <= HANDSHAKE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    fn key(word: &str) -> Key {
        Key::new(word.as_bytes()).expect("long enough")
    }

    /// Both sides of a handshake over loopback.
    fn shake(client: impl FnOnce(&mut TcpStream) + Send, agent_key: &Key) -> Result<Session, HandshakeError> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let addr = listener.local_addr().expect("bound");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(addr).expect("it listens");
                stream.set_read_timeout(Some(HANDSHAKE_MAX)).expect("not zero");
                client(&mut stream);
            });
            let (stream, _) = listener.accept().expect("a client");
            let admitted = admit(&mut Timed::new(&stream, HANDSHAKE_MAX), agent_key);
            if let Err(error) = &admitted {
                refuse(&stream, &error.to_string());
            }
            admitted
        })
    }

    #[test]
    fn the_same_key_opens_and_another_does_not() {
        let mut agent = shake(
            |stream| {
                let mut session = greet(stream, &key("a key of some length")).expect("the same key");
                stream.write_all(&session.seal(b"hello")).expect("it reads");
            },
            &key("a key of some length"),
        )
        .expect("the same key");
        // Counters and keys agree: what one end seals, only the other opens.
        let own = agent.seal(b"reflected");
        let own = Frame::read(&mut own.as_slice(), 4096).expect("a frame");
        assert!(agent.open(&own).is_err());

        let error = shake(
            |stream| {
                let error = greet(stream, &key("another key entirely")).expect_err("another key");
                assert!(
                    matches!(&error, HandshakeError::Refused(why) if why.contains("same key")),
                    "{error}"
                );
            },
            &key("a key of some length"),
        )
        .expect_err("another key");
        assert!(matches!(error, HandshakeError::Key), "{error}");
    }

    #[test]
    fn a_recorded_handshake_opens_nothing() {
        let key = key("a key of some length");
        let mut recorded = Vec::new();
        {
            /// Remembers what goes out.
            struct Tap<'a>(&'a mut TcpStream, &'a mut Vec<u8>);
            impl Read for Tap<'_> {
                fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                    self.0.read(into)
                }
            }
            impl Write for Tap<'_> {
                fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
                    self.1.extend_from_slice(from);
                    self.0.write(from)
                }
                fn flush(&mut self) -> std::io::Result<()> {
                    self.0.flush()
                }
            }
            let recorded = &mut recorded;
            let client_key = key.clone();
            shake(
                move |stream| {
                    greet(&mut Tap(stream, recorded), &client_key).expect("the same key");
                },
                &key,
            )
            .expect("the same key");
        }
        let error = shake(
            |stream| {
                stream.write_all(&recorded).expect("it reads");
                let _ = stream.read_to_end(&mut Vec::new());
            },
            &key,
        )
        .expect_err("replayed");
        assert!(matches!(error, HandshakeError::Key), "{error}");
    }

    #[test]
    fn other_versions_and_other_protocols_are_told_so() {
        for (greeting, expected) in [
            (
                Frame::emit(
                    Kind::Greeting,
                    &Hello {
                        version: 9,
                        nonce: [0; 32],
                    }
                    .emit(),
                ),
                "version 9",
            ),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "another protocol"),
            (Frame::emit(Kind::Sealed, b"obey"), "does not speak"),
            (Frame::emit(Kind::Greeting, b"short"), "does not speak"),
            (vec![0xff; 5], "another protocol"),
            (vec![0, 0, 9, 0, 1], "2304 bytes"),
        ] {
            let told = &mut String::new();
            let error = shake(
                |stream| {
                    stream.write_all(&greeting).expect("it reads");
                    if let Ok(frame) = Frame::read(stream, HANDSHAKE_BYTES_MAX) {
                        assert_eq!(frame.kind, Kind::Refusal);
                        *told = String::from_utf8(frame.body).expect("words");
                    }
                },
                &key("a key of some length"),
            )
            .expect_err("no greeting");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(told.contains(expected), "the peer was told {told:?}");
        }
    }

    proptest! {
        #[test]
        fn any_hello_is_answered(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(hello) = Hello::parse(&body) {
                prop_assert_eq!(hello.emit(), body.clone());
            }
            let version = u16::from_be_bytes([body.first().copied().unwrap_or(0), 7]);
            let hello = Hello { version, nonce: [7; NONCE_BYTES] };
            prop_assert_eq!(Hello::parse(&hello.emit()), Some(hello));
        }
    }
}
