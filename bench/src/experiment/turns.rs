//! The arms of a comparison, turn by turn: interleaved in rounds, within the budget.

use std::time::Duration;

use super::{Depth, Lab};
use crate::{measure::rounds, table::ROUNDS_MIN};

/// How many times the budget the rounds without which nothing is compared may take.
const EXCESS_MAX: u32 = 10;

/// One arm's turn in one round.
#[derive(Debug)]
pub struct Turn<'arms, A> {
    /// Whose turn it is.
    pub arm: &'arms A,
    /// Its place among the arms.
    pub index: usize,
    /// From 0.
    pub round: u32,
    /// No other turn of the experiment has this number.
    pub number: u32,
}

impl Lab<'_> {
    /// Gives each of `arms` a turn in each of `rounds_count` rounds, in orders that the seed draws
    /// ([`rounds::order`]): what the machine does in the meantime, it does to all of them.
    ///
    /// Ends earlier when the user has had enough or the budget is spent, but not before [`ROUNDS_MIN`] rounds: a
    /// paired ratio takes as many. If those take longer than the budget, that is said as soon as it shows; if they take ten
    /// times as long, nobody meant that, and one round is all that is sure. The tour's end is the end.
    ///
    /// # Errors
    /// The first of `measure`'s.
    pub fn in_rounds<A>(
        &mut self,
        arms: &[A],
        rounds_count: u32,
        mut measure: impl FnMut(&mut Self, Turn<'_, A>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let orders = rounds::order(arms.len(), rounds_count as usize, self.choice.seed);
        self.progress.set_length((orders.len() * arms.len()) as u64);
        self.progress.set_position(0);
        for (round, order) in orders.iter().enumerate() {
            if round == 1 {
                self.say_if_the_least_is_too_much(arms.len());
            }
            for index in order {
                if self.interrupted() || is_spent(round, self.started.elapsed(), self.budget, self.limit) {
                    return Ok(());
                }
                let turn = Turn {
                    arm: &arms[*index],
                    index: *index,
                    round: round as u32,
                    number: (round * arms.len() + index) as u32,
                };
                measure(self, turn)?;
                self.progress.inc(1);
            }
        }
        Ok(())
    }

    /// After the first round.
    fn say_if_the_least_is_too_much(&self, arms_count: usize) {
        let least = self.started.elapsed() * ROUNDS_MIN as u32;
        if self.choice.depth == Depth::Full
            && let Some(warning) = too_much(least, self.budget, arms_count)
        {
            self.say(&warning);
        }
    }
}

/// Whether a turn in this round is one too many.
fn is_spent(round: usize, elapsed: Duration, budget: Duration, limit: Option<Duration>) -> bool {
    let is_over = limit.is_some_and(|limit| elapsed > limit);
    let has_taken_too_long = match round {
        0 => false,
        1..ROUNDS_MIN => elapsed > budget * EXCESS_MAX,
        _ => elapsed > budget,
    };
    is_over || has_taken_too_long
}

fn too_much(least: Duration, budget: Duration, arms_count: usize) -> Option<String> {
    // What a first round sets up once is not repeated; a little more is not worth a word.
    (least > budget.mul_f64(1.25)).then(|| {
        format!(
            "{arms_count} arms take about {} s for the {ROUNDS_MIN} rounds without which nothing is compared, and the budget is \
             {} s; they are measured none the less, up to {EXCESS_MAX} times the budget. Fewer arms take less (--axis, --backend)",
            least.as_secs(),
            budget.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_a_comparison_that_is_one_or_takes_absurdly_long() {
        let second = Duration::from_secs(1);
        let is_spent_after = |round, seconds| is_spent(round, seconds * second, second, None);
        assert!(!is_spent_after(0, 100), "one round is sure");
        assert!(!is_spent_after(1, 10) && is_spent_after(1, 11));
        assert!(!is_spent_after(ROUNDS_MIN, 1) && is_spent_after(ROUNDS_MIN, 2));
    }

    #[test]
    fn the_end_of_the_tour_ends_a_comparison_in_any_round() {
        let second = Duration::from_secs(1);
        for round in [0, 1, ROUNDS_MIN] {
            let is_spent_after = |seconds| is_spent(round, seconds * second, 10 * second, Some(4 * second));
            assert!(!is_spent_after(4) && is_spent_after(5), "round {round}");
        }
    }

    #[test]
    fn a_budget_that_is_not_enough_is_named() {
        let second = Duration::from_secs(1);
        assert_eq!(too_much(60 * second, 60 * second, 5), None);
        let warning = too_much(300 * second, 60 * second, 24).expect("five times the budget");
        for part in ["24 arms", "300 s", "60 s"] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
