//! A fault as a line of text: what a failing test prints is what repeats it.
//!
//! ```text
//! 1200000000ps crash host=2 how=power lasts=30000000000ps
//! 1500000000ps block from=0,1 to=* lasts=forever
//! ```

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{Crash, Fault, HostId, HostSet, LinkFaults, ScheduledFault, SimTime};

/// A line that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}, in the fault {line:?}; a fault reads like \"1200ps crash host=2 how=power lasts=30000ps\"")]
pub struct ParseFaultError {
    /// What is wrong.
    pub why: String,
    /// The line.
    pub line: String,
}

impl fmt::Display for HostSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == HostSet::ALL {
            return f.write_str("*");
        }
        let hosts = (0..64).filter(|&host| self.contains(HostId(host)));
        let hosts: Vec<String> = hosts.map(|host| host.to_string()).collect();
        f.write_str(&hosts.join(","))
    }
}

impl fmt::Display for ScheduledFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Crash { host, crash, lasts } => {
                let how = match crash {
                    Crash::Process => "process",
                    Crash::Power => "power",
                };
                write!(f, "crash host={} how={how} lasts={lasts}", host.0)
            }
            Fault::Pause { host, lasts } => write!(f, "pause host={} lasts={lasts}", host.0),
            Fault::Partition { side, lasts } => write!(f, "partition side={side} lasts={lasts}"),
            Fault::Block { from, to, lasts } => write!(f, "block from={from} to={to} lasts={lasts}"),
            Fault::Degrade {
                from,
                to,
                faults,
                lasts,
            } => {
                let LinkFaults {
                    blocked,
                    loss_ratio,
                    duplicate_ratio,
                    corrupt_ratio,
                    reorder_ratio,
                    reorder,
                    slow,
                } = faults;
                write!(f, "degrade from={from} to={to} blocked={blocked} loss={loss_ratio} ")?;
                write!(f, "duplicate={duplicate_ratio} corrupt={corrupt_ratio} ")?;
                write!(f, "reorder={reorder_ratio} by={reorder} slow={slow} lasts={lasts}")
            }
            Fault::SlowDisk { host, slow, lasts } => write!(f, "slow-disk host={} slow={slow} lasts={lasts}", host.0),
            Fault::LyingDisk { host, lasts } => write!(f, "lying-disk host={} lasts={lasts}", host.0),
            Fault::FailWrite {
                host,
                after_count,
                lasts,
            } => {
                write!(f, "fail-write host={} after={after_count} lasts={lasts}", host.0)
            }
            Fault::FailSync {
                host,
                after_count,
                lasts,
            } => {
                write!(f, "fail-sync host={} after={after_count} lasts={lasts}", host.0)
            }
            Fault::Damage { host, pick } => write!(f, "damage host={} pick={pick}", host.0),
            Fault::Drift { host, drift_ppm, lasts } => {
                write!(f, "drift host={} ppm={drift_ppm} lasts={lasts}", host.0)
            }
            Fault::ClockJump { host, ahead_ns } => write!(f, "clock-jump host={} ahead_ns={ahead_ns}", host.0),
        }
    }
}

impl FromStr for ScheduledFault {
    type Err = ParseFaultError;

    fn from_str(line: &str) -> Result<ScheduledFault, ParseFaultError> {
        let parsed = parse(line);
        parsed.map_err(|why| ParseFaultError { why, line: line.into() })
    }
}

fn parse(line: &str) -> Result<ScheduledFault, String> {
    let mut words = line.split_whitespace();
    let at = time(words.next().unwrap_or_default())?;
    let name = words.next().ok_or("there is no name")?;
    let mut fields = Fields(BTreeMap::new());
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} has no \"=\""))?;
        if fields.0.insert(key, value).is_some() {
            return Err(format!("{key:?} stands twice"));
        }
    }
    let fault = match name {
        "crash" => Fault::Crash {
            host: fields.host()?,
            crash: match fields.take("how")? {
                "process" => Crash::Process,
                "power" => Crash::Power,
                other => return Err(format!("how={other:?} is neither process nor power")),
            },
            lasts: fields.time("lasts")?,
        },
        "pause" => Fault::Pause {
            host: fields.host()?,
            lasts: fields.time("lasts")?,
        },
        "partition" => Fault::Partition {
            side: fields.hosts("side")?,
            lasts: fields.time("lasts")?,
        },
        "block" => Fault::Block {
            from: fields.hosts("from")?,
            to: fields.hosts("to")?,
            lasts: fields.time("lasts")?,
        },
        "degrade" => Fault::Degrade {
            from: fields.hosts("from")?,
            to: fields.hosts("to")?,
            faults: LinkFaults {
                blocked: fields.value("blocked")?,
                loss_ratio: fields.ratio("loss")?,
                duplicate_ratio: fields.ratio("duplicate")?,
                corrupt_ratio: fields.ratio("corrupt")?,
                reorder_ratio: fields.ratio("reorder")?,
                reorder: fields.time("by")?,
                slow: fields.time("slow")?,
            },
            lasts: fields.time("lasts")?,
        },
        "slow-disk" => Fault::SlowDisk {
            host: fields.host()?,
            slow: fields.time("slow")?,
            lasts: fields.time("lasts")?,
        },
        "lying-disk" => Fault::LyingDisk {
            host: fields.host()?,
            lasts: fields.time("lasts")?,
        },
        "fail-write" => Fault::FailWrite {
            host: fields.host()?,
            after_count: fields.value("after")?,
            lasts: fields.time("lasts")?,
        },
        "fail-sync" => Fault::FailSync {
            host: fields.host()?,
            after_count: fields.value("after")?,
            lasts: fields.time("lasts")?,
        },
        "damage" => Fault::Damage {
            host: fields.host()?,
            pick: fields.value("pick")?,
        },
        "drift" => Fault::Drift {
            host: fields.host()?,
            drift_ppm: fields.drift_ppm()?,
            lasts: fields.time("lasts")?,
        },
        "clock-jump" => Fault::ClockJump {
            host: fields.host()?,
            ahead_ns: fields.value("ahead_ns")?,
        },
        other => return Err(format!("there is no fault {other:?}")),
    };
    match fields.0.pop_first() {
        Some((key, _)) => Err(format!("{name} has no {key:?}")),
        None => Ok(ScheduledFault { at, fault }),
    }
}

/// The words behind the name.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn take(&mut self, key: &str) -> Result<&'a str, String> {
        self.0.remove(key).ok_or_else(|| format!("{key:?} is missing"))
    }

    fn value<T: FromStr>(&mut self, key: &str) -> Result<T, String> {
        let value = self.take(key)?;
        value
            .parse()
            .map_err(|_| format!("{key}={value:?} is not what stands there"))
    }

    fn host(&mut self) -> Result<HostId, String> {
        self.value("host").map(HostId)
    }

    fn time(&mut self, key: &str) -> Result<SimTime, String> {
        time(self.take(key)?)
    }

    fn ratio(&mut self, key: &str) -> Result<f64, String> {
        let ratio: f64 = self.value(key)?;
        match (0.0..=1.0).contains(&ratio) {
            true => Ok(ratio),
            false => Err(format!("{key}={ratio} is not a ratio from 0 to 1")),
        }
    }

    fn drift_ppm(&mut self) -> Result<i32, String> {
        let drift_ppm: i32 = self.value("ppm")?;
        match drift_ppm.unsigned_abs() <= crate::DRIFT_PPM_MAX.unsigned_abs() {
            true => Ok(drift_ppm),
            false => Err(format!("ppm={drift_ppm} is beyond {} either way", crate::DRIFT_PPM_MAX)),
        }
    }

    fn hosts(&mut self, key: &str) -> Result<HostSet, String> {
        let value = self.take(key)?;
        let host = |word: &str| match word.parse() {
            Ok(host) if host < 64 => Ok(HostId(host)),
            _ => Err(format!("{word:?} in {key}={value:?} is no host from 0 to 63")),
        };
        match value {
            "*" => Ok(HostSet::ALL),
            "" => Ok(HostSet::default()),
            _ => value
                .split(',')
                .map(host)
                .collect::<Result<Vec<_>, _>>()
                .map(HostSet::of),
        }
    }
}

fn time(word: &str) -> Result<SimTime, String> {
    if word == "forever" {
        return Ok(SimTime::FOREVER);
    }
    let ps = word.strip_suffix("ps").and_then(|ps| ps.parse().ok());
    ps.map(SimTime::from_ps)
        .ok_or_else(|| format!("{word:?} is no time such as 1200ps"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{FaultBounds, generate};

    #[test]
    fn what_is_printed_is_read_back() {
        let bounds = FaultBounds::everything(5, SimTime::from_ms(1000));
        let mut names = std::collections::BTreeSet::new();
        for seed in 0..200 {
            for fault in generate(seed, &bounds) {
                let line = fault.to_string();
                names.insert(line.split(' ').nth(1).map(String::from));
                assert_eq!(line.parse(), Ok(fault), "{line}");
            }
        }
        assert_eq!(names.len(), 12, "every kind of fault was drawn: {names:?}");
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (line, reason) in [
            ("", "no time"),
            ("12 crash", "no time"),
            ("12ps", "no name"),
            ("12ps melt host=1", "no fault \"melt\""),
            ("12ps pause host=1", "\"lasts\" is missing"),
            ("12ps pause host=x lasts=1ps", "host=\"x\""),
            ("12ps pause host=1 lasts=1ps mood=bad", "no \"mood\""),
            ("12ps pause host=1 host=1 lasts=1ps", "twice"),
            ("12ps block from=0,64 to=* lasts=1ps", "\"64\""),
            ("12ps drift host=1 ppm=-2147483648 lasts=1ps", "beyond"),
        ] {
            let error = line.parse::<ScheduledFault>().expect_err(line).to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
