//! What a device is told of a queue pair on its way through the states (ibv_modify_qp(3)), and how far it is open.

use rdma_sys::{
    IBV_QP_ACCESS_FLAGS, IBV_QP_AV, IBV_QP_DEST_QPN, IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MAX_QP_RD_ATOMIC,
    IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MTU, IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY,
    IBV_QP_RQ_PSN, IBV_QP_SQ_PSN, IBV_QP_STATE, IBV_QP_TIMEOUT, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS, ibv_ah_attr,
    ibv_gid, ibv_global_route, ibv_qp_attr,
};

use super::number;
use crate::{
    provider::QpAddress,
    qp::{PathMtu, QpOptions},
    region::Access,
    wire::Psn,
};

/// Ports are counted from 1, and nearly every device has one.
pub(super) const PORT: u8 = 1;

/// What each packet may be forwarded: the common default of IP (RFC 1700's recommended TTL).
const HOP_LIMIT: u8 = 64;

/// A change of a queue pair: what is new, and which fields say so.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) attributes: ibv_qp_attr,
    pub(super) mask: i32,
}

impl Step {
    /// To a state that wants to know nothing.
    pub(super) fn to(qp_state: u32) -> Step {
        Step {
            attributes: ibv_qp_attr {
                qp_state,
                ..ibv_qp_attr::default()
            },
            mask: IBV_QP_STATE,
        }
    }

    /// What peers may do, in the state that it is in.
    pub(super) fn access(remote: Access) -> Step {
        Step {
            attributes: ibv_qp_attr {
                qp_access_flags: pair_flags(remote) as u32,
                ..ibv_qp_attr::default()
            },
            mask: IBV_QP_ACCESS_FLAGS,
        }
    }

    /// RESET to INIT.
    pub(super) fn init(remote: Access) -> Step {
        Step {
            attributes: ibv_qp_attr {
                qp_state: IBV_QPS_INIT,
                port_num: PORT,
                qp_access_flags: pair_flags(remote) as u32,
                ..ibv_qp_attr::default()
            },
            mask: IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
        }
    }

    /// INIT to RTR: the path to the peer.
    pub(super) fn ready_to_receive(options: &QpOptions, peer: &QpAddress, gid_index: u8) -> Step {
        let route = ibv_global_route {
            dgid: ibv_gid {
                raw: number::gid_of(peer.ip),
            },
            sgid_index: gid_index,
            hop_limit: HOP_LIMIT,
            ..ibv_global_route::default()
        };
        Step {
            attributes: ibv_qp_attr {
                qp_state: IBV_QPS_RTR,
                path_mtu: path_mtu_number(options.path_mtu),
                dest_qp_num: peer.qp.get(),
                rq_psn: peer.start_psn.get(),
                max_dest_rd_atomic: options.responder_reads_max as u8,
                min_rnr_timer: options.rnr_timer,
                ah_attr: ibv_ah_attr {
                    grh: route,
                    is_global: 1,
                    port_num: PORT,
                    ..ibv_ah_attr::default()
                },
                ..ibv_qp_attr::default()
            },
            mask: IBV_QP_STATE
                | IBV_QP_AV
                | IBV_QP_PATH_MTU
                | IBV_QP_DEST_QPN
                | IBV_QP_RQ_PSN
                | IBV_QP_MAX_DEST_RD_ATOMIC
                | IBV_QP_MIN_RNR_TIMER,
        }
    }

    /// RTR to RTS: how it sends.
    pub(super) fn ready_to_send(options: &QpOptions, start_psn: Psn) -> Step {
        Step {
            attributes: ibv_qp_attr {
                qp_state: IBV_QPS_RTS,
                timeout: number::timeout_code(options.timeout),
                retry_cnt: options.retries_max,
                rnr_retry: options.rnr_retries_max,
                sq_psn: start_psn.get(),
                max_rd_atomic: options.initiator_reads_max as u8,
                ..ibv_qp_attr::default()
            },
            mask: IBV_QP_STATE
                | IBV_QP_TIMEOUT
                | IBV_QP_RETRY_CNT
                | IBV_QP_RNR_RETRY
                | IBV_QP_SQ_PSN
                | IBV_QP_MAX_QP_RD_ATOMIC,
        }
    }
}

/// `enum ibv_access_flags`.
pub(super) fn flags(access: Access) -> i32 {
    // A peer's write lands by the device's hand, so whoever allows that allows local writes (ibv_reg_mr(3)).
    let local_write = access.local_write || access.remote_write || access.remote_atomic;
    flag(local_write, rdma_sys::IBV_ACCESS_LOCAL_WRITE)
        | flag(access.bind, rdma_sys::IBV_ACCESS_MW_BIND)
        | remote_flags(access)
}

/// The same of a queue pair, through which windows are bound in any case.
fn pair_flags(access: Access) -> i32 {
    flags(Access { bind: false, ..access })
}

/// The same of what peers may do, which is all that a window has.
pub(super) fn remote_flags(access: Access) -> i32 {
    flag(access.remote_write, rdma_sys::IBV_ACCESS_REMOTE_WRITE)
        | flag(access.remote_read, rdma_sys::IBV_ACCESS_REMOTE_READ)
        | flag(access.remote_atomic, rdma_sys::IBV_ACCESS_REMOTE_ATOMIC)
}

fn flag(is_set: bool, flag: u32) -> i32 {
    if is_set { flag as i32 } else { 0 }
}

/// `enum ibv_mtu`.
fn path_mtu_number(mtu: PathMtu) -> u32 {
    mtu as u32
}

#[cfg(test)]
mod tests {
    use rdma_sys::{IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_MW_BIND, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE};

    use super::*;

    #[test]
    fn whoever_lets_peers_write_lets_the_device() {
        let writer = Access {
            remote_write: true,
            bind: true,
            ..Access::default()
        };
        let written = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
        assert_eq!(flags(writer) as u32, written | IBV_ACCESS_MW_BIND);
        assert_eq!(
            Step::access(writer).attributes.qp_access_flags,
            written,
            "of a region alone"
        );
        assert_eq!(remote_flags(writer) as u32, IBV_ACCESS_REMOTE_WRITE, "of a window");
        let reader = Access {
            remote_read: true,
            ..Access::default()
        };
        assert_eq!(flags(reader) as u32, IBV_ACCESS_REMOTE_READ);
    }
}
