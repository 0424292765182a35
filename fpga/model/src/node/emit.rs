//! `frame_emit`: keeps beats until their frame is decided, and sends them where they belong; and `frame_head`, which says how a
//! frame begins that leaves.

use std::collections::VecDeque;

use dataplane_wire::frame;

use super::{Inputs, Shape};
use crate::{
    crc,
    stream::{Beat, keep_of},
};

pub const HEAD_BYTES: usize = 102;
const BARE_BYTES: usize = 82;

/// What becomes of a frame.
#[derive(Clone, Debug)]
pub struct Fate {
    pub drop: bool,
    pub slow: bool,
    pub log: bool,
    pub tx: bool,
    /// What follows our header stays.
    pub payload: bool,
    pub reply: bool,
    pub beats: u64,
    pub slot: u64,
    pub head: [u8; HEAD_BYTES],
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Emit {
    shape: Shape,
    mem: Vec<Beat>,
    write: u64,
    read: u64,
    pop: u64,
    used: u64,
    /// Beats that were read ahead: `a` behind the memory, then `r`, the oldest in the queue.
    a: Option<Beat>,
    r: Option<Beat>,
    queue: VecDeque<Beat>,
    is_busy: bool,
    loading: Option<Fate>,
    fate: Option<Fate>,
    needs_src: bool,
    needs_tx: bool,
    at: usize,
    pub tx: Option<Beat>,
    pub slow: Option<Beat>,
    pub log: Option<(Beat, u64)>,
}

/// What one cycle of sending does.
struct Step {
    tx_last: bool,
    done: bool,
}

impl Emit {
    pub fn new(shape: Shape) -> Emit {
        Emit {
            shape,
            mem: vec![Beat::EMPTY; 1 << shape.depth_log2],
            write: 0,
            read: 0,
            pop: 0,
            used: 0,
            a: None,
            r: None,
            queue: VecDeque::with_capacity(2),
            is_busy: false,
            loading: None,
            fate: None,
            needs_src: false,
            needs_tx: false,
            at: 0,
            tx: None,
            slow: None,
            log: None,
        }
    }

    pub fn has_room(&self) -> bool {
        self.used < self.mem.len() as u64 - 4
    }

    fn step(&self, inputs: &Inputs) -> Option<Step> {
        let fate = self.fate.as_ref()?;
        let (src, tx) = (self.needs_src, self.needs_tx);
        let goes = (!src || !self.queue.is_empty())
            && (!(src && fate.slow) || self.slow.is_none() || inputs.slow_ready)
            && (!(src && fate.log) || self.log.is_none() || inputs.log_ready)
            && (!tx || self.tx.is_none() || inputs.tx_ready);
        let is_b_last = self.queue.front().is_some_and(|beat| beat.last);
        let end = if fate.reply { HEAD_BYTES } else { BARE_BYTES };
        let tx_last = match fate.payload {
            true => is_b_last,
            false => self.at == (end - 1) / self.shape.beat_bytes,
        };
        goes.then_some(Step {
            tx_last,
            done: (!src || is_b_last) && (!tx || tx_last),
        })
    }

    pub fn is_ready(&self) -> bool {
        !self.is_busy
    }

    /// Reads ahead. Whether to read depends on what stood before the edge.
    fn read(&mut self, pops: bool) {
        let is_full = self.queue.len() == 2;
        let is_r_free = self.r.is_none() || !is_full;
        let reads = self.write != self.read && (self.a.is_none() || is_r_free);
        let word = self.mem[self.read as usize % self.mem.len()];
        self.used = self.write - self.pop;
        if pops {
            self.queue.pop_front();
            self.pop += 1;
        }
        if !is_full {
            self.queue.extend(self.r.take());
        }
        if is_r_free {
            self.r = self.a.take();
        }
        if reads {
            self.a = Some(word);
            self.read += 1;
        }
    }

    pub fn clock(&mut self, inputs: &Inputs, beat: Option<&Beat>, load: Option<Fate>) {
        let step = self.step(inputs);
        let out = self.queue.front().copied();
        self.read(step.is_some() && self.needs_src);
        if let Some(beat) = beat {
            let at = self.write as usize % self.mem.len();
            self.mem[at] = *beat;
            self.write += 1;
        }
        self.tx = self.tx.filter(|_| !inputs.tx_ready);
        self.slow = self.slow.filter(|_| !inputs.slow_ready);
        self.log = self.log.filter(|_| !inputs.log_ready);
        if let (Some(step), Some(fate)) = (step, &self.fate) {
            if let (true, Some(beat)) = (self.needs_src, out) {
                if fate.slow {
                    self.slow = Some(beat);
                }
                if fate.log {
                    self.log = Some((Beat { user: false, ..beat }, fate.slot));
                }
                self.needs_src = !beat.last;
            }
            if self.needs_tx {
                self.tx = Some(rewritten(self.shape, fate, self.at, out, step.tx_last));
                self.needs_tx = !step.tx_last;
            }
            self.at += 1;
            if step.done {
                (self.fate, self.is_busy) = (None, false);
            }
        }
        if let Some(fate) = self.loading.take() {
            (self.needs_src, self.needs_tx, self.at) = (true, fate.tx, 0);
            self.fate = Some(fate);
        }
        if let Some(fate) = load {
            if fate.drop {
                self.pop += fate.beats;
                self.read = self.pop;
                (self.a, self.r) = (None, None);
                self.queue.clear();
            } else {
                self.is_busy = true;
                self.loading = Some(fate);
            }
        }
        if inputs.rst {
            (self.write, self.read, self.pop, self.used) = (0, 0, 0, 0);
            (self.a, self.r) = (None, None);
            self.queue.clear();
            (self.is_busy, self.loading, self.fate) = (false, None, None);
            (self.tx, self.slow, self.log) = (None, None, None);
        }
    }
}

/// Beat `at` of the frame that leaves, where `came` is that of the frame that came.
fn rewritten(shape: Shape, fate: &Fate, at: usize, came: Option<Beat>, is_last: bool) -> Beat {
    let beat_bytes = shape.beat_bytes;
    let came = came.unwrap_or(Beat::EMPTY);
    let mut beat = Beat::EMPTY;
    for (lane, byte) in beat.data[..beat_bytes].iter_mut().enumerate() {
        let offset = at * beat_bytes + lane;
        let stays = (12..16).contains(&offset) || (18..24).contains(&offset) || (fate.payload && offset >= BARE_BYTES);
        *byte = match fate.head.get(offset) {
            _ if stays => came.data[lane],
            Some(&byte) => byte,
            None => 0,
        };
    }
    let end = if fate.reply { HEAD_BYTES } else { BARE_BYTES };
    beat.keep = match (is_last, fate.payload) {
        (false, _) => keep_of(beat_bytes),
        (true, true) => came.keep,
        (true, false) => keep_of(end - at * beat_bytes),
    };
    beat.last = is_last;
    beat
}

/// From which frame, and to whom, a frame is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    pub local_mac: u64,
    pub local_ipv4: u32,
    pub local_port: u16,
    pub dst_mac: u64,
    /// Address and port.
    pub dst_place: u64,
    pub old_src_ipv4: u32,
    pub old_dst_ipv4: u32,
    pub old_ip_len: u16,
    pub old_ip_checksum: u16,
}

/// What our header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Says {
    pub kind: u8,
    pub payload_len: u16,
    pub term: u64,
    pub slot: u64,
    pub sent_ns: u64,
    pub payload_crc: u32,
    /// A reply's client and sequence.
    pub reply: Option<(u64, u64)>,
}

/// `frame_head`.
pub fn head(ends: &Ends, says: &Says) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    let (dst_ipv4, dst_port) = ((ends.dst_place >> 16) as u32, ends.dst_place as u16);
    let ip_len = says.payload_len.wrapping_add(68);
    put(0, &ends.dst_mac.to_be_bytes()[2..]);
    put(6, &ends.local_mac.to_be_bytes()[2..]);
    put(16, &ip_len.to_be_bytes());
    put(24, &carried_over(ends, dst_ipv4, ip_len).to_be_bytes());
    put(26, &ends.local_ipv4.to_be_bytes());
    put(30, &dst_ipv4.to_be_bytes());
    put(34, &ends.local_port.to_be_bytes());
    put(36, &dst_port.to_be_bytes());
    put(38, &says.payload_len.wrapping_add(48).to_be_bytes());
    let mut payload_crc = says.payload_crc;
    if let Some((client, sequence)) = says.reply {
        let mut payload = [0; 20];
        payload[..8].copy_from_slice(&client.to_be_bytes());
        payload[8..16].copy_from_slice(&sequence.to_be_bytes());
        payload[16] = 1;
        payload_crc = !crc::over(!0, &payload);
        put(BARE_BYTES, &payload);
    }
    put(42, &frame::MAGIC);
    put(46, &[frame::VERSION, says.kind]);
    put(48, &says.payload_len.to_be_bytes());
    put(50, &says.term.to_be_bytes());
    put(58, &says.slot.to_be_bytes());
    put(66, &says.sent_ns.to_be_bytes());
    put(74, &payload_crc.to_be_bytes());
    let head_crc = !crc::over(!0, &head[42..78]);
    head[78..82].copy_from_slice(&head_crc.to_be_bytes());
    head
}

/// IPv4's checksum after the change (RFC 1624).
fn carried_over(ends: &Ends, dst_ipv4: u32, ip_len: u16) -> u16 {
    let halves = |address: u32| [(address >> 16) as u16, address as u16];
    let [src0, src1] = halves(ends.old_src_ipv4);
    let [dst0, dst1] = halves(ends.old_dst_ipv4);
    let old = [ends.old_ip_checksum, ends.old_ip_len, src0, src1, dst0, dst1];
    let [local0, local1] = halves(ends.local_ipv4);
    let [to0, to1] = halves(dst_ipv4);
    let sum: u32 = old.iter().map(|&word| u32::from(!word)).sum::<u32>()
        + [ip_len, local0, local1, to0, to1]
            .into_iter()
            .map(u32::from)
            .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
