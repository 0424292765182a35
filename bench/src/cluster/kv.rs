//! `dplab kv`: the store, from a shell. Prints plain values; the exit status says the rest.

use std::io::{self, Write};

use dataplane_quorum::client::Route;
use dataplane_wire::quorum::{KEY_BYTES_MAX, reply::refusal, request::Command};

use super::{
    args::{KvArgs, KvCommand},
    file::Cluster,
    members,
    session::{Answer, Failure, Session},
};

/// What the shell is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KvExit {
    /// Done; the value is on stdout.
    Done = 0,
    /// There is no such key, or it has another value; nothing was changed.
    Not = 1,
    /// The question is wrong, or was refused.
    Wrong = 2,
    /// No quorum answered in time.
    NoQuorum = 3,
}

/// How many entries one answer is asked for.
const PIECE_ENTRIES: u64 = 1000;

/// Does it, and prints what came of it.
///
/// # Errors
/// Nobody reads stdout.
pub fn kv(args: &KvArgs) -> io::Result<KvExit> {
    let mut out = Vec::new();
    let exit = match run(args, &mut out) {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("dplab: {failure}");
            match failure {
                Failure::Wrong(_) => KvExit::Wrong,
                Failure::NoQuorum(_) => KvExit::NoQuorum,
            }
        }
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()?;
    Ok(exit)
}

fn run(args: &KvArgs, out: &mut Vec<u8>) -> Result<KvExit, Failure> {
    let cluster = Cluster::read(&args.cluster)?;
    let mut session = Session::open(&cluster, args.key_file.as_deref(), args.timeout)?;
    let command = match &args.command {
        KvCommand::Put { key, value } => Command::Put {
            key: key.as_bytes(),
            value: value.as_bytes(),
        },
        KvCommand::Append { key, value } => Command::Append {
            key: key.as_bytes(),
            value: value.as_bytes(),
        },
        KvCommand::Cas { key, old, new } => Command::CompareAndSwap {
            key: key.as_bytes(),
            expected: old.as_bytes(),
            value: new.as_bytes(),
        },
        KvCommand::Delete { key } => Command::Delete { key: key.as_bytes() },
        KvCommand::Get { key, stale: None } => Command::Get { key: key.as_bytes() },
        KvCommand::Get { key, stale: Some(node) } => {
            let command = Command::StaleGet { key: key.as_bytes() };
            return print(session.ask(&command, Route::Node(*node))?, out);
        }
        KvCommand::Range { from, to, max, stale } => {
            let range = Range {
                from: from.as_bytes(),
                to: to.as_ref().map_or(&[][..], |to| to.as_bytes()),
                max: *max,
                stale: *stale,
            };
            return range.print(&mut session, out);
        }
        KvCommand::Members => return members::show(&mut session, out),
        KvCommand::AddNode(change) => return members::change(&mut session, change, true, out),
        KvCommand::RemoveNode(change) => return members::change(&mut session, change, false, out),
    };
    print(session.ask(&command, Route::Leader)?, out)
}

fn print(answer: Answer, out: &mut Vec<u8>) -> Result<KvExit, Failure> {
    Ok(match answer {
        Answer::Done => KvExit::Done,
        Answer::Value(value) => {
            out.extend(value);
            out.push(b'\n');
            KvExit::Done
        }
        Answer::Absent => {
            eprintln!("dplab: there is no such key");
            KvExit::Not
        }
        Answer::Mismatch(value) => {
            eprintln!("dplab: it has another value; nothing was changed");
            out.extend(value);
            out.push(b'\n');
            KvExit::Not
        }
        Answer::Refused(reason) => return Err(refused(reason)),
        Answer::Entries { .. } => return Err(Failure::Wrong(anyhow::anyhow!("a range came where none was asked for"))),
    })
}

/// Why the cluster will not do it, and what to try.
pub fn refused(reason: u8) -> Failure {
    let advice = match reason {
        refusal::TOO_LARGE => {
            "it is larger than this store allows: a value must fit a frame with its key (frame-bytes of the cluster file), and \
             all of them the store"
        }
        refusal::UNSOUND_MEMBERS => {
            "the new members' quorums do not intersect, or the leader's cluster file does not know the node: election + commit \
             must exceed the number of voters, twice the election quorum too; a node must stand in every replica's file"
        }
        refusal::NOT_OVERLAPPING => {
            "the new members' quorums do not meet the old ones': change one node at a time, and quorums in small steps"
        }
        refusal::CHANGE_UNDER_WAY => {
            "an earlier change of the members is not committed yet, or the leader is new: try again"
        }
        refusal::SHUTTING_DOWN => "the store is about to stop",
        refusal::MISPLACED => {
            "the replica took it for something else, which is a mistake of its program: please report it"
        }
        _ => "this dplab does not know why; is it older than the cluster's?",
    };
    Failure::Wrong(anyhow::anyhow!(
        "refused ({}), and nothing was changed: {advice}",
        refusal::name(reason)
    ))
}

struct Range<'a> {
    from: &'a [u8],
    to: &'a [u8],
    max: u64,
    stale: Option<u32>,
}

impl Range<'_> {
    /// Piece by piece: an answer is a frame. Each piece is current, all of them together are no snapshot.
    fn print(&self, session: &mut Session<'_>, out: &mut Vec<u8>) -> Result<KvExit, Failure> {
        let mut from = self.from.to_vec();
        let mut left_count = self.max;
        loop {
            let count_max = left_count.min(PIECE_ENTRIES) as u16;
            let (from_now, end) = (&from[..], self.to);
            let (command, route) = match self.stale {
                None => (
                    Command::Range {
                        from: from_now,
                        end,
                        count_max,
                    },
                    Route::Leader,
                ),
                Some(node) => (
                    Command::StaleRange {
                        from: from_now,
                        end,
                        count_max,
                    },
                    Route::Node(node),
                ),
            };
            let (entries, more) = match session.ask(&command, route)? {
                Answer::Entries { entries, more } => (entries, more),
                other => return print(other, out),
            };
            for (key, value) in &entries {
                escape(key, out);
                out.push(b'\t');
                escape(value, out);
                out.push(b'\n');
            }
            left_count -= (entries.len() as u64).min(left_count);
            let Some((last, _)) = entries.last().filter(|_| more && left_count > 0) else {
                return Ok(KvExit::Done);
            };
            // The next key that there can be.
            from.clone_from(last);
            match from.len() < KEY_BYTES_MAX {
                true => from.push(0),
                false => match successor(&mut from) {
                    true => {}
                    false => return Ok(KvExit::Done),
                },
            }
        }
    }
}

/// Of a key of the greatest length: the next one in order. `false` if there is none.
fn successor(key: &mut Vec<u8>) -> bool {
    while let Some(last) = key.pop() {
        if let Some(next) = last.checked_add(1) {
            key.push(next);
            return true;
        }
    }
    false
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'\\' => out.extend(b"\\\\"),
            0..=0x1f | 0x7f => out.extend(format!("\\x{byte:02x}").bytes()),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines() {
        let mut out = Vec::new();
        escape("a\tb\\c\nd\u{e9}".as_bytes(), &mut out);
        assert_eq!(out, "a\\x09b\\\\c\\x0ad\u{e9}".as_bytes());
    }

    #[test]
    fn the_next_of_the_longest_keys() {
        let mut key = vec![1, 0xff, 0xff];
        assert!(successor(&mut key));
        assert_eq!(key, [2]);
        assert!(!successor(&mut vec![0xff; 3]));
    }
}
