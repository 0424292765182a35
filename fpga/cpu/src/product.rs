//! Products of int8 matrices with sums of 32 bits, the weights laid out beforehand as an array would hold them.

use crate::Way;

/// Columns are computed so many at a time.
pub const COLUMNS_STEP: usize = 64;
/// Rows of weights are multiplied so many at a time.
pub const DEPTH_STEP: usize = 4;

/// A matrix of weights, `depth` rows of `columns`, laid out for a way.
#[derive(Clone, Debug)]
pub struct Weights {
    way: Way,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
    /// Row by row.
    plain: Vec<i8>,
    /// For 256 bits: by eight columns, then two rows of each column, as 16 bits.
    pub(crate) pairs: Vec<i16>,
    /// For 512 bits: by 16 columns, then four rows of each column.
    pub(crate) fours: Vec<i8>,
    /// 128 times each column's sum, which is too much where activations are taken as unsigned.
    pub(crate) excess: Vec<i32>,
}

impl Weights {
    /// Lays out `weights`, row by row.
    ///
    /// # Panics
    /// If the way is not here, or the depth is no multiple of 4, or the columns are none of 64, or the weights are not so many.
    pub fn new(way: Way, depth: usize, columns: usize, weights: &[i8]) -> Weights {
        assert!(way.is_here(), "this CPU has no {}", way.name());
        assert!(
            depth.is_multiple_of(DEPTH_STEP) && columns.is_multiple_of(COLUMNS_STEP),
            "{depth} × {columns}: steps of {DEPTH_STEP} and {COLUMNS_STEP}"
        );
        assert_eq!(weights.len(), depth * columns, "{depth} × {columns} weights");
        let at = |row: usize, column: usize| weights[row * columns + column];
        let (mut pairs, mut fours, mut excess) = (Vec::new(), Vec::new(), Vec::new());
        match way {
            Way::Scalar => {}
            Way::Avx2 => {
                for group in (0..columns).step_by(8) {
                    for row in (0..depth).step_by(2) {
                        for column in group..group + 8 {
                            pairs.extend([at(row, column), at(row + 1, column)].map(i16::from));
                        }
                    }
                }
            }
            Way::Avx512 => {
                for group in (0..columns).step_by(16) {
                    for row in (0..depth).step_by(DEPTH_STEP) {
                        for column in group..group + 16 {
                            fours.extend((row..row + DEPTH_STEP).map(|row| at(row, column)));
                        }
                    }
                }
                let sum = |column| (0..depth).map(|row| i32::from(at(row, column))).sum::<i32>();
                excess = (0..columns).map(|column| 128 * sum(column)).collect();
            }
        }
        Weights {
            way,
            depth,
            columns,
            plain: weights.to_vec(),
            pairs,
            fours,
            excess,
        }
    }

    /// `activations`, rows of the weights' depth, times the weights, into `sums`, rows of their columns.
    ///
    /// # Panics
    /// If the slices are not whole rows, as many as each other.
    pub fn multiply(&self, activations: &[i8], sums: &mut [i32]) {
        let rows = activations.len() / self.depth;
        assert_eq!(activations.len(), rows * self.depth, "rows of {}", self.depth);
        assert_eq!(sums.len(), rows * self.columns, "{rows} rows of {}", self.columns);
        match self.way {
            #[cfg(target_arch = "x86_64")]
            Way::Avx2 => crate::sys::multiply_avx2(self, activations, sums),
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => crate::sys::multiply_vnni(self, activations, sums),
            _ => self.plain(activations, sums),
        }
    }

    fn plain(&self, activations: &[i8], sums: &mut [i32]) {
        let rows = activations.chunks(self.depth).zip(sums.chunks_mut(self.columns));
        for (row, sums) in rows {
            sums.fill(0);
            for (&activation, weights) in row.iter().zip(self.plain.chunks(self.columns)) {
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum += i32::from(activation) * i32::from(weight);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fpga_model::{rng::Rng, systolic};

    use super::*;

    #[test]
    fn all_ways_say_what_the_arithmetic_says() {
        let mut rng = Rng::new(9);
        for (rows, depth, columns) in [(1, 4, 64), (5, 64, 64), (6, 128, 128), (13, 60, 192)] {
            let mut bytes = |count: usize| -> Vec<i8> { (0..count).map(|_| rng.draw() as i8).collect() };
            let (activations, weights) = (bytes(rows * depth), bytes(depth * columns));
            let expected: Vec<i32> = (0..rows * columns)
                .map(|at| {
                    let (row, column) = (at / columns, at % columns);
                    let term = |k| i32::from(activations[row * depth + k]) * i32::from(weights[k * columns + column]);
                    (0..depth).map(term).sum()
                })
                .collect();
            for way in Way::ALL.into_iter().filter(|way| way.is_here()) {
                let mut sums = vec![1; rows * columns];
                Weights::new(way, depth, columns, &weights).multiply(&activations, &mut sums);
                assert!(sums == expected, "{way:?}: {rows} × {depth} × {columns}");
            }
        }
    }

    /// The extremes, of which pairs of unsigned by signed bytes in 16 bits would not be whole.
    #[test]
    fn nothing_saturates() {
        let (depth, columns) = (64, 64);
        for value in [-128, 127] {
            let (activations, weights) = (vec![-128; depth], vec![value; depth * columns]);
            for way in Way::ALL.into_iter().filter(|way| way.is_here()) {
                let mut sums = vec![0; columns];
                Weights::new(way, depth, columns, &weights).multiply(&activations, &mut sums);
                assert!(sums.iter().all(|&sum| sum == -128 * i32::from(value) * 64), "{way:?}");
            }
        }
    }

    /// And what the array says that is to be compared with it.
    #[test]
    fn the_systolic_model_says_the_same() {
        const SIDE: usize = 64;
        let mut rng = Rng::new(3);
        let mut bytes = |count: usize| -> Vec<i8> { (0..count).map(|_| rng.draw() as i8).collect() };
        let (weights, activations) = (bytes(SIDE * SIDE), bytes(3 * SIDE));
        let mut array = systolic::Systolic::new(SIDE);
        for row in weights.chunks(SIDE).rev() {
            let inputs = systolic::Inputs {
                weights: Some(row),
                activations: None,
            };
            array.clock(&inputs);
        }
        let mut shown: Vec<i32> = Vec::new();
        for cycle in 0..4 * SIDE {
            shown.extend(array.shows().into_iter().flatten());
            let activations = activations.chunks(SIDE).nth(cycle).map(|row| (row, cycle == 0));
            let inputs = systolic::Inputs {
                weights: None,
                activations,
            };
            array.clock(&inputs);
        }
        for way in Way::ALL.into_iter().filter(|way| way.is_here()) {
            let mut sums = vec![0; 3 * SIDE];
            Weights::new(way, SIDE, SIDE, &weights).multiply(&activations, &mut sums);
            assert!(sums == shown, "{way:?}");
        }
    }
}
