//! `dplab wal` over real folders: what it says of a sound log and of a damaged one, and what it leaves alone.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{Engine, FolderStorage, Wal, WalOptions};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn dplab(folder: &Path, args: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dplab"));
    command.arg("wal").arg(args[0]).arg(folder).args(&args[1..]);
    let output = command.output().expect("dplab starts");
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    (output, text)
}

/// Ten commits of an entry each.
fn a_log(name: &str) -> Folder {
    let folder = std::env::temp_dir().join(format!("dplab-wal-command-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let options = WalOptions {
        segment_bytes: 64 << 10,
        buffer_bytes: 8 << 10,
        ..WalOptions::new(0xfeed)
    };
    let storage = FolderStorage::open(&folder, Engine::File).unwrap();
    let mut wal = Wal::open(Box::new(storage), options).unwrap();
    for slot in 0..10 {
        wal.append(Slot(slot), Term(3), &[b'a' + slot as u8; 100]).unwrap();
        wal.sync().unwrap();
    }
    wal.wait().unwrap();
    Folder(folder)
}

fn bytes_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort_unstable();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn a_sound_log_is_0_and_needs_no_repair() {
    let log = a_log("sound");
    let (output, text) = dplab(&log.0, &["inspect"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("entry 9, term 3, 100 bytes"), "{text}");
    let before = bytes_of(&log.0);
    let (output, text) = dplab(&log.0, &["repair", "--yes"]);
    assert_eq!((output.status.code(), text.as_str()), (Some(0), "nothing to repair\n"));
    assert_eq!(bytes_of(&log.0), before);
}

#[test]
fn a_damaged_log_is_1_and_changed_with_yes_alone() {
    let log = a_log("damaged");
    let path = log.0.join("segment-0000");
    let mut bytes = fs::read(&path).unwrap();
    let at_bytes = bytes.windows(50).position(|window| window == [b'e'; 50]).unwrap();
    bytes[at_bytes] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let before = bytes_of(&log.0);

    let (output, text) = dplab(&log.0, &["inspect"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    // Slot 4's entry is damaged. Those behind it are not, and nothing may say that they cannot be read.
    assert!(!text.contains("cannot be read"), "{text}");
    assert!(text.contains("slots 4 to 9 do not count"), "{text}");
    assert!(
        text.contains("these can be read") && text.contains("replaced them: 5 to 9\n"),
        "{text}"
    );
    let (output, text) = dplab(&log.0, &["inspect", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["findings"][0]["at_bytes"], (at_bytes / 512 * 512) as u64);
    assert_eq!(value["damaged_slots"]["slot"], 4);
    assert_eq!(
        value["damaged_slots"]["readable"],
        serde_json::json!([{ "slot": 5, "end": 10 }])
    );

    let (output, text) = dplab(&log.0, &["repair"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("would drop slots 4 to 9, of which 5 can be read (term 3)"),
        "{text}"
    );
    assert!(text.contains("nothing was changed: add --yes"), "{text}");
    assert_eq!(bytes_of(&log.0), before);

    let (output, text) = dplab(&log.0, &["repair", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("\ndropped slots 4 to 9"), "{text}");
    let (output, text) = dplab(&log.0, &["inspect"]);
    // The missing entries must still come from the other replicas.
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("slots 4 to 9 do not count") && !text.contains("can be read") && !text.contains("damaged ("),
        "{text}"
    );
}

#[test]
fn wrong_words_and_a_folder_without_a_log_are_2() {
    let (output, _) = dplab(Path::new("/"), &["inspect"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds no log"));
    let (output, _) = dplab(Path::new("/"), &["repair", "--yess"]);
    assert_eq!(output.status.code(), Some(2));
    let (output, _) = dplab(Path::new("/nowhere/at/all"), &["repair", "--yes"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!Path::new("/nowhere").exists());
}
