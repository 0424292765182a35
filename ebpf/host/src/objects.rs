//! The programs, as `scripts/build-ebpf` built them (`ebpf/objects/MANIFEST` says from what and by what).

use aya::include_bytes_aligned;
use ebpf_abi::Program;

/// The classifier that marks, which is no XDP program.
pub(crate) const MARK_ECN: &[u8] = include_bytes_aligned!("../../objects/mark_ecn.o");

/// The ELF object of `program`, aligned as its reader wants it.
pub(crate) fn object(program: Program) -> &'static [u8] {
    match program {
        Program::Pass => include_bytes_aligned!("../../objects/pass.o"),
        Program::CountDrop => include_bytes_aligned!("../../objects/count_drop.o"),
        Program::Echo => include_bytes_aligned!("../../objects/echo.o"),
        Program::Steer => include_bytes_aligned!("../../objects/steer.o"),
        Program::SteerPort => include_bytes_aligned!("../../objects/steer_port.o"),
        Program::Stamp => include_bytes_aligned!("../../objects/stamp.o"),
        Program::QuorumLeader => include_bytes_aligned!("../../objects/quorum_leader.o"),
        Program::QuorumFollower => include_bytes_aligned!("../../objects/quorum_follower.o"),
        Program::Lossy => include_bytes_aligned!("../../objects/lossy.o"),
        Program::Hub => include_bytes_aligned!("../../objects/hub.o"),
        Program::TakeAll => include_bytes_aligned!("../../objects/take_all.o"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_one_and_is_aligned() {
        for program in Program::ALL {
            let bytes = object(program);
            // An ELF header is 64 bytes; a pointer of git-lfs, which starts with "version", is no object either.
            assert!(
                bytes.len() > 64 && bytes.starts_with(b"\x7fELF"),
                "{} is no ELF object: run scripts/build-ebpf",
                program.name()
            );
            assert_eq!(bytes.as_ptr() as usize % 8, 0, "{}", program.name());
        }
    }
}
