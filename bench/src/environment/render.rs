//! `dplab probe`: the machine, the back ends and the noise, as plain text of at most 100 columns.

use std::fmt::Write;

use super::{Environment, NoiseSource};
use crate::record::{BackEndRecord, SupportRecord};

/// Widest line.
const COLUMNS: usize = 100;
/// Facts shown above the tables, with their titles. The record has all of them.
const SHOWN: &[(&str, &str)] = &[
    ("cpu_model", "CPU"),
    ("cpus_online", "CPUs online"),
    ("cpus_isolated", "CPUs isolated"),
    ("kernel", "kernel"),
    ("distribution", "distribution"),
    ("hypervisor", "hypervisor"),
    ("governor", "governor"),
    ("clock_source", "clock source"),
    ("load_average", "load"),
];

/// What `dplab probe` prints. Plain text, so that it can stand in a pipe or a bug report; commands are whole: a line that
/// had to be broken ends with a backslash, as a shell reads it.
pub fn render_probe(
    environment: &Environment,
    backends: &[BackEndRecord],
    cards: &[BackEndRecord],
    switches: &[BackEndRecord],
    rdma: &[BackEndRecord],
) -> String {
    let mut out = String::from("Machine\n");
    for (name, title) in SHOWN {
        if let Some(value) = environment.facts.get(*name) {
            entry(&mut out, &format!("  {title:<15}"), value);
        }
    }
    out.push_str("\nBack ends\n");
    if backends.is_empty() {
        out.push_str("  none was asked\n");
    }
    supports(&mut out, backends);
    if !cards.is_empty() {
        out.push_str("\nXDP programs on the card itself (hardware offload)\n");
        supports(&mut out, cards);
    }
    if !switches.is_empty() {
        out.push_str("\nEmulated switches, and what the kernel has to hold them against\n");
        supports(&mut out, switches);
    }
    if !rdma.is_empty() {
        out.push_str("\nProviders of RDMA\n");
        supports(&mut out, rdma);
    }
    match environment.noise.len() {
        0 => out.push_str("\nNoise\n  none was seen\n"),
        count => {
            let _ = writeln!(out, "\nNoise, worst first ({count})");
            for (index, source) in environment.noise.iter().enumerate() {
                noise(&mut out, index + 1, source);
            }
        }
    }
    out
}

/// A line, or a few, for each answer.
fn supports(out: &mut String, asked: &[BackEndRecord]) {
    let name_columns = asked
        .iter()
        .map(|backend| backend.name.chars().count())
        .max()
        .unwrap_or(0)
        .min(30);
    for backend in asked {
        let (answer, reason) = match &backend.support {
            SupportRecord::Native => ("native", String::new()),
            SupportRecord::Emulated { by } => ("emulated", format!("by {by}")),
            SupportRecord::Absent { why } => ("absent", why.clone()),
            SupportRecord::Unknown { why } => ("unknown", why.clone()),
        };
        let text = match reason.is_empty() {
            true => backend.summary.clone(),
            false => format!("{}: {reason}", backend.summary.trim_end_matches(['.', ':'])),
        };
        entry(out, &format!("  {:<name_columns$}  {answer:<8}  ", backend.name), &text);
    }
}

fn noise(out: &mut String, number: usize, source: &NoiseSource) {
    entry(out, &format!("  {number:>2}. {}: ", source.name), &source.seen);
    entry(out, "      why:  ", &source.why);
    if let Some(mend) = &source.mend {
        wrap(out, "      mend: ", mend, " \\");
    }
}

fn entry(out: &mut String, head: &str, text: &str) {
    wrap(out, head, text, "");
}

/// Writes `head` and `text`, broken at spaces into lines that are indented below the text's beginning and end with
/// `continued` where they go on. A word that is longer than a line is cut.
fn wrap(out: &mut String, head: &str, text: &str, continued: &str) {
    let indent = head.chars().count().min(COLUMNS / 2);
    let room = COLUMNS - indent - continued.chars().count();
    let mut line = String::new();
    let mut lines = Vec::new();
    for word in text.split_whitespace().flat_map(|word| pieces(word, room)) {
        let used = line.chars().count();
        if used > 0 && used + 1 + word.chars().count() > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    let last = lines.len() - 1;
    let head: String = head.chars().take(indent.max(1)).collect();
    for (index, line) in lines.iter().enumerate() {
        let start = if index == 0 { head.clone() } else { " ".repeat(indent) };
        let end = if index == last { "" } else { continued };
        out.push_str(format!("{start}{line}{end}").trim_end());
        out.push('\n');
    }
}

fn pieces(word: &str, room: usize) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    letters.chunks(room).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backend(name: &str, support: SupportRecord) -> BackEndRecord {
        BackEndRecord {
            name: name.into(),
            summary: "kernel UDP, blocking".into(),
            support,
        }
    }

    #[test]
    fn the_page_for_a_machine() {
        let environment = Environment {
            facts: [("kernel".to_owned(), "6.1.0".to_owned())].into(),
            noise: vec![NoiseSource {
                name: "governor".into(),
                seen: "frequency governor powersave".into(),
                why:
                    "the clock frequency follows the load, so light loads are measured on a slower CPU than heavy ones"
                        .into(),
                mend: Some("sudo cpupower frequency-set -g performance".into()),
            }],
        };
        let backends = [
            backend("udp-blocking", SupportRecord::Native),
            backend(
                "xdp",
                SupportRecord::Absent {
                    why: "no CAP_BPF".into(),
                },
            ),
        ];
        let cards = [BackEndRecord {
            name: "eth1".into(),
            summary: "driver veth".into(),
            support: SupportRecord::Absent { why: "no card".into() },
        }];
        let page = render_probe(&environment, &backends, &cards, &[], &[]);
        assert_eq!(
            page,
            "Machine\n  kernel         6.1.0\n\nBack ends\n  udp-blocking  native    kernel UDP, blocking\n  xdp           \
             absent    kernel UDP, blocking: no CAP_BPF\n\nXDP programs on the card itself (hardware offload)\n  eth1  \
             absent    driver veth: no card\n\nNoise, worst first (1)\n   1. governor: frequency governor \
             powersave\n      why:  the clock frequency follows the load, so light loads are measured on a slower CPU \
             than\n            heavy ones\n      mend: sudo cpupower frequency-set -g performance\n"
        );
    }

    #[test]
    fn nothing_is_said_plainly() {
        let page = render_probe(&Environment::default(), &[], &[], &[], &[]);
        assert!(
            page.contains("none was asked") && page.contains("none was seen"),
            "{page}"
        );
    }

    #[test]
    fn a_broken_command_is_still_a_command() {
        let mut out = String::new();
        wrap(&mut out, "      mend: ", &"word ".repeat(40), " \\");
        let (last, others) = out.trim_end().split_last_line();
        assert!(
            others.lines().all(|line| line.ends_with(" \\")) && !last.ends_with('\\'),
            "{out}"
        );
    }

    trait SplitLastLine {
        fn split_last_line(&self) -> (&str, &str);
    }
    impl SplitLastLine for str {
        fn split_last_line(&self) -> (&str, &str) {
            let at = self.rfind('\n').expect("several lines");
            (&self[at + 1..], &self[..at])
        }
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_100_columns(seen in ".{0,400}", name in "[a-z_]{1,60}", why in "(?s).{0,200}") {
            let noise = NoiseSource { name: name.clone(), seen: seen.clone(), why: why.clone(), mend: Some(seen.clone()) };
            let environment = Environment { facts: [("kernel".to_owned(), seen)].into(), noise: vec![noise] };
            let page = render_probe(&environment, &[backend(&name, SupportRecord::Unknown { why })], &[], &[], &[]);
            for line in page.lines() {
                prop_assert!(line.chars().count() <= COLUMNS, "{} columns: {line}", line.chars().count());
            }
        }
    }
}
