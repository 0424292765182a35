//! What a user may want of simulated runs beside their rows: other flows, and files about what happened.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use crate::scenario::flow_list::FlowList;

/// What `run` takes for scenarios.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scenarios in virtual time")]
pub struct SimArgs {
    /// Send what stands in this list (CSV) instead of what the scenario's loads say
    #[arg(long, value_name = "FILE.csv")]
    pub flows: Option<PathBuf>,
    /// Write what each run sends as a list that --flows takes: flows/*.csv in the run's folder
    #[arg(long)]
    pub flows_out: bool,
}

/// The same, read and checked.
#[derive(Clone, Debug, Default)]
pub struct SimChoice {
    /// In the place of the loads.
    pub flows: Option<Arc<FlowList>>,
    /// Lists are written.
    pub flows_out: bool,
}

impl SimArgs {
    /// Is anything of it said, and what?
    pub fn first_said(&self) -> Option<&'static str> {
        let said = [("--flows", self.flows.is_some()), ("--flows-out", self.flows_out)];
        said.into_iter().find(|(_, is_said)| *is_said).map(|(name, _)| name)
    }

    /// Reads what is named.
    ///
    /// # Errors
    /// What is wrong with the list of flows, with its place.
    pub fn read(&self) -> anyhow::Result<SimChoice> {
        let flows = self.flows.as_deref().map(FlowList::read).transpose()?;
        Ok(SimChoice {
            flows: flows.map(Arc::new),
            flows_out: self.flows_out,
        })
    }
}
