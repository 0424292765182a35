//! L0: every byte layout of the lab, each written once.
//!
//! `parse` is total: any bytes give a value that cannot be nonsense, or a [`Reject`] with its reason. `emit` is its
//! inverse. The same decoder runs in user space, in XDP programs and under the fuzzer.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

pub mod checksum;
pub mod datagram;
pub mod echo;
pub mod ethernet;
pub mod frame;
pub mod internet;
pub mod ipv4;
pub mod ipv6;
pub mod quorum;
mod reject;
pub mod trace;
pub mod udp;
pub mod vectors;

pub use reject::Reject;
