//! How bad the network is to be, and what is too bad to be meant.

use std::time::Duration;

/// The longest delay: a frame older than this is lost by any protocol's measure, and a typing error by ours.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// The most frames that may be held: a 100 Gbit/s link's worth of smallest frames for half a millisecond.
pub const HELD_FRAMES_MAX: usize = 1 << 16;

/// How bad the network is. The default is a perfect one.
#[derive(Clone, Debug)]
pub struct FaultOptions {
    /// The same seed and the same calls give the same faults.
    pub seed: u64,
    /// What happens to received frames.
    pub rx: FaultRates,
    /// What happens to frames to be sent.
    pub tx: FaultRates,
    /// Frames held back at once in each direction, delayed or copies; more are lost and counted, as netem's limit
    /// does. Each takes the port's longest frame of memory. At most [`HELD_FRAMES_MAX`].
    pub held_frames_max: usize,
}

impl Default for FaultOptions {
    fn default() -> FaultOptions {
        FaultOptions {
            seed: 0,
            rx: FaultRates::default(),
            tx: FaultRates::default(),
            held_frames_max: 256,
        }
    }
}

/// How often each fault happens in one direction; 0 is never, 1 always. Each is drawn for itself; a lost frame suffers
/// nothing else, and a copy is made before its frame is corrupted or delayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultRates {
    /// Frames that vanish.
    pub loss_ratio: f64,
    /// Frames followed by a copy.
    pub duplicate_ratio: f64,
    /// Frames in which one bit is flipped.
    pub corrupt_ratio: f64,
    /// Frames held back.
    pub delay_ratio: f64,
    /// The shortest time that a frame is held back.
    pub delay_min: Duration,
    /// The longest, inclusive: the time is uniform in between. At most [`DELAY_MAX`].
    pub delay_max: Duration,
}

/// Options that cannot be meant.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FaultOptionsError {
    /// Not a share of something.
    #[error("{direction} {option} is {ratio}: a ratio is from 0 (never) to 1 (always)")]
    Ratio {
        /// "rx" or "tx".
        direction: &'static str,
        /// The field's name.
        option: &'static str,
        /// What it was.
        ratio: f64,
    },
    /// An empty range, or longer than [`DELAY_MAX`].
    #[error(
        "{direction} delay is from {delay_min:?} to {delay_max:?}: min must not be above max, nor max above {DELAY_MAX:?}"
    )]
    Delay {
        /// "rx" or "tx".
        direction: &'static str,
        /// The field's value.
        delay_min: Duration,
        /// The field's value.
        delay_max: Duration,
    },
    /// A delay or a copy needs a place to be held, and places are memory.
    #[error("held_frames_max is {held_frames_max}: it is from 1 to {HELD_FRAMES_MAX}")]
    Held {
        /// What it was.
        held_frames_max: usize,
    },
}

impl FaultOptions {
    pub(super) fn check(&self) -> Result<(), FaultOptionsError> {
        let held_frames_max = self.held_frames_max;
        if !(1..=HELD_FRAMES_MAX).contains(&held_frames_max) {
            return Err(FaultOptionsError::Held { held_frames_max });
        }
        self.rx.check("rx")?;
        self.tx.check("tx")
    }
}

impl FaultRates {
    fn check(&self, direction: &'static str) -> Result<(), FaultOptionsError> {
        for (option, ratio) in [
            ("loss_ratio", self.loss_ratio),
            ("duplicate_ratio", self.duplicate_ratio),
            ("corrupt_ratio", self.corrupt_ratio),
            ("delay_ratio", self.delay_ratio),
        ] {
            // Not a number is in no range.
            if !(0.0..=1.0).contains(&ratio) {
                return Err(FaultOptionsError::Ratio {
                    direction,
                    option,
                    ratio,
                });
            }
        }
        let (delay_min, delay_max) = (self.delay_min, self.delay_max);
        if delay_min > delay_max || delay_max > DELAY_MAX {
            return Err(FaultOptionsError::Delay {
                direction,
                delay_min,
                delay_max,
            });
        }
        Ok(())
    }
}
