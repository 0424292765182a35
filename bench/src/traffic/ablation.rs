//! What of a TCP sender is switched on or off, as data: set in a namespace, read back from it, and printed with each row.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context, bail};
use dataplane_netns::{Host, RouteMetrics};
use ebpf_host::congestion::Dctcp;

/// TCP_RTO_MIN, include/net/tcp.h; RFC 6298 §2.4 wants a second.
pub const RTO_MIN_DEFAULT: Duration = Duration::from_millis(200);

const RTO_MIN: &str = "net/ipv4/tcp_rto_min_us";
const EARLY_RETRANSMIT: &str = "net/ipv4/tcp_early_retrans";
const RECOVERY: &str = "net/ipv4/tcp_recovery";
const SACK: &str = "net/ipv4/tcp_sack";
const DSACK: &str = "net/ipv4/tcp_dsack";
const ECN: &str = "net/ipv4/tcp_ecn";
const IDLE_RESTART: &str = "net/ipv4/tcp_slow_start_after_idle";
const REMEMBERS: &str = "net/ipv4/tcp_no_metrics_save";
/// The lists of controllers are the whole machine's; every namespace shows them.
const CONTROLLERS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Which congestion controller the sockets ask for, and where it comes from.
#[derive(Debug)]
pub struct Controller {
    /// What this lab calls it: "cubic", "reno", "bbr", "dctcp".
    pub word: String,
    name: String,
    /// Registered as long as this lives.
    program: Option<Dctcp>,
}

impl Controller {
    /// The kernel's own of that name, or for DCTCP, where the kernel has none, the one in BPF.
    ///
    /// # Errors
    /// There is none: what was seen, and what to try.
    pub fn open(word: &str) -> anyhow::Result<Controller> {
        let list = std::fs::read_to_string(CONTROLLERS).with_context(|| format!("reading {CONTROLLERS}"))?;
        if list.split_whitespace().any(|name| name == word) {
            return Ok(Controller {
                word: word.to_owned(),
                name: word.to_owned(),
                program: None,
            });
        }
        if word != "dctcp" {
            bail!(
                "this kernel has no congestion controller {word:?} (it has {}): modprobe tcp_{word}, where there are modules",
                list.trim()
            );
        }
        let program = Dctcp::load().context("this kernel has no dctcp, and DCTCP in BPF is not to be had")?;
        Ok(Controller {
            word: word.to_owned(),
            name: program.name().to_owned(),
            program: Some(program),
        })
    }

    /// What `TCP_CONGESTION` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose it is, in words.
    pub fn origin(&self) -> &'static str {
        match self.program {
            Some(_) => "BPF struct_ops (ebpf/cc/dctcp.bpf.c)",
            None => "the kernel's own",
        }
    }

    /// The program, if it is one.
    pub fn program(&self) -> Option<&Dctcp> {
        self.program.as_ref()
    }
}

/// Whether a namespace's connections ask for ECN (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// Never, and it is refused to those who ask. A controller that cannot do without, as DCTCP, asks all the same.
    Off,
    /// Always.
    On,
}

/// What of a modern TCP there is. The default is a stock Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ablation {
    /// The least retransmission timeout. The kernel rounds it to its own ticks.
    pub rto_min: Duration,
    /// Tail loss probes (RFC 8985 §7).
    pub tlp: bool,
    /// Losses found by time (RFC 8985 §6). Since Linux 6.17 the kernel knows no other way, and the setting does nothing.
    pub rack: bool,
    /// Selective acks (RFC 2018). Without them there are neither of the two above.
    pub sack: bool,
    /// Receivers delay acks.
    pub delayed_acks: bool,
    /// Segments before the first ack; the kernel's ten (RFC 6928) if it is not set.
    pub initial_window_segments: Option<u32>,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// The highest rate at which a sender paces; none, if it is not set.
    pub pacing_bytes_per_sec_max: Option<u64>,
}

impl Default for Ablation {
    fn default() -> Ablation {
        Ablation {
            rto_min: RTO_MIN_DEFAULT,
            tlp: true,
            rack: true,
            sack: true,
            delayed_acks: true,
            initial_window_segments: None,
            ecn: Ecn::Off,
            pacing_bytes_per_sec_max: None,
        }
    }
}

/// What a namespace said when it was asked afterwards: setting by setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied(pub BTreeMap<&'static str, String>);

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let gap = if index > 0 { ", " } else { "" };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}

impl Ablation {
    /// Sets all of it in `host`, for connections that are opened from now on, and says what the host then has.
    ///
    /// Not part of it are the controller and the pacing rate, which are the socket's ([`super::Flows::open`]).
    ///
    /// # Errors
    /// The kernel refused, or does not have what has to be switched: such a row would say something that it is not.
    pub fn apply(&self, host: &Host) -> anyhow::Result<Applied> {
        let word = |on: bool| if on { "1" } else { "0" }.to_owned();
        let settings = [
            (RTO_MIN, self.rto_min.as_micros().to_string()),
            // 3 is "tail loss probes" (Documentation/networking/ip-sysctl.rst).
            (EARLY_RETRANSMIT, if self.tlp { "3" } else { "0" }.to_owned()),
            (RECOVERY, word(self.rack)),
            (SACK, word(self.sack)),
            (DSACK, word(self.sack)),
            (ECN, word(self.ecn == Ecn::On)),
            // One connection's pause, or what an earlier one learned, is none of a later one's business.
            (IDLE_RESTART, word(false)),
            (REMEMBERS, word(true)),
        ];
        let mut applied = BTreeMap::new();
        for (path, wanted) in settings {
            let name = path.rsplit('/').next().unwrap_or(path);
            host.set_setting(path, &wanted)?;
            match host.setting(path)? {
                Some(seen) if seen == wanted => {
                    applied.insert(name, seen);
                }
                Some(seen) => bail!("{name} of {} is {seen} after it was set to {wanted}", host.name()),
                // Only since Linux 6.11; a kernel without it does what the default says.
                None if path == RTO_MIN && self.rto_min == RTO_MIN_DEFAULT => {
                    applied.insert(name, "200000 (this kernel has no such setting)".to_owned());
                }
                None => bail!("this kernel has no {name}, so {wanted} cannot be had: it needs a newer one"),
            }
        }
        let metrics = RouteMetrics {
            initial_window_segments: self.initial_window_segments,
            quick_acks: !self.delayed_acks,
        };
        host.set_route_metrics(metrics)?;
        let window = self.initial_window_segments;
        applied.insert(
            "initcwnd",
            window.map_or_else(|| "kernel's".to_owned(), |window| window.to_string()),
        );
        applied.insert("quickack", word(!self.delayed_acks));
        Ok(Applied(applied))
    }
}
