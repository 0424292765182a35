//! Where keys, numbers of queue pairs and starts of sequences come from: a stranger must not guess them (ReDMArk, USENIX
//! Security 2021, §4: NICs and drivers that count them up).

use std::io;

use rand::{Rng, SeedableRng, TryRng, rngs::StdRng, rngs::SysRng};

use crate::endpoint::Randomness;

/// A cryptographic generator, seeded by the system.
///
/// # Errors
/// The system gave no randomness.
pub fn system_randomness() -> io::Result<Randomness> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
    let mut generator = StdRng::from_seed(seed);
    Ok(Box::new(move || generator.next_u64()))
}
