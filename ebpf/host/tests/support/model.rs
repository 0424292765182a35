//! What each program should do, written from `ebpf-abi`'s description and the RFCs, slowly and without looking at the programs:
//! parse with slices, sum byte by byte, make every checksum anew.

use dataplane_wire::checksum::crc32c_const;
use ebpf_abi::summed;
use ebpf_host::{Count, Program, Settings, Verdict};

/// What should become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub verdict: Verdict,
    /// `None` for `pass`, which counts nothing.
    pub count: Option<Count>,
    /// The frame afterwards.
    pub data: Vec<u8>,
}

/// What the model has to be told beside the frame.
pub struct Situation {
    /// Whether the program has a socket for the queue.
    pub has_socket: bool,
    /// Bytes in the frame's first buffer.
    pub linear_bytes: usize,
    /// What `stamp` will have read from the clock, in nanoseconds.
    pub stamp_ns: u64,
}

/// Bytes behind the frame header that a trailer needs: the echo payload's own four and eight stamps.
const STAMPED_PAYLOAD_BYTES_MIN: usize = 4 + 64;

/// One of our frames inside an Ethernet frame.
struct Ours {
    /// Where the addresses of the IP header are, and how long one is.
    addresses_at: usize,
    address_bytes: usize,
    /// Where the UDP header is; behind it come our header and the payload.
    udp_at: usize,
    /// UDP header included.
    udp_bytes: usize,
}

impl Ours {
    fn frame_at(&self) -> usize {
        self.udp_at + 8
    }
    fn payload_at(&self) -> usize {
        self.udp_at + 48
    }
    fn end(&self) -> usize {
        self.udp_at + self.udp_bytes
    }
}

pub fn expect(program: Program, settings: &Settings, situation: &Situation, frame: &[u8]) -> Expected {
    let mut data = frame.to_vec();
    if matches!(program, Program::Pass | Program::Lossy) {
        return Expected {
            verdict: Verdict::Pass,
            count: None,
            data,
        };
    }
    // A hub without ports.
    if program == Program::Hub {
        return Expected {
            verdict: Verdict::Pass,
            count: Some(Count::Stranger),
            data,
        };
    }
    // It looks into no frame.
    if program == Program::TakeAll {
        let (verdict, count) = match situation.has_socket {
            true => (Verdict::Redirect, Count::Taken),
            false => (Verdict::Pass, Count::NoSocket),
        };
        return Expected {
            verdict,
            count: Some(count),
            data,
        };
    }
    let outcome = find(program, settings, frame).and_then(|ours| act(program, settings, situation, &ours, &mut data));
    match outcome {
        Ok(verdict) => Expected {
            verdict,
            count: Some(Count::Taken),
            data,
        },
        Err(reason) => Expected {
            verdict: Verdict::Pass,
            count: Some(reason),
            data: frame.to_vec(),
        },
    }
}

fn find(program: Program, settings: &Settings, frame: &[u8]) -> Result<Ours, Count> {
    const TAGS: [u16; 2] = [0x8100, 0x88a8];
    let mut type_at = 12;
    let mut ether_type = be16(frame, type_at).ok_or(Count::NotIp)?;
    for _ in 0..2 {
        if TAGS.contains(&ether_type) {
            type_at += 4;
            ether_type = be16(frame, type_at).ok_or(Count::NotIp)?;
        }
    }
    let ip_at = type_at + 2;
    let (ours, is_my_ip) = match ether_type {
        0x0800 => {
            let ip = frame.get(ip_at..ip_at + 20).ok_or(Count::NotIp)?;
            if ip[0] >> 4 != 4 {
                return Err(Count::NotIp);
            }
            if ip[0] & 15 != 5 {
                return Err(Count::IpOptions);
            }
            if ip[9] != 17 {
                return Err(Count::NotUdp);
            }
            if ip[6] & 0x3f != 0 || ip[7] != 0 {
                return Err(Count::Fragment);
            }
            let total = usize::from(be16(ip, 2).expect("20 bytes"));
            let ours = Ours {
                addresses_at: ip_at + 12,
                address_bytes: 4,
                udp_at: ip_at + 20,
                // A total below the header's own length agrees with no UDP length.
                udp_bytes: total.checked_sub(20).unwrap_or(usize::MAX),
            };
            let is_my_ip = settings.local_ipv4.is_some_and(|local| local.octets() == ip[16..20]);
            (ours, is_my_ip)
        }
        0x86dd => {
            let ip = frame.get(ip_at..ip_at + 40).ok_or(Count::NotIp)?;
            if ip[0] >> 4 != 6 {
                return Err(Count::NotIp);
            }
            if ip[6] != 17 {
                return Err(Count::NotUdp);
            }
            let ours = Ours {
                addresses_at: ip_at + 8,
                address_bytes: 16,
                udp_at: ip_at + 40,
                udp_bytes: usize::from(be16(ip, 4).expect("40 bytes")),
            };
            let is_my_ip = settings.local_ipv6.is_some_and(|local| local.octets() == ip[24..40]);
            (ours, is_my_ip)
        }
        _ => return Err(Count::NotIp),
    };
    let udp = frame.get(ours.udp_at..ours.udp_at + 8).ok_or(Count::Length)?;
    if be16(udp, 2) != Some(settings.local_port) {
        return Err(Count::OtherPort);
    }
    if !is_my_ip || frame[..6] != settings.local_mac.0 {
        return Err(Count::Stranger);
    }
    let udp_len = usize::from(be16(udp, 4).expect("8 bytes"));
    if program == Program::SteerPort {
        let is_whole = udp_len == ours.udp_bytes && udp_len >= 8 && ours.end() <= frame.len();
        return if is_whole { Ok(ours) } else { Err(Count::Length) };
    }
    let head = frame.get(ours.frame_at()..ours.frame_at() + 40).ok_or(Count::NotOurs)?;
    if head[..4] != *b"DPL1" || head[4] != 1 {
        return Err(Count::NotOurs);
    }
    if head[5] >= 32 || settings.kinds >> head[5] & 1 == 0 {
        return Err(Count::OtherKind);
    }
    let announced = 8 + 40 + usize::from(be16(head, 6).expect("40 bytes"));
    if udp_len != announced || ours.udp_bytes != announced || ours.end() > frame.len() {
        return Err(Count::Length);
    }
    Ok(ours)
}

fn act(
    program: Program,
    settings: &Settings,
    situation: &Situation,
    ours: &Ours,
    data: &mut [u8],
) -> Result<Verdict, Count> {
    match program {
        Program::Pass | Program::Lossy | Program::Hub | Program::TakeAll => unreachable!("it looks into no frame"),
        Program::CountDrop => Ok(Verdict::Drop),
        Program::Steer | Program::SteerPort if situation.has_socket => Ok(Verdict::Redirect),
        Program::Steer | Program::SteerPort => Err(Count::NoSocket),
        Program::Echo => echo(settings, ours, data),
        Program::Stamp => stamp(settings, situation, ours, data),
        Program::QuorumLeader | Program::QuorumFollower => Err(without_grant(program, ours, data)),
    }
}

/// Why a program of the quorum passes a frame while nobody has told it to take any; `tests/quorum` has the other half.
fn without_grant(program: Program, ours: &Ours, data: &[u8]) -> Count {
    let head = &data[ours.frame_at()..ours.payload_at()];
    let payload_bytes = ours.end() - ours.payload_at();
    if ours.address_bytes == 16 || payload_bytes > ebpf_abi::quorum::ENTRY_BYTES_MAX {
        return Count::Unfit;
    }
    let is_whole = crc32c_const(&head[..36]).to_be_bytes() == head[36..];
    match is_whole && program == Program::QuorumLeader && head[5] == 3 && payload_bytes < 24 {
        true => Count::Unfit,
        false => Count::OtherKind,
    }
}

fn echo(settings: &Settings, ours: &Ours, data: &mut [u8]) -> Result<Verdict, Count> {
    if data[ours.frame_at() + 5] != 1 {
        return Err(Count::OtherKind);
    }
    let checksum = Checksum::of(settings, ours, data)?;
    exchange(data, 0, 6, 6);
    exchange(
        data,
        ours.addresses_at,
        ours.addresses_at + ours.address_bytes,
        ours.address_bytes,
    );
    exchange(data, ours.udp_at, ours.udp_at + 2, 2);
    edit_frame(ours, data, |data| data[ours.frame_at() + 5] = 2);
    match checksum.field {
        // The reply goes out by a device that makes no checksum: it is made whole.
        Field::Partial => put_checksum(ours, data, whole(ours, data)),
        Field::Nothing | Field::Checksum => checksum.carry_over(ours, data),
    }
    Ok(Verdict::Tx)
}

fn stamp(settings: &Settings, situation: &Situation, ours: &Ours, data: &mut [u8]) -> Result<Verdict, Count> {
    let payload_bytes = ours.end() - ours.payload_at();
    if payload_bytes < STAMPED_PAYLOAD_BYTES_MIN {
        return Err(Count::Unfit);
    }
    let at = stamp_at(settings, ours.end());
    if at + 8 > situation.linear_bytes {
        return Err(Count::Unfit);
    }
    let checksum = Checksum::of(settings, ours, data)?;
    edit_frame(ours, data, |data| {
        data[at..at + 8].copy_from_slice(&situation.stamp_ns.to_be_bytes())
    });
    // A checksum that is left to a device stays left to it: the frame goes up the stack with the note that says so.
    if checksum.field == Field::Checksum {
        checksum.carry_over(ours, data);
    }
    Ok(Verdict::Pass)
}

/// What `stamp` wrote into `answer`, its version of `frame`; 0 if it wrote nothing.
pub fn stamp_ns(settings: &Settings, frame: &[u8], answer: &[u8]) -> u64 {
    let stamp = find(Program::Stamp, settings, frame).ok().and_then(|ours| {
        let at = stamp_at(settings, ours.end());
        answer.get(at..at + 8)
    });
    stamp.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
}

fn stamp_at(settings: &Settings, end: usize) -> usize {
    end - 64 + settings.stamp_index as usize % 8 * 8
}

/// What the UDP checksum field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// Zero over IPv4.
    Nothing,
    /// The pseudo-header's sum alone (CHECKSUM_PARTIAL).
    Partial,
    Checksum,
}

/// The numbers that one's-complement sums of 16-bit words tell apart (RFC 1071): 0 and 65,535 are the same.
const MODULUS: u64 = 65_535;

/// The UDP checksum before a change, and what it was over.
struct Checksum {
    field: Field,
    value: u64,
    sum: u64,
}

impl Checksum {
    fn of(settings: &Settings, ours: &Ours, data: &[u8]) -> Result<Checksum, Count> {
        let value = be16(data, ours.udp_at + 6).expect("the UDP header is there").into();
        let pseudo = pseudo_header(ours, data);
        // No pseudo-header is all zeros, so its sum is 1 to 65,535.
        let looks_partial = value == (pseudo - 1) % MODULUS + 1;
        let summed_bytes_max = match settings.frags {
            true => summed::FRAGS_BYTES_MAX,
            false => summed::ONE_BUFFER_BYTES_MAX,
        };
        let field = if value == 0 && ours.address_bytes == 4 {
            Field::Nothing
        } else if !looks_partial {
            Field::Checksum
        } else if ours.udp_bytes > summed_bytes_max {
            return Err(Count::Unfit);
        } else if value == whole(ours, data) {
            Field::Checksum
        } else {
            Field::Partial
        };
        Ok(Checksum {
            field,
            value,
            sum: pseudo + datagram_sum(ours, data),
        })
    }

    /// The checksum of what stands there now is as right or as wrong as it was before.
    fn carry_over(&self, ours: &Ours, data: &mut [u8]) {
        if self.field != Field::Nothing {
            let now = pseudo_header(ours, data) + datagram_sum(ours, data);
            let grown = (now % MODULUS + MODULUS - self.sum % MODULUS) % MODULUS;
            put_checksum(ours, data, self.value + MODULUS - grown);
        }
    }
}

fn put_checksum(ours: &Ours, data: &mut [u8], value: u64) {
    let value = not_zero(value) as u16;
    data[ours.udp_at + 6..ours.udp_at + 8].copy_from_slice(&value.to_be_bytes());
}

/// A checksum as it is written, 1 to 65,535: zero would say that there is none.
fn not_zero(value: u64) -> u64 {
    match value % MODULUS {
        0 => MODULUS,
        value => value,
    }
}

/// The right checksum of what stands there.
fn whole(ours: &Ours, data: &[u8]) -> u64 {
    not_zero(MODULUS - (pseudo_header(ours, data) + datagram_sum(ours, data)) % MODULUS)
}

fn pseudo_header(ours: &Ours, data: &[u8]) -> u64 {
    let addresses = &data[ours.addresses_at..ours.addresses_at + 2 * ours.address_bytes];
    words(addresses) + 17 + ours.udp_bytes as u64
}

/// Without the checksum field.
fn datagram_sum(ours: &Ours, data: &[u8]) -> u64 {
    words(&data[ours.udp_at..ours.udp_at + 6]) + words(&data[ours.frame_at()..ours.end()])
}

fn words(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    for word in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    }
    sum
}

/// Changes something in our frame, whose two checksums are afterwards as right or as wrong as before.
fn edit_frame(ours: &Ours, data: &mut [u8], edit: impl FnOnce(&mut [u8])) {
    let (head, payload) = (ours.frame_at()..ours.frame_at() + 36, ours.payload_at()..ours.end());
    let crcs = |data: &[u8]| [crc32c_const(&data[head.clone()]), crc32c_const(&data[payload.clone()])];
    let field = |data: &[u8], at: usize| u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"));
    let (payload_crc_at, head_crc_at) = (ours.frame_at() + 32, ours.frame_at() + 36);
    let payload_fault = crcs(data)[1] ^ field(data, payload_crc_at);
    let head_fault = crcs(data)[0] ^ field(data, head_crc_at);
    edit(data);
    let payload_crc = crcs(data)[1] ^ payload_fault;
    data[payload_crc_at..payload_crc_at + 4].copy_from_slice(&payload_crc.to_be_bytes());
    let head_crc = crcs(data)[0] ^ head_fault;
    data[head_crc_at..head_crc_at + 4].copy_from_slice(&head_crc.to_be_bytes());
}

fn exchange(data: &mut [u8], one: usize, other: usize, len_bytes: usize) {
    for index in 0..len_bytes {
        data.swap(one + index, other + index);
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([word[0], word[1]]))
}
