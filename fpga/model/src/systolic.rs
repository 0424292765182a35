//! `systolic_array`: every element of it, every cycle; and the formula for how long tiles take.

/// What the array is shown in a cycle. Slices are one element per row or column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// A row of weights is shifted in from the top; row N-1 comes first.
    pub weights: Option<&'a [i8]>,
    /// A vector of activations, and whether it is the first that uses the next weights.
    pub activations: Option<(&'a [i8], bool)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Systolic {
    side: usize,
    next_weights: Vec<i8>,
    weights: Vec<i8>,
    swaps: Vec<bool>,
    activations: Vec<i8>,
    products: Vec<i16>,
    sums: Vec<i32>,
    /// What waits to enter a row, and to leave a column: the oldest first.
    skew: Vec<Vec<(i8, bool)>>,
    deskew: Vec<Vec<i32>>,
    valid: Vec<bool>,
}

impl Systolic {
    /// An array of `side` × `side` elements.
    pub fn new(side: usize) -> Systolic {
        let elements = side * side;
        Systolic {
            side,
            next_weights: vec![0; elements],
            weights: vec![0; elements],
            swaps: vec![false; elements],
            activations: vec![0; elements],
            products: vec![0; elements],
            sums: vec![0; elements],
            skew: (0..side).map(|row| vec![(0, false); row]).collect(),
            deskew: (0..side).map(|column| vec![0; side - 1 - column]).collect(),
            valid: vec![false; 2 * side],
        }
    }

    /// The vector that it shows.
    pub fn shows(&self) -> Option<Vec<i32>> {
        let bottom = (self.side - 1) * self.side;
        let column = |column: usize| match self.deskew[column].first() {
            Some(&sum) => sum,
            None => self.sums[bottom + column],
        };
        self.valid[0].then(|| (0..self.side).map(column).collect())
    }

    /// The next edge.
    pub fn clock(&mut self, inputs: &Inputs<'_>) {
        let side = self.side;
        let bottom = (side - 1) * side;
        for (column, waiting) in self.deskew.iter_mut().enumerate() {
            if !waiting.is_empty() {
                waiting.rotate_left(1);
                *waiting.last_mut().expect("not empty") = self.sums[bottom + column];
            }
        }
        self.valid.rotate_left(1);
        *self.valid.last_mut().expect("not empty") = inputs.activations.is_some();
        // From the last element to the first: each sees its neighbours as they were.
        for row in (0..side).rev() {
            let (value, swap) = match inputs.activations {
                Some((values, swap)) => (values[row], swap),
                None => (0, false),
            };
            let entering = match self.skew[row].first().copied() {
                Some(oldest) => {
                    self.skew[row].rotate_left(1);
                    *self.skew[row].last_mut().expect("not empty") = (value, swap);
                    oldest
                }
                None => (value, swap),
            };
            for column in (0..side).rev() {
                let at = row * side + column;
                let (activation, swap) = match column {
                    0 => entering,
                    _ => (self.activations[at - 1], self.swaps[at - 1]),
                };
                let above = if row == 0 { 0 } else { self.sums[at - side] };
                self.sums[at] = above.wrapping_add(self.products[at].into());
                if swap {
                    self.weights[at] = self.next_weights[at];
                }
                self.products[at] = i16::from(activation) * i16::from(self.weights[at]);
                (self.activations[at], self.swaps[at]) = (activation, swap);
            }
        }
        if let Some(row) = inputs.weights {
            self.next_weights.rotate_right(side);
            self.next_weights[..side].copy_from_slice(row);
        }
    }
}

/// Cycles between the first activations of two tiles of `rows` rows: the weights of the next one may not come before the last swap
/// has reached the last corner.
pub const fn tile_period_cycles(side: u64, rows: u64) -> u64 {
    if rows > 3 * side - 1 { rows } else { 3 * side - 1 }
}

/// From the first weight to the last result, `tiles` tiles of `rows` rows each.
pub const fn cycles(side: u64, rows: u64, tiles: u64) -> u64 {
    3 * side + rows + (tiles - 1) * tile_period_cycles(side, rows)
}

/// The share of all multipliers' cycles in which one of them multiplies.
pub fn utilisation(side: u64, rows: u64, tiles: u64) -> f64 {
    (rows * tiles) as f64 / cycles(side, rows, tiles) as f64
}

/// What an array is made to do, cycle by cycle.
#[derive(Clone, Debug)]
pub struct Schedule {
    side: usize,
    rows: usize,
    weights: Vec<Vec<i8>>,
    activations: Vec<Vec<i8>>,
}

impl Schedule {
    /// `tiles` tiles of random weights, each with `rows` rows of random activations.
    pub fn random(side: usize, rows: usize, tiles: usize, rng: &mut crate::rng::Rng) -> Schedule {
        let mut vectors = |count: usize| -> Vec<Vec<i8>> {
            (0..count)
                .map(|_| (0..side).map(|_| rng.draw() as i8).collect())
                .collect()
        };
        Schedule {
            side,
            rows,
            weights: vectors(tiles * side),
            activations: vectors(tiles * rows),
        }
    }

    /// The inputs of a cycle; none when everything is in.
    pub fn inputs(&self, cycle: usize) -> Option<Inputs<'_>> {
        let (side, rows) = (self.side, self.rows);
        let period = tile_period_cycles(side as u64, rows as u64) as usize;
        let tiles = self.weights.len() / side;
        let (tile, at) = (cycle / period, cycle % period);
        let shifts = tile < tiles && at < side;
        let weights = shifts.then(|| &self.weights[tile * side + side - 1 - at][..]);
        let since = cycle.checked_sub(side);
        let activations = since.and_then(|since| {
            let (tile, at) = (since / period, since % period);
            let feeds = tile < tiles && at < rows;
            feeds.then(|| (&self.activations[tile * rows + at][..], at == 0))
        });
        (cycle < side + tiles * period).then_some(Inputs { weights, activations })
    }

    /// The products, one vector for each of activations.
    pub fn expected(&self) -> Vec<Vec<i32>> {
        let product = |(index, row): (usize, &Vec<i8>)| {
            let tile = index / self.rows;
            let column = |column: usize| {
                let terms = row.iter().enumerate();
                terms
                    .map(|(k, &a)| i32::from(a) * i32::from(self.weights[tile * self.side + k][column]))
                    .sum()
            };
            (0..self.side).map(column).collect()
        };
        self.activations.iter().enumerate().map(product).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_formula_says_how_long_the_model_takes() {
        let mut rng = Rng::new(7);
        for _ in 0..60 {
            let side = 2 + rng.below(9) as usize;
            let (rows, tiles) = (1 + rng.below(60) as usize, 1 + rng.below(5) as usize);
            let schedule = Schedule::random(side, rows, tiles, &mut rng);
            let mut array = Systolic::new(side);
            let (mut got, mut last) = (Vec::new(), 0);
            let quiet = Inputs {
                weights: None,
                activations: None,
            };
            for cycle in 0..(side + tiles * rows.max(3 * side) + 4 * side) {
                if let Some(sums) = array.shows() {
                    got.push(sums);
                    last = cycle as u64;
                }
                array.clock(&schedule.inputs(cycle).unwrap_or(quiet.clone()));
            }
            assert!(got == schedule.expected(), "{side} {rows} {tiles}");
            let expected = cycles(side as u64, rows as u64, tiles as u64);
            assert_eq!(last + 1, expected, "{side} {rows} {tiles}");
        }
    }
}
