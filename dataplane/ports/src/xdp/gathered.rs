//! A received packet of several frames, put together.

/// The beginning of a packet, until its last frame comes.
#[derive(Debug)]
pub(super) struct Gathered {
    /// As long as the longest packet.
    bytes: Box<[u8]>,
    len_bytes: usize,
    is_empty: bool,
    is_too_long: bool,
}

impl Gathered {
    pub(super) fn new(packet_bytes_max: usize) -> Gathered {
        Gathered {
            bytes: vec![0; packet_bytes_max].into_boxed_slice(),
            len_bytes: 0,
            is_empty: true,
            is_too_long: false,
        }
    }

    /// No packet has begun.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Goes on with the bytes of the next frame.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.is_empty = false;
        let end_bytes = self.len_bytes + bytes.len();
        match self.bytes.get_mut(self.len_bytes..end_bytes) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len_bytes = end_bytes;
            }
            None => self.is_too_long = true,
        }
    }

    /// The whole packet; `None` if it was too long. The next one begins.
    pub(super) fn take(&mut self) -> Option<&[u8]> {
        let is_whole = !std::mem::take(&mut self.is_too_long);
        let len_bytes = std::mem::take(&mut self.len_bytes);
        self.is_empty = true;
        is_whole.then_some(&self.bytes[..len_bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_is_too_long_spoils_itself_alone() {
        let mut gathered = Gathered::new(5);
        for _ in 0..2 {
            assert!(gathered.is_empty());
            gathered.add(b"abc");
            gathered.add(b"defg");
            // Would fit behind "abc".
            gathered.add(b"h");
            assert!(!gathered.is_empty());
            assert_eq!(gathered.take(), None);
            gathered.add(b"abc");
            gathered.add(b"de");
            assert_eq!(gathered.take(), Some(&b"abcde"[..]));
        }
    }
}
