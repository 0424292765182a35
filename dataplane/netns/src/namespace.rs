//! One network namespace, held by an open file: when the file is closed, by us or by the death of the process, the
//! kernel frees the namespace with everything in it.

use crate::NetError;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The calling thread's own network namespace. `/proc/self` would be the main thread's.
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a new namespace **and moves the calling thread into it**: unshare(2) knows no other way. To be called on
    /// a thread that ends soon.
    pub fn create(name: &str) -> Result<Namespace, NetError> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetError::kernel("creating the network namespace of", name, errno))?;
        let file = open_current(name)?;
        Ok(Namespace {
            name: name.to_owned(),
            file,
        })
    }

    /// One that is there already.
    pub fn open(path: &Path) -> Result<Namespace, NetError> {
        let name = path.display().to_string();
        let file =
            File::open(path).map_err(|error| NetError::kernel("opening the network namespace at", &name, error))?;
        Ok(Namespace { name, file })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path under which other processes of the same user can open this namespace, while we hold it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Moves the calling thread here for good.
    pub fn move_into(&self) -> Result<(), NetError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetError::kernel("entering the network namespace of", &self.name, errno))
    }

    pub fn enter(&self) -> Result<Entered, NetError> {
        // The way back is opened first: without it there is no way in.
        let home = open_current(&self.name)?;
        self.move_into()?;
        Ok(Entered {
            home: Some(home),
            of_this_thread: PhantomData,
        })
    }
}

fn open_current(name: &str) -> Result<File, NetError> {
    // std opens with O_CLOEXEC, so a child does not keep the namespace alive by accident.
    File::open(OF_THIS_THREAD).map_err(|error| NetError::kernel("opening the network namespace of", name, error))
}

/// The calling thread stands in a host's namespace until this is dropped. Not `Send`: it is about this thread.
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<dataplane_netns::Entered>();
/// ```
#[must_use = "the thread returns to where it was as soon as this is dropped"]
#[derive(Debug)]
pub struct Entered {
    home: Option<File>,
    of_this_thread: PhantomData<*const ()>,
}

impl Entered {
    /// Returns the thread to where it was.
    ///
    /// # Errors
    /// setns(2) refused, which happens when the thread gave up CAP_SYS_ADMIN inside: the thread then stays where it is.
    pub fn leave(mut self) -> Result<(), NetError> {
        self.go_home()
    }

    fn go_home(&mut self) -> Result<(), NetError> {
        let Some(home) = self.home.take() else {
            return Ok(());
        };
        setns(&home, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetError::kernel("returning from", "a host's network namespace", errno))
    }
}

impl Drop for Entered {
    /// # Panics
    /// When the thread cannot return. It would go on sending into the wrong network, and no measurement could be
    /// believed. [`Entered::leave`] gives an error instead.
    fn drop(&mut self) {
        if let Err(error) = self.go_home()
            && !std::thread::panicking()
        {
            panic!("this thread is stuck in another network namespace: {error}");
        }
    }
}
