//! Every experiment. The order matters: it is the order of the tour, of `dplab list` and of the documentation.

use crate::{
    claim::Claim,
    experiment::Experiment,
    experiments::{
        bbr_loss_wall, capacity::Capacity, cc_bufferbloat, cc_cubic_window::CubicWindow, cc_quinn, cc_sharing,
        client_bias::ClientBias, control_laws, coordinated_omission::CoordinatedOmission, electrode::Electrode,
        emulated_switch::EmulatedSwitch, failover::Failover, fanout_quorum::FanoutQuorum,
        flexible_quorum_tail::FlexibleQuorumTail, fpga_consensus::FpgaConsensus, fpga_filter::FpgaFilter,
        fpga_line_rate::FpgaLineRate, hedging::Hedging, homa_tail::HomaTail, incast_bursts, incast_dctcp, incast_ndp,
        incast_swift, incast_timers, incast_write::IncastWrite, load_latency::LoadLatency,
        loss_exclusion::LossExclusion, loss_in_the_tail::LossInTheTail, offload_economics::OffloadEconomics,
        pacelc_else::PacelcElse, packet_rate::PacketRate, peers::Peers, pfc_collateral::PfcCollateral,
        queueing_discipline::QueueingDiscipline, quorum_fanout::QuorumFanout, quorum_ladder::QuorumLadder,
        quorum_messages::QuorumMessages, rdma_failover::RdmaFailover, rdma_ladder::RdmaLadder, rdma_quorum::RdmaQuorum,
        real_incast::RealIncast, real_scenario, retry_storm::RetryStorm, rtt_breakdown::RttBreakdown,
        rtt_ladder::RttLadder, self_test::SelfTest, shard_commit::ShardCommit,
        systolic_utilisation::SystolicUtilisation, tail_at_scale::TailAtScale, tied_requests::TiedRequests,
        wakeup_model::WakeupModel, wal_group_commit::WalGroupCommit, wal_ladder::WalLadder, xdp_quorum::XdpQuorum,
    },
};

/// All experiments.
pub const EXPERIMENTS: &[&dyn Experiment] = &[
    &RttLadder,
    &PacketRate,
    &LoadLatency,
    &CoordinatedOmission,
    &LossExclusion,
    &ClientBias,
    &WakeupModel,
    &QueueingDiscipline,
    &Capacity,
    &TailAtScale,
    &Hedging,
    &TiedRequests,
    &FanoutQuorum,
    &RetryStorm,
    &LossInTheTail,
    &EmulatedSwitch,
    &RttBreakdown,
    &QuorumLadder,
    &RdmaLadder,
    &RdmaQuorum,
    &RdmaFailover,
    &IncastWrite,
    &XdpQuorum,
    &Electrode,
    &QuorumFanout,
    &FpgaConsensus,
    &FpgaLineRate,
    &FpgaFilter,
    &SystolicUtilisation,
    &OffloadEconomics,
    &QuorumMessages,
    &FlexibleQuorumTail,
    &PacelcElse,
    &Failover,
    &ShardCommit,
    &incast_timers::COLLAPSE,
    &incast_timers::RTOMIN,
    &incast_timers::THREE_REGIONS,
    &incast_timers::TLP,
    &RealIncast,
    &real_scenario::THREE_REGIONS,
    &real_scenario::FAST08,
    &real_scenario::RTOMIN,
    &real_scenario::FIG18,
    &real_scenario::QUEUE_BUILDUP,
    &incast_dctcp::FIG18,
    &incast_dctcp::FIG19,
    &incast_dctcp::ALL_TO_ALL,
    &incast_dctcp::QUEUE_BUILDUP,
    &incast_bursts::BUFFER_PRESSURE,
    &incast_bursts::META_BURSTS,
    &incast_swift::SWIFT_5000,
    &incast_ndp::ON_432,
    &incast_ndp::ON_8192,
    &PfcCollateral,
    &HomaTail,
    &control_laws::MARKING,
    &control_laws::MATHIS,
    &CubicWindow,
    &bbr_loss_wall::WALL,
    &real_scenario::LOSS_WALL,
    &real_scenario::BUFFERBLOAT,
    &real_scenario::MATHIS,
    &real_scenario::FAIRNESS,
    &real_scenario::BBR_VS_LOSSBASED,
    &cc_bufferbloat::BUFFERBLOAT,
    &cc_sharing::BBR_VS_LOSSBASED,
    &cc_sharing::FAIRNESS,
    &cc_sharing::RTT_UNFAIRNESS,
    &cc_quinn::ONE,
    &cc_quinn::TWO,
    &WalLadder,
    &WalGroupCommit,
    &Peers,
    &SelfTest,
];

/// The experiment of that id.
pub fn experiment(id: &str) -> Option<&'static dyn Experiment> {
    EXPERIMENTS.iter().copied().find(|experiment| experiment.id() == id)
}

/// The claim of that id, with the experiment that judges it.
pub fn claim(id: &str) -> Option<(&'static dyn Experiment, &'static Claim)> {
    EXPERIMENTS
        .iter()
        .flat_map(|experiment| experiment.claims().iter().map(|claim| (*experiment, claim)))
        .find(|(_, claim)| claim.id == id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::backends;

    #[test]
    fn ids_are_unique_and_back_ends_exist() {
        let mut seen = BTreeSet::new();
        for experiment in EXPERIMENTS {
            assert!(seen.insert(experiment.id()), "{} twice", experiment.id());
            for claim in experiment.claims() {
                assert!(
                    seen.insert(claim.id) || claim.id == experiment.id(),
                    "{} twice",
                    claim.id
                );
            }
            for name in experiment.backends().iter().chain(&experiment.tour_backends()) {
                assert!(
                    backends::by_name(name).is_some(),
                    "{} compares {name}, which is no back end",
                    experiment.id()
                );
            }
        }
    }

    #[test]
    fn every_axis_allows_its_own_values() {
        for axis in EXPERIMENTS.iter().flat_map(|experiment| experiment.axes()) {
            for value in axis.full.iter().chain(axis.tour).chain([&axis.smallest]) {
                assert_eq!(axis.check(value), Ok(()));
            }
        }
    }
}
