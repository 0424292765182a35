//! A scenario's TCP, as far as a kernel can be asked for it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::anyhow;
use dataplane_transports::{ControllerKind, SenderOptions};

use crate::{
    packet_sim::{FlowOptions, flow_options},
    scenario::file::TcpFile,
    switch::Dilation,
    traffic::Ablation,
};

/// What an arm asks of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sender {
    /// "cubic", "reno", "bbr" or "dctcp".
    pub controller: &'static str,
    /// What differs from a stock Linux.
    pub ablation: Ablation,
    /// The least timeout that the scenario asks for, in the time of the network as it is built.
    rto_min_wanted: Duration,
}

impl Sender {
    /// `rto_min_floor` is the least that this kernel can do, in our time.
    ///
    /// # Errors
    /// Something that no setting of a kernel's gives.
    pub fn of(tcp: &TcpFile, dilation: Dilation, rto_min_floor: Duration) -> anyhow::Result<Sender> {
        let controller = match tcp
            .controller
            .map_or(ControllerKind::NewReno, |controller| controller.0)
        {
            ControllerKind::Cubic => "cubic",
            ControllerKind::NewReno => "reno",
            ControllerKind::Bbr1 => "bbr",
            ControllerKind::Dctcp => "dctcp",
            other => return Err(anyhow!("no kernel has the controller {}", other.name())),
        };
        // What the file does not say is as in its base, as for the simulator.
        let FlowOptions { sender, receiver, .. } = flow_options(tcp);
        let rto_min_wanted = sender.rto_min * dilation.factor();
        let window = sender.initial_window_segments;
        Ok(Sender {
            controller,
            rto_min_wanted,
            ablation: Ablation {
                rto_min: rto_min_wanted.max(rto_min_floor),
                tlp: sender.tlp,
                rack: sender.rack,
                sack: sender.sack,
                delayed_acks: receiver.ack_delay > Duration::ZERO,
                initial_window_segments: (window != SenderOptions::linux_2026().initial_window_segments)
                    .then_some(window),
                ..Ablation::default()
            },
        })
    }

    /// The same with the least timeout that this kernel has, whatever that is.
    pub fn at_floor(self, rto_min_floor: Duration) -> Sender {
        Sender {
            ablation: Ablation {
                rto_min: rto_min_floor,
                ..self.ablation
            },
            rto_min_wanted: rto_min_floor,
            ..self
        }
    }

    /// What the kernel could not be asked for, for a row.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        if self.ablation.rto_min > self.rto_min_wanted {
            facts.insert(
                "rto_min_wanted".to_owned(),
                format!(
                    "{:?} as the network is built, and this kernel cannot do less than {:?}",
                    self.rto_min_wanted, self.ablation.rto_min
                ),
            );
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet_sim::Point, scenario::file::ScenarioFile};

    const FILE: &str = include_str!("../../../scenarios/incast-dctcp-fig18.toml");
    const FLOOR: Duration = Duration::from_millis(8);

    #[test]
    fn timers_are_as_slow_as_the_network_and_no_finer_than_the_kernels() {
        let file = ScenarioFile::parse("fig18.toml", FILE).expect("a good file");
        let of = |arm: &str, factor: u32| {
            let tcp = Point::of(&file, arm, None).expect("it has that arm").tcp();
            Sender::of(&tcp, Dilation::new(factor).expect("a factor"), FLOOR).expect("the kernel has it")
        };
        let slow = of("dctcp-10ms", 10);
        assert_eq!(
            (slow.controller, slow.ablation.rto_min),
            ("dctcp", Duration::from_millis(100))
        );
        assert_eq!(slow.ablation.initial_window_segments, Some(3));
        assert!(slow.ablation.delayed_acks && slow.facts().is_empty());
        let mut tcp = Point::of(&file, "tcp-10ms", None).expect("it has that arm").tcp();
        tcp.rto_min = tcp.ack_delay;
        let fine = Sender::of(&tcp, Dilation::NONE, FLOOR).expect("the kernel has it");
        assert_eq!(fine.ablation.rto_min, FLOOR);
        assert!(fine.facts()["rto_min_wanted"].contains("1ms"), "{:?}", fine.facts());
        assert_eq!(slow.at_floor(FLOOR).ablation.rto_min, FLOOR);
    }
}
