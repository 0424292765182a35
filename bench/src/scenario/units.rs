//! Rates, times, sizes, lengths and names as a person writes them: "10 Gbit/s", "25 us", "1 MB", "100 packets".

use dataplane_queue::{Limit, SimTime};
use dataplane_transports::{ControllerKind, controllers::UnknownController};
use schemars::JsonSchema;
use serde::Deserialize;

/// A number and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = number.replace('_', "").parse().ok()?;
    number.is_finite().then(|| (number, unit.trim()))
}

/// A number times its unit, by a list of units. The message names what would do.
fn parse(text: &str, units: &[(&str, f64)], example: &str) -> Result<u64, String> {
    let known = units.iter().map(|(name, _)| *name);
    let advice = || {
        format!(
            "write a number and one of {}, as in {example:?}",
            known.clone().collect::<Vec<_>>().join(", ")
        )
    };
    let (number, unit) = split(text).ok_or_else(|| format!("{text:?} does not begin with a number; {}", advice()))?;
    let scale = units.iter().find(|(name, _)| *name == unit);
    let (_, scale) = scale.ok_or_else(|| format!("{text:?} has no unit that is known here; {}", advice()))?;
    let value = number * scale;
    // Beyond 2^53 neighbouring whole numbers are the same double.
    match value <= 9.007e15 {
        true => Ok(value.round() as u64),
        false => Err(format!("{text:?} is more than can be counted exactly")),
    }
}

/// Bits each second, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Rate {
    /// As a number.
    pub bits_per_sec: u64,
}

impl TryFrom<String> for Rate {
    type Error = String;
    fn try_from(text: String) -> Result<Rate, String> {
        const UNITS: &[(&str, f64)] = &[
            ("bit/s", 1.0),
            ("kbit/s", 1e3),
            ("Mbit/s", 1e6),
            ("Gbit/s", 1e9),
            ("Tbit/s", 1e12),
        ];
        match parse(&text, UNITS, "10 Gbit/s")? {
            0 => Err(format!(
                "{text:?} is a rate of 0: nothing would ever arrive; try \"1 Gbit/s\""
            )),
            bits_per_sec => Ok(Rate { bits_per_sec }),
        }
    }
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Span {
    /// In nanoseconds.
    pub ns: u64,
}

impl Span {
    /// For the simulator.
    pub fn sim(self) -> SimTime {
        SimTime::from_ns(self.ns)
    }

    /// For transports.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.ns)
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Span, String> {
        const UNITS: &[(&str, f64)] = &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
        parse(&text, UNITS, "25 us").map(|ns| Span { ns })
    }
}

const BYTES: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Size {
    /// As a number.
    pub bytes: u64,
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Size, String> {
        parse(&text, BYTES, "1 MB").map(|bytes| Size { bytes })
    }
}

/// The length of a queue, in packets or in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Length(#[schemars(with = "String")] pub Limit);

impl TryFrom<String> for Length {
    type Error = String;
    fn try_from(text: String) -> Result<Length, String> {
        if let Some((number, "packets" | "packet")) = split(&text) {
            return match number.fract() == 0.0 && number <= f64::from(u32::MAX) {
                true => Ok(Length(Limit::Packets(number as u32))),
                false => Err(format!("{text:?}: packets are counted in whole numbers")),
            };
        }
        let bytes = parse(&text, BYTES, "100 packets");
        bytes
            .map(|bytes| Length(Limit::Bytes(bytes)))
            .map_err(|why| format!("{why}, or packets"))
    }
}

/// A number of segments, which may be less than one.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(with = "f64")]
pub struct Segments {
    /// More than 0.
    pub count: f64,
}

impl TryFrom<f64> for Segments {
    type Error = String;
    fn try_from(count: f64) -> Result<Segments, String> {
        /// Nobody's window begins larger.
        const MAX: f64 = 1_000.0;
        match count > 0.0 && count <= MAX {
            true => Ok(Segments { count }),
            false => Err(format!(
                "{count} segments: write a number above 0 and up to {MAX}, such as 0.01 or 1"
            )),
        }
    }
}

/// Who decides how much may be in flight, by the name that transports know it by. A name that begins with `quinn-` makes the
/// flow one of quinn's, with a controller of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Controller(
    #[schemars(with = "String")] pub ControllerKind,
    #[serde(skip)]
    #[schemars(skip)]
    pub Option<QuinnController>,
);

/// The controllers that quinn has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuinnController {
    /// Its default.
    Cubic,
    /// RFC 9002's.
    NewReno,
    /// "Experimental! Use at your own risk", says its documentation. Its draws have no seed.
    Bbr,
}

/// Names of quinn's controllers; the kind beside it says which of ours it is like.
const QUINN: &[(&str, QuinnController, ControllerKind)] = &[
    ("quinn-cubic", QuinnController::Cubic, ControllerKind::Cubic),
    ("quinn-newreno", QuinnController::NewReno, ControllerKind::NewReno),
    ("quinn-bbr", QuinnController::Bbr, ControllerKind::Bbr1),
];

impl TryFrom<String> for Controller {
    type Error = String;
    fn try_from(name: String) -> Result<Controller, String> {
        if let Some((_, quinn, kind)) = QUINN.iter().find(|(known, ..)| *known == name) {
            return Ok(Controller(*kind, Some(*quinn)));
        }
        let known: Vec<&str> = QUINN.iter().map(|(known, ..)| *known).collect();
        name.parse()
            .map(|kind| Controller(kind, None))
            .map_err(|error: UnknownController| format!("{error}; or of quinn: {}", known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: TryFrom<String, Error = String>>(text: &str) -> Result<T, String> {
        T::try_from(text.to_owned())
    }

    #[test]
    fn what_people_write_is_understood() {
        assert_eq!(
            of::<Rate>("10 Gbit/s").map(|rate| rate.bits_per_sec),
            Ok(10_000_000_000)
        );
        assert_eq!(of::<Rate>("2.5Gbit/s").map(|rate| rate.bits_per_sec), Ok(2_500_000_000));
        assert_eq!(of::<Span>("200 us").map(|span| span.ns), Ok(200_000));
        assert_eq!(of::<Span>("1.5 ms").map(|span| span.ns), Ok(1_500_000));
        assert_eq!(of::<Size>("256 KiB").map(|size| size.bytes), Ok(262_144));
        assert_eq!(of::<Length>("100 packets"), Ok(Length(Limit::Packets(100))));
        assert_eq!(of::<Length>("97.5 KB"), Ok(Length(Limit::Bytes(97_500))));
    }

    #[test]
    fn controllers_are_ours_or_quinns() {
        assert_eq!(of::<Controller>("dctcp"), Ok(Controller(ControllerKind::Dctcp, None)));
        let quinn = of::<Controller>("quinn-newreno").map(|controller| controller.1);
        assert_eq!(quinn, Ok(Some(QuinnController::NewReno)));
        assert!(
            of::<Controller>("quinn")
                .expect_err("no controller")
                .contains("quinn-cubic")
        );
    }

    #[test]
    fn what_means_nothing_is_answered_with_what_would() {
        for (text, part) in [
            ("0 Gbit/s", "rate of 0"),
            ("10 Gbps", "Gbit/s"),
            ("fast", "begin with a number"),
        ] {
            let error = of::<Rate>(text).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
        assert!(of::<Span>("5 minutes").expect_err("unit").contains("ms"));
        assert!(of::<Span>("1e3 s").is_err() && of::<Span>("-1 s").is_err());
        assert!(
            of::<Length>("1.5 packets")
                .expect_err("half a packet")
                .contains("whole")
        );
    }
}
