//! One file per experiment; [`crate::registry`] lists them.

pub mod bbr_loss_wall;
pub mod cc_bufferbloat;
pub mod cc_cubic_window;
pub mod cc_sharing;
pub mod client_bias;
pub mod control_laws;
pub mod coordinated_omission;
pub mod electrode;
pub mod failover;
pub mod flexible_quorum_tail;
pub mod homa_tail;
pub mod incast_bursts;
pub mod incast_dctcp;
pub mod incast_ndp;
pub mod incast_swift;
pub mod incast_timers;
pub mod load_latency;
pub mod loss_exclusion;
pub mod pacelc_else;
pub mod packet_rate;
pub mod peers;
pub mod pfc_collateral;
pub mod quorum_fanout;
pub mod quorum_ladder;
pub mod quorum_messages;
pub mod rtt_breakdown;
pub mod rtt_ladder;
pub mod scenarios;
pub mod self_test;
pub mod shard_commit;
pub mod wakeup_model;
pub mod wal_group_commit;
pub mod wal_ladder;
pub mod xdp_quorum;

mod judge;
mod virtual_time;
