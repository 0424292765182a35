//! `faulty-disk FOLDER BYTES`: the disk's process. Tests start it; a person may, and then types what the disk shall do.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, size_bytes) = match &args[..] {
        [folder, size] => match size.parse::<usize>() {
            Ok(size_bytes) if size_bytes > 0 && size_bytes.is_multiple_of(4096) => (PathBuf::from(folder), size_bytes),
            _ => {
                eprintln!("faulty-disk: '{size}' is no length in bytes: it must be a multiple of 4096");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("usage: faulty-disk FOLDER BYTES, with an empty folder FOLDER/fuse; then, from standard input:");
            eprintln!("{}", dataplane_faulty_disk::server::USAGE);
            return ExitCode::from(2);
        }
    };
    match dataplane_faulty_disk::server::serve(&folder, size_bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one who started this process reads standard output.
            println!("error: FUSE in {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
