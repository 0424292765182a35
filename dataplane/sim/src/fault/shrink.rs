//! From a long list of faults that makes a test fail to a short one that does.

use crate::ScheduledFault;

/// A part of `faults` for which `still_fails`, from which no single fault can be dropped without the failure going
/// away: delta debugging (Zeller and Hildebrandt, IEEE TSE 28(2), 2002, figure 5: `ddmin`). The order is kept.
///
/// `still_fails` is asked at most about n² + 3n times for n faults, and must answer the same for the same list: run the
/// whole history again from its seed.
///
/// # Panics
/// If the whole list does not fail: there is nothing to shrink, or the history does not repeat.
pub fn shrink(
    faults: &[ScheduledFault],
    mut still_fails: impl FnMut(&[ScheduledFault]) -> bool,
) -> Vec<ScheduledFault> {
    assert!(
        still_fails(faults),
        "these {} faults do not make it fail: it does not repeat",
        faults.len()
    );
    if still_fails(&[]) {
        return Vec::new();
    }
    let mut kept = faults.to_vec();
    let mut parts_count = 2;
    while kept.len() >= 2 {
        let part_len = kept.len().div_ceil(parts_count);
        let part = |index: usize| {
            let begin = (index * part_len).min(kept.len());
            begin..(begin + part_len).min(kept.len())
        };
        let alone = (0..parts_count).map(part).find(|range| {
            let tried = &kept[range.clone()];
            !tried.is_empty() && tried.len() < kept.len() && still_fails(tried)
        });
        if let Some(range) = alone {
            kept = kept[range].to_vec();
            parts_count = 2;
            continue;
        }
        let without = (0..parts_count)
            .map(part)
            .filter(|range| !range.is_empty())
            .find_map(|range| {
                let rest = [&kept[..range.start], &kept[range.end..]].concat();
                still_fails(&rest).then_some(rest)
            });
        if let Some(rest) = without {
            kept = rest;
            parts_count = (parts_count - 1).max(2);
        } else if parts_count < kept.len() {
            parts_count = (2 * parts_count).min(kept.len());
        } else {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Fault, HostId, SimTime};

    fn faults(count: u64) -> Vec<ScheduledFault> {
        let fault = |index| ScheduledFault {
            at: SimTime::from_ns(index),
            fault: Fault::Damage {
                host: HostId(0),
                pick: index,
            },
        };
        (0..count).map(fault).collect()
    }

    proptest! {
        /// If the failure needs a certain few faults, exactly those remain.
        #[test]
        fn exactly_the_guilty_remain(count in 1usize..40, guilty in prop::collection::btree_set(0usize..40, 0..5)) {
            let all = faults(count as u64);
            let guilty: Vec<_> = guilty.into_iter().filter(|&index| index < count).map(|index| all[index]).collect();
            let mut asked_count = 0;
            let kept = shrink(&all, |tried| {
                asked_count += 1;
                guilty.iter().all(|fault| tried.contains(fault))
            });
            prop_assert_eq!(kept, guilty);
            prop_assert!(asked_count <= count * count + 3 * count + 2);
        }
    }

    #[test]
    #[should_panic(expected = "it does not repeat")]
    fn a_list_that_does_not_fail_is_not_shrunk() {
        shrink(&faults(3), |_| false);
    }
}
