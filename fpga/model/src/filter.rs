//! `kv_filter`, with rows of 512 bits.

/// Lanes of a row: the key, and seven columns.
pub const LANES: usize = 8;
/// A row.
pub type Row = [u64; LANES];

/// What a scan looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The least key.
    pub low: u64,
    /// The largest key, inclusive.
    pub high: u64,
    /// Which lanes stay, as bits.
    pub keep: u8,
    /// The lane that is summed up.
    pub column: u8,
}

impl Query {
    /// Does the row stay?
    pub const fn wants(&self, row: &Row) -> bool {
        self.low <= row[0] && row[0] <= self.high
    }

    /// What stays of it.
    pub fn project(&self, row: &Row) -> Row {
        std::array::from_fn(|lane| if self.keep >> lane & 1 == 1 { row[lane] } else { 0 })
    }

    /// What a scan sends: the rows that stay, and the aggregates.
    pub fn scan(&self, rows: &[Row]) -> Vec<(Row, bool)> {
        let mut totals = Totals::default();
        let mut out = Vec::new();
        for row in rows {
            totals.see(self, row);
            if self.wants(row) {
                out.push((self.project(row), false));
            }
        }
        out.push((totals.row(), true));
        out
    }
}

/// The aggregates of a scan.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    rows: u64,
    kept: u64,
    sum: u64,
    least: u64,
    largest: u64,
}

impl Totals {
    fn see(&mut self, query: &Query, row: &Row) {
        self.rows += 1;
        if query.wants(row) {
            let value = row.get(usize::from(query.column)).copied().unwrap_or(0);
            self.sum = self.sum.wrapping_add(value);
            self.least = if self.kept == 0 { value } else { self.least.min(value) };
            self.largest = if self.kept == 0 { value } else { self.largest.max(value) };
            self.kept += 1;
        }
    }

    const fn row(&self) -> Row {
        [self.rows, self.kept, self.sum, self.least, self.largest, 0, 0, 0]
    }
}

/// See the module. It is configured between scans, so it knows its query from the beginning.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    query: Query,
    skid: Option<(Row, bool)>,
    stages: [Option<(Row, bool)>; 3],
    totals: Totals,
    is_total: bool,
    out: Option<(Row, bool)>,
}

impl Filter {
    /// One that looks for this.
    pub fn new(query: Query) -> Filter {
        Filter {
            query,
            ..Filter::default()
        }
    }

    /// A row is taken in this cycle.
    pub const fn is_ready(&self) -> bool {
        self.skid.is_none()
    }

    /// What it shows: a row, and whether it is the aggregates.
    pub const fn shows(&self) -> Option<(Row, bool)> {
        self.out
    }

    /// The next edge: a row and whether it is the scan's last; whether what is shown is taken.
    pub fn clock(&mut self, row: Option<(Row, bool)>, taken: bool) {
        let row = row.filter(|_| self.is_ready());
        let goes = self.out.is_none() || taken;
        let steps = goes && !self.is_total;
        if taken {
            self.out = None;
        }
        if goes && self.is_total {
            self.out = Some((self.totals.row(), true));
            self.is_total = false;
            self.totals = Totals::default();
        } else if steps {
            let [first, second, third] = self.stages;
            self.stages = [self.skid.take().or(row), first, second];
            if let Some((row, is_last)) = third {
                self.totals.see(&self.query, &row);
                if self.query.wants(&row) {
                    self.out = Some((self.query.project(&row), false));
                }
                self.is_total = is_last;
            }
        }
        if !steps && row.is_some() {
            self.skid = row;
        }
    }
}
