//! The blocks of `fpga/rtl` as cycle models: after every clock edge each says at its ports what the hardware says, which
//! `fpga/tb` tests edge by edge. They know the rules of the fast path by themselves, and no simulator of hardware.
//!
//! A block is anything that says its outputs and takes a clock edge: the models here, and the verilated RTL in `fpga/tb`.
//! Outputs are registers, or follow from registers alone, so they are asked for before the inputs of the cycle are known.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod crc;
pub mod filter;
pub mod frames;
pub mod node;
pub mod registers;
pub mod replicate;
pub mod rng;
pub mod skid;
pub mod stream;
pub mod systolic;
