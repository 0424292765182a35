//! What a process did to the files of one folder, in order: strace(1)'s output, read back.
//!
//! Seen: opening, writing, flushing, lengths, names. Not seen: what is written through a shared mapping or an io_uring;
//! whoever uses those for its records cannot be recorded this way, and [`parse`] says so where it can.

use std::{
    collections::HashMap,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

/// The system calls that are recorded.
pub const CALLS: &str = "openat,open,creat,close,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,msync,mmap,\
                         ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,lseek,\
                         read,fcntl,dup,copy_file_range,sendfile";

/// Something that happened. Paths are relative to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create(PathBuf),
    Folder(PathBuf),
    Write {
        file: PathBuf,
        at_bytes: u64,
        bytes: Vec<u8>,
    },
    /// At least so long, or exactly.
    Length {
        file: PathBuf,
        len_bytes: u64,
        exact: bool,
    },
    /// What the first `ops_count` operations wrote to it is on disk.
    Sync {
        file: PathBuf,
        ops_count: usize,
    },
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// The process has told somebody that record `.0` is safe.
    Acknowledged(u64),
}

/// An open file: several descriptors share its position.
#[derive(Debug, Default)]
struct Open {
    position_bytes: u64,
    appends: bool,
    syncs: bool,
}

struct Reader<'a> {
    folder: &'a Path,
    ops: Vec<Op>,
    lengths: HashMap<PathBuf, u64>,
    opens: Vec<Open>,
    /// Descriptor to index of `opens`.
    descriptors: HashMap<i64, usize>,
}

/// Reads the output of `strace -f -y --strings-in-hex=all`.
///
/// # Errors
/// The process did something that cannot be recorded so, or strace says something unknown.
pub fn parse(text: &str, folder: &Path) -> anyhow::Result<Vec<Op>> {
    let mut reader = Reader {
        folder,
        ops: Vec::new(),
        lengths: HashMap::new(),
        opens: Vec::new(),
        descriptors: HashMap::new(),
    };
    // Calls that another thread's line has interrupted: their beginning, and how many operations there were then.
    let mut unfinished: HashMap<&str, (String, usize)> = HashMap::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(pid, (begin.to_owned(), reader.ops.len()));
            continue;
        }
        let joined;
        let (call, ops_count) = match rest.strip_prefix("<... ") {
            None => (rest, reader.ops.len()),
            Some(end) => {
                let (begin, ops_count) = unfinished.remove(pid).context("strace resumes what it had not begun")?;
                let (_, end) = end.split_once("resumed>").context("strace resumes without saying so")?;
                joined = begin + end;
                (joined.as_str(), ops_count)
            }
        };
        reader
            .call(call, ops_count)
            .with_context(|| format!("strace's line {:.200}", call))?;
    }
    Ok(reader.ops)
}

impl Reader<'_> {
    fn call(&mut self, call: &str, ops_count: usize) -> anyhow::Result<()> {
        // A signal, or the end of the process.
        let Some((name, rest)) = call.split_once('(') else {
            return Ok(());
        };
        let Some((args, result)) = rest.rsplit_once(" = ") else {
            return Ok(());
        };
        let args = args.trim_end().trim_end_matches(')').trim_end();
        let result_word = result.split([' ', '<']).next().unwrap_or_default();
        let result_number: i64 = match result_word.strip_prefix("0x") {
            Some(_) => 0,
            None => result_word.parse().unwrap_or(-1),
        };
        if result_number < 0 {
            return Ok(());
        }
        let args: Vec<&str> = args.split(", ").collect();
        let arg = |index: usize| args.get(index).copied().unwrap_or_default();
        match name {
            "openat" => self.open(&path_of(arg(0), arg(1))?, arg(2), result_number),
            "open" | "creat" => bail!("{name}: no C library in use calls it any more"),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                self.write(name, &args, result_number as u64)?;
            }
            "read" => {
                if let Some(open) = self.open_of(arg(0)) {
                    open.position_bytes += result_number as u64;
                }
            }
            "lseek" => {
                if let Some(open) = self.open_of(arg(0)) {
                    open.position_bytes = result_number as u64;
                }
            }
            "fcntl" | "dup" if name == "dup" || arg(1).starts_with("F_DUPFD") => {
                if let Some(&open) = self.descriptors.get(&descriptor(arg(0))) {
                    self.descriptors.insert(result_number, open);
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = self.file_of(arg(0))? {
                    self.ops.push(Op::Sync { file, ops_count });
                }
            }
            "ftruncate" => self.length(arg(0), arg(1), true)?,
            "fallocate" => match arg(1) {
                "0" => {
                    let end = number(arg(2))? + number(arg(3))?;
                    self.length(arg(0), &end.to_string(), false)?;
                }
                // Blocks without a length change nothing that can be read.
                "FALLOC_FL_KEEP_SIZE" => {}
                mode => bail!("fallocate with {mode}"),
            },
            "rename" => self.rename(&path_of("", arg(0))?, &path_of("", arg(1))?),
            "renameat" | "renameat2" => self.rename(&path_of(arg(0), arg(1))?, &path_of(arg(2), arg(3))?),
            "unlink" => self.remove(&path_of("", arg(0))?),
            "unlinkat" => self.remove(&path_of(arg(0), arg(1))?),
            "mkdir" => self.mkdir(&path_of("", arg(0))?),
            "mkdirat" => self.mkdir(&path_of(arg(0), arg(1))?),
            "mmap" if arg(3).contains("MAP_SHARED") && arg(2).contains("PROT_WRITE") => {
                if let Some(file) = self.file_of(arg(4))? {
                    bail!(
                        "{} is written through a mapping, which strace does not see",
                        file.display()
                    );
                }
            }
            "truncate" | "copy_file_range" | "sendfile" => bail!("{name} is not recorded"),
            _ => {}
        }
        Ok(())
    }

    /// Relative to the folder, if it is in there.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let inside = path.strip_prefix(self.folder).ok()?;
        (!inside.as_os_str().is_empty()).then(|| inside.to_owned())
    }

    fn file_of(&self, arg: &str) -> anyhow::Result<Option<PathBuf>> {
        let Some((_, path)) = arg.split_once('<') else {
            return Ok(None);
        };
        // A file that has lost its name will not be found after a power loss either.
        let Some(path) = path.strip_suffix('>') else {
            return Ok(None);
        };
        Ok(self.inside(&unhex_path(path)?))
    }

    fn open_of(&mut self, arg: &str) -> Option<&mut Open> {
        let index = *self.descriptors.get(&descriptor(arg))?;
        self.opens.get_mut(index)
    }

    fn open(&mut self, path: &Path, flags: &str, descriptor: i64) {
        self.descriptors.remove(&descriptor);
        let Some(file) = self.inside(path) else { return };
        if flags.contains("O_CREAT") && !self.lengths.contains_key(&file) {
            self.lengths.insert(file.clone(), 0);
            self.ops.push(Op::Create(file.clone()));
        }
        if flags.contains("O_TRUNC") && self.lengths.get(&file).is_some_and(|&len| len > 0) {
            self.lengths.insert(file.clone(), 0);
            self.ops.push(Op::Length {
                file,
                len_bytes: 0,
                exact: true,
            });
        }
        self.descriptors.insert(descriptor, self.opens.len());
        self.opens.push(Open {
            position_bytes: 0,
            appends: flags.contains("O_APPEND"),
            syncs: flags.contains("O_SYNC") || flags.contains("O_DSYNC"),
        });
    }

    fn write(&mut self, name: &str, args: &[&str], count: u64) -> anyhow::Result<()> {
        let to = args.first().copied().unwrap_or_default();
        let mut bytes = Vec::new();
        for arg in args {
            let quoted = arg
                .split_once('"')
                .filter(|(before, _)| before.is_empty() || before.ends_with("iov_base="));
            if let Some((_, rest)) = quoted {
                let (hex, _) = rest.split_once('"').context("a string without an end")?;
                unhex(hex, &mut bytes)?;
            }
        }
        let Some(file) = self.file_of(to)? else {
            if descriptor(to) == 1 {
                let text = String::from_utf8_lossy(&bytes);
                let numbers = text
                    .lines()
                    .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
                self.ops.extend(numbers.map(Op::Acknowledged));
            }
            return Ok(());
        };
        ensure!(
            bytes.len() as u64 >= count,
            "strace has cut {count} bytes down to {}",
            bytes.len()
        );
        bytes.truncate(count as usize);
        let len_bytes = self.lengths.get(&file).copied().unwrap_or_default();
        let last = |back: usize| number(args[args.len() - back]);
        let mut syncs = name == "pwritev2" && args.last().is_some_and(|flags| flags.contains("SYNC"));
        let open = self.open_of(to).context("a write to what was not opened")?;
        syncs |= open.syncs;
        let at_bytes = match name {
            "pwrite64" | "pwritev" => last(1)?,
            "pwritev2" => last(2)?,
            _ => {
                let at = if open.appends { len_bytes } else { open.position_bytes };
                open.position_bytes = at + count;
                at
            }
        };
        self.lengths.insert(file.clone(), len_bytes.max(at_bytes + count));
        self.ops.push(Op::Write {
            file: file.clone(),
            at_bytes,
            bytes,
        });
        if syncs {
            let ops_count = self.ops.len();
            self.ops.push(Op::Sync { file, ops_count });
        }
        Ok(())
    }

    fn length(&mut self, to: &str, len: &str, exact: bool) -> anyhow::Result<()> {
        let Some(file) = self.file_of(to)? else { return Ok(()) };
        let len_bytes = number(len)?;
        let known = self.lengths.entry(file.clone()).or_default();
        *known = if exact { len_bytes } else { len_bytes.max(*known) };
        self.ops.push(Op::Length { file, len_bytes, exact });
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        if let (Some(from), Some(to)) = (self.inside(from), self.inside(to)) {
            let len_bytes = self.lengths.remove(&from).unwrap_or_default();
            self.lengths.insert(to.clone(), len_bytes);
            self.ops.push(Op::Rename(from, to));
        }
    }

    fn remove(&mut self, path: &Path) {
        if let Some(file) = self.inside(path) {
            self.lengths.remove(&file);
            self.ops.push(Op::Remove(file));
        }
    }

    fn mkdir(&mut self, path: &Path) {
        if let Some(folder) = self.inside(path) {
            self.ops.push(Op::Folder(folder));
        }
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.parse().with_context(|| format!("{text:?} is not a number"))
}

/// The number before `<path>`.
fn descriptor(arg: &str) -> i64 {
    arg.split('<').next().and_then(|text| text.parse().ok()).unwrap_or(-1)
}

fn unhex(text: &str, out: &mut Vec<u8>) -> anyhow::Result<()> {
    for pair in text.split("\\x").skip(1) {
        out.push(u8::from_str_radix(pair, 16).with_context(|| format!("{pair:?} is not a byte"))?);
    }
    Ok(())
}

fn unhex_path(text: &str) -> anyhow::Result<PathBuf> {
    let mut bytes = Vec::new();
    unhex(text, &mut bytes)?;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

/// A path argument, and the folder that it is relative to.
fn path_of(folder: &str, arg: &str) -> anyhow::Result<PathBuf> {
    let path = unhex_path(arg.trim_matches('"'))?;
    match folder.split_once('<').and_then(|(_, folder)| folder.strip_suffix('>')) {
        Some(folder) => Ok(unhex_path(folder)?.join(path)),
        None => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn writes_have_their_places_and_a_sync_covers_what_was_before_it_began() {
        let file = hex("/d/log");
        let text = format!(
            "7 openat(AT_FDCWD<{}>, \"{file}\", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 3<{file}>\n\
             7 write(3<{file}>, \"{}\", 2) = 2\n\
             7 fdatasync(3<{file}> <unfinished ...>\n\
             8 write(3<{file}>, \"{}\", 1) = 1\n\
             7 <... fdatasync resumed>)   = 0\n\
             7 pwritev2(3<{file}>, [{{iov_base=\"{}\", iov_len=1}}, {{iov_base=\"{}\", iov_len=1}}], 2, 512, RWF_DSYNC) = 2\n\
             7 write(1<{}>, \"{}\", 15) = 15\n\
             7 fsync(9<{}>) = -1 EIO (Input/output error)\n\
             7 +++ exited with 0 +++\n",
            hex("/"),
            hex("ab"),
            hex("c"),
            hex("d"),
            hex("e"),
            hex("pipe:[1]"),
            hex("acknowledged 4\n"),
            hex("/d/log"),
        );
        let file = PathBuf::from("log");
        let write = |at_bytes, bytes: &str| Op::Write {
            file: file.clone(),
            at_bytes,
            bytes: bytes.as_bytes().to_vec(),
        };
        let expected = [
            Op::Create(file.clone()),
            write(0, "ab"),
            write(2, "c"),
            Op::Sync {
                file: file.clone(),
                ops_count: 2,
            },
            write(512, "de"),
            Op::Sync {
                file: file.clone(),
                ops_count: 5,
            },
            Op::Acknowledged(4),
        ];
        assert_eq!(parse(&text, Path::new("/d")).expect("sound"), expected);
    }

    #[test]
    fn a_mapping_is_refused() {
        let line = format!(
            "7 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3<{}>, 0) = 0x7f00\n",
            hex("/d/log")
        );
        let error = parse(&line, Path::new("/d")).expect_err("strace cannot see it");
        assert!(format!("{error:#}").contains("mapping"), "{error:#}");
        assert_eq!(parse(&line, Path::new("/elsewhere")).expect("not ours"), []);
    }
}
