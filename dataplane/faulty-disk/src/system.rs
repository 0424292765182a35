//! The machine's own tools: which are needed, how they are called, and the private mount namespace.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// In the disk's folder: where the disks are files.
pub(crate) const FUSE_FOLDER: &str = "fuse";

/// Where administrators' tools are, also where PATH does not say so.
const TOOL_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// The tools, and the Debian package that has each.
const TOOLS: [(&str, &str); 4] = [
    ("losetup", "mount"),
    ("umount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
];

/// Why there can be no faulty disk here; nothing if there can.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: loop devices and mounts need CAP_SYS_ADMIN".into());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
            return Some(format!(
                "{device} cannot be opened ({error}): the kernel or the container has none"
            ));
        }
    }
    let is_there = |tool: &str| TOOL_PATH.split(':').any(|folder| Path::new(folder).join(tool).exists());
    let missing = TOOLS.iter().find(|(tool, _)| !is_there(tool));
    missing.map(|(tool, package)| format!("no `{tool}` here: apt-get install {package}"))
}

/// Runs a tool; its standard output.
///
/// # Errors
/// It cannot be started, or fails; then with what it said.
pub(crate) fn run(tool: &str, args: &[&str]) -> io::Result<String> {
    let output = Command::new(tool)
        .args(args)
        .env("PATH", TOOL_PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{tool}: {error}")))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        let (out, err) = (said(&output.stdout), said(&output.stderr));
        return Err(io::Error::other(format!(
            "{tool} {}: {}: {err} {out}",
            args.join(" "),
            output.status
        )));
    }
    Ok(said(&output.stdout))
}

/// Gives the calling thread, and what it starts from now on, mounts of its own. They are gone with the last of them.
///
/// # Errors
/// It may not.
pub(crate) fn enter_private_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Otherwise what is mounted here would be seen outside (mount_namespaces(7), "Shared subtrees").
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    Ok(())
}

/// Loop devices over files in `folder`: the device and its file.
pub(crate) fn loops_over(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(list) = run(
        "losetup",
        &["--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"],
    ) else {
        return Vec::new();
    };
    let pairs = list.lines().filter_map(|line| line.split_once(' '));
    let pairs = pairs.map(|(device, file)| (device.to_owned(), PathBuf::from(file)));
    pairs.filter(|(_, file)| file.starts_with(folder)).collect()
}
