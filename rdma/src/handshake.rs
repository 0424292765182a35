//! Two queue pairs find each other over TCP, without a connection manager: who is there, where it is, what it opens.
//!
//! ```text
//! client                                                       server
//!   Hello   magic, version, nonce ────────────────────────────▶
//!   ◀──────────────────────────────── magic, version, nonce   Hello
//!   Offer   queue pair, region, HMAC("client offers" …) ──────▶
//!   ◀────────────── queue pair, region, HMAC("server offers")  Offer        both to RTR and RTS
//!   Ready   HMAC("client is ready" …) ────────────────────────▶
//!   ◀───────────────────────────── HMAC("server is ready" …)   Ready        now packets may flow
//! ```
//!
//! Every code is made with a key of the cluster's and covers everything said before it, by both. Labels differ by side, so what
//! is sent back proves nothing; nonces are fresh, so a recording proves nothing either. The client proves itself first: a
//! stranger gets nothing to try keys on. All messages have one length each, known beforehand: nothing is allocated for a
//! stranger.
//!
//! It is authenticated, not secret: whoever can read the wire learns the memory's key, as from any RoCEv2 packet. What it opens
//! is bounded by the protection domain and its access, which is why each peer gets its own.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, TcpStream},
    time::{Duration, Instant},
};

use dataplane_waist::middleware::ClusterKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    provider::{Init, Provider, ProviderError, Qp, QpAddress, Rts},
    qp::PathMtu,
    region::{MemoryKey, Registered},
    wire::{Psn, QpNumber},
    work::{CompletionError, PostError},
};

type HmacSha256 = Hmac<Sha256>;

/// The version of this protocol. Both ends must speak the same.
pub const VERSION: u16 = 1;
/// A handshake takes no longer, or is given up.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

const PURPOSE: &str = "dataplane-lab: handshake of queue pairs, version 1";
const MAGIC: [u8; 8] = *b"DPLABRDM";
const NONCE_BYTES: usize = 32;
const HELLO_BYTES: usize = MAGIC.len() + 2 + NONCE_BYTES;
/// An offer's length: GID 16, queue pair 4, PSN 4, path MTU 1, reads 1, unused 2; address 8, key 4, length 8.
pub const OFFER_BYTES: usize = 48;
const CODE_BYTES: usize = 32;

/// What one end tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where its queue pair is.
    pub qp: QpAddress,
    /// Reads and atomics that it can have under way as a responder.
    pub responder_reads_max: u8,
    /// The memory that it opens; of length 0 where it opens none.
    pub region: Registered,
}

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// Why two queue pairs did not find each other.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke or took too long.
    #[error("the handshake with the peer was cut off ({0}); a peer that has another key hangs up")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("what came does not speak this handshake; is it the right port?")]
    Nonsense,
    /// Another version.
    #[error(
        "the peer speaks version {theirs} of the handshake, and this end {VERSION}; run the same build at both ends"
    )]
    Version {
        /// What it speaks.
        theirs: u16,
    },
    /// Another key.
    #[error("the peer does not have this cluster's key; both ends need a copy of one key")]
    Key,
    /// The device refused.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The device did not take the request to bind the memory window that was offered.
    #[error("no memory window was bound for the peer: {0}; WindowOptions::keys can do without")]
    Posting(PostError),
    /// It took the request, and did not do it.
    #[error("no memory window was bound for the peer: {0}; WindowOptions::keys can do without")]
    Binding(CompletionError),
}

impl Offer {
    /// As it stands between a greeting and a code.
    pub fn emit(&self) -> [u8; OFFER_BYTES] {
        let mut bytes = [0; OFFER_BYTES];
        let gid = match self.qp.ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes[..16].copy_from_slice(&gid.octets());
        bytes[16..20].copy_from_slice(&self.qp.qp.get().to_be_bytes());
        bytes[20..24].copy_from_slice(&self.qp.start_psn.get().to_be_bytes());
        bytes[24] = self.qp.path_mtu as u8;
        bytes[25] = self.responder_reads_max;
        bytes[28..36].copy_from_slice(&self.region.address.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.region.key.0.to_be_bytes());
        bytes[40..].copy_from_slice(&self.region.len_bytes.to_be_bytes());
        bytes
    }

    /// The inverse of [`Offer::emit`]; `None`: a number that a field of the headers has no room for, an unknown path MTU.
    pub fn parse(bytes: &[u8; OFFER_BYTES]) -> Option<Offer> {
        let part = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).expect("8 bytes");
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let gid: [u8; 16] = bytes[..16].try_into().expect("16 bytes");
        let is_small = word(16) < 1 << 24 && word(20) < 1 << 24 && bytes[26..28] == [0, 0];
        let offer = Offer {
            qp: QpAddress {
                ip: IpAddr::from(Ipv6Addr::from(gid)).to_canonical(),
                qp: QpNumber::new(word(16)),
                start_psn: Psn::new(word(20)),
                path_mtu: PathMtu::from_number(bytes[24])?,
            },
            responder_reads_max: bytes[25],
            region: Registered {
                address: u64::from_be_bytes(part(28)),
                key: MemoryKey(word(36)),
                len_bytes: u64::from_be_bytes(part(40)),
            },
        };
        is_small.then_some(offer)
    }
}

/// What both have said, and the key that vouches for it.
struct Transcript {
    code: HmacSha256,
}

impl Transcript {
    fn say(&mut self, bytes: &[u8]) {
        self.code.update(bytes);
    }

    /// The code over everything so far, by one side, for one step. The label's length comes first, so that no label can be
    /// read as the beginning of another.
    fn labelled(&self, label: &str) -> HmacSha256 {
        let code = self.code.clone();
        code.chain_update([label.len() as u8]).chain_update(label.as_bytes())
    }

    fn sign(&self, label: &str) -> [u8; CODE_BYTES] {
        self.labelled(label).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    fn check(&self, label: &str, code: &[u8; CODE_BYTES]) -> Result<(), HandshakeError> {
        let verified = self.labelled(label).verify_slice(code);
        verified.map_err(|_| HandshakeError::Key)
    }
}

const CLIENT_OFFERS: &str = "client offers";
const SERVER_OFFERS: &str = "server offers";
const CLIENT_READY: &str = "client is ready";
const SERVER_READY: &str = "server is ready";

/// Brings a queue pair to RTS with the peer behind `stream`, which is told of `region` and answers with its own.
///
/// # Errors
/// [`HandshakeError`]; the queue pair is destroyed then.
pub fn establish<P: Provider>(
    provider: &mut P,
    qp: Qp<Init>,
    own: &Offer,
    by: (&TcpStream, Role, &ClusterKey),
) -> Result<(Qp<Rts>, Offer), HandshakeError> {
    establish_open(provider, qp, own, by, |_, _| Ok(()))
}

/// As [`establish`]. `open` is called when the queue pair can send, and before the peer is told so: it binds what was offered.
pub(crate) fn establish_open<P: Provider>(
    provider: &mut P,
    qp: Qp<Init>,
    own: &Offer,
    (stream, role, key): (&TcpStream, Role, &ClusterKey),
    open: impl FnOnce(&mut P, &Qp<Rts>) -> Result<(), HandshakeError>,
) -> Result<(Qp<Rts>, Offer), HandshakeError> {
    let stream = &mut Timed::new(stream, HANDSHAKE_MAX);
    match exchange(stream, role, key, own) {
        Ok((transcript, theirs)) => {
            let number = qp.number();
            let qp = provider.ready_to_receive(qp, &theirs.qp);
            let qp = match qp {
                Ok(qp) => provider.ready_to_send(qp),
                Err(error) => {
                    provider.destroy(Qp::<Init>::new(number));
                    return Err(error.into());
                }
            };
            match open(provider, &qp).and_then(|()| be_ready(stream, role, &transcript)) {
                Ok(()) => Ok((qp, theirs)),
                Err(error) => {
                    provider.destroy(qp);
                    Err(error)
                }
            }
        }
        Err(error) => {
            provider.destroy(qp);
            Err(error)
        }
    }
}

fn read_array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hear_hello(stream: &mut impl Read) -> Result<[u8; HELLO_BYTES], HandshakeError> {
    let hello: [u8; HELLO_BYTES] = read_array(stream)?;
    let rest = hello.strip_prefix(&MAGIC).ok_or(HandshakeError::Nonsense)?;
    let theirs = u16::from_be_bytes([rest[0], rest[1]]);
    if theirs == VERSION {
        Ok(hello)
    } else {
        Err(HandshakeError::Version { theirs })
    }
}

fn hear_offer(stream: &mut impl Read, label: &str, transcript: &mut Transcript) -> Result<Offer, HandshakeError> {
    let bytes: [u8; OFFER_BYTES] = read_array(stream)?;
    let code: [u8; CODE_BYTES] = read_array(stream)?;
    transcript.say(&bytes);
    // Nothing of it is believed before this.
    transcript.check(label, &code)?;
    Offer::parse(&bytes).ok_or(HandshakeError::Nonsense)
}

fn say_offer(
    stream: &mut impl Write,
    label: &str,
    own: &Offer,
    transcript: &mut Transcript,
) -> Result<(), HandshakeError> {
    let bytes = own.emit();
    transcript.say(&bytes);
    let message = [&bytes[..], &transcript.sign(label)].concat();
    Ok(stream.write_all(&message)?)
}

fn exchange(
    stream: &mut (impl Read + Write),
    role: Role,
    key: &ClusterKey,
    own: &Offer,
) -> Result<(Transcript, Offer), HandshakeError> {
    let mut nonce = [0; NONCE_BYTES];
    let mut random = crate::random::system_randomness()?;
    for chunk in nonce.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_be_bytes());
    }
    let hello = [&MAGIC[..], &VERSION.to_be_bytes(), &nonce].concat();
    let key = key.key_for(PURPOSE);
    let mut transcript = Transcript {
        code: HmacSha256::new_from_slice(&key).expect("HMAC takes keys of any length"),
    };
    match role {
        Role::Client => {
            stream.write_all(&hello)?;
            let theirs = hear_hello(stream)?;
            transcript.say(&hello);
            transcript.say(&theirs);
            say_offer(stream, CLIENT_OFFERS, own, &mut transcript)?;
            let offer = hear_offer(stream, SERVER_OFFERS, &mut transcript)?;
            Ok((transcript, offer))
        }
        Role::Server => {
            let theirs = hear_hello(stream);
            // Said in any case, so that a client of another version learns which one this is.
            if matches!(theirs, Ok(_) | Err(HandshakeError::Version { .. })) {
                stream.write_all(&hello)?;
            }
            transcript.say(&theirs?);
            transcript.say(&hello);
            let offer = hear_offer(stream, CLIENT_OFFERS, &mut transcript)?;
            say_offer(stream, SERVER_OFFERS, own, &mut transcript)?;
            Ok((transcript, offer))
        }
    }
}

/// A packet to a queue pair that is not yet ready is lost: so both wait for each other.
fn be_ready(stream: &mut (impl Read + Write), role: Role, transcript: &Transcript) -> Result<(), HandshakeError> {
    let (own, theirs) = match role {
        Role::Client => (CLIENT_READY, SERVER_READY),
        Role::Server => (SERVER_READY, CLIENT_READY),
    };
    stream.write_all(&transcript.sign(own))?;
    let code = read_array(stream)?;
    transcript.check(theirs, &code)
}

/// A stream on which everything together takes no longer than a bound.
struct Timed<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    fn new(stream: &'a TcpStream, max: Duration) -> Timed<'a> {
        let until = Instant::now() + max;
        Timed { stream, until }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        (&mut &*self.stream).read(into)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        (&mut &*self.stream).write(from)
    }
    fn flush(&mut self) -> io::Result<()> {
        (&mut &*self.stream).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_offer_is_answered(bytes: [[u8; 16]; 3]) {
            let bytes: [u8; OFFER_BYTES] = bytes.as_flattened().try_into().expect("48 bytes");
            if let Some(offer) = Offer::parse(&bytes) {
                prop_assert_eq!(Offer::parse(&offer.emit()), Some(offer));
            }
        }

        #[test]
        fn parse_undoes_emit(v4: bool, ip: u128, qp: u32, psn: u32, reads: u8, mtu in 0usize..5, address: u64, key: u32, len: u64) {
            let ip = if v4 { IpAddr::V4((ip as u32).into()) } else { IpAddr::V6(ip.into()).to_canonical() };
            let offer = Offer {
                qp: QpAddress { ip, qp: QpNumber::new(qp), start_psn: Psn::new(psn), path_mtu: PathMtu::ALL[mtu] },
                responder_reads_max: reads,
                region: Registered { address, key: MemoryKey(key), len_bytes: len },
            };
            prop_assert_eq!(Offer::parse(&offer.emit()), Some(offer));
        }
    }
}
