//! A pcapng file of the lab's own frames, which Wireshark and tshark read.
//!
//! The frames have nothing around them, so the link type is LINKTYPE_USER0 (147, kept by tcpdump.org for private use):
//! under Preferences → Protocols → DLT_USER a dissector can be named for it. Each frame carries a nanosecond stamp, its
//! direction (epb_flags) and its peer (a comment), as draft-ietf-opsawg-pcapng §4.3 lays them out.

use std::{
    borrow::Cow,
    io::{self, BufWriter, Write},
    time::Duration,
};

use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgWriter, RawBlock,
        blocks::{
            ENHANCED_PACKET_BLOCK,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use dataplane_wire::frame::{HEADER_BYTES, PAYLOAD_BYTES_MAX};

use crate::{Instant, Peer};

/// What a capture keeps.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// The port's name, as Wireshark shows the interface.
    pub interface: String,
    /// Longer frames are cut to this; their true length is kept beside them.
    pub snap_bytes_max: usize,
    /// The file never grows beyond this length; later frames are counted, not written.
    pub file_bytes_max: u64,
    /// How long after 1970 (UTC) the clock's epoch was. Zero gives stamps since the clock's own epoch.
    pub epoch_unix: Duration,
}

impl Default for CaptureOptions {
    fn default() -> CaptureOptions {
        CaptureOptions {
            interface: "port".into(),
            snap_bytes_max: FRAME_BYTES_MAX,
            file_bytes_max: 1 << 30,
            epoch_unix: Duration::ZERO,
        }
    }
}

/// Which way a frame went, in the bits of epb_flags (§4.3.1: 01 inbound, 10 outbound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received.
    Rx = 0b01,
    /// Queued for sending.
    Tx = 0b10,
}

/// A capture being written. After the first error it writes nothing more and only counts: a file that fails must not
/// take the port with it.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<BufWriter<W>>,
    options: CaptureOptions,
    /// One block's body, composed in place.
    body: Box<[u8]>,
    file_bytes: u64,
    written_count: u64,
    unwritten_count: u64,
    error: Option<io::Error>,
}

/// The longest frame there is; `snap_bytes_max` above it means the same.
const FRAME_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;
/// A section header block without options (§4.1).
const SECTION_HEADER_BYTES: usize = 28;
/// Interface, stamp (two halves), captured and original length: five words of 32 bits.
const EPB_FIELDS_BYTES: usize = 20;
/// "peer 4294967295".
const COMMENT_BYTES_MAX: usize = 15;
/// Comment (header and padded text), flags (header and word), end of options.
const EPB_OPTIONS_BYTES_MAX: usize = 4 + COMMENT_BYTES_MAX.next_multiple_of(4) + 8 + 4;
/// Type, length, and the length again behind the body.
const BLOCK_FRAMING_BYTES: usize = 12;
/// Written at once to the file: the memory a capture takes, beside one frame.
const BUFFER_BYTES: usize = 64 * 1024;

impl<W: Write> Capture<W> {
    /// Begins a file: writes its section and interface headers.
    ///
    /// # Errors
    /// The writer's: better now than after the run.
    pub fn new(file: W, mut options: CaptureOptions) -> io::Result<Capture<W>> {
        options.snap_bytes_max = options.snap_bytes_max.min(FRAME_BYTES_MAX);
        let buffered = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = PcapNgWriter::with_endianness(buffered, Endianness::Little).map_err(io_error)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::USER0,
            snaplen: options.snap_bytes_max as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(options.interface.clone())),
                // Ten to the minus ninth of a second (§4.2, if_tsresol).
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        let interface_bytes = writer.write_pcapng_block(interface).map_err(io_error)?;
        writer.get_mut().flush()?;
        let body_bytes_max = EPB_FIELDS_BYTES + options.snap_bytes_max.next_multiple_of(4) + EPB_OPTIONS_BYTES_MAX;
        Ok(Capture {
            writer,
            options,
            body: vec![0; body_bytes_max].into(),
            file_bytes: (SECTION_HEADER_BYTES + interface_bytes) as u64,
            written_count: 0,
            unwritten_count: 0,
            error: None,
        })
    }

    /// Adds a frame. Never fails: what could not be written is counted.
    pub fn record(&mut self, direction: Direction, peer: Peer, at: Instant, frame: &[u8]) {
        if self.error.is_none() {
            match self.write(direction, peer, at, frame) {
                Ok(()) => {
                    self.written_count += 1;
                    return;
                }
                Err(error) => self.error = Some(error),
            }
        }
        self.unwritten_count += 1;
    }

    /// Frames in the file, or in the buffer before it.
    pub fn written_count(&self) -> u64 {
        self.written_count
    }

    /// Frames that passed and are not in the file, because of [`Capture::error`].
    pub fn unwritten_count(&self) -> u64 {
        self.unwritten_count
    }

    /// What ended the capture early, if anything did.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Writes what is buffered and gives the file back.
    ///
    /// # Errors
    /// What ended the capture early, or the last write's error. Everything before it can be read.
    pub fn finish(self) -> io::Result<W> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.writer
            .into_inner()
            .into_inner()
            .map_err(|error| error.into_error())
    }

    fn write(&mut self, direction: Direction, peer: Peer, at: Instant, frame: &[u8]) -> io::Result<()> {
        let body_bytes = self.compose(direction, peer, at, frame);
        let block_bytes = (BLOCK_FRAMING_BYTES + body_bytes) as u64;
        if self.file_bytes + block_bytes > self.options.file_bytes_max {
            let bound = self.options.file_bytes_max;
            let message = format!("the capture reached its bound of {bound} bytes; raise file_bytes_max to keep more");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let block = RawBlock {
            type_: ENHANCED_PACKET_BLOCK,
            initial_len: block_bytes as u32,
            body: Cow::Borrowed(&self.body[..body_bytes]),
            trailer_len: block_bytes as u32,
        };
        self.writer.write_raw_block(&block).map_err(io_error)?;
        self.file_bytes += block_bytes;
        Ok(())
    }

    /// Lays out an enhanced packet block's body (§4.3) and says how long it is. The crate's own block type would take
    /// a vector of options per frame.
    fn compose(&mut self, direction: Direction, peer: Peer, at: Instant, frame: &[u8]) -> usize {
        let captured = &frame[..frame.len().min(self.options.snap_bytes_max)];
        let unix = self.options.epoch_unix.saturating_add(Duration::from_nanos(at.as_ns()));
        let unix_ns = unix.as_nanos() as u64;
        let mut comment = [0; COMMENT_BYTES_MAX];
        let mut unwritten = &mut comment[..];
        write!(unwritten, "peer {}", peer.0).expect("a 32-bit number fits");
        let comment_bytes = COMMENT_BYTES_MAX - unwritten.len();

        let mut body = Cursor::new(&mut self.body);
        const INTERFACE: u32 = 0;
        body.put(&INTERFACE.to_le_bytes());
        body.put(&((unix_ns >> 32) as u32).to_le_bytes());
        body.put(&(unix_ns as u32).to_le_bytes());
        body.put(&(captured.len() as u32).to_le_bytes());
        body.put(&(frame.len() as u32).to_le_bytes());
        body.put_padded(captured);
        body.put_option_head(OPT_COMMENT, comment_bytes);
        body.put_padded(&comment[..comment_bytes]);
        body.put_option_head(EPB_FLAGS, 4);
        body.put(&(direction as u32).to_le_bytes());
        body.put_option_head(OPT_ENDOFOPT, 0);
        body.at
    }
}

// Option codes: §3.5 and §4.3.
const OPT_ENDOFOPT: u16 = 0;
const OPT_COMMENT: u16 = 1;
const EPB_FLAGS: u16 = 2;

/// Writes one thing behind the other.
struct Cursor<'a> {
    body: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn new(body: &mut [u8]) -> Cursor<'_> {
        Cursor { body, at: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.body[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Everything in a block begins at a multiple of four bytes.
    fn put_padded(&mut self, bytes: &[u8]) {
        self.put(bytes);
        self.put(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()]);
    }

    fn put_option_head(&mut self, code: u16, len_bytes: usize) {
        self.put(&code.to_le_bytes());
        self.put(&(len_bytes as u16).to_le_bytes());
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
