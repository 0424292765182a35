//! The key that both machines share: read with care, made from the system's randomness, never printed.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, bail};
use hmac::{Hmac, KeyInit, Mac};
use rand::{TryRng, rngs::SysRng};
use sha2::Sha256;

/// HMAC-SHA-256 (RFC 2104).
pub type HmacSha256 = Hmac<Sha256>;

/// The shortest key: 128 bits cannot be tried out. RFC 2104, section 3, would rather have the hash's length; a new key
/// has it.
pub const KEY_BYTES_MIN: usize = 16;
/// The longest key file that is read.
const KEY_BYTES_MAX: u64 = 4096;
/// Random bytes of a new key, as long as the hash's output; written as twice as many hex digits.
const NEW_KEY_BYTES: usize = 32;

/// A shared key.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key that consists of these bytes.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(bytes: &[u8]) -> anyhow::Result<Key> {
        if bytes.len() < KEY_BYTES_MIN {
            bail!(
                "a key of {} bytes can be guessed; it must have at least {KEY_BYTES_MIN}: `dplab agent --new-key FILE` makes one",
                bytes.len()
            );
        }
        Ok(Key(bytes.to_vec()))
    }

    /// Reads `path`: see [`read_secret`].
    ///
    /// # Errors
    /// As [`read_secret`], or the key is too short.
    pub fn read(path: &Path) -> anyhow::Result<Key> {
        Key::new(&read_secret(path)?).with_context(|| format!("the key file {}", path.display()))
    }

    /// Makes a new key file with mode 0600; a file that is there is never touched.
    ///
    /// # Errors
    /// The file is there already or cannot be written, or the system gave no randomness.
    pub fn make(path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let mut random = [0; NEW_KEY_BYTES];
        SysRng
            .try_fill_bytes(&mut random)
            .context("asking the system for randomness")?;
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("making the key file {shown}"))?;
        writeln!(file, "{digits}")
            .and_then(|()| file.sync_all())
            .with_context(|| format!("writing the key file {shown}"))
    }

    /// A code that is to be computed over whatever is fed to it.
    pub fn code(&self) -> HmacSha256 {
        HmacSha256::new_from_slice(&self.0).expect("HMAC takes a key of any length")
    }
}

/// Reads a key file: its bytes without white space at the end. Only its owner may be able to read it.
///
/// # Errors
/// It cannot be read, others may read it, or it is too long.
pub fn read_secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = File::open(path)
        .with_context(|| format!("opening the key file {shown}; `dplab agent --new-key {shown}` makes one"))?;
    // Of the open file, so that it cannot be exchanged in between.
    let metadata = file.metadata().with_context(|| format!("looking at {shown}"))?;
    if !metadata.is_file() {
        bail!("the key file {shown} is not an ordinary file");
    }
    if metadata.mode() & 0o077 != 0 {
        bail!(
            "others may read the key file {shown} (mode {:04o}), and whoever has the key is obeyed as its owner is; \
             try `chmod 600 {shown}`, and make a new key if others had access",
            metadata.mode() & 0o7777
        );
    }
    let mut bytes = Vec::new();
    let read = file.take(KEY_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("reading the key file {shown}"))?;
    if bytes.len() as u64 > KEY_BYTES_MAX {
        bail!("the key file {shown} has more than {KEY_BYTES_MAX} bytes; is it the right file?");
    }
    bytes.truncate(bytes.trim_ascii_end().len());
    Ok(bytes)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

/// Bytes that nobody can foresee.
///
/// # Errors
/// The system gave no randomness.
pub fn nonce() -> anyhow::Result<[u8; 32]> {
    let mut nonce = [0; 32];
    SysRng
        .try_fill_bytes(&mut nonce)
        .context("asking the system for randomness")?;
    Ok(nonce)
}

/// HMAC over `parts`, one after the other.
pub fn code_of(key: &Key, parts: &[&[u8]]) -> HmacSha256 {
    let mut code = key.code();
    parts.iter().for_each(|part| code.update(part));
    code
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// RFC 4231, section 4.3 (test case 2), with the short key that only a test may have.
    #[test]
    fn the_code_is_hmac_sha_256() {
        let key = Key(b"Jefe".to_vec());
        let code = code_of(&key, &[b"what do ya want ", b"for nothing?"])
            .finalize()
            .into_bytes();
        let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn key_files_are_private_and_long_enough() {
        let folder = std::env::temp_dir().join(format!("dplab-key-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let path = folder.join("key");
        Key::make(&path).expect("a new key");
        assert_eq!(
            fs::metadata(&path).expect("it is there").permissions().mode() & 0o777,
            0o600
        );
        let key = Key::read(&path).expect("its own key");
        assert_eq!(key.0.len(), 2 * NEW_KEY_BYTES);
        assert!(!format!("{key:?}").contains(std::str::from_utf8(&key.0).expect("hex")));
        assert!(Key::make(&path).is_err(), "a key was overwritten");

        let refused = |bytes: &[u8], mode: u32| {
            fs::write(&path, bytes).expect("writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            format!("{:#}", Key::read(&path).expect_err("a bad key file"))
        };
        assert!(refused(b"0123456789abcdef", 0o640).contains("chmod 600"));
        assert!(refused(b"0123456789abcde \n", 0o600).contains("at least 16"));
        assert!(refused(&[b'x'; 5000], 0o600).contains("more than 4096"));
        assert!(Key::read(&folder).is_err());
        fs::remove_dir_all(&folder).expect("ours");
    }
}
