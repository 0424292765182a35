//! A scan over rows of 512 bits: predicate, projection, aggregates.

use crate::Way;

/// A key, and seven columns.
pub type Row = [u64; 8];

/// What a scan looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The least key.
    pub low: u64,
    /// The largest key, inclusive.
    pub high: u64,
    /// Which lanes stay, as bits.
    pub keep: u8,
    /// The lane that is summed up, below 8.
    pub column: u8,
}

/// What it counts; of no rows the least and the largest are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows that stay.
    pub kept: u64,
    /// Of the column, modulo 2^64.
    pub sum: u64,
    /// Of the column.
    pub least: u64,
    /// Of the column.
    pub largest: u64,
}

impl Query {
    /// Does the row stay?
    #[inline]
    pub(crate) const fn wants(&self, row: &Row) -> bool {
        self.low <= row[0] && row[0] <= self.high
    }

    /// All ones for lanes that stay.
    #[inline]
    pub(crate) fn masks(&self) -> Row {
        std::array::from_fn(|lane| if self.keep >> lane & 1 == 1 { u64::MAX } else { 0 })
    }
}

/// The rows that stay, projected, at the beginning of `out`; behind them it may hold anything.
///
/// # Panics
/// If the way is not here, the column is none, or `out` has less room than there are rows.
pub fn scan(way: Way, query: &Query, rows: &[Row], out: &mut [Row]) -> Totals {
    assert!(way.is_here(), "this CPU has no {}", way.name());
    assert!(query.column < 8, "lane {} of 8", query.column);
    assert!(out.len() >= rows.len(), "room for {} of {} rows", out.len(), rows.len());
    match way {
        #[cfg(target_arch = "x86_64")]
        Way::Avx2 => crate::sys::scan_avx2(query, rows, out),
        #[cfg(target_arch = "x86_64")]
        Way::Avx512 => crate::sys::scan_avx512(query, rows, out),
        _ => plain(query, rows, out),
    }
}

/// As one would write it: a branch for each row.
fn plain(query: &Query, rows: &[Row], out: &mut [Row]) -> Totals {
    let masks = query.masks();
    let mut totals = Totals {
        least: u64::MAX,
        ..Totals::default()
    };
    for row in rows {
        if query.wants(row) {
            let value = row[usize::from(query.column)];
            out[totals.kept as usize] = std::array::from_fn(|lane| row[lane] & masks[lane]);
            totals.sum = totals.sum.wrapping_add(value);
            totals.least = totals.least.min(value);
            totals.largest = totals.largest.max(value);
            totals.kept += 1;
        }
    }
    totals.of(rows.len())
}

impl Totals {
    /// Over all rows.
    pub(crate) const fn of(mut self, rows_count: usize) -> Totals {
        self.rows = rows_count as u64;
        if self.kept == 0 {
            self.least = 0;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use fpga_model::{filter, rng::Rng};

    use super::*;

    /// What the cycle model sends for the same rows.
    fn modelled(query: &Query, rows: &[Row]) -> (Vec<Row>, Totals) {
        let query = filter::Query {
            low: query.low,
            high: query.high,
            keep: query.keep,
            column: query.column,
        };
        let mut model = filter::Filter::new(query);
        let (mut kept, mut totals, mut next) = (Vec::new(), None, 0);
        while totals.is_none() {
            match model.shows() {
                Some((row, true)) => totals = Some(row),
                Some((row, false)) => kept.push(row),
                None => {}
            }
            let row = rows.get(next).map(|row| (*row, next + 1 == rows.len()));
            next += usize::from(model.is_ready() && row.is_some());
            model.clock(row, model.shows().is_some());
        }
        let [rows, kept_count, sum, least, largest, ..] = totals.expect("it ends with them");
        let totals = Totals {
            rows,
            kept: kept_count,
            sum,
            least,
            largest,
        };
        (kept, totals)
    }

    #[test]
    fn all_ways_say_what_the_cycle_model_says() {
        let mut rng = Rng::new(5);
        for round in 0..60 {
            let rows_count = 1 + rng.below(100) as usize;
            let rows: Vec<Row> = (0..rows_count)
                .map(|_| std::array::from_fn(|lane| if lane == 0 { rng.below(1_000) } else { rng.draw() }))
                .collect();
            let query = Query {
                low: rng.below(900),
                // Sometimes nothing, sometimes everything.
                high: [0, 500, 1_000, u64::MAX][round % 4],
                keep: rng.draw() as u8,
                column: rng.below(8) as u8,
            };
            let (kept, totals) = modelled(&query, &rows);
            for way in Way::ALL.into_iter().filter(|way| way.is_here()) {
                let mut out = vec![[7; 8]; rows_count];
                assert_eq!(scan(way, &query, &rows, &mut out), totals, "{way:?}, round {round}");
                assert_eq!(out[..kept.len()], kept, "{way:?}, round {round}");
            }
        }
    }
}
