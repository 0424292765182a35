//! The repository's own files, for tests that read them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace's root.
///
/// # Panics
/// If this crate does not stand in a workspace.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this crate stands in the workspace's root").into()
}

/// What git keeps or would add, from the root. Without git (a source archive), every file but the build's own. A file that
/// was deleted and not yet committed may be listed.
///
/// # Panics
/// If the workspace cannot be read.
pub fn tracked_files() -> Vec<String> {
    let root = workspace_root();
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    match git {
        Ok(output) if output.status.success() => {
            let listed = String::from_utf8(output.stdout).expect("paths in UTF-8");
            listed.lines().map(String::from).collect()
        }
        _ => {
            let mut files = Vec::new();
            walk(&root, "", &mut files);
            files
        }
    }
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace").flatten() {
        let name = entry.file_name().into_string().expect("a path in UTF-8");
        let path = format!("{prefix}{name}");
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder {
            files.push(path);
        } else if name != "target" && !name.starts_with('.') {
            walk(&entry.path(), &format!("{path}/"), files);
        }
    }
}
