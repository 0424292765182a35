//! Datagrams on their way: the network moves packets of a length, and the bytes wait here for whoever gets them.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use super::tls::Tls;

/// What the groups of a run share: the bytes of all datagrams that are under way, and the certificate. Whoever drops a packet
/// says so, or its bytes would stay.
#[derive(Clone, Default)]
pub struct Payloads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    places: Mutex<Places>,
    tls: OnceLock<Tls>,
}

#[derive(Default)]
struct Places {
    datagrams: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} datagrams under way", self.count())
    }
}

impl Payloads {
    /// Keeps a copy. Its place.
    pub fn insert(&self, bytes: &[u8]) -> u32 {
        self.with(|places| {
            let place = places.free.pop().unwrap_or_else(|| {
                places.datagrams.push(Vec::new());
                places.datagrams.len() as u32 - 1
            });
            // The buffer of a datagram before it is used again.
            let datagram = &mut places.datagrams[place as usize];
            datagram.clear();
            datagram.extend_from_slice(bytes);
            place
        })
    }

    /// Gives a datagram out; its place is free afterwards.
    pub fn take(&self, place: u32) -> Vec<u8> {
        self.with(|places| {
            places.free.push(place);
            places.datagrams[place as usize].clone()
        })
    }

    /// A datagram was lost.
    pub fn drop(&self, place: u32) {
        self.with(|places| places.free.push(place));
    }

    /// Appends a datagram to a buffer, for a trace.
    pub fn copy_into(&self, place: u32, buffer: &mut Vec<u8>) {
        self.with(|places| buffer.extend_from_slice(&places.datagrams[place as usize]));
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.with(|places| places.datagrams.len() - places.free.len())
    }

    /// TLS's settings, made when they are first asked for: two ends in two groups know one certificate.
    pub(super) fn tls(&self) -> &Tls {
        self.0.tls.get_or_init(Tls::new)
    }

    fn with<R>(&self, act: impl FnOnce(&mut Places) -> R) -> R {
        act(&mut self
            .0
            .places
            .lock()
            .expect("no thread of a simulation panics with datagrams in its hands"))
    }
}
