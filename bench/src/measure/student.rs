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
}
