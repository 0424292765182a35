//! What a test tells the disk's process: a line each, answered by lines and at last by `ok` or `error: …`. A person may type
//! them, too.

use std::{fmt, str::FromStr};

use crate::medium::{Fault, IoKind};

/// Which of the two disks: the one that is worked on, or the one that receives images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The disk that is worked on.
    Disk,
    /// What a power loss left of it.
    Image,
}

impl Side {
    /// Both.
    pub const ALL: [Side; 2] = [Side::Disk, Side::Image];

    /// The name of its file, and of the folder where its file system is mounted.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Disk => "disk",
            Side::Image => "image",
        }
    }
}

/// What a fault counts.
pub type FaultOn = Option<IoKind>;

/// A line to the disk's process. All but `Cut` are about the disk that is worked on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    /// What is there is on the medium; the stream begins anew.
    Record,
    /// How many writes and flushes there have been.
    Count,
    /// The stream, an event a line.
    Events,
    /// An I/O fails.
    Fail(Fault),
    /// None fails, flushes are honoured, nothing waits.
    Heal,
    /// How many I/Os the fault has counted, and how many failed.
    Faults,
    /// Flushes are answered and not done.
    IgnoreFlushes,
    /// Every I/O takes so long, in milliseconds.
    Delay(u64),
    /// Remembers what is there.
    Save,
    /// Puts it back.
    Restore,
    /// Makes the other disk what a power loss after so many events leaves.
    Cut {
        /// After how many events.
        events_count: usize,
        /// Which sectors in doubt are kept.
        seed: u64,
        /// How probably each is, in percent.
        keep_percent: u8,
    },
}

fn kind_name(kind: FaultOn) -> &'static str {
    match kind {
        None => "any",
        Some(IoKind::Read) => "read",
        Some(IoKind::Write) => "write",
        Some(IoKind::Flush) => "flush",
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Record => f.write_str("record"),
            Command::Count => f.write_str("count"),
            Command::Events => f.write_str("events"),
            Command::Fail(fault) => write!(
                f,
                "fail {} {} {} {}",
                kind_name(fault.kind),
                fault.at_index,
                fault.errno,
                if fault.lasts { "lasting" } else { "once" }
            ),
            Command::Heal => f.write_str("heal"),
            Command::Faults => f.write_str("faults"),
            Command::IgnoreFlushes => f.write_str("ignore-flushes"),
            Command::Delay(delay_ms) => write!(f, "delay {delay_ms}"),
            Command::Save => f.write_str("save"),
            Command::Restore => f.write_str("restore"),
            Command::Cut {
                events_count,
                seed,
                keep_percent,
            } => write!(f, "cut {events_count} {seed} {keep_percent}"),
        }
    }
}

/// What the process understands, for whoever types.
pub const USAGE: &str = "record | count | events | fail any|read|write|flush INDEX ERRNO once|lasting | heal | faults | \
                         ignore-flushes | delay MS | save | restore | cut EVENTS SEED KEEP_PERCENT";

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Command, String> {
        fn number<T: FromStr>(word: &str) -> Result<T, String> {
            word.parse()
                .map_err(|_| format!("'{word}' is not a number that fits here"))
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["record"] => Ok(Command::Record),
            ["count"] => Ok(Command::Count),
            ["events"] => Ok(Command::Events),
            ["fail", kind, at_index, errno, how] => {
                let kinds = [None, Some(IoKind::Read), Some(IoKind::Write), Some(IoKind::Flush)];
                let kind = kinds.into_iter().find(|&known| kind_name(known) == kind);
                Ok(Command::Fail(Fault {
                    kind: kind.ok_or("what fails is any, read, write or flush")?,
                    at_index: number(at_index)?,
                    errno: number(errno)?,
                    lasts: match how {
                        "once" => false,
                        "lasting" => true,
                        _ => return Err("a fault is there once, or lasting".into()),
                    },
                }))
            }
            ["heal"] => Ok(Command::Heal),
            ["faults"] => Ok(Command::Faults),
            ["ignore-flushes"] => Ok(Command::IgnoreFlushes),
            ["delay", delay_ms] => Ok(Command::Delay(number(delay_ms)?)),
            ["save"] => Ok(Command::Save),
            ["restore"] => Ok(Command::Restore),
            ["cut", events_count, seed, keep_percent] => {
                let keep_percent: u8 = number(keep_percent)?;
                if keep_percent > 100 {
                    return Err(format!("{keep_percent} percent are too many"));
                }
                Ok(Command::Cut {
                    events_count: number(events_count)?,
                    seed: number(seed)?,
                    keep_percent,
                })
            }
            _ => Err(format!("'{line}' is no command; there are: {USAGE}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let fault = |kind, lasts| {
            Command::Fail(Fault {
                kind,
                at_index: 3,
                errno: 5,
                lasts,
            })
        };
        let all = [
            Command::Record,
            Command::Count,
            Command::Events,
            fault(None, true),
            fault(Some(IoKind::Read), false),
            fault(Some(IoKind::Write), false),
            fault(Some(IoKind::Flush), true),
            Command::Heal,
            Command::Faults,
            Command::IgnoreFlushes,
            Command::Delay(20),
            Command::Save,
            Command::Restore,
            Command::Cut {
                events_count: 9,
                seed: u64::MAX,
                keep_percent: 100,
            },
        ];
        for command in all {
            assert_eq!(command.to_string().parse(), Ok(command));
        }
        for wrong in [
            "",
            "fail disk 1 5 once",
            "fail any x 5 once",
            "fail any 1 5",
            "cut 1 2 101",
            "stop",
        ] {
            assert!(wrong.parse::<Command>().is_err(), "{wrong}");
        }
    }
}
