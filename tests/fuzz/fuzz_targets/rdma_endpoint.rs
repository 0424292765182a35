//! Any packets, one after the other, to an endpoint with a connection, requests under way and receives posted. It answers or
//! ignores them, and touches no memory that is not open.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests_fuzz::packets::Victim;

fuzz_target!(|bytes: &[u8]| {
    let mut victim = Victim::new();
    let mut rest = bytes;
    while let Some((&[len, flags, ahead], behind)) = rest.split_first_chunk::<3>() {
        let (packet, behind) = behind.split_at(behind.len().min(len.into()));
        victim.take(packet, flags, ahead);
        rest = behind;
    }
    victim.check();
});
