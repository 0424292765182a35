//! The one place that reads `/proc` and `/sys`. A test gives another root.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Longest file that is read; `/proc/interrupts` of a large server has about half a megabyte.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A file tree that looks like a machine's.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The tree under `root`: `/` for this machine.
    pub fn new(root: impl Into<PathBuf>) -> Sysfs {
        Sysfs { root: root.into() }
    }

    /// The text of the file at the absolute path `path`, without white space at its ends. `None` when it cannot be read
    /// or says nothing: to a reader of facts these are the same.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.bytes(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The bytes of the file at `path`, up to 8 MiB.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.at(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Names in the folder at `path`, sorted; none when it is not there.
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The last part of what the symbolic link at `path` points to: the driver's name in `…/device/driver`.
    pub fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.at(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Is there anything at `path`?
    pub fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root
            .join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))
    }
}

/// A made-up machine in a temporary folder, removed when dropped.
#[cfg(test)]
pub(crate) struct FakeMachine {
    root: PathBuf,
}

#[cfg(test)]
impl FakeMachine {
    pub(crate) fn new(files: &[(&str, &str)]) -> FakeMachine {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("dplab-fake-machine-{}-{number}", std::process::id()));
        let machine = FakeMachine { root };
        for (path, content) in files {
            machine.write(path, content.as_bytes());
        }
        machine
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the temporary folder is writable");
        fs::write(path, content).expect("the temporary folder is writable");
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a link has a folder")).expect("the temporary folder is writable");
        std::os::unix::fs::symlink(target, path).expect("the temporary folder is writable");
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(&self.root)
    }
}

#[cfg(test)]
impl Drop for FakeMachine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_empty_or_a_folder_is_absent() {
        let machine = FakeMachine::new(&[("/proc/empty", " \n\0"), ("/proc/full", "word\n")]);
        let sysfs = machine.sysfs();
        assert_eq!(sysfs.text("/proc/full").as_deref(), Some("word"));
        for path in ["/proc/empty", "/proc/none", "/proc", ""] {
            assert_eq!(sysfs.text(path), None, "{path:?}");
        }
        assert_eq!(sysfs.list("/proc"), ["empty", "full"]);
        assert!(sysfs.list("/proc/full").is_empty() && sysfs.list("/none").is_empty());
        assert_eq!(sysfs.link_name("/proc/full"), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_hide_the_rest() {
        let machine = FakeMachine::new(&[]);
        machine.write("/proc/cmdline", b"quiet \xff isolcpus=2\n");
        let text = machine.sysfs().text("/proc/cmdline").expect("there is text");
        assert!(text.ends_with("isolcpus=2"), "{text}");
    }
}
