//! A rate and a bound for what leaves an interface: a token bucket filter (sch_tbf) with a first-in-first-out queue, over rtnetlink, and
//! what that queue counts. A veth has neither rate nor queue of its own.

use crate::wire::Wire;
use crate::{NetError, thread};
use futures_util::StreamExt;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2};
use std::time::Duration;

/// What Ethernet adds to a frame as an interface counts it: preamble, check sequence and gap (IEEE 802.3 clause 4.2).
const OVERHEAD_BYTES: u16 = 24;
/// So much may leave at once at least: two full frames. With one, each wake-up of the kernel that comes late is rate lost.
const BURST_BYTES_MIN: u64 = 2 * 1_538;
/// And what passes in so long, where that is more: as late as a wake-up usually is.
const BURST_TIME: Duration = Duration::from_micros(50);
/// The kernel's words for a rate and a limit have 32 bits.
const BYTES_PER_SEC_MAX: u64 = u32::MAX as u64;

// Source: include/uapi/linux/rtnetlink.h, include/uapi/linux/pkt_sched.h.
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;
const BUCKET: TcHandle = TcHandle { major: 1, minor: 0 };
/// The one class of a token bucket filter.
const BUCKET_CLASS: TcHandle = TcHandle { major: 1, minor: 1 };
const QUEUE: TcHandle = TcHandle { major: 2, minor: 0 };

/// How much may wait for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLimit {
    /// Frames of any size.
    Frames(u32),
    /// Bytes of frames, with their Ethernet headers.
    Bytes(u32),
}

/// What a line carries and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bits a second, with what Ethernet adds to each frame.
    pub bits_per_sec: u64,
    /// How much may wait.
    pub limit: QueueLimit,
}

/// What the kernel counted at a line since it was set up. Counts of frames have 32 bits and wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Frames that left.
    pub sent_count: u32,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that found no room.
    pub dropped_count: u32,
    /// How often something waited because the line was busy.
    pub over_limit_count: u32,
    /// Frames that wait now.
    pub waiting_count: u32,
}

/// The way out of an interface. The line stays when this is dropped: it goes with its interface.
pub struct Shaper {
    wire: Wire,
    index: i32,
    interface: String,
}

impl std::fmt::Debug for Shaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the way out of {}", self.interface)
    }
}

impl Shaper {
    /// Of `interface` of the network namespace in which the calling thread stands, which must not be one of a runtime's.
    ///
    /// # Errors
    /// There is no such interface; no netlink.
    pub fn open(interface: &str) -> Result<Shaper, NetError> {
        let wire = Wire::open_here("this namespace")?;
        let index = wire.link(interface)?.index as i32;
        Ok(Shaper {
            wire,
            index,
            interface: interface.to_owned(),
        })
    }

    /// Gives it that line, in the place of any that it had. What waited is lost.
    ///
    /// # Errors
    /// A rate that the kernel has no word for; a kernel without sch_tbf (ENOENT); what it says otherwise.
    pub fn set(&self, line: &Line) -> Result<(), NetError> {
        let bytes_per_sec = line.bits_per_sec / 8;
        if !(1..=BYTES_PER_SEC_MAX).contains(&bytes_per_sec) {
            return Err(NetError::Refused {
                option: "bits_per_sec",
                why: format!(
                    "{}; a line carries 8 to {} bit/s",
                    line.bits_per_sec,
                    8 * BYTES_PER_SEC_MAX
                ),
            });
        }
        self.remove()?;
        let mut bucket = self.message(TcHandle::ROOT, BUCKET, "tbf");
        let limit_bytes = match line.limit {
            QueueLimit::Bytes(bytes) => bytes,
            // Its queue is replaced.
            QueueLimit::Frames(_) => u32::MAX,
        };
        bucket.attributes.push(TcAttribute::Options(vec![
            TcOption::Other(DefaultNla::new(
                TCA_TBF_PARMS,
                parameters(bytes_per_sec as u32, limit_bytes),
            )),
            TcOption::Other(DefaultNla::new(
                TCA_TBF_BURST,
                burst_bytes(bytes_per_sec).to_ne_bytes().to_vec(),
            )),
        ]));
        self.create("giving a rate to", bucket)?;
        if let QueueLimit::Frames(frames) = line.limit {
            let mut queue = self.message(BUCKET_CLASS, QUEUE, "pfifo");
            // struct tc_fifo_qopt, which is not nested.
            let options = DefaultNla::new(TCA_OPTIONS, frames.to_ne_bytes().to_vec());
            queue.attributes.push(TcAttribute::Other(options));
            self.create("giving a queue of frames to", queue)?;
        }
        Ok(())
    }

    /// Takes the line away. No error if there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self) -> Result<(), NetError> {
        let mut message = TcMessage::with_index(self.index);
        message.header.parent = TcHandle::ROOT;
        message.header.handle = BUCKET;
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let removed = self.ask(
            "taking the rate from",
            RouteNetlinkMessage::DelQueueDiscipline(message),
            flags,
        );
        match removed {
            // EINVAL: there is another, with which the kernel began.
            Err(error) if is_missing(&error) || error.errno() == Some(Errno::EINVAL as i32) => Ok(()),
            other => other.map(drop),
        }
    }

    /// What it counted since [`Shaper::set`].
    ///
    /// # Errors
    /// There is no line; what the kernel says.
    pub fn counts(&self) -> Result<LineCounts, NetError> {
        const OPERATION: &str = "asking what was counted at";
        let message = TcMessage::with_index(self.index);
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let all = self.ask(OPERATION, RouteNetlinkMessage::GetQueueDiscipline(message), flags)?;
        let line = all.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message)
                if message.header.index == self.index && message.header.handle == BUCKET =>
            {
                Some(message)
            }
            _ => None,
        });
        let line = line.ok_or_else(|| NetError::Answer {
            operation: OPERATION,
            object: self.interface.clone(),
            what: "it has no rate of ours".to_owned(),
        })?;
        let mut counts = LineCounts::default();
        for attribute in line.attributes {
            let TcAttribute::Stats2(stats) = attribute else {
                continue;
            };
            for stat in stats {
                match stat {
                    TcStats2::Basic(basic) => {
                        (counts.sent_bytes, counts.sent_count) = (basic.bytes, basic.packets);
                    }
                    TcStats2::Queue(queue) => {
                        counts.dropped_count = queue.drops;
                        counts.over_limit_count = queue.overlimits;
                        counts.waiting_count = queue.qlen;
                    }
                    _ => {}
                }
            }
        }
        Ok(counts)
    }

    fn message(&self, parent: TcHandle, handle: TcHandle, kind: &str) -> TcMessage {
        let mut message = TcMessage::with_index(self.index);
        message.header.parent = parent;
        message.header.handle = handle;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        message
    }

    fn create(&self, operation: &'static str, message: TcMessage) -> Result<(), NetError> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(operation, RouteNetlinkMessage::NewQueueDiscipline(message), flags)
            .map(drop)
    }

    fn ask(
        &self,
        operation: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        let mut handle = self.wire.handle();
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        self.wire.ask(operation, &self.interface, async move {
            let mut answers = std::pin::pin!(handle.request(request)?);
            let mut all = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(rtnetlink::Error::NetlinkError(error));
                    }
                    NetlinkPayload::InnerMessage(message) => all.push(message),
                    _ => {}
                }
            }
            Ok(all)
        })
    }
}

/// Whether interfaces can be given a rate here; tried on the loopback interface of a namespace that is thrown away.
///
/// # Errors
/// What is missing, for a person.
pub fn can_shape() -> Result<(), String> {
    let tried = thread::run("dplab-shape", || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetError::kernel("trying a rate in", "a network namespace", errno))?;
        Shaper::open("lo")?.set(&Line {
            bits_per_sec: 1_000_000,
            limit: QueueLimit::Frames(10),
        })
    });
    match tried.and_then(|answer| answer) {
        Ok(()) => Ok(()),
        Err(error) if is_missing(&error) => Err(format!(
            "{error}: this kernel lacks sch_tbf or sch_fifo: try modprobe sch_tbf, or a kernel with CONFIG_NET_SCH_TBF"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this kernel has queueing disciplines of that kind ("netem", "fq"); tried on the loopback interface of a namespace that is
/// thrown away.
///
/// # Errors
/// Could not be asked: a missing privilege.
pub fn has_queue_kind(kind: &str) -> Result<bool, NetError> {
    thread::run("dplab-shape", || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetError::kernel("trying a queue in", "a network namespace", errno))?;
        let lo = Shaper::open("lo")?;
        match lo.create("trying a queue at", lo.message(TcHandle::ROOT, BUCKET, kind)) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            // A kind that wants options, and says so.
            Err(error) if error.errno() == Some(Errno::EINVAL as i32) => Ok(true),
            Err(error) => Err(error),
        }
    })?
}

/// ENOENT: the kernel knows no such kind of queue, or has none there.
fn is_missing(error: &NetError) -> bool {
    error.errno().map(Errno::from_raw) == Some(Errno::ENOENT)
}

/// `struct tc_tbf_qopt`: the rate, no peak rate, the limit; the burst comes by itself.
fn parameters(bytes_per_sec: u32, limit_bytes: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
    bytes.extend([0, TC_LINKLAYER_ETHERNET]);
    bytes.extend(OVERHEAD_BYTES.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(bytes_per_sec.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(limit_bytes.to_ne_bytes());
    // buffer and mtu, in ticks: not heeded beside a burst in bytes.
    bytes.extend([0; 8]);
    bytes
}

fn burst_bytes(bytes_per_sec: u64) -> u32 {
    let bytes = (bytes_per_sec as u128 * BURST_TIME.as_nanos() / 1_000_000_000) as u64;
    bytes.max(BURST_BYTES_MIN) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_laid_out_as_the_kernel_reads_them() {
        let bytes = parameters(2_500_000, 150_000);
        // sizeof(struct tc_tbf_qopt).
        assert_eq!(bytes.len(), 36);
        assert_eq!(bytes[1], 1);
        assert_eq!(bytes[2..4], 24_u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 2_500_000_u32.to_ne_bytes());
        assert_eq!(bytes[24..28], 150_000_u32.to_ne_bytes());
    }

    #[test]
    fn a_burst_is_two_frames_or_what_passes_while_the_kernel_wakes_up() {
        assert_eq!(burst_bytes(12_500_000), 3_076);
        assert_eq!(burst_bytes(1_250_000_000), 62_500);
    }
}
