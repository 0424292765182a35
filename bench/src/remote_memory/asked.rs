//! Experiments in which one end of a provider asks and the other one has the memory: which providers are here, and the row of a trial.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdma::{EndpointCounters, QpOptions};

use super::{
    pair::{Counting, Shape, Side, Via, connect},
    served::{Served, limits, serve_while},
};
use crate::{
    experiment::Lab,
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Observation},
    },
    record::{Metric, Row},
    trial::Position,
};

/// What the end that asks brings back.
pub struct Done {
    /// One by one; empty where several were under way.
    pub latency: Recorder,
    /// Those that count.
    pub count: u64,
    /// From the first of these to the last.
    pub elapsed: Duration,
}

/// The providers among `wanted` that are here; of those that are not, the run says why.
pub fn providers(lab: &Lab<'_>, wanted: &[String]) -> Vec<Via> {
    let is_wanted = |via: &Via| wanted.iter().any(|name| name == via.name());
    let is_here = |via: &Via| match via.absence(lab.place) {
        None => true,
        Some(why) => {
            lab.say(&format!("{} is not measured here because {why}", via.name()));
            false
        }
    };
    Via::ALL.into_iter().filter(is_wanted).filter(is_here).collect()
}

/// One trial.
pub struct Asking<'a> {
    /// Where, and until when.
    pub lab: &'a Lab<'a>,
    /// Over what.
    pub via: Via,
    /// Where its row belongs.
    pub position: Position,
    /// Each has a place of its own at both ends, as long as what is moved at a time.
    pub connections_count: usize,
    /// What is moved at a time, in bytes; receives that messages consume are as long.
    pub len_bytes: u32,
    /// How queue pairs behave.
    pub qp: QpOptions,
}

impl Asking<'_> {
    /// Lets `ask` use the first of `ends` while the second is served, and makes the row; `metrics` is given what both did and what their
    /// endpoints counted.
    ///
    /// # Errors
    /// What `ask` says, or a device that failed.
    pub fn measure<P: Counting + Send>(
        self,
        ends: [P; 2],
        ask: impl FnOnce(&mut Side<P>) -> anyhow::Result<Done> + Send,
        metrics: impl FnOnce(&Served<Done>, &[Option<EndpointCounters>]) -> BTreeMap<String, Metric>,
    ) -> anyhow::Result<Row> {
        let Asking { lab, via, position, .. } = self;
        let at_s = lab.run_started.elapsed().as_secs_f64();
        let started = Instant::now();
        let shape = Shape {
            connections_count: self.connections_count,
            memory_bytes: (self.len_bytes as usize).next_multiple_of(64) * self.connections_count,
            qp: self.qp,
        };
        let [mut near, mut far] = connect(lab.place, ends, &shape)?;
        let watch = Watch::begin();
        let served = serve_while(lab, &mut near, &mut far, self.len_bytes, ask)?;
        let mut observed = watch.end();
        observed.push(Observation::Samples {
            q: 0.5,
            total_count: served.asked.count,
        });
        observed.extend(served.contention.iter().cloned());
        let counters = [near.provider.endpoint_counters(), far.provider.endpoint_counters()];
        let mut facts = served.facts.clone();
        facts.insert("moved_by".to_owned(), via.moved_by().to_owned());
        let latency = &served.asked.latency;
        Ok(Row {
            experiment: position.experiment.to_owned(),
            backend: via.name().to_owned(),
            mode: via.mode(),
            axis: position.axis,
            round: position.round,
            twin: position.twin,
            seed: position.seed,
            at_s,
            elapsed_s: started.elapsed().as_secs_f64(),
            latency: (latency.total_count() > 0).then(|| latency.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: metrics(&served, &counters),
            series: Vec::new(),
            facts,
            validity: gates::judge(&observed, &limits()),
        })
    }
}
