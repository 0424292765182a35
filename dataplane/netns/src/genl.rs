//! Generic netlink in the little that ethtool needs: one request, its answers, nested attributes. The kept crates read
//! ethtool features but cannot set them, and an ioctl would need `unsafe`; a netlink message is only bytes.
//!
//! ```text
//! nlmsghdr (16)                          genlmsghdr (4)          attributes, each padded to 4 bytes
//! len:4 type:2 flags:2 seq:4 port:4      cmd:1 version:1 0:2     len:2 type:2 value…
//! ```
//! Source: include/uapi/linux/netlink.h, include/uapi/linux/genetlink.h. All integers in host order.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const NLMSG_HEADER_LEN_BYTES: usize = 16;
const GENL_HEADER_LEN_BYTES: usize = 4;
const ATTRIBUTE_HEADER_LEN_BYTES: usize = 4;

const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Top bits of an attribute's type: nested, network byte order.
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = !(NLA_F_NESTED | 1 << 14);

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// The features of one device in full text are about 10 kB.
const ANSWER_LEN_BYTES_MAX: usize = 64 * 1024;
const ANSWERS_COUNT_MAX: usize = 16;
/// The kernel answers at once; this only bounds a kernel that does not.
const ANSWER_WAIT_S: i64 = 5;

/// A generic netlink family of the network namespace in which the thread stood when it was opened.
pub(crate) struct Family {
    socket: OwnedFd,
    id: u16,
    sequence: u32,
}

impl Family {
    /// # Errors
    /// ENOENT: this kernel has no such family.
    pub fn open(name: &str) -> io::Result<Family> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WAIT_S, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut family = Family {
            socket,
            id: GENL_ID_CTRL,
            sequence: 0,
        };
        let mut ask = Attributes::default();
        ask.text(CTRL_ATTR_FAMILY_NAME, name);
        let answers = family.request(CTRL_CMD_GETFAMILY, 1, &ask)?;
        let id = answers
            .iter()
            .flat_map(|answer| attributes(answer))
            .find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        match id {
            Some((_, [low, high])) => family.id = u16::from_ne_bytes([*low, *high]),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the family has no id")),
        }
        Ok(family)
    }

    /// Sends one request and returns the attributes of every answer until the acknowledgement.
    pub fn request(&mut self, command: u8, version: u8, payload: &Attributes) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let len_bytes = NLMSG_HEADER_LEN_BYTES + GENL_HEADER_LEN_BYTES + payload.bytes.len();
        let mut message = Vec::with_capacity(len_bytes);
        message.extend(u32::try_from(len_bytes).map_err(io::Error::other)?.to_ne_bytes());
        message.extend(self.id.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend([command, version, 0, 0]);
        message.extend(&payload.bytes);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;

        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_LEN_BYTES_MAX];
        for _ in 0..ANSWERS_COUNT_MAX {
            let len_bytes = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
            let received = buffer
                .get(..len_bytes)
                .ok_or_else(|| io::Error::other("an answer longer than 64 KiB"))?;
            if self.take_answers(received, &mut answers)? {
                return Ok(answers);
            }
        }
        Err(io::Error::other("too many answers without an acknowledgement"))
    }

    /// Sorts one datagram's messages; true when the request is complete.
    fn take_answers(&self, mut bytes: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        while let Some((header, _)) = bytes.split_first_chunk::<NLMSG_HEADER_LEN_BYTES>() {
            let [l0, l1, l2, l3, t0, t1, _, _, s0, s1, s2, s3, ..] = *header;
            let len_bytes = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let Some(body) = bytes.get(NLMSG_HEADER_LEN_BYTES..len_bytes) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a message longer than its datagram",
                ));
            };
            if u32::from_ne_bytes([s0, s1, s2, s3]) == self.sequence {
                match u16::from_ne_bytes([t0, t1]) {
                    NLMSG_DONE => return Ok(true),
                    NLMSG_ERROR => return acknowledged(body).map(|()| true),
                    _ => answers.extend(body.get(GENL_HEADER_LEN_BYTES..).map(<[u8]>::to_vec)),
                }
            }
            bytes = bytes.get(padded(len_bytes)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// An NLMSG_ERROR carries a negative errno; zero is the acknowledgement.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match body.first_chunk() {
        Some(code) => match i32::from_ne_bytes(*code) {
            0 => Ok(()),
            code => Err(Errno::from_raw(code.wrapping_neg()).into()),
        },
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an error message without a code",
        )),
    }
}

fn padded(len_bytes: usize) -> usize {
    len_bytes.next_multiple_of(4)
}

/// Attributes being written.
#[derive(Default)]
pub(crate) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    /// A string with its closing zero, as NLA_NUL_STRING wants it.
    pub fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value);
    }

    /// One that says yes by being there.
    pub fn flag(&mut self, kind: u16) {
        self.put(kind, &[]);
    }

    pub fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Attributes)) {
        let mut inner = Attributes::default();
        write(&mut inner);
        self.put(kind | NLA_F_NESTED, &inner.bytes);
    }

    /// # Panics
    /// When the value is longer than 64 KiB, which a list of feature names is not.
    fn put(&mut self, kind: u16, value: &[u8]) {
        let len_bytes = ATTRIBUTE_HEADER_LEN_BYTES + value.len();
        assert!(len_bytes <= usize::from(u16::MAX), "an attribute of {len_bytes} bytes");
        self.bytes.extend((len_bytes as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(padded(self.bytes.len()), 0);
    }
}

/// Walks attributes as (type, value); stops at the first that does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk()?;
        let len_bytes = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(ATTRIBUTE_HEADER_LEN_BYTES..len_bytes)?;
        rest = rest.get(padded(len_bytes)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
    })
}

/// The text of a string attribute.
pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut written = Attributes::default();
        written.text(2, "eth0");
        written.nested(3, |bits| bits.text(1, "rx-gro"));
        let read: Vec<(u16, &[u8])> = attributes(&written.bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].0, text_of(read[0].1)), (2, "eth0".to_owned()));
        assert_eq!(read[1].0, 3, "the nested flag is not part of the type");
        assert_eq!(
            attributes(read[1].1).map(|(_, v)| text_of(v)).collect::<Vec<_>>(),
            ["rx-gro"]
        );
    }

    #[test]
    fn cut_and_crooked_bytes_end_the_walk() {
        let mut written = Attributes::default();
        written.text(2, "eth0");
        for cut in 0..written.bytes.len() - 3 {
            assert_eq!(attributes(&written.bytes[..cut]).count(), 0, "cut at {cut}");
        }
        assert_eq!(
            attributes(&[0, 0, 1, 0, 9, 9]).count(),
            0,
            "a length below its own header"
        );
        assert_eq!(attributes(&[255, 255, 1, 0]).count(), 0);
    }

    #[test]
    fn a_family_that_does_not_exist_is_enoent() {
        let Err(error) = Family::open("no-such-family") else {
            panic!("there is no such family")
        };
        assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32), "{error}");
    }
}
