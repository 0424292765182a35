//! What to say about a name that does not exist: the ones that were probably meant, or all there are.

/// As alike as names must be, from 0 to 1: a wrong letter in three. Below that, everything resembles something.
const ALIKE_MIN: f64 = 0.66;
const NAMES_MAX: usize = 3;

/// "did you mean A or B?", or "known: A, B, C" if nothing that is known resembles `wanted`.
pub fn advice<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(wanted, &known).as_slice() {
        [] => format!("known: {}", known.join(", ")),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// The names most like `wanted`, best first. A name that goes on where `wanted` ends is like it.
fn nearest<'a>(wanted: &str, known: &[&'a str]) -> Vec<&'a str> {
    let likeness = |name: &str| match !wanted.is_empty() && name.starts_with(wanted) {
        true => 1.0,
        false => strsim::normalized_damerau_levenshtein(wanted, name),
    };
    let mut scored: Vec<(f64, &str)> = known
        .iter()
        .map(|name| (likeness(name), *name))
        .filter(|(likeness, _)| *likeness >= ALIKE_MIN)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(NAMES_MAX);
    scored.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["rtt-ladder", "rtt-breakdown", "quorum-ladder", "wal-ladder", "echo"];

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(advice("rtt-lader", KNOWN), "did you mean rtt-ladder?");
        assert_eq!(advice("qourum-ladder", KNOWN), "did you mean quorum-ladder?");
        assert_eq!(advice("rtt", KNOWN), "did you mean rtt-ladder or rtt-breakdown?");
    }

    #[test]
    fn what_resembles_nothing_is_told_what_there_is() {
        for wanted in ["zzzz", "", "incast"] {
            assert_eq!(
                advice(wanted, KNOWN),
                "known: rtt-ladder, rtt-breakdown, quorum-ladder, wal-ladder, echo"
            );
        }
    }
}
