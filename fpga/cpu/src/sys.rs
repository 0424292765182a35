//! The vector instructions. What is unsafe here is to use them on a CPU that has none, and to load and store through pointers; the
//! functions at the top are safe, because whoever calls them has asked [`crate::Way::is_here`] (`filter::scan` and `Weights::new` assert it).

use std::arch::x86_64::*;

use crate::{
    filter::{Query, Row, Totals},
    product::{COLUMNS_STEP, DEPTH_STEP, Weights},
};

/// See the module.
pub fn scan_avx2(query: &Query, rows: &[Row], out: &mut [Row]) -> Totals {
    // SAFETY: `filter::scan` has asserted that this CPU has AVX2.
    unsafe { avx2::scan(query, rows, out) }
}

/// See the module.
pub fn scan_avx512(query: &Query, rows: &[Row], out: &mut [Row]) -> Totals {
    // SAFETY: `filter::scan` has asserted that this CPU has AVX-512F.
    unsafe { avx512::scan(query, rows, out) }
}

/// See the module.
pub fn multiply_avx2(weights: &Weights, activations: &[i8], sums: &mut [i32]) {
    // SAFETY: `Weights::new` has asserted that this CPU has AVX2.
    unsafe { avx2::multiply(weights, activations, sums) }
}

/// See the module.
pub fn multiply_vnni(weights: &Weights, activations: &[i8], sums: &mut [i32]) {
    // SAFETY: `Weights::new` has asserted that this CPU has AVX-512F and VNNI.
    unsafe { avx512::multiply(weights, activations, sums) }
}

mod avx2 {
    use super::*;

    /// Without a branch: every row is written where the next one that stays belongs, and the place moves on if it does.
    #[target_feature(enable = "avx2")]
    pub fn scan(query: &Query, rows: &[Row], out: &mut [Row]) -> Totals {
        let masks = query.masks();
        let load = |row: &Row, half: usize| {
            // SAFETY: a row has 64 bytes, of which this reads 32 at 0 or 32; no alignment is asked for.
            unsafe { _mm256_loadu_si256(row.as_ptr().add(4 * half).cast()) }
        };
        let masks = [load(&masks, 0), load(&masks, 1)];
        let mut totals = Totals {
            least: u64::MAX,
            ..Totals::default()
        };
        for row in rows {
            // There are at least as many places as rows, and no more rows stay than have been seen.
            let place = &mut out[totals.kept as usize];
            for (half, mask) in masks.into_iter().enumerate() {
                let kept = _mm256_and_si256(load(row, half), mask);
                // SAFETY: as above, into the place's 64 bytes.
                unsafe { _mm256_storeu_si256(place.as_mut_ptr().add(4 * half).cast(), kept) };
            }
            let value = row[usize::from(query.column)];
            let wants = query.wants(row);
            let (of_sum, of_least, of_largest) = match wants {
                true => (value, value, value),
                false => (0, u64::MAX, 0),
            };
            totals.sum = totals.sum.wrapping_add(of_sum);
            totals.least = totals.least.min(of_least);
            totals.largest = totals.largest.max(of_largest);
            totals.kept += u64::from(wants);
        }
        totals.of(rows.len())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn sixteen(from: &[i16], at: usize) -> __m256i {
        let numbers = &from[at..][..16];
        // SAFETY: 16 numbers of 16 bits are 32 bytes.
        unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
    }

    /// Rows and columns that are computed at once: eight registers of sums.
    const TILE: (usize, usize) = (4, 16);

    /// Bytes are widened to 16 bits, and pairs of products added in 32: `vpmaddubsw` would be twice as fast, and saturates.
    #[target_feature(enable = "avx2")]
    pub fn multiply(weights: &Weights, activations: &[i8], sums: &mut [i32]) {
        let (depth, columns) = (weights.depth, weights.columns);
        let rows = activations.len() / depth;
        for column in (0..columns).step_by(TILE.1) {
            for row in (0..rows).step_by(TILE.0) {
                let rows = TILE.0.min(rows - row);
                let mut tile = [[_mm256_setzero_si256(); 2]; TILE.0];
                for k in (0..depth).step_by(2) {
                    let at = (column / 8 * depth + k) * 8;
                    let pairs = [sixteen(&weights.pairs, at), sixteen(&weights.pairs, at + 8 * depth)];
                    for (index, sums) in tile.iter_mut().enumerate() {
                        // A row that is not there is the first once more: registers that are always used stay registers.
                        let index = if index < rows { index } else { 0 };
                        let two = &activations[(row + index) * depth + k..][..2];
                        let two = [i16::from(two[0]) as u16, i16::from(two[1]) as u16];
                        let two = _mm256_set1_epi32((u32::from(two[0]) | u32::from(two[1]) << 16) as i32);
                        sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(two, pairs[0]));
                        sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(two, pairs[1]));
                    }
                }
                for (index, tile) in tile.iter().enumerate().take(rows) {
                    let into = &mut sums[(row + index) * columns + column..][..TILE.1];
                    for (half, &eight) in tile.iter().enumerate() {
                        // SAFETY: 8 sums are 32 bytes, of the 16 that there are.
                        unsafe { _mm256_storeu_si256(into.as_mut_ptr().add(8 * half).cast(), eight) };
                    }
                }
            }
        }
    }
}

mod avx512 {
    use super::*;

    /// Eight keys are compared at once; the rows of those that stay are copied one by one.
    #[target_feature(enable = "avx512f")]
    pub fn scan(query: &Query, rows: &[Row], out: &mut [Row]) -> Totals {
        const LANES: usize = 8;
        let keys_at = _mm512_setr_epi64(0, 8, 16, 24, 32, 40, 48, 56);
        let (low, high) = (
            _mm512_set1_epi64(query.low as i64),
            _mm512_set1_epi64(query.high as i64),
        );
        let mut totals = Totals {
            least: u64::MAX,
            ..Totals::default()
        };
        let mut keep_row = |row: &Row, totals: &mut Totals| {
            // SAFETY: a row has 64 bytes; lanes that are masked out are zeros.
            let kept = unsafe { _mm512_maskz_loadu_epi64(query.keep, row.as_ptr().cast()) };
            // No more rows stay than there are, and there are as many places.
            let place = &mut out[totals.kept as usize];
            // SAFETY: a place has 64 bytes.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), kept) };
            let value = row[usize::from(query.column)];
            totals.sum = totals.sum.wrapping_add(value);
            totals.least = totals.least.min(value);
            totals.largest = totals.largest.max(value);
            totals.kept += 1;
        };
        let groups = rows.chunks_exact(LANES);
        let rest = groups.remainder();
        for group in groups {
            // SAFETY: the offsets, in words of 8 bytes, are those of the first words of the group's eight rows.
            let keys = unsafe { _mm512_i64gather_epi64::<8>(keys_at, group.as_ptr().cast()) };
            let mut wanted = _mm512_cmple_epu64_mask(low, keys) & _mm512_cmple_epu64_mask(keys, high);
            while wanted != 0 {
                keep_row(&group[wanted.trailing_zeros() as usize], &mut totals);
                wanted &= wanted - 1;
            }
        }
        for row in rest.iter().filter(|row| query.wants(row)) {
            keep_row(row, &mut totals);
        }
        totals.of(rows.len())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn bytes(from: &[i8], at: usize) -> __m512i {
        let bytes = &from[at..][..64];
        // SAFETY: 64 bytes.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// Four activations, 128 more each, over and over.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn four(line: &[i8], k: usize) -> __m512i {
        const SIGNS: i32 = 0x8080_8080_u32 as i32;
        let four = &line[k..k + DEPTH_STEP];
        let four = i32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8]);
        _mm512_set1_epi32(four ^ SIGNS)
    }

    /// One row of a tile. Written out for each, since sums that are found by a variable stand in memory.
    macro_rules! row {
        ($row:literal, $k:ident, $tile:ident, $lines:ident, $fours:ident) => {
            let four = four($lines[$row], $k);
            $tile[$row][0] = _mm512_dpbusd_epi32($tile[$row][0], four, $fours[0]);
            $tile[$row][1] = _mm512_dpbusd_epi32($tile[$row][1], four, $fours[1]);
            $tile[$row][2] = _mm512_dpbusd_epi32($tile[$row][2], four, $fours[2]);
            $tile[$row][3] = _mm512_dpbusd_epi32($tile[$row][3], four, $fours[3]);
        };
    }

    /// Rows that are computed at once, with 64 columns each: 24 registers of sums.
    const TILE_ROWS: usize = 6;
    const FOURS: usize = COLUMNS_STEP / 16;

    /// `vpdpbusd` multiplies unsigned by signed bytes, so activations get 128 more, and the sums lose it again.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn multiply(weights: &Weights, activations: &[i8], sums: &mut [i32]) {
        let (depth, columns) = (weights.depth, weights.columns);
        let rows = activations.len() / depth;
        for column in (0..columns).step_by(COLUMNS_STEP) {
            for row in (0..rows).step_by(TILE_ROWS) {
                let rows = TILE_ROWS.min(rows - row);
                // As with AVX2.
                let line = |index: usize| &activations[(row + if index < rows { index } else { 0 }) * depth..][..depth];
                let lines = [line(0), line(1), line(2), line(3), line(4), line(5)];
                let mut tile = [[_mm512_setzero_si512(); FOURS]; TILE_ROWS];
                for k in (0..depth).step_by(DEPTH_STEP) {
                    let at = (column / 16 * depth + k) * 16;
                    let fours = [0, 1, 2, 3].map(|group| at + group * 16 * depth);
                    let fours = [
                        bytes(&weights.fours, fours[0]),
                        bytes(&weights.fours, fours[1]),
                        bytes(&weights.fours, fours[2]),
                        bytes(&weights.fours, fours[3]),
                    ];
                    row!(0, k, tile, lines, fours);
                    row!(1, k, tile, lines, fours);
                    row!(2, k, tile, lines, fours);
                    row!(3, k, tile, lines, fours);
                    row!(4, k, tile, lines, fours);
                    row!(5, k, tile, lines, fours);
                }
                for (index, tile) in tile.iter().enumerate().take(rows) {
                    let into = &mut sums[(row + index) * columns + column..][..COLUMNS_STEP];
                    for (at, &sixteen) in tile.iter().enumerate() {
                        let excess = &weights.excess[column + 16 * at..][..16];
                        // SAFETY: 16 numbers of 32 bits are 64 bytes.
                        let excess = unsafe { _mm512_loadu_si512(excess.as_ptr().cast()) };
                        let sums = _mm512_sub_epi32(sixteen, excess);
                        // SAFETY: as above, of the 64 sums that there are.
                        unsafe { _mm512_storeu_si512(into.as_mut_ptr().add(16 * at).cast(), sums) };
                    }
                }
            }
        }
    }
}
