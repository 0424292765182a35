//! The echo payload: who asks, then filler up to the size under test.

use core::ops::Range;

use crate::Reject;

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Which client of the run asks, so that replies to an earlier client are told apart.
    pub const CLIENT: Range<usize> = 0..4;
}

/// The smallest echo payload.
pub const PAYLOAD_BYTES_MIN: usize = 4;

/// A parsed echo payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Which client asks.
    pub client: u32,
    /// Filler; comes back unchanged.
    pub filler: &'a [u8],
}

/// Parses an echo payload.
///
/// # Errors
/// [`Reject::Short`] below [`PAYLOAD_BYTES_MIN`].
pub fn parse(payload: &[u8]) -> Result<Echo<'_>, Reject> {
    let (client, filler) = payload.split_first_chunk::<4>().ok_or(Reject::Short)?;
    Ok(Echo {
        client: u32::from_be_bytes(*client),
        filler,
    })
}

/// Writes `echo`; the payload is exactly `PAYLOAD_BYTES_MIN + echo.filler.len()` bytes.
///
/// # Panics
/// If `payload` has another length.
pub fn emit(echo: &Echo<'_>, payload: &mut [u8]) {
    payload[field::CLIENT].copy_from_slice(&echo.client.to_be_bytes());
    payload[field::CLIENT.end..].copy_from_slice(echo.filler);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(client: u32, filler in prop::collection::vec(any::<u8>(), 0..200)) {
            let echo = Echo { client, filler: &filler };
            let mut payload = vec![0xaa; PAYLOAD_BYTES_MIN + filler.len()];
            emit(&echo, &mut payload);
            prop_assert_eq!(parse(&payload), Ok(echo));
            prop_assert_eq!(parse(&payload[..PAYLOAD_BYTES_MIN - 1]), Err(Reject::Short));
        }
    }
}
