//! An interval for a mean of few independent values: Student's t.

/// The mean of `values`, and half the width of its interval with this confidence, 0 to 1. The values are independent runs, each
/// of them a mean of many, so that they are normal enough. Half the width is infinite for fewer than two.
pub fn mean_interval(values: &[f64], confidence: f64) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return (mean, f64::INFINITY);
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, t_bound(values.len() - 1, confidence) * (variance / count).sqrt())
}

/// The bound within which Student's t with so many degrees of freedom lies with this confidence.
///
/// # Panics
/// If the confidence is not above 0 and below 1, or there is no degree of freedom.
pub fn t_bound(freedom: usize, confidence: f64) -> f64 {
    assert!(
        confidence > 0.0 && confidence < 1.0 && freedom > 0,
        "{confidence} with {freedom}"
    );
    let within = |bound: f64| share_within(freedom, bound);
    let (mut low, mut high) = (0.0, 1.0);
    while within(high) < confidence {
        (low, high) = (high, high * 2.0);
    }
    while high - low > 1e-9 * high {
        let middle = f64::midpoint(low, high);
        match within(middle) < confidence {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// Whether the means of two samples of independent values are further apart than `margin`, by Welch's test, which lets the two scatter differently:
/// how often chance alone would show as much if they were exactly that far apart, at most. 1 where they are not, or where either has fewer than two
/// values; 0 where neither scatters at all.
///
/// The degrees of freedom are rounded down (Welch 1947; Satterthwaite 1946, equation 17).
pub fn apart_p_value(a: &[f64], b: &[f64], margin: f64) -> f64 {
    let mean_and_square = |values: &[f64]| {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        // Of the mean's error.
        (mean, squares / (count - 1.0) / count)
    };
    if a.len().min(b.len()) < 2 {
        return 1.0;
    }
    let ((a_mean, a_square), (b_mean, b_square)) = (mean_and_square(a), mean_and_square(b));
    let beyond = (a_mean - b_mean).abs() - margin;
    if beyond.is_nan() || beyond <= 0.0 {
        return 1.0;
    }
    let square = a_square + b_square;
    if square == 0.0 {
        return 0.0;
    }
    let spread = a_square.powi(2) / (a.len() - 1) as f64 + b_square.powi(2) / (b.len() - 1) as f64;
    let freedom = (square.powi(2) / spread).floor().max(1.0) as usize;
    1.0 - share_within(freedom, beyond / square.sqrt())
}

/// P(|t| ≤ bound), by the closed sums for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4).
fn share_within(freedom: usize, bound: f64) -> f64 {
    let angle = (bound / (freedom as f64).sqrt()).atan();
    let (sine, square) = (angle.sin(), angle.cos().powi(2));
    let is_odd = freedom % 2 == 1;
    // The terms' factors are 2/3, 4/5, … for odd, and 1/2, 3/4, … for even degrees of freedom.
    let (mut term, mut sum) = if is_odd { (angle.cos(), 0.0) } else { (1.0, 0.0) };
    let first = if is_odd { 1 } else { 0 };
    let mut power = first;
    while power + 2 <= freedom {
        sum += term;
        let next = (power + 1) as f64 / (power + 2) as f64;
        term *= next * square;
        power += 2;
    }
    match is_odd {
        true => 2.0 / std::f64::consts::PI * (angle + sine * sum),
        false => sine * sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_tables() {
        // Two-sided: 95 % and 99 %.
        for (freedom, confidence, bound) in [
            (1, 0.95, 12.706),
            (2, 0.95, 4.303),
            (3, 0.99, 5.841),
            (4, 0.99, 4.604),
            (10, 0.95, 2.228),
            (19, 0.99, 2.861),
            (30, 0.99, 2.750),
            (120, 0.95, 1.980),
        ] {
            let ours = t_bound(freedom, confidence);
            assert!((ours - bound).abs() < 1e-3, "{freedom}, {confidence}: {ours}");
        }
    }

    #[test]
    fn an_interval_is_around_its_mean() {
        let (mean, half) = mean_interval(&[1.0, 2.0, 3.0], 0.95);
        assert!(
            (mean - 2.0).abs() < 1e-12 && (half - 4.303 / 3f64.sqrt()).abs() < 1e-3,
            "{half}"
        );
        assert_eq!(mean_interval(&[1.0], 0.95).1, f64::INFINITY);
    }

    /// Two samples of five and six: means 3 and 10, squared errors of the means 0.5 and 16/30, so that t is 6.886 with 8.94 degrees of freedom.
    #[test]
    fn two_means_are_apart_or_not() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [8.0, 9.0, 9.0, 10.0, 11.0, 13.0]);
        let (t, p) = (7.0 / (0.5 + 16.0 / 30.0_f64).sqrt(), apart_p_value(&a, &b, 0.0));
        assert!((p - (1.0 - share_within(8, t))).abs() < 1e-12, "{p}");
        assert!((t_bound(8, 1.0 - p) - t).abs() < 1e-6);
        assert_eq!(apart_p_value(&a, &b, 0.0), apart_p_value(&b, &a, 0.0));
        assert!(apart_p_value(&a, &b, 5.0) > apart_p_value(&a, &b, 1.0));
        assert_eq!(apart_p_value(&a, &b, 7.5), 1.0, "they are not that far apart");
        assert_eq!(apart_p_value(&a, &b[..1], 0.0), 1.0);
        assert_eq!(apart_p_value(&[1.0; 3], &[2.0; 3], 0.5), 0.0);
    }
}
