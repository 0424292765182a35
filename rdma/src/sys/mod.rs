//! Where the system is asked for what has no safe wrapper: all of this crate's unsafe code.
#![allow(unsafe_code)]

pub(crate) mod mapping;
pub(crate) mod socket;
pub(crate) mod verbs;
