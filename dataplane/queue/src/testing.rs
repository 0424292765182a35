//! A packet for this crate's tests.

use crate::packet::{Ecn, Queued};

/// A packet that knows its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel {
    pub number: u64,
    pub flow: u32,
    pub bytes: u32,
    pub priority: u8,
    pub ecn: Ecn,
    pub is_header: bool,
}

/// What is left of one whose payload was cut off.
pub const HEADER_BYTES: u32 = 64;

impl Parcel {
    pub fn new(number: u64, bytes: u32) -> Parcel {
        Parcel {
            number,
            flow: 0,
            bytes,
            priority: 0,
            ecn: Ecn::NotCapable,
            is_header: bytes <= HEADER_BYTES,
        }
    }

    pub fn capable(number: u64, bytes: u32) -> Parcel {
        let ecn = Ecn::Capable;
        Parcel {
            ecn,
            ..Parcel::new(number, bytes)
        }
    }
}

impl Queued for Parcel {
    fn bytes(&self) -> u32 {
        self.bytes
    }

    fn ecn(&self) -> Ecn {
        self.ecn
    }

    fn set_ecn(&mut self, ecn: Ecn) {
        self.ecn = ecn;
    }

    fn priority(&self) -> u8 {
        self.priority
    }

    fn flow_hash(&self) -> u32 {
        self.flow
    }

    fn trim(&mut self) -> bool {
        let trims = !self.is_header;
        if trims {
            (self.bytes, self.is_header) = (HEADER_BYTES, true);
        }
        trims
    }

    fn is_header(&self) -> bool {
        self.is_header
    }
}
