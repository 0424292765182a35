//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian, with stamps in nanoseconds: virtual time is finer, but
//! tshark 4.0 multiplies picoseconds beyond 64 bits and shows other times from 18 ms on.

use std::io::{self, Write};

use dataplane_sim::SimTime;

/// Block types (§11.1).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// Says which byte comes first (§4.1).
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET, kept by tcpdump.org.
const ETHERNET: u16 = 1;
/// Stamps count ten to the minus so many of a second (§4.2, if_tsresol).
const STAMP_EXPONENT: u8 = 9;

/// Options (§3.5, §4.1 to §4.6).
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SHB_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

/// Which way a frame went at its interface, in the bits of epb_flags (§4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// There is none.
    Unknown = 0b00,
    /// Received.
    In = 0b01,
    /// Sent.
    Out = 0b10,
}

/// A file being written.
#[derive(Debug)]
pub(super) struct Writer<W: Write> {
    file: W,
    /// One block's body, composed in place.
    body: Vec<u8>,
    last_at: SimTime,
}

impl<W: Write> Writer<W> {
    /// Begins a section.
    pub fn new(file: W, about: &str) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            file,
            body: Vec::new(),
            last_at: SimTime::ZERO,
        };
        writer.u32(BYTE_ORDER);
        // Version 1.0, and a section of unknown length.
        writer.u16(1);
        writer.u16(0);
        writer.body.extend_from_slice(&(-1_i64).to_le_bytes());
        writer.option(COMMENT, about.as_bytes());
        writer.option(SHB_USER_APPLICATION, b"dplab, packets simulated in virtual time");
        writer.option(END_OF_OPTIONS, &[]);
        writer.end(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Adds an interface; they are numbered from 0.
    pub fn interface(&mut self, name: &str, snap_bytes: u32) -> io::Result<()> {
        self.u16(ETHERNET);
        self.u16(0);
        self.u32(snap_bytes);
        self.option(IF_NAME, name.as_bytes());
        self.option(IF_TSRESOL, &[STAMP_EXPONENT]);
        self.option(END_OF_OPTIONS, &[]);
        self.end(INTERFACE_DESCRIPTION)
    }

    /// Adds a frame that was `original_bytes` long.
    pub fn packet(
        &mut self,
        interface: u32,
        at: SimTime,
        direction: Direction,
        frame: &[u8],
        original_bytes: u32,
        comment: &str,
    ) -> io::Result<()> {
        self.last_at = at;
        self.u32(interface);
        self.stamp(at);
        self.u32(frame.len() as u32);
        self.u32(original_bytes);
        self.body.extend_from_slice(frame);
        self.pad();
        if !comment.is_empty() {
            self.option(COMMENT, comment.as_bytes());
        }
        if direction != Direction::Unknown {
            self.option(EPB_FLAGS, &(direction as u32).to_le_bytes());
        }
        if !comment.is_empty() || direction != Direction::Unknown {
            self.option(END_OF_OPTIONS, &[]);
        }
        self.end(ENHANCED_PACKET)
    }

    /// Says how many packets are not in the file.
    pub fn statistics(&mut self, interface: u32, dropped_count: u64) -> io::Result<()> {
        self.u32(interface);
        self.stamp(self.last_at);
        if dropped_count > 0 {
            let comment = format!("the trace was cut: {dropped_count} more packets passed at its interfaces");
            self.option(COMMENT, comment.as_bytes());
        }
        self.option(ISB_IFDROP, &dropped_count.to_le_bytes());
        self.option(END_OF_OPTIONS, &[]);
        self.end(INTERFACE_STATISTICS)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn u16(&mut self, value: u16) {
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    /// The high half of the 64 bits comes first, whatever the byte order (§4.3).
    fn stamp(&mut self, at: SimTime) {
        self.u32((at.as_ns() >> 32) as u32);
        self.u32(at.as_ns() as u32);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.u16(code);
        self.u16(value.len() as u16);
        self.body.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// Frames the body as a block and writes it.
    fn end(&mut self, kind: u32) -> io::Result<()> {
        let bytes = (self.body.len() as u32 + 12).to_le_bytes();
        self.file.write_all(&kind.to_le_bytes())?;
        self.file.write_all(&bytes)?;
        self.file.write_all(&self.body)?;
        self.file.write_all(&bytes)?;
        self.body.clear();
        Ok(())
    }
}
