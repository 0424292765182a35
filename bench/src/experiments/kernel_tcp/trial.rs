//! One trial: fresh connections over a network that stands, a load, and what switch and kernels counted meanwhile.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use dataplane_netns::Host;
use dataplane_ports::tcp::TcpInfo;

use super::{KERNEL, Sender, Summary};
use crate::{
    experiment::Lab,
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    packet_sim::quantile,
    record::{Better, Metric, ModeRecord, Row},
    switch::{Dilation, Fabric, Lap},
    traffic::{COUNTED, Controller, Counters, Done, Flows, Pattern},
};

/// A connection's sending end: where it is, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Which of the fabric's senders.
    pub sender: usize,
    /// What its namespace is set to. Those of one host are alike.
    pub settings: &'a Sender,
    /// Who decides how much may be in flight.
    pub controller: &'a Controller,
}

/// What came of one.
#[derive(Debug)]
pub struct Trial {
    /// What the load says.
    pub done: Done,
    /// What the switch says.
    pub lap: Lap,
    /// What was true of it and is no figure.
    pub facts: BTreeMap<String, String>,
    /// What decides whether it may be judged.
    pub observed: Vec<Observation>,
    client: Counters,
    senders: Counters,
    senders_count: usize,
    dilation: Dilation,
    at_s: f64,
}

/// Arrivals of so many full frames are compared with what the link carries meanwhile (`PORT_WINDOW_FRAMES` of
/// dataplane/softswitch/src/burst.rs).
const OVERRUN_WINDOW_FRAMES: f64 = 32.0;

/// How far senders that fill their lines can overrun the link at all, seen over [`OVERRUN_WINDOW_FRAMES`]: each may send its first
/// window at its line's rate, and after that acks come as fast as the link carries what they acknowledge.
fn overrun_of_windows(senders_count: usize, window_segments: u32) -> f64 {
    let (senders, window) = (senders_count as f64, f64::from(window_segments));
    // Windows that outlast the time that is looked at overrun it as much as lines can.
    let window = window.min(OVERRUN_WINDOW_FRAMES);
    (senders * window + (OVERRUN_WINDOW_FRAMES - window)) / OVERRUN_WINDOW_FRAMES
}

impl Trial {
    /// Opens a connection for each of `ends`, in that order, lets `unmeasured` pass if there is one, and measures `pattern`. `before` is done
    /// between opening and measuring, with the connections idle.
    ///
    /// # Errors
    /// A setting that the kernel refused, a connection that broke, a switch that stopped.
    pub fn run(
        lab: &Lab<'_>,
        fabric: &mut Fabric,
        ends: &[Ends<'_>],
        (unmeasured, pattern): (Option<Pattern>, Pattern),
        before: impl FnOnce(&mut Fabric) -> anyhow::Result<()>,
    ) -> anyhow::Result<Trial> {
        let at_s = lab.run_started.elapsed().as_secs_f64();
        let mut facts = BTreeMap::new();
        let mut used: BTreeMap<usize, &Sender> = BTreeMap::new();
        for end in ends {
            used.insert(end.sender, end.settings);
        }
        let client_settings = ends.first().context("a trial has a connection")?.settings.ablation;
        facts.insert(
            "client".to_owned(),
            client_settings.apply(fabric.receiver())?.to_string(),
        );
        for (sender, settings) in &used {
            // All are set alike; one is printed.
            let applied = settings.ablation.apply(&fabric.senders()[*sender])?;
            facts.insert("servers".to_owned(), applied.to_string());
            facts.extend(settings.facts());
        }
        let mut flows = {
            let named: Vec<(&Host, &str)> = ends
                .iter()
                .map(|end| (&fabric.senders()[end.sender], end.controller.name()))
                .collect();
            Flows::open_each(fabric.receiver(), &named, client_settings.pacing_bytes_per_sec_max)?
        };
        before(fabric)?;
        if let Some(unmeasured) = unmeasured {
            unmeasured.run(&mut flows, lab.stop)?;
        }
        let counted = |fabric: &Fabric| -> anyhow::Result<(Counters, Counters)> {
            let mut senders = Counters::default();
            for sender in used.keys() {
                senders.add(&Counters::read(&fabric.senders()[*sender])?);
            }
            Ok((Counters::read(fabric.receiver())?, senders))
        };
        let (client_before, senders_before) = counted(fabric)?;
        // A new lap: what the handshakes did is not this trial's.
        fabric.lap()?;
        let watch = Watch::begin();
        let done = pattern.run(&mut flows, lab.stop)?;
        let mut observed = watch.end();
        let lap = fabric.lap()?;
        let (client, senders) = counted(fabric)?;
        observed.extend(lap.observations.iter().cloned());
        let has_questions = pattern.questions.is_some();
        if done.is_interrupted || has_questions && done.completion_ns.is_empty() && done.lost_count == 0 {
            // The user had enough: what came until then is of less time than was asked for.
            observed.push(Observation::Silence {
                sent_count: ends.len() as u64,
            });
        }
        let infos = flows.infos().context("asking the senders' kernels")?;
        let begun = flows.begun();
        let ms = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
        let mut words: Vec<String> = ends
            .iter()
            .map(|end| format!("{}, {}", end.controller.word, end.controller.origin()))
            .collect();
        words.dedup();
        let whole = flows
            .totals()
            .iter()
            .all(|flow| flow.received_bytes == flow.asked_bytes);
        let bytes = match (whole, pattern.long_count > 0) {
            (true, _) => "of every flow, as many received as asked for",
            (false, true) => "long flows have no end: what was received is what counts",
            (false, false) => "of some flow, not all received that were asked for",
        };
        let rto = infos.iter().map(|info| info.rto).min().unwrap_or_default();
        let rtt = infos.iter().map(|info| info.rtt_min).min().unwrap_or_default();
        let window = begun.first().map_or(0, |info| info.window_segments);
        let share = |of: fn(&TcpInfo) -> Duration| {
            let sum = |of: &dyn Fn(&TcpInfo) -> Duration| infos.iter().map(of).sum::<Duration>().as_secs_f64();
            100.0 * sum(&of) / sum(&|info| info.busy).max(f64::MIN_POSITIVE)
        };
        let bounded_by = format!(
            "the receiver's window for {:.1} %, the send buffer for {:.1} % of the time in which there was something to send",
            share(|info| info.window_offered_limited),
            share(|info| info.send_buffer_limited)
        );
        for (name, fact) in [
            ("bounded_by", bounded_by),
            ("controller", words.join("; ")),
            ("rto_least_seen", ms(rto)),
            ("rtt_least_seen", ms(rtt)),
            ("window_at_first", window.to_string()),
            ("bytes", bytes.to_owned()),
        ] {
            facts.insert(name.to_owned(), fact);
        }
        facts.extend(lap.facts());
        facts.extend(fabric.facts());
        Ok(Trial {
            client: client.since(&client_before),
            senders: senders.since(&senders_before),
            senders_count: used.len(),
            dilation: fabric.shape().dilation,
            done,
            lap,
            facts,
            observed,
            at_s,
        })
    }

    /// Demands of senders that answer at once that they overrun their link as far as their first windows let them. A gate that asks for more
    /// would ask for what no TCP does: four senders of ten packets each cannot be seen to bring twice what the link carries.
    pub fn demand_bursts(&mut self, fabric: &Fabric, senders_count: usize) {
        let window = self.facts.get("window_at_first").and_then(|window| window.parse().ok());
        let most = overrun_of_windows(senders_count, window.unwrap_or(0));
        let seen = self.lap.burst_observations(fabric.shape()).into_iter();
        self.observed.extend(seen.map(|observation| match observation {
            Observation::Overrun {
                seen_ratio,
                promised_ratio,
            } => Observation::Overrun {
                seen_ratio,
                promised_ratio: promised_ratio.min(most),
            },
            other => other,
        }));
    }

    /// What the load came to, in the network's time and under the simulator's names; what was counted beside it.
    fn metrics(&self) -> BTreeMap<String, Metric> {
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: Option<f64>, unit: &str, better: Better| {
            if let Some(value) = value {
                let unit = unit.to_owned();
                metrics.insert(name.to_owned(), Metric { value, unit, better });
            }
        };
        let (done, port) = (&self.done, &self.lap.to_receiver);
        let slower = f64::from(self.dilation.factor());
        let some = |count: u64| Some(count as f64);
        let mbit = |bytes: f64, seconds: f64| bytes * 8.0 * slower / seconds.max(1e-9) / 1e6;
        if !done.completion_ns.is_empty() || done.lost_count > 0 {
            let asked_s = done.asked_time.as_secs_f64() + done.lost_time.as_secs_f64();
            put(
                "goodput_mbit_per_sec",
                Some(mbit(done.answered_bytes as f64, asked_s)),
                "Mbit/s",
                Better::Higher,
            );
            let took_ms: Vec<f64> = done.completion_ns.iter().map(|ns| *ns as f64 / 1e6 / slower).collect();
            put("query_ms_p50", quantile(&took_ms, 0.5), "ms", Better::Lower);
            put("query_ms_p95", quantile(&took_ms, 0.95), "ms", Better::Lower);
            let mean = (!took_ms.is_empty()).then(|| took_ms.iter().sum::<f64>() / took_ms.len() as f64);
            put("query_ms_mean", mean, "ms", Better::Lower);
            put("queries", some(took_ms.len() as u64), "count", Better::Neither);
            put("lost_queries", some(done.lost_count), "count", Better::Lower);
            let spread_us: Vec<f64> = done.spread_ns.iter().map(|ns| *ns as f64 / 1e3).collect();
            put("answer_spread_us_p50", quantile(&spread_us, 0.5), "µs", Better::Neither);
        }
        if !done.long_bytes.is_empty() {
            let seconds = done.elapsed.as_secs_f64();
            let of = |bytes: &u64| mbit(*bytes as f64, seconds);
            let rates: Vec<f64> = done.long_bytes.iter().map(of).collect();
            put(
                "long_goodput_mbit_per_sec",
                Some(rates.iter().sum()),
                "Mbit/s",
                Better::Higher,
            );
            if rates.len() > 1 {
                put(
                    "long_first_mbit_per_sec",
                    rates.first().copied(),
                    "Mbit/s",
                    Better::Higher,
                );
                put(
                    "long_last_mbit_per_sec",
                    rates.last().copied(),
                    "Mbit/s",
                    Better::Higher,
                );
                put("fairness", crate::packet_sim::jain(&rates), "ratio", Better::Higher);
            }
        }
        for (_, _, name) in COUNTED {
            let of = if name.ends_with("_in") {
                &self.client
            } else {
                &self.senders
            };
            put(name, of.get(name).and_then(some), "count", Better::Neither);
        }
        if let (Some(timeouts), true) = (self.senders.get("timeouts"), !done.completion_ns.is_empty()) {
            let asked = done.completion_ns.len() as u64 + done.lost_count + done.unmeasured_count;
            let ratio = timeouts as f64 / asked as f64;
            put("timeouts_per_query", Some(ratio), "ratio", Better::Lower);
        }
        put("drops", some(port.dropped_count), "count", Better::Lower);
        put("lost_by_chance", some(port.lost_count), "count", Better::Neither);
        put("marked", some(port.marked_count), "count", Better::Neither);
        let queue = port.queue_bytes_max.and_then(some);
        put("queue_bytes_max", queue, "bytes", Better::Neither);
        put("overrun_ratio", port.overrun_ratio, "ratio", Better::Neither);
        if let Some(summary) = Summary::of(&done.samples) {
            let rtt = |ms: f64| Some(ms / slower);
            for (name, value, unit) in [
                ("window_segments_p50", Some(summary.window_segments_p50), "segments"),
                ("window_segments_max", Some(summary.window_segments_max), "segments"),
                ("ssthresh_segments_p50", summary.ssthresh_segments_p50, "segments"),
                ("long_rtt_ms_p50", rtt(summary.rtt_ms_p50), "ms"),
                ("long_rtt_ms_p99", rtt(summary.rtt_ms_p99), "ms"),
                ("retransmitting_ratio", Some(summary.retransmitting_ratio), "ratio"),
            ] {
                put(name, value, unit, Better::Neither);
            }
        }
        metrics
    }

    /// The row.
    pub fn into_row(
        mut self,
        lab: &Lab<'_>,
        experiment: &str,
        axis: BTreeMap<String, String>,
        round: u32,
        fabric: &Fabric,
    ) -> Row {
        self.facts.insert(
            "yardstick".to_owned(),
            "TCP of this machine's kernel at both ends; the switch between them is emulated".to_owned(),
        );
        Row {
            experiment: experiment.to_owned(),
            backend: KERNEL.to_owned(),
            mode: ModeRecord::Emulated {
                by: fabric.kind().by().to_owned(),
            },
            axis,
            round,
            twin: false,
            seed: lab.choice.seed,
            at_s: self.at_s,
            elapsed_s: self.done.elapsed.as_secs_f64(),
            latency: (!self.done.completion_ns.is_empty()).then(|| self.done.recorder().distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: self.metrics(),
            series: Vec::new(),
            validity: gates::judge(&self.observed, &Limits::for_senders(self.senders_count)),
            facts: self.facts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What senders of ten packets can bring into a time in which the link carries 32.
    #[test]
    fn windows_bound_how_far_a_link_can_be_overrun() {
        assert_eq!(overrun_of_windows(1, 10), 1.0);
        assert_eq!(overrun_of_windows(4, 10), 62.0 / 32.0);
        assert_eq!(overrun_of_windows(8, 10), 102.0 / 32.0);
        assert_eq!(overrun_of_windows(4, 100), 4.0);
    }
}
