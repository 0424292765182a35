//! Numbers as people read them: three significant digits and a unit that fits.

use crate::record::QuantileValue;

/// A duration given in nanoseconds: "812 ns", "14.5 µs", "1.02 ms", "3.00 s".
pub fn duration(ns: f64) -> String {
    scaled(ns, &[(1.0, " ns"), (1e3, " µs"), (1e6, " ms"), (1e9, " s")])
}

/// A quantile: a duration, "lost" when it falls among the lost requests, "n/a" when the sample is too small.
pub fn quantile(value: QuantileValue) -> String {
    match value {
        QuantileValue::Ns(ns) => duration(ns as f64),
        QuantileValue::Lost => "lost".into(),
        QuantileValue::Unsupported => "n/a".into(),
    }
}

/// An interval of quantiles: "14.3–14.8 µs"; empty when it has no end that says something.
pub fn quantile_interval(low: QuantileValue, high: QuantileValue) -> String {
    match (low, high) {
        (QuantileValue::Unsupported, QuantileValue::Unsupported) | (QuantileValue::Lost, QuantileValue::Lost) => {
            String::new()
        }
        (QuantileValue::Ns(low), QuantileValue::Ns(high)) => interval(&duration(low as f64), &duration(high as f64)),
        (low, high) => format!("{}–{}", quantile(low), quantile(high)),
    }
}

/// "14.3–14.8 µs" of "14.3 µs" and "14.8 µs".
pub fn interval(low: &str, high: &str) -> String {
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}–{high}"),
        _ => format!("{low}–{high}"),
    }
}

/// A number with one of the units of [`crate::record::Metric`].
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "ns" => duration(value),
        "1/s" => scaled(value, &[(1.0, " /s"), (1e3, " k/s"), (1e6, " M/s"), (1e9, " G/s")]),
        "bytes" => scaled(value, &[(1.0, " B"), (1e3, " kB"), (1e6, " MB"), (1e9, " GB")]),
        "bit/s" => scaled(
            value,
            &[(1.0, " bit/s"), (1e3, " kbit/s"), (1e6, " Mbit/s"), (1e9, " Gbit/s")],
        ),
        "count" => count_or_number(value),
        "ratio" | "" => significant(value),
        other => format!("{} {other}", significant(value)),
    }
}

/// A whole number in groups of three: "12 345" with narrow spaces that do not break.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant digits: "0.512", "14.5", "812", "12 300".
pub fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "n/a".into();
    }
    let value = rounded(value);
    let decimals = 2 - magnitude(value);
    if decimals <= 0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(value.abs() as u64));
    }
    if !(-12..=15).contains(&magnitude(value)) {
        return format!("{value:.2e}");
    }
    format!("{value:.*}", decimals.max(0) as usize)
}

/// The name of a quantile: "p50", "p99.9".
pub fn quantile_name(q: f64) -> String {
    // 0.9999 × 100 is 99.99000000000001 in binary.
    let percent = format!("{:.6}", q * 100.0);
    format!("p{}", percent.trim_end_matches('0').trim_end_matches('.'))
}

/// A wall clock time: "2026-03-01 14:05:09 UTC".
pub fn utc(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    // Days since 1970 to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC",
        second % 60
    )
}

fn count_or_number(value: f64) -> String {
    if value >= 0.0 && value.fract() == 0.0 && value < 1e15 {
        count(value as u64)
    } else {
        significant(value)
    }
}

/// With the largest of the units that leaves at least 1; units ascend.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if !value.is_finite() {
        return "n/a".into();
    }
    // Rounded first, so that 999.7 ns is 1.00 µs and not 1000 ns.
    let size = rounded(value).abs();
    let fits = |&&(factor, _): &&(f64, &str)| size >= factor;
    let (factor, unit) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{}{unit}", significant(value / factor))
}

/// To three significant digits.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // By way of text, which rounds in decimal: the factor 10^-n has no exact binary form.
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// The power of ten below a number that has been rounded.
fn magnitude(value: f64) -> i32 {
    if value == 0.0 {
        2
    } else {
        value.abs().log10().floor() as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_the_unit_that_fits() {
        let cases = [
            (0.0, "0 ns"),
            (0.25, "0.250 ns"),
            (7.0, "7.00 ns"),
            (812.4, "812 ns"),
            (999.4, "999 ns"),
            (999.7, "1.00 µs"),
            (14_540.0, "14.5 µs"),
            (999_600.0, "1.00 ms"),
            (190_000_000.0, "190 ms"),
            (3e9, "3.00 s"),
            (12_345e9, "12\u{202f}300 s"),
            (f64::NAN, "n/a"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn numbers_keep_three_digits_at_every_size() {
        let cases = [
            (0.0, "0"),
            (0.5119, "0.512"),
            (-0.012345, "-0.0123"),
            (1.0, "1.00"),
            (9.996, "10.0"),
            (99.96, "100"),
            (-1234.0, "-1\u{202f}230"),
            (1e-20, "1.00e-20"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn other_units() {
        assert_eq!(with_unit(12_345.0, "1/s"), "12.3 k/s");
        assert_eq!(with_unit(8972.0, "bytes"), "8.97 kB");
        assert_eq!(with_unit(1_234_567.0, "count"), "1\u{202f}234\u{202f}567");
        assert_eq!(with_unit(0.5, "ratio"), "0.500");
        assert_eq!(with_unit(2.0, "frames"), "2.00 frames");
        assert_eq!(count(0), "0");
    }

    #[test]
    fn quantiles_say_lost_and_too_small() {
        use QuantileValue::{Lost, Ns, Unsupported};
        assert_eq!(quantile(Lost), "lost");
        assert_eq!(quantile(Unsupported), "n/a");
        assert_eq!(quantile_interval(Ns(14_300), Ns(14_800)), "14.3–14.8 µs");
        assert_eq!(quantile_interval(Ns(980), Ns(1020)), "980 ns–1.02 µs");
        assert_eq!(quantile_interval(Ns(980), Lost), "980 ns–lost");
        assert_eq!(quantile_interval(Unsupported, Unsupported), "");
        assert_eq!(quantile_interval(Lost, Lost), "");
        let names: Vec<String> = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.1].map(quantile_name).into();
        assert_eq!(names, ["p50", "p90", "p99", "p99.9", "p99.99", "p10"]);
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696_000), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_735_689_599_999), "2024-12-31 23:59:59 UTC");
    }
}
