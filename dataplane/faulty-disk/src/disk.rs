//! A faulty disk, as a test sees it.

use std::{
    fs, io,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::{
    medium::{Fault, Outcome, SECTOR_BYTES},
    protocol::{Command, Side},
    sweep, system,
};

/// No answer of the disk's process takes longer; it only copies memory.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
/// So long the disk's process may take to tidy up.
const END_WAIT_MAX: Duration = Duration::from_secs(20);
/// So long a file system may be held by those who only look at what others have open.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This machine has not what it takes: a reason to skip a test.
    #[error("no faulty disk here: {0}")]
    Unavailable(String),
    /// It should have worked.
    #[error("the faulty disk does not start: {0}")]
    Io(#[from] io::Error),
}

/// What a power loss did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How many sectors were in doubt.
    pub doubtful_count: u64,
    /// How many of them reached the medium.
    pub kept_count: u64,
}

/// Two disks of one size: the one that is worked on, and one for what a power loss leaves of it.
#[derive(Debug)]
pub struct FaultyDisk {
    child: Child,
    /// Closed at the end, which ends the disk's process.
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    folder: PathBuf,
}

impl FaultyDisk {
    /// Starts the process `server` (this crate's program) with disks of `size_bytes`, a multiple of 4096.
    ///
    /// The calling thread, and what it starts from now on, gets mounts of its own for good: only there the disk's file
    /// systems are seen.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(server: &Path, size_bytes: u64) -> Result<FaultyDisk, StartError> {
        if let Some(why) = system::missing() {
            return Err(StartError::Unavailable(why));
        }
        sweep::stale();
        system::enter_private_mounts()
            .map_err(|error| StartError::Unavailable(format!("no private mount namespace ({error})")))?;
        let folder = sweep::fresh_folder();
        for name in [system::FUSE_FOLDER, Side::Disk.name(), Side::Image.name()] {
            fs::create_dir_all(folder.join(name))?;
        }
        let mut child = process::Command::new(server)
            .arg(&folder)
            .arg(size_bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the test; this process ends when the test has, and tidies up.
            .process_group(0)
            .spawn()?;
        let (sender, answers) = channel();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let orders = child.stdin.take();
        let disk = FaultyDisk {
            child,
            orders,
            answers,
            folder,
        };
        disk.answer()
            .map_err(|error| StartError::Unavailable(error.to_string()))?;
        Ok(disk)
    }

    fn answer(&self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.answers.recv_timeout(ANSWER_WAIT_MAX);
            let line = line.map_err(|error| io::Error::other(format!("the disk's process says nothing: {error}")))?;
            if line == "ok" {
                return Ok(lines);
            }
            if let Some(why) = line.strip_prefix("error: ") {
                return Err(io::Error::other(why.to_owned()));
            }
            lines.push(line);
        }
    }

    /// Tells the disk to do something; the lines of its answer.
    ///
    /// # Errors
    /// It refuses, or is gone.
    pub fn tell(&mut self, command: Command) -> io::Result<Vec<String>> {
        let orders = self.orders.as_mut().expect("it is open as long as this lives");
        writeln!(orders, "{command}")?;
        orders.flush()?;
        self.answer()
    }

    fn numbers<const N: usize>(&mut self, command: Command) -> io::Result<[u64; N]> {
        let lines = self.tell(command)?;
        let words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        numbers
            .try_into()
            .map_err(|numbers| io::Error::other(format!("{command} was answered with {numbers:?}")))
    }

    /// How many writes and flushes there have been since [`Command::Record`].
    ///
    /// # Errors
    /// As for [`FaultyDisk::tell`]; so for all of these.
    pub fn events_count(&mut self) -> io::Result<usize> {
        let [count] = self.numbers(Command::Count)?;
        Ok(count as usize)
    }

    /// The recorded stream: where each write begins and how long it is, in bytes (a flush has no length), and what became of
    /// it.
    pub fn events(&mut self) -> io::Result<Vec<(u64, Option<u64>, Outcome)>> {
        let parse = |line: &String| {
            let words: Vec<&str> = line.split(' ').collect();
            let (kind, at, len) = (words.first()?, words.get(1)?.parse().ok()?, words.get(2)?.parse().ok()?);
            let outcome = match words.get(3..)? {
                ["done"] => Outcome::Done,
                ["ignored"] => Outcome::Ignored,
                ["refused", errno] => Outcome::Refused(errno.parse().ok()?),
                _ => return None,
            };
            Some((at, (*kind == "write").then_some(len), outcome))
        };
        let lines = self.tell(Command::Events)?;
        let events = lines.iter().map(|line| parse(line).ok_or(line));
        events
            .collect::<Result<_, _>>()
            .map_err(|line| io::Error::other(format!("an event reads '{line}'")))
    }

    /// Lets an I/O fail.
    pub fn fail(&mut self, fault: Fault) -> io::Result<()> {
        self.tell(Command::Fail(fault)).map(drop)
    }

    /// No fault, no lie, no delay any more.
    pub fn heal(&mut self) -> io::Result<()> {
        self.tell(Command::Heal).map(drop)
    }

    /// How many I/Os the fault has counted, and how many failed.
    pub fn fault_counts(&mut self) -> io::Result<(u64, u64)> {
        let [seen_count, failed_count] = self.numbers(Command::Faults)?;
        Ok((seen_count, failed_count))
    }

    /// Makes the image disk what a power loss after `events_count` events leaves, if each sector in doubt is kept with
    /// `keep_percent`, drawn from `seed`. The image disk must not be mounted.
    pub fn cut(&mut self, events_count: usize, seed: u64, keep_percent: u8) -> io::Result<Cut> {
        let [doubtful_count, kept_count] = self.numbers(Command::Cut {
            events_count,
            seed,
            keep_percent,
        })?;
        Ok(Cut {
            doubtful_count,
            kept_count,
        })
    }

    /// The disk as a file. Not to be touched while its file system is mounted.
    pub fn file(&self, side: Side) -> PathBuf {
        self.folder.join(system::FUSE_FOLDER).join(side.name())
    }

    /// Makes an ext4 file system on the disk; nothing is left to be done later, so that what a test sees is its own.
    pub fn make_file_system(&self, options: &[&str]) -> io::Result<()> {
        let file = self.file(Side::Disk);
        let file = file
            .to_str()
            .ok_or_else(|| io::Error::other("the folder's name is no text"))?;
        let mut args = vec![
            "-q",
            "-F",
            "-b",
            "4096",
            "-E",
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
        ];
        args.extend(options);
        args.push(file);
        system::run("mkfs.ext4", &args).map(drop)
    }

    /// Checks the file system without changing it. It must have been mounted since the power loss, or its journal is not
    /// replayed.
    ///
    /// # Errors
    /// With what e2fsck(8) found.
    pub fn check_file_system(&self, side: Side) -> io::Result<()> {
        let file = self.file(side);
        let file = file
            .to_str()
            .ok_or_else(|| io::Error::other("the folder's name is no text"))?;
        system::run("e2fsck", &["-fn", file]).map(drop)
    }

    /// Mounts the file system on one of the disks, with ext4's own `options` (ext4(5)).
    pub fn mount(&self, side: Side, options: &str) -> io::Result<Mounted> {
        self.mount_with_sectors(side, options, SECTOR_BYTES)
    }

    /// The same; the device takes nothing shorter than `sector_bytes`, and nothing that begins elsewhere: 512 to 4096, a power of
    /// two.
    pub fn mount_with_sectors(&self, side: Side, options: &str, sector_bytes: usize) -> io::Result<Mounted> {
        let file = self.file(side);
        let file = file
            .to_str()
            .ok_or_else(|| io::Error::other("the folder's name is no text"))?;
        // A fresh device each time: the page cache of an old one would know what the medium no longer does.
        let sector_bytes = sector_bytes.to_string();
        let device = system::run(
            "losetup",
            &[
                "--find",
                "--show",
                "--direct-io=on",
                "--sector-size",
                &sector_bytes,
                file,
            ],
        )?;
        let place = self.folder.join(side.name());
        let mounted = mount(
            Some(&device[..]),
            &place,
            Some("ext4"),
            MsFlags::MS_NOATIME,
            Some(options),
        );
        // In use, it is detached when it no longer is; the mount keeps it.
        let detached = system::run("losetup", &["--detach", &device]);
        mounted.map_err(|errno| io::Error::other(format!("mounting {device}: {errno}")))?;
        let mounted = Mounted {
            place,
            device,
            is_mounted: true,
        };
        detached?;
        Ok(mounted)
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        // A fault or a delay would make unmounting slow.
        let _ = self.heal();
        self.orders = None;
        let deadline = Instant::now() + END_WAIT_MAX;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                _ => break,
            }
        }
        // No harm if it has ended: its number is not given away before it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        sweep::remove(&self.folder);
    }
}

/// A mounted file system; unmounted at the end.
#[derive(Debug)]
pub struct Mounted {
    place: PathBuf,
    device: String,
    is_mounted: bool,
}

impl Mounted {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Its loop device's name without the folder, as in /sys/fs/ext4.
    pub fn device_name(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }

    /// Unmounts it: what is in caches is written.
    ///
    /// # Errors
    /// A file in it is still open; which of this process are, is said.
    pub fn unmount(mut self) -> io::Result<()> {
        let begun = Instant::now();
        let mut busy_count = 0;
        loop {
            match umount2(&self.place, MntFlags::empty()) {
                Ok(()) => break,
                // Whoever looks through /proc at what is open (lsof, ss) holds it for a moment.
                Err(Errno::EBUSY) if begun.elapsed() < BUSY_WAIT_MAX => {
                    busy_count += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => {
                    let place = self.place.display();
                    return Err(io::Error::other(format!(
                        "unmounting {place}: {errno}; open in this process: {:?}",
                        self.open_files()
                    )));
                }
            }
        }
        self.is_mounted = false;
        if busy_count > 0 {
            println!("{} was busy for up to {:?}", self.place.display(), begun.elapsed());
        }
        Ok(())
    }

    fn open_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        files.filter(|file| file.starts_with(&self.place)).collect()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = umount2(&self.place, MntFlags::MNT_DETACH);
        }
    }
}
