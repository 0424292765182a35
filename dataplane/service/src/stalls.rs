//! What disturbs a node: times in which it does nothing, drawn from a seed beforehand, so that two nodes with one seed stand
//! still together, and a run can be repeated.

use crate::random::Random;

/// How a node stands still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StallPattern {
    /// From the end of one stall to the begin of the next, on average, in nanoseconds; each gap is from half to one and a half of
    /// it, so that a short run has about as many stalls as a long one.
    pub gap_ns_mean: f64,
    /// How long each lasts, in nanoseconds.
    pub stall_ns: u64,
}

impl StallPattern {
    /// The share of time in which the node stands still.
    pub fn ratio(&self) -> f64 {
        self.stall_ns as f64 / (self.stall_ns as f64 + self.gap_ns_mean)
    }
}

/// The stalls of one node. Time only goes forwards: what lies behind is forgotten.
#[derive(Clone, Debug)]
pub struct Stalls {
    pattern: Option<StallPattern>,
    random: Random,
    /// The current or next one: begin and end.
    next: (u64, u64),
}

impl Stalls {
    /// None, ever.
    pub fn never() -> Stalls {
        Stalls {
            pattern: None,
            random: Random::new(0, 0),
            next: (u64::MAX, u64::MAX),
        }
    }

    /// Those of `seed`, from time 0.
    pub fn new(pattern: StallPattern, seed: u64) -> Stalls {
        let mut stalls = Stalls {
            pattern: Some(pattern),
            random: Random::new(seed, 3),
            next: (0, 0),
        };
        stalls.advance();
        stalls
    }

    /// The current or next one, nanoseconds from time 0: begin and end.
    pub fn next(&self) -> (u64, u64) {
        self.next
    }

    /// Forgets the current or next one.
    pub fn advance(&mut self) {
        let Some(pattern) = self.pattern else { return };
        let begin_ns = self.next.1 + ((0.5 + self.random.fraction()) * pattern.gap_ns_mean).max(1.0) as u64;
        self.next = (begin_ns, begin_ns + pattern.stall_ns);
    }

    /// When work of `work_ns` that may begin at `from_ns` is done, if it rests in every stall. Nothing before `from_ns` will be
    /// asked for again.
    pub fn end_of(&mut self, from_ns: u64, work_ns: u64) -> u64 {
        while self.next.1 <= from_ns {
            self.advance();
        }
        let mut end_ns = from_ns + work_ns;
        if self.next.0 >= end_ns {
            return end_ns;
        }
        // A copy goes ahead: another worker of the node may begin in between.
        let mut ahead = self.clone();
        loop {
            let (stop_ns, go_ns) = ahead.next;
            if stop_ns >= end_ns {
                return end_ns;
            }
            end_ns += go_ns - stop_ns.max(from_ns);
            ahead.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: StallPattern = StallPattern {
        gap_ns_mean: 980_000.0,
        stall_ns: 20_000,
    };

    #[test]
    fn a_seed_is_a_pattern_and_its_share_is_what_is_said() {
        let of = |seed| {
            let mut stalls = Stalls::new(PATTERN, seed);
            (0..5_000)
                .map(|_| {
                    let next = stalls.next();
                    stalls.advance();
                    next
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let stalls = of(1);
        assert!(stalls.is_sorted() && stalls.windows(2).all(|pair| pair[0].1 < pair[1].0));
        let ratio = (stalls.len() as u64 * PATTERN.stall_ns) as f64 / stalls[stalls.len() - 1].1 as f64;
        assert!((ratio / PATTERN.ratio() - 1.0).abs() < 0.03, "{ratio}");
    }

    #[test]
    fn work_rests_while_the_node_stands_still() {
        let mut stalls = Stalls::new(PATTERN, 1);
        let (stop_ns, go_ns) = stalls.next();
        assert_eq!(stalls.clone().end_of(0, stop_ns), stop_ns, "done just in time");
        assert_eq!(stalls.clone().end_of(0, stop_ns + 1), go_ns + 1);
        assert_eq!(stalls.clone().end_of(stop_ns + 5, 10), go_ns + 10, "begun in the stall");
        assert_eq!(stalls.end_of(go_ns, 10), go_ns + 10);
        assert_eq!(Stalls::never().end_of(7, 10), 17);
    }

    #[test]
    fn long_work_meets_several_stalls() {
        let mut stalls = Stalls::new(PATTERN, 1);
        let work_ns = 50_000_000;
        let end_ns = stalls.end_of(0, work_ns);
        let mut met = Stalls::new(PATTERN, 1);
        let mut stood_ns = 0;
        while met.next().0 < end_ns {
            stood_ns += PATTERN.stall_ns;
            met.advance();
        }
        assert_eq!(end_ns, work_ns + stood_ns);
    }
}
