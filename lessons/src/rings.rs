//! The four rings of an AF_XDP socket for lesson 7, over two worlds: a model of the kernel's side that runs everywhere, and a
//! real socket between two hosts of our own. The frames are the real ones in both: tokens that can be moved and not copied.
//!
//! A frame that was given away cannot be used again, which the compiler sees to:
//!
//! ```compile_fail,E0382
//! use dataplane_ports::xdp::Frame;
//! use lessons::rings::Rings;
//! fn twice(rings: &mut dyn Rings, frame: Frame) {
//!     let _ = rings.fill(frame); // the kernel may write into it from here on …
//!     let _ = rings.tx(frame, 0..64); // … and would send it while it does
//! }
//! ```
//!
//! nor copied beforehand:
//!
//! ```compile_fail,E0599
//! use dataplane_ports::xdp::Frame;
//! use lessons::rings::Rings;
//! fn both(rings: &mut dyn Rings, frame: Frame) {
//!     let _ = rings.fill(frame.clone());
//!     let _ = rings.tx(frame, 0..64);
//! }
//! ```
//!
//! One ring after the other is fine:
//!
//! ```
//! use lessons::rings::Rings;
//! fn sent_then_filled(rings: &mut dyn Rings) {
//!     while let Some(frame) = rings.complete() {
//!         let _ = rings.fill(frame);
//!     }
//! }
//! ```

mod live;
mod model;

use std::ops::Range;

use dataplane_ports::xdp::{Frame, Segment, XdpCounters};

pub use live::Live;
pub use model::Model;

/// What a program sees of its socket: [`dataplane_ports::xdp::Socket`] without its errors, which here end the test.
pub trait Rings {
    /// Puts a frame for the kernel to receive into on the fill ring. Given back if the ring is full.
    #[allow(missing_docs, reason = "as the sentence says")]
    fn fill(&mut self, frame: Frame) -> Result<(), Frame>;
    /// Lets the kernel see what was put on the fill ring.
    fn publish_fill(&mut self);
    /// The next received frame. `None`: nothing more has come.
    fn receive(&mut self) -> Option<Segment>;
    /// Gives the places of what was received back to the kernel.
    fn release_rx(&mut self);

    /// Writes a packet for the other host into a frame; where it stands.
    fn write_packet(&mut self, frame: &mut Frame) -> Range<usize>;
    /// Puts a frame to be sent on the transmit ring. Given back if the ring is full.
    #[allow(missing_docs, reason = "as the sentence says")]
    fn tx(&mut self, frame: Frame, bytes: Range<usize>) -> Result<(), Frame>;
    /// Lets the kernel see what was put on the transmit ring.
    fn publish_tx(&mut self);
    /// One sendto(2): the kernel sends from the transmit ring, [`KICK_FRAMES_MAX`] frames at most.
    fn kick(&mut self);
    /// Frames on the transmit ring that the kernel has not taken.
    fn tx_pending_count(&mut self) -> u32;
    /// The next frame that was sent. `None`: the kernel has no more to give back.
    fn complete(&mut self) -> Option<Frame>;
    /// Gives the places of what was completed back to the kernel.
    fn release_completions(&mut self);

    /// What the kernel counted.
    fn counters(&self) -> XdpCounters;
}

/// What is around the socket: not for the program to see.
pub trait World: Rings {
    /// For messages.
    fn name(&self) -> &'static str;
    /// So many packets come from the other host.
    fn arrive(&mut self, packets_count: u64);
    /// How many packets have come to the other host so far.
    fn delivered_count(&mut self) -> u64;
}

/// Frames that the kernel sends in one system call in copy mode (TX_BATCH_SIZE, net/xdp/xsk.c).
pub const KICK_FRAMES_MAX: usize = 32;

/// The model, and where it may be made a real socket; each with rings of `entries` and twice as many frames. One half is on
/// the fill ring already, the other comes along. Prints why, if the model is alone.
///
/// # Panics
/// If `entries` is not a power of two.
pub fn worlds(entries: u32) -> Vec<(Box<dyn World>, Vec<Frame>)> {
    let (model, free) = Model::new(entries);
    let mut worlds: Vec<(Box<dyn World>, Vec<Frame>)> = vec![(Box::new(model), free)];
    if let Some((live, free)) = Live::new(entries) {
        worlds.push((Box::new(live), free));
    }
    worlds
}

/// Memory for `entries` frames to receive into and as many to send from.
fn frames(entries: u32) -> (dataplane_ports::xdp::Umem, Vec<Frame>, Vec<Frame>) {
    use dataplane_ports::xdp::{Umem, UmemOptions};
    assert!(entries.is_power_of_two(), "{entries} entries");
    let entries = entries as usize;
    let options = UmemOptions {
        frame_bytes: 2048,
        ..UmemOptions::new(2 * entries)
    };
    let (umem, mut to_receive) = Umem::new(&options).expect("a few pages");
    let to_send = to_receive.split_off(entries);
    (umem, to_receive, to_send)
}
