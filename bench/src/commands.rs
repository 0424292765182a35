//! The commands that measure nothing: each gives the text that it prints.

use std::{fmt::Write, path::PathBuf};

use anyhow::bail;

use crate::{
    advice::advice,
    backends::BACKENDS,
    cli::{CompareFormat, ReportFormat},
    compare, environment,
    experiment::{Allowed, Experiment},
    order,
    place::Place,
    rdma_probe,
    registry::{self, EXPERIMENTS},
    report,
    run::{self, Exit},
    scenario, store, switch,
    table::Table,
};

/// `dplab list`.
///
/// # Errors
/// When JSON cannot be written.
pub fn list(json: bool) -> anyhow::Result<String> {
    if json {
        let experiments: Vec<_> = EXPERIMENTS
            .iter()
            .map(|experiment| {
                serde_json::json!({
                    "id": experiment.id(),
                    "title": experiment.title(),
                    "question": experiment.question(),
                    "axes": experiment.axes().iter().map(|axis| serde_json::json!({
                        "name": axis.name, "meaning": axis.meaning, "values": axis.full,
                    })).collect::<Vec<_>>(),
                    "backends": experiment.backends(),
                    "claims": experiment.claims().iter().map(|claim| serde_json::json!({
                        "id": claim.id, "sentence": claim.sentence, "source": claim.source.to_string(),
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        let backends: Vec<_> = BACKENDS
            .iter()
            .map(|backend| serde_json::json!({ "name": backend.name, "summary": backend.summary }))
            .collect();
        let all = serde_json::json!({ "experiments": experiments, "backends": backends });
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    let mut text = String::from("Experiments (dplab run ID)\n");
    for experiment in EXPERIMENTS {
        writeln!(text, "\n  {}\n      {}", experiment.id(), experiment.question())?;
        for axis in experiment.axes() {
            writeln!(text, "      --axis {}={}", axis.name, axis.full.join(","))?;
        }
        for claim in experiment.claims() {
            writeln!(text, "      claim {}", claim.id)?;
        }
    }
    text.push_str("\nBack ends (--backend NAME; dplab probe says which exist here)\n\n");
    for backend in BACKENDS {
        writeln!(text, "  {:16} {}", backend.name, backend.summary)?;
    }
    Ok(text)
}

/// `dplab probe`.
///
/// # Errors
/// When hosts may be made here and yet cannot.
pub fn probe(json: bool) -> anyhow::Result<String> {
    let privilege = dataplane_netns::prepare();
    dataplane_netns::sweep()?;
    let place = Place::prepare(&privilege)?;
    let backends = run::probe(&place)?;
    let cards = run::probe_cards(&place)?;
    let switches = switch::probe();
    let providers = rdma_probe::probe(&place);
    let environment = environment::capture(&[]);
    if json {
        let all = serde_json::json!({
            "place": place.describe(), "backends": backends, "cards": cards, "switches": switches,
            "rdma": providers, "environment": environment,
        });
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    Ok(format!(
        "Packets would go through {}.\n\n{}",
        place.describe(),
        environment::render_probe(&environment, &backends, &cards, &switches, &providers)
    ))
}

/// `dplab explain`.
///
/// # Errors
/// When nothing is called that.
pub fn explain(id: &str) -> anyhow::Result<String> {
    if let Some((experiment, claim)) = registry::claim(id) {
        let mut text = format!("{}\n\n{}\n\nSource: {}\n\n", claim.id, claim.sentence, claim.source);
        writeln!(text, "What decides it\n  {}\n", claim.invariant)?;
        writeln!(
            text,
            "Judged by {}: {}\n  {}\n",
            experiment.id(),
            experiment.question(),
            experiment.how()
        )?;
        writeln!(text, "Try it\n  dplab run {}", experiment.id())?;
        // Some claims are called like the experiment that they are the point of: then both are meant.
        if let Some(experiment) = registry::experiment(id) {
            write!(
                text,
                "\nThe experiment of that name\n\n{}",
                explain_experiment(experiment)?
            )?;
        }
        return Ok(text);
    }
    if let Some(experiment) = registry::experiment(id) {
        return Ok(explain_experiment(experiment)?);
    }
    let known = EXPERIMENTS.iter().flat_map(|experiment| {
        experiment
            .claims()
            .iter()
            .map(|claim| claim.id)
            .chain([experiment.id()])
    });
    bail!("no claim or experiment is called {id:?}; {}", advice(id, known))
}

fn explain_experiment(experiment: &dyn Experiment) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{}: {}\n\n{}\n\n",
        experiment.id(),
        experiment.question(),
        experiment.how()
    );
    for axis in experiment.axes() {
        let allowed = match axis.allowed {
            Allowed::Number(low, high) => format!("a number from {low} to {high}"),
            Allowed::Words => axis.full.join(" or "),
            Allowed::WordsOrFile(words) => format!("{} or a file", words.join(", ")),
        };
        writeln!(text, "  --axis {}: {} ({allowed})", axis.name, axis.meaning)?;
    }
    text.push('\n');
    for claim in experiment.claims() {
        writeln!(text, "  claim {}: {}", claim.id, claim.sentence)?;
    }
    Ok(text)
}

/// `dplab compare`.
///
/// # Errors
/// When a run cannot be read.
pub fn compare(a: &std::path::Path, b: &std::path::Path, format: CompareFormat) -> anyhow::Result<String> {
    let comparison = compare::compare(&store::read(a)?, &store::read(b)?);
    Ok(match format {
        CompareFormat::Terminal => compare::terminal(&comparison, report::Style::of_stdout()),
        CompareFormat::Markdown => compare::markdown(&comparison),
        CompareFormat::Json => serde_json::to_string_pretty(&comparison)? + "\n",
    })
}

/// `dplab order`: each run's orders, and of several whether they contradict each other.
///
/// # Errors
/// When a run cannot be read, or has no arms to put in order.
pub fn order(folders: &[PathBuf]) -> anyhow::Result<(String, Exit)> {
    let mut text = String::new();
    let mut all = Vec::new();
    for folder in folders {
        let run = store::read(folder)?;
        let mut orders = Vec::new();
        for experiment in EXPERIMENTS {
            let rows = run.rows.iter().filter(|row| row.experiment == experiment.id()).cloned();
            let table = Table {
                rows: rows.collect(),
                seed: run.header.seed,
            };
            orders.extend(order::orders(&table).into_iter().map(|order| order::Order {
                at: format!("{}, {}", experiment.id(), order.at),
                ..order
            }));
        }
        anyhow::ensure!(
            !orders.is_empty(),
            "{} has nothing to put in order: no experiment of it has two arms and a goodput",
            folder.display()
        );
        text.push_str(&format!(
            "{} (of groups divided by >, the left one is better)\n",
            folder.display()
        ));
        text.push_str(&order::text(&orders));
        all.push(orders);
    }
    if all.len() < 2 {
        return Ok((text, Exit::Holds));
    }
    let said = order::agreement(&all);
    text.push_str(&format!(
        "\n{} runs, {} pairs of arms in all of them: {} the same in all, {} in order in some and undecided in others, {} contradicted\n",
        all.len(),
        said.pairs_count,
        said.same_count,
        said.partly_count,
        said.contradictions.len()
    ));
    said.contradictions
        .iter()
        .for_each(|pair| text.push_str(&format!("  contradicted: {pair}\n")));
    let exit = match said.contradictions.is_empty() {
        true => Exit::Holds,
        false => Exit::Fails,
    };
    Ok((text, exit))
}

/// `dplab report`.
///
/// # Errors
/// When a run cannot be read, or the report cannot be written beside it.
pub fn report(folders: &[PathBuf], format: ReportFormat) -> anyhow::Result<String> {
    let runs = folders.iter().map(store::read).collect::<Result<Vec<_>, _>>()?;
    let runs: Vec<&store::Run> = runs.iter().collect();
    let texts: Vec<_> = EXPERIMENTS.iter().map(|experiment| run::text_of(*experiment)).collect();
    let write = |name: &str, text: String| -> anyhow::Result<String> {
        let path = store::write_beside(&folders[0], name.as_ref(), text.as_bytes())?;
        Ok(format!("Report: {}\n", path.display()))
    };
    match format {
        ReportFormat::Html => write("report.html", report::html(&runs, &texts)),
        ReportFormat::Markdown => write("report.md", report::markdown(&runs, &texts)),
        ReportFormat::Terminal => Ok(report::terminal(&runs, &texts, report::Style::of_stdout())),
    }
}

/// `dplab schema`.
///
/// # Errors
/// When JSON cannot be written.
pub fn schema(of_scenarios: bool) -> anyhow::Result<String> {
    let schema = if of_scenarios {
        scenario::scenario_schema()
    } else {
        store::record_schema()
    };
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_called_like_a_claim_is_explained_with_it() {
        let text = explain("pacelc-else").unwrap();
        assert!(text.contains("What decides it"), "{text}");
        assert!(text.contains("--axis place"), "{text}");
        assert!(!explain("pacelc-stale").unwrap().contains("--axis place"));
    }
}
