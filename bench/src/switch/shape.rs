//! What the network around an emulated switch is like, in its own time.

use anyhow::{Context, bail};
use dataplane_queue::{Discipline, DropTailOptions, ETHERNET_OVERHEAD_BYTES, Limit, Marking, Sharing, SimTime};
use dataplane_softswitch::{Faults, HostLink, SwitchOptions};

use super::{Dilation, Kind};

/// N senders and a receiver at one switch. Rates and delays are those of the network; what is built is slower by
/// [`Shape::dilation`].
///
/// ```text
///   sender 0 ─ card ─ line ─▶┐
///   sender 1 ─ card ─ line ─▶├ switch ─ port ─ bottleneck ─▶ receiver
///        …                   ┘          queue, marks, faults
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Every sender's own line, both ways; its card is a serializer of that rate.
    pub sender_bits_per_sec: u64,
    /// The receiver's line, both ways: the bottleneck.
    pub receiver_bits_per_sec: u64,
    /// Of each way of each cable: a round trip takes it four times.
    pub delay: SimTime,
    /// The switch's port to the receiver. Ports to senders hold whatever comes.
    pub port: Discipline,
    /// How the ports share the switch's memory.
    pub sharing: Sharing,
    /// What chance does to frames on the cable to the receiver.
    pub faults: Faults,
    /// All chance follows from it.
    pub seed: u64,
    /// How many times slower the network is built.
    pub dilation: Dilation,
    /// How many events of queues are kept.
    pub log_events_max: usize,
}

impl Shape {
    /// All lines of `bits_per_sec`, no propagation delay, a drop-tail port of `limit`, which marks what finds more than `marks_above` waiting.
    pub fn new(bits_per_sec: u64, limit: Limit, marks_above: Option<Limit>) -> Shape {
        Shape {
            sender_bits_per_sec: bits_per_sec,
            receiver_bits_per_sec: bits_per_sec,
            delay: SimTime::ZERO,
            port: Discipline::DropTail(DropTailOptions {
                limit,
                marking: marks_above.map_or(Marking::Never, Marking::AtEnqueue),
            }),
            sharing: Sharing::Static,
            faults: Faults::default(),
            seed: 1,
            dilation: Dilation::NONE,
            log_events_max: 0,
        }
    }

    /// In one sentence, for records and reports: who emulates the switch, its ports, their rates.
    pub(super) fn describe(&self, kind: Kind, senders_count: usize) -> String {
        let [sender, receiver] = [self.sender_bits_per_sec, self.receiver_bits_per_sec].map(rate_text);
        let slower = match self.dilation {
            Dilation::NONE => String::new(),
            dilation => format!(", built {} times slower", dilation.factor()),
        };
        format!(
            "{} hosts in network namespaces of this machine at a {kind} switch ({}), {senders_count} ports of {sender} and one of {receiver}{slower}",
            senders_count + 1,
            kind.by()
        )
    }

    /// What the bottleneck carries as it is built, in bits a second, with all that Ethernet adds.
    pub fn built_bits_per_sec(&self) -> u64 {
        self.dilation.built_rate(self.receiver_bits_per_sec)
    }

    /// How long a full frame takes on the bottleneck as it is built, in nanoseconds.
    pub fn built_packet_ns(&self) -> u64 {
        const FULL_FRAME_BYTES: u64 = 1514;
        let bits = 8 * (FULL_FRAME_BYTES + u64::from(ETHERNET_OVERHEAD_BYTES));
        bits * 1_000_000_000 / self.built_bits_per_sec().max(1)
    }

    /// By how much all senders together overrun the bottleneck, if each fills its line.
    pub fn overrun_ratio(&self, senders_count: usize) -> f64 {
        senders_count as f64 * self.sender_bits_per_sec as f64 / self.receiver_bits_per_sec.max(1) as f64
    }

    /// The switch in user space of that shape: a port for each sender, then the receiver's.
    pub(super) fn soft(&self, senders_count: usize) -> anyhow::Result<SwitchOptions> {
        self.check(senders_count)?;
        let delay = self.dilation.built_delay(self.delay);
        let line = |bits_per_sec| HostLink::new(self.dilation.built_rate(bits_per_sec), delay, Limit::NONE);
        let mut links = vec![line(self.sender_bits_per_sec); senders_count];
        links.push(HostLink {
            discipline: self.port,
            faults: Faults {
                late_by: self.dilation.built_delay(self.faults.late_by),
                ..self.faults
            },
            ..line(self.receiver_bits_per_sec)
        });
        Ok(SwitchOptions {
            links,
            sharing: self.sharing,
            overhead_bytes: ETHERNET_OVERHEAD_BYTES,
            seed: self.seed,
            log_events_max: self.log_events_max,
        })
    }

    pub(super) fn check(&self, senders_count: usize) -> anyhow::Result<()> {
        let senders_max = dataplane_netns::HOSTS_COUNT_MAX - 1;
        if !(1..=senders_max).contains(&senders_count) {
            bail!("{senders_count} senders: a switch has 1 to {senders_max}, and a receiver");
        }
        let bits_per_sec = self.sender_bits_per_sec.min(self.receiver_bits_per_sec);
        let factor = u64::from(self.dilation.factor());
        if bits_per_sec < factor {
            bail!("a line of {bits_per_sec} bit/s, {factor} times slower, carries nothing: give it more");
        }
        let has_clock = matches!(
            self.port,
            Discipline::CoDel(_) | Discipline::FqCoDel(_) | Discipline::Red(_)
        );
        if has_clock && self.dilation != Dilation::NONE {
            bail!("CoDel and RED have times of their own, which a time dilation of {factor} does not reach: use none");
        }
        Ok(())
    }

    /// The port's limit and threshold, where it is drop-tail.
    ///
    /// # Errors
    /// It is something else.
    pub fn drop_tail(&self) -> anyhow::Result<DropTailOptions> {
        let Discipline::DropTail(options) = self.port else {
            return None.with_context(|| format!("{:?} is no drop-tail port", self.port));
        };
        Ok(options)
    }
}

/// `100 Mbit/s`.
pub(crate) fn rate_text(bits_per_sec: u64) -> String {
    for (unit, name) in [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")] {
        if bits_per_sec >= unit {
            return format!("{} {name}", bits_per_sec as f64 / unit as f64);
        }
    }
    format!("{bits_per_sec} bit/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dilated_shape_is_slower_and_its_cables_longer() {
        let shape = Shape {
            delay: SimTime::from_us(25),
            dilation: Dilation::new(10).unwrap(),
            ..Shape::new(1_000_000_000, Limit::Packets(100), Some(Limit::Packets(20)))
        };
        let options = shape.soft(3).unwrap();
        assert_eq!(options.links.len(), 4);
        for link in &options.links {
            assert_eq!((link.bits_per_sec, link.delay), (100_000_000, SimTime::from_us(250)));
        }
        assert_eq!(options.links[3].discipline, shape.port);
        // 1538 bytes at 100 Mbit/s.
        assert_eq!(shape.built_packet_ns(), 123_040);
        assert_eq!(shape.overrun_ratio(3), 3.0);
    }

    #[test]
    fn a_report_names_the_switch_its_ports_and_their_rates() {
        let shape = Shape {
            dilation: Dilation::new(10).unwrap(),
            ..Shape::new(1_500_000_000, Limit::Packets(100), None)
        };
        let told = shape.describe(Kind::Kernel, 3);
        for part in [
            "4 hosts",
            "kernel switch",
            "3 ports of 1.5 Gbit/s and one of 1.5 Gbit/s",
            "10 times slower",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(rate_text(999), "999 bit/s");
        assert_eq!(rate_text(20_000_000), "20 Mbit/s");
    }

    #[test]
    fn what_no_switch_is_is_refused() {
        let shape = Shape::new(1_000, Limit::Packets(100), None);
        for (senders_count, shape, part) in [
            (0, shape, "0 senders"),
            (72, shape, "72 senders"),
            (
                2,
                Shape {
                    receiver_bits_per_sec: 5,
                    dilation: Dilation::new(10).unwrap(),
                    ..shape
                },
                "carries nothing",
            ),
        ] {
            let error = shape.soft(senders_count).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
