//! A schedule out of a file: what was once recorded is asked again.

use std::{path::Path, time::Duration};

use super::{
    Schedule, ScheduleError,
    schedule::{DURATION_MAX, REQUESTS_MAX},
};

/// The largest replay file that is read: 50 million lines of 20 digits fit.
pub const REPLAY_BYTES_MAX: u64 = 1 << 30;

impl Schedule {
    /// The send times in `text`, one per line, counted from the start of the run and never falling. A whole number is
    /// nanoseconds (`12000`), one with a decimal point is seconds (`0.000012`). Empty lines and lines that begin with
    /// `#` are skipped.
    ///
    /// # Errors
    /// [`ScheduleError::Line`] with the number of the first line that is not such a time, or a bound of this module.
    pub fn replay(text: &str) -> Result<Schedule, ScheduleError> {
        let mut offsets_ns: Vec<u64> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| ScheduleError::Line {
                line_number: index + 1,
                seen: line.chars().take(40).collect(),
                why,
            };
            let offset_ns = parse_offset_ns(line).map_err(wrong)?;
            if offset_ns > DURATION_MAX.as_nanos() as u64 {
                return Err(wrong("is later than 24 hours, the longest schedule"));
            }
            if offsets_ns.last().is_some_and(|&last_ns| offset_ns < last_ns) {
                return Err(wrong("is earlier than the line before; send times never fall"));
            }
            if offsets_ns.len() as u64 == REQUESTS_MAX {
                return Err(wrong("is one request too many; a schedule holds at most 50 million"));
            }
            offsets_ns.push(offset_ns);
        }
        let last_ns = *offsets_ns.last().ok_or(ScheduleError::NoLines)?;
        Ok(Schedule {
            offsets_ns,
            duration: Duration::from_nanos(last_ns.max(1)),
        })
    }

    /// [`Schedule::replay`] of a file.
    ///
    /// # Errors
    /// As [`Schedule::replay`], and when the file cannot be read or is larger than [`REPLAY_BYTES_MAX`].
    pub fn replay_file(path: &Path) -> Result<Schedule, ScheduleError> {
        let read = || {
            let size_bytes = std::fs::metadata(path)?.len();
            if size_bytes > REPLAY_BYTES_MAX {
                let seen = format!("{size_bytes} bytes is above the bound of {REPLAY_BYTES_MAX} bytes");
                return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, seen));
            }
            std::fs::read_to_string(path)
        };
        let text = read().map_err(|error| ScheduleError::Read {
            path: path.display().to_string(),
            error,
        })?;
        Schedule::replay(&text)
    }
}

fn parse_offset_ns(line: &str) -> Result<u64, &'static str> {
    const WRONG: &str = "is not a send time; write nanoseconds (12000) or seconds (0.000012), one per line";
    if line.bytes().all(|byte| byte.is_ascii_digit()) {
        return line.parse().map_err(|_| "does not fit 64 bits of nanoseconds");
    }
    let plain = line.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = line.parse().map_err(|_| WRONG)?;
    if !plain {
        return Err(WRONG);
    }
    // Above 2^53 ns (104 days) the conversion saturates, and the bound on the duration refuses it.
    Ok((seconds * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_replay_reads_nanoseconds_and_seconds_and_names_the_bad_line() {
        let schedule = Schedule::replay("# recorded\n0\n1500\n\n0.000002\n1.0\n").unwrap();
        assert_eq!(schedule.offsets_ns(), [0, 1_500, 2_000, 1_000_000_000]);
        assert_eq!(schedule.duration(), SECOND);

        for (text, said) in [
            ("0\n12\nsoon\n", "line 3: \"soon\" is not a send time"),
            ("5\n4\n", "line 2: \"4\" is earlier than the line before"),
            ("-1\n", "line 1: \"-1\" is not a send time"),
            ("1e300\n", "line 1: \"1e300\" is not a send time"),
            ("nan\n", "line 1: \"nan\" is not a send time"),
            (".\n", "line 1: \".\" is not a send time"),
            (
                "99999999999999999999\n",
                "line 1: \"99999999999999999999\" does not fit",
            ),
            ("99999999.0\n", "is later than 24 hours"),
            ("# nothing\n", "holds no send time"),
        ] {
            let error = Schedule::replay(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_unreadable_replay_file_is_named() {
        let error = Schedule::replay_file(Path::new("/nonexistent/arrivals")).expect_err("no such file");
        assert!(error.to_string().contains("/nonexistent/arrivals"), "{error}");
    }
}
