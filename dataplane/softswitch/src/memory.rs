//! Where frames lie: the switch has tokens for them, and asks the owner of the memory for the bytes.

/// Memory for frames, of an AF_XDP socket or of a test.
pub trait Memory {
    /// The right to touch one frame.
    type Frame;

    /// The frame's bytes, from the Ethernet header on.
    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Self::Frame) -> &'a mut [u8];

    /// Another frame with the same bytes. `None`: there is no memory left.
    fn copy(&mut self, frame: &Self::Frame) -> Option<Self::Frame>;

    /// Leaves only the first `len_bytes` of the frame.
    fn shorten(&mut self, frame: &mut Self::Frame, len_bytes: usize);

    /// The switch needs the frame no more.
    fn give_back(&mut self, frame: Self::Frame);
}
