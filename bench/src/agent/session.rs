//! Messages of a session: each carries a code under a key of this connection and direction, over its number, so nothing
//! can be injected, changed, reordered, left out or replayed without ending the session.

use hmac::Mac;

use super::{
    channel::{Frame, Kind},
    key::{Key, code_of},
};

/// Bytes of a code.
pub const CODE_BYTES: usize = 32;

/// One direction.
#[derive(Debug)]
struct Direction {
    key: Key,
    /// Messages so far.
    count: u64,
}

impl Direction {
    fn code(&self, message: &[u8]) -> super::key::HmacSha256 {
        code_of(&self.key, &[&self.count.to_be_bytes(), message])
    }
}

/// Both directions, as one end sees them.
#[derive(Debug)]
pub struct Session {
    sending: Direction,
    receiving: Direction,
}

/// The message is not the one that the peer sent next.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message whose code is wrong: it was injected, changed, left out or replayed on the way")]
pub struct Forged;

impl Session {
    /// A session with a key for each direction.
    pub fn new(sending: Key, receiving: Key) -> Session {
        let direction = |key| Direction { key, count: 0 };
        Session {
            sending: direction(sending),
            receiving: direction(receiving),
        }
    }

    /// The frame that carries `message`.
    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let mut body = self.sending.code(message).finalize().into_bytes().to_vec();
        body.extend_from_slice(message);
        self.sending.count += 1;
        Frame::emit(Kind::Sealed, &body)
    }

    /// The message in a frame.
    ///
    /// # Errors
    /// [`Forged`]; the session is over.
    pub fn open(&mut self, frame: &Frame) -> Result<Vec<u8>, Forged> {
        if frame.kind != Kind::Sealed || frame.body.len() < CODE_BYTES {
            return Err(Forged);
        }
        let (code, message) = frame.body.split_at(CODE_BYTES);
        // In constant time.
        self.receiving.code(message).verify_slice(code).map_err(|_| Forged)?;
        self.receiving.count += 1;
        Ok(message.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::channel::BODY_BYTES_MAX;

    fn ends() -> (Session, Session) {
        let key = |word: &[u8; 16]| Key::new(word).expect("16 bytes");
        let (to_agent, to_client) = (key(b"to the agent...."), key(b"to the client..."));
        (
            Session::new(to_agent.clone(), to_client.clone()),
            Session::new(to_client, to_agent),
        )
    }

    fn frame(bytes: &[u8]) -> Frame {
        Frame::read(&mut &bytes[..], BODY_BYTES_MAX).expect("a frame")
    }

    #[test]
    fn messages_arrive_once_in_order_and_in_one_direction() {
        let (mut client, mut agent) = ends();
        let (first, second) = (frame(&client.seal(b"one")), frame(&client.seal(b"two")));
        assert_eq!(agent.open(&second), Err(Forged), "out of order");
        assert_eq!(agent.open(&first).expect("the first"), b"one");
        assert_eq!(agent.open(&first), Err(Forged), "replayed");
        assert_eq!(client.open(&second), Err(Forged), "reflected");
        assert_eq!(agent.open(&second).expect("the second"), b"two");
        let answer = frame(&agent.seal(b"yes"));
        assert_eq!(client.open(&answer).expect("the answer"), b"yes");
    }

    proptest! {
        #[test]
        fn one_changed_bit_is_seen(message in prop::collection::vec(any::<u8>(), 0..100), at in any::<usize>(), bit in 0..8u32) {
            let (mut client, mut agent) = ends();
            let mut changed = frame(&client.seal(&message));
            let at = at % changed.body.len();
            changed.body[at] ^= 1u8 << bit;
            prop_assert_eq!(agent.open(&changed), Err(Forged));
        }

        #[test]
        fn any_body_is_answered(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let (_, mut agent) = ends();
            prop_assert_eq!(agent.open(&Frame { kind: Kind::Sealed, body }), Err(Forged));
        }
    }
}
