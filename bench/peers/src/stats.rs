//! What rounds say together: a median and the interval that it lies in, and ratios within a round.

use std::fmt;

/// A figure of each round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<f64>);

/// A median and the rounds that it lies between ([`coverage_percent`]): with few rounds the lowest and the highest, with more as
/// many from either end as the probability allows.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Rounds {
    /// `None` before the first round.
    pub fn estimate(&self) -> Option<Estimate> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let beside = beside_count(sorted.len());
        let (&low, &high) = (sorted.get(beside)?, sorted.get(sorted.len().checked_sub(beside + 1)?)?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Estimate { median, low, high })
    }

    /// Round by round: ours of that round over theirs.
    pub fn over(&self, other: &Rounds) -> Rounds {
        Rounds(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(ours, theirs)| ours / theirs)
                .collect(),
        )
    }
}

/// An interval that leaves rounds beside it must still have the median with this probability, in percent; five rounds have it with
/// 93.75.
const COVERAGE_PERCENT_MIN: f64 = 93.0;

/// Probability that the median lies between the round that has `beside` below it and the one that has as many above it, in percent:
/// each round is above the median or below it with the same chance.
fn coverage(rounds_count: usize, beside: usize) -> f64 {
    let (mut ways, mut outside) = (1.0, 0.0);
    for index in 0..=beside {
        outside += ways;
        ways *= (rounds_count - index) as f64 / (index + 1) as f64;
    }
    100.0 * (1.0 - outside * 0.5f64.powi(rounds_count as i32 - 1))
}

/// How many rounds an estimate leaves out at either end.
fn beside_count(rounds_count: usize) -> usize {
    let fits = |&beside: &usize| coverage(rounds_count, beside) >= COVERAGE_PERCENT_MIN;
    (0..rounds_count / 2).take_while(fits).last().unwrap_or(0)
}

/// Probability that the median lies within an estimate of so many rounds, in percent.
pub fn coverage_percent(rounds_count: usize) -> f64 {
    coverage(rounds_count, beside_count(rounds_count))
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, low, high) = (Brief(self.median), Brief(self.low), Brief(self.high));
        write!(f, "{median} ({low} to {high})")
    }
}

/// Three digits, thousands apart.
struct Brief(f64);

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        let digits = match value.abs() {
            0.0 => 0,
            size => (2 - size.log10().floor() as i32).max(0) as usize,
        };
        let text = format!("{value:.digits$}");
        let (whole, rest) = text
            .split_once('.')
            .map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) && digit != '-' {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        rest.map_or(Ok(()), |rest| write!(f, ".{rest}"))
    }
}

/// In microseconds, three digits.
pub fn us(ns: u64) -> String {
    format!("{}", Brief(ns as f64 / 1000.0))
}

/// As a cell: the estimate, or a dash.
pub fn cell(rounds: &Rounds) -> String {
    rounds
        .estimate()
        .map_or("–".to_owned(), |estimate| estimate.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_between_the_lowest_and_the_highest() {
        let odd = Rounds(vec![3.0, 1.0, 2.0]).estimate().expect("three");
        assert_eq!((odd.median, odd.low, odd.high), (2.0, 1.0, 3.0));
        let even = Rounds(vec![4.0, 1.0, 2.0, 3.0]).estimate().expect("four");
        assert_eq!(even.median, 2.5);
        assert!(Rounds::default().estimate().is_none());
        assert_eq!(coverage_percent(5), 93.75);
    }

    #[test]
    fn more_rounds_leave_some_beside_the_interval() {
        let beside: Vec<usize> = (8..=15).map(beside_count).collect();
        assert_eq!(beside, [0, 1, 1, 2, 2, 2, 3, 3]);
        // 1 − 2 (1 + 9) / 512
        assert_eq!(coverage_percent(9), 96.09375);
        let nine = Rounds((0..9).map(f64::from).collect()).estimate().expect("nine");
        assert_eq!((nine.median, nine.low, nine.high), (4.0, 1.0, 7.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let ratio = Rounds(vec![10.0, 30.0]).over(&Rounds(vec![5.0, 10.0]));
        assert_eq!(ratio.0, [2.0, 3.0]);
    }

    #[test]
    fn figures_have_three_digits() {
        let brief = |value: f64| Brief(value).to_string();
        assert_eq!(brief(0.4974), "0.497");
        assert_eq!(brief(53.14), "53.1");
        assert_eq!(brief(1234567.0), "1,234,567");
        assert_eq!(brief(82_000.4), "82,000");
        assert_eq!(us(226_000), "226");
    }
}
