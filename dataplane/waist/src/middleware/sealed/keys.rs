//! From what a cluster shares to one key per cluster, sender and receiver: HKDF (RFC 5869) over HMAC-SHA-256.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub type HmacSha256 = Hmac<Sha256>;

/// The shortest key: 128 bits cannot be tried out.
pub const KEY_BYTES_MIN: usize = 16;

/// The output of SHA-256.
const HASH_BYTES: usize = 32;

/// Keeps this use of the shared secret apart from every other one. RFC 5869, section 3.1: a salt need not be secret.
const SALT: &[u8] = b"dataplane-lab: sealed frames, version 1";

/// What all nodes and clients of a cluster share. Never printed.
#[derive(Clone)]
pub struct ClusterKey {
    /// RFC 5869's PRK.
    extracted: [u8; HASH_BYTES],
}

/// The key is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key of {len_bytes} bytes can be guessed; it must have at least {KEY_BYTES_MIN}, from a source of randomness"
)]
pub struct ClusterKeyError {
    /// How long it is.
    pub len_bytes: usize,
}

impl ClusterKey {
    /// The key that is made of these bytes: a secret drawn at random, as it is or written in digits, never a password.
    ///
    /// # Errors
    /// They are fewer than [`KEY_BYTES_MIN`].
    pub fn new(secret: &[u8]) -> Result<ClusterKey, ClusterKeyError> {
        let len_bytes = secret.len();
        if len_bytes < KEY_BYTES_MIN {
            return Err(ClusterKeyError { len_bytes });
        }
        let extracted = extract(SALT, secret);
        Ok(ClusterKey { extracted })
    }

    /// A key for something else than frames: another for every purpose, and none of frames'.
    ///
    /// # Panics
    /// If the purpose is not named by more than 16 bytes, the size of a way.
    pub fn key_for(&self, purpose: &str) -> [u8; HASH_BYTES] {
        assert!(purpose.len() > 16, "{purpose:?} is too short to tell it from a way");
        expand(&self.extracted, purpose.as_bytes())
    }

    /// The code over frames of one way in one cluster, before its first frame. One size of information, so no two ways
    /// read alike.
    pub fn code(&self, cluster: u64, way: Way) -> HmacSha256 {
        let mut info = [0; 16];
        info[..8].copy_from_slice(&cluster.to_be_bytes());
        info[8..12].copy_from_slice(&way.from.to_be_bytes());
        info[12..].copy_from_slice(&way.to.to_be_bytes());
        keyed(&expand(&self.extracted, &info))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(not shown)")
    }
}

/// Who sends to whom, by node number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub from: u32,
    pub to: u32,
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// RFC 5869, section 2.2.
fn extract(salt: &[u8], secret: &[u8]) -> [u8; HASH_BYTES] {
    keyed(salt).chain_update(secret).finalize().into_bytes().into()
}

/// RFC 5869, section 2.3, for a key as long as the hash: T(1).
fn expand(extracted: &[u8; HASH_BYTES], info: &[u8]) -> [u8; HASH_BYTES] {
    let code = keyed(extracted).chain_update(info).chain_update([1]);
    code.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digits: &str) -> Vec<u8> {
        let digit = |index: usize| u8::from_str_radix(&digits[index..index + 2], 16).expect("two digits");
        (0..digits.len()).step_by(2).map(digit).collect()
    }

    /// RFC 5869, appendix A.1. Its output is longer than ours; T(1) is where it begins.
    #[test]
    fn the_derivation_is_that_of_rfc_5869() {
        let extracted = extract(&hex("000102030405060708090a0b0c"), &[0x0b; 22]);
        assert_eq!(
            extracted[..],
            hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
        );
        assert_eq!(
            expand(&extracted, &hex("f0f1f2f3f4f5f6f7f8f9"))[..],
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
        );
    }

    #[test]
    fn every_part_of_a_way_makes_another_key() {
        let codes: Vec<[u8; HASH_BYTES]> = [
            (b"a secret of a cluster", 1, 2, 3),
            (b"a secret of clusters!", 1, 2, 3),
            (b"a secret of a cluster", 9, 2, 3),
            (b"a secret of a cluster", 1, 9, 3),
            (b"a secret of a cluster", 1, 2, 9),
            (b"a secret of a cluster", 1, 3, 2),
        ]
        .into_iter()
        .map(|(secret, cluster, from, to)| {
            let key = ClusterKey::new(secret).expect("long enough");
            key.code(cluster, Way { from, to }).finalize().into_bytes().into()
        })
        .collect();
        for (index, code) in codes.iter().enumerate() {
            assert!(!codes[..index].contains(code), "{index}");
        }
    }

    #[test]
    fn every_purpose_and_every_cluster_has_a_key_of_its_own() {
        let [one, other] =
            [b"a secret of a cluster", b"a secret of clusters!"].map(|secret| ClusterKey::new(secret).expect("long"));
        let key = one.key_for("for opening a window");
        assert_ne!(key, one.key_for("for closing a window"));
        assert_ne!(key, other.key_for("for opening a window"));
        assert_eq!(key, one.clone().key_for("for opening a window"));
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_printed() {
        let error = ClusterKey::new(&[b'k'; 15]).expect_err("too short");
        assert!(error.to_string().contains("15 bytes"), "{error}");
        let key = ClusterKey::new(&[b'k'; 16]).expect("long enough");
        assert_eq!(format!("{key:?}"), "ClusterKey(not shown)");
    }
}
