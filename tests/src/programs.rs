//! Whether a test of programs in the kernel can run here.

use dataplane_netns::{Privilege, prepare};
use dataplane_waist::Support;
use ebpf_host::{Mode, Program};

/// Whether hosts with programs in their drivers can be made; otherwise says why `test` is not run.
pub fn can(test: &str) -> bool {
    let why = match (prepare(), ebpf_host::probe(Program::Pass, None, Mode::Generic)) {
        (Privilege::Root, Ok(Support::Absent { why })) => why,
        (Privilege::Root, Ok(_)) => return true,
        (Privilege::Root, Err(error)) => error.to_string(),
        _ => "namespaces with programs take root".to_owned(),
    };
    println!("{test}: not run: {why}");
    false
}
