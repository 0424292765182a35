//! What is made for a measurement and goes with it, however it ends: folders, processes; and the wish to end.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use signal_hook::{consts, flag};

/// A folder that is removed with this value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes `NAME-PID` in `parent`, which is made if need be.
    ///
    /// # Errors
    /// It cannot be made, or is there already.
    pub fn new(parent: &Path, name: &str) -> anyhow::Result<Folder> {
        let path = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("looking for {}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where it is, from the root.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            let _ = writeln!(io::stderr(), "{} could not be removed: {error}", self.0.display());
        }
    }
}

/// SIGINT or SIGTERM has come; a second one ends at once.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen() -> anyhow::Result<Stop> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [consts::SIGINT, consts::SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, stop.clone()).context("handling signals")?;
            flag::register(signal, stop.clone()).context("handling signals")?;
        }
        Ok(Stop(stop))
    }

    /// Whether it came.
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// As an error, for those who must not go on.
    ///
    /// # Errors
    /// It came.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.is_wanted() {
            true => bail!("ended on request"),
            false => Ok(()),
        }
    }
}

/// How long a process gets to end by itself.
const END_MAX: Duration = Duration::from_secs(5);

/// A process that ends with this value, and with us.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it prints goes to `log`. Through setpriv(1), which asks the kernel to kill it when we are
    /// gone, however that comes (PR_SET_PDEATHSIG); it becomes the program itself, so the pid is the program's.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, args: &[String], log: &Path) -> anyhow::Result<Process> {
        let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let again = file.try_clone().context("one file for stdout and stderr")?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .spawn()
            .with_context(|| {
                format!(
                    "starting {} by setpriv (Debian's package util-linux)",
                    program.display()
                )
            })?;
        Ok(Process {
            child,
            name: program.display().to_string(),
            log: log.to_owned(),
        })
    }

    /// It must be there yet.
    ///
    /// # Errors
    /// It has ended; with the end of what it had printed.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait().context("asking for a process")? else {
            return Ok(());
        };
        let printed = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&printed[printed.len().saturating_sub(2000)..]).into_owned();
        bail!("{} has ended ({status}); its last words:\n{tail}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its number may be another's once it has ended and we have been told.
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // std can only kill; a process that may end by itself leaves no half-written file behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let begin = Instant::now();
        while begin.elapsed() < END_MAX {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
