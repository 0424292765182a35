//! The largest of the last so many rounds' samples, from the three best of them (Kathleen Nichols' algorithm; Linux's
//! lib/win_minmax.c): no memory of every sample.

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: u64,
    value: f64,
}

/// A maximum that forgets.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxFilter {
    /// Best, second and third, each from after the one before.
    best: [Sample; 3],
}

impl MaxFilter {
    /// The maximum; 0 before the first sample.
    #[inline]
    pub fn get(&self) -> f64 {
        self.best[0].value
    }

    /// A sample of round `at`; what is `window` rounds older is forgotten.
    pub fn update(&mut self, at: u64, window: u64, value: f64) {
        let new = Sample { at, value };
        if value >= self.best[0].value || at - self.best[2].at > window {
            self.best = [new; 3];
            return;
        }
        if value >= self.best[1].value {
            self.best[1] = new;
            self.best[2] = new;
        } else if value >= self.best[2].value {
            self.best[2] = new;
        }
        let age = at - self.best[0].at;
        if age > window {
            // The best is too old: the second takes its place, and if that is too, the third.
            self.best = [self.best[1], self.best[2], new];
            if at - self.best[0].at > window {
                self.best = [self.best[1], self.best[2], new];
            }
        } else if self.best[1].at == self.best[0].at && age > window / 4 {
            // A quarter of the window without a better one: a second from here on.
            self.best[1] = new;
            self.best[2] = new;
        } else if self.best[2].at == self.best[1].at && age > window / 2 {
            self.best[2] = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_is_kept_for_the_window_and_then_forgotten() {
        let mut filter = MaxFilter::default();
        filter.update(1, 10, 100.0);
        for round in 2..=11 {
            filter.update(round, 10, 50.0);
            assert_eq!(filter.get(), 100.0, "round {round}");
        }
        filter.update(12, 10, 40.0);
        assert_eq!(filter.get(), 50.0);
        filter.update(13, 10, 200.0);
        assert_eq!(filter.get(), 200.0);
    }
}
