//! The rows of one experiment, as claims look at them.

use crate::record::Row;

/// Rows in the order they were measured.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The rows, invalid ones included; [`Table::valid`] leaves those out.
    pub rows: Vec<Row>,
}

impl Table {
    /// Rows that may be judged.
    pub fn valid(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.validity.is_valid())
    }
}
