//! Every size, offset and number that this crate writes down, against the header that says it: a C program prints what the
//! compiler makes of `infiniband/verbs.h`. Skipped by name where libibverbs-dev or a C compiler is not there.
#![forbid(unsafe_code)]

use std::{
    fs,
    mem::{offset_of, size_of},
    path::Path,
    process::Command,
};

use rdma_sys::*;

/// What C is asked, and what Rust says.
type Facts = Vec<(String, u64)>;

macro_rules! sizes {
    ($facts:ident: $($name:ident)*) => {
        $($facts.push((format!("sizeof(struct {})", stringify!($name)), size_of::<$name>() as u64));)*
    };
}

macro_rules! offsets {
    ($facts:ident: $($name:ident { $($($field:ident).+),* $(,)? })*) => {
        $($($facts.push((
            format!("offsetof(struct {}, {})", stringify!($name), concat!($("." , stringify!($field)),+).trim_start_matches('.').replace("r#", "")),
            offset_of!($name, $($field).+) as u64,
        ));)*)*
    };
}

macro_rules! numbers {
    ($facts:ident: $($name:ident)*) => {
        $($facts.push((stringify!($name).to_owned(), $name as u64));)*
    };
}

fn facts() -> Facts {
    let mut facts = Facts::new();
    // Those that this crate knows whole; of the others (context, queue pair, completion queue) it knows the beginning.
    sizes!(facts: ibv_context_ops ibv_device_attr ibv_comp_channel ibv_pd ibv_mr ibv_mw ibv_mw_bind_info ibv_global_route ibv_ah_attr ibv_qp_cap ibv_qp_attr
        ibv_qp_init_attr ibv_sge ibv_send_wr ibv_recv_wr ibv_wc);
    offsets! { facts:
        ibv_context { device, ops, ops.alloc_mw, ops.dealloc_mw, ops.poll_cq, ops.req_notify_cq, ops.post_send, ops.post_recv, cmd_fd, async_fd }
        ibv_cq { context, channel, cq_context, handle, cqe }
        ibv_comp_channel { context, fd }
        ibv_device_attr { fw_ver, node_guid, sys_image_guid, max_mr_size, page_size_cap, vendor_id, vendor_part_id, hw_ver, max_qp,
            max_qp_wr, device_cap_flags }
        ibv_pd { context, handle }
        ibv_mr { context, pd, addr, length, handle, lkey, rkey }
        ibv_mw { context, pd, rkey, handle, r#type }
        ibv_mw_bind_info { mr, addr, length, mw_access_flags }
        ibv_qp { context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type }
        ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }
        ibv_ah_attr { grh, dlid, sl, src_path_bits, static_rate, is_global, port_num }
        ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
        ibv_qp_attr { qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn, dest_qp_num, qp_access_flags, cap,
            ah_attr, alt_ah_attr, pkey_index, alt_pkey_index, en_sqd_async_notify, sq_draining, max_rd_atomic,
            max_dest_rd_atomic, min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout, rate_limit }
        ibv_qp_init_attr { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all }
        ibv_sge { addr, length, lkey }
        ibv_send_wr { wr_id, next, sg_list, num_sge, opcode, send_flags, imm_data, wr.rdma.remote_addr, wr.rdma.rkey,
            wr.atomic.remote_addr, wr.atomic.compare_add, wr.atomic.swap, wr.atomic.rkey, qp_type, bind_mw.mw, bind_mw.rkey,
            bind_mw.bind_info }
        ibv_recv_wr { wr_id, next, sg_list, num_sge }
        ibv_wc { wr_id, status, opcode, vendor_err, byte_len, imm_data, qp_num, src_qp, wc_flags, pkey_index, slid, sl,
            dlid_path_bits }
    }
    numbers!(facts: IBV_ACCESS_LOCAL_WRITE IBV_ACCESS_REMOTE_WRITE IBV_ACCESS_REMOTE_READ IBV_ACCESS_REMOTE_ATOMIC IBV_ACCESS_MW_BIND
        IBV_DEVICE_MEM_WINDOW_TYPE_2B IBV_MW_TYPE_2 IBV_QPT_RC
        IBV_QPS_RESET IBV_QPS_INIT IBV_QPS_RTR IBV_QPS_RTS IBV_QPS_SQE IBV_QPS_ERR
        IBV_QP_STATE IBV_QP_ACCESS_FLAGS IBV_QP_PKEY_INDEX IBV_QP_PORT IBV_QP_AV IBV_QP_PATH_MTU IBV_QP_TIMEOUT IBV_QP_RETRY_CNT
        IBV_QP_RNR_RETRY IBV_QP_RQ_PSN IBV_QP_MAX_QP_RD_ATOMIC IBV_QP_MIN_RNR_TIMER IBV_QP_SQ_PSN IBV_QP_MAX_DEST_RD_ATOMIC
        IBV_QP_DEST_QPN
        IBV_WR_RDMA_WRITE IBV_WR_RDMA_WRITE_WITH_IMM IBV_WR_SEND IBV_WR_SEND_WITH_IMM IBV_WR_RDMA_READ IBV_WR_ATOMIC_CMP_AND_SWP
        IBV_WR_ATOMIC_FETCH_AND_ADD IBV_WR_LOCAL_INV IBV_WR_BIND_MW IBV_WR_SEND_WITH_INV IBV_SEND_SIGNALED IBV_SEND_INLINE IBV_WC_RECV_RDMA_WITH_IMM IBV_WC_WITH_IMM IBV_WC_WITH_INV
        IBV_WC_SUCCESS IBV_WC_LOC_LEN_ERR IBV_WC_LOC_QP_OP_ERR IBV_WC_LOC_PROT_ERR IBV_WC_WR_FLUSH_ERR IBV_WC_MW_BIND_ERR IBV_WC_BAD_RESP_ERR
        IBV_WC_LOC_ACCESS_ERR IBV_WC_REM_INV_REQ_ERR IBV_WC_REM_ACCESS_ERR IBV_WC_REM_OP_ERR IBV_WC_RETRY_EXC_ERR
        IBV_WC_RNR_RETRY_EXC_ERR);
    facts
}

#[test]
fn layouts_are_the_header_s() {
    if !Path::new("/usr/include/infiniband/verbs.h").exists() {
        eprintln!("skipped: no infiniband/verbs.h; apt-get install libibverbs-dev");
        return;
    }
    let facts = facts();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layout-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("cargo's folder for tests can be written");
    let (source, program) = (folder.join("layout.c"), folder.join("layout"));
    let lines: String = facts
        .iter()
        .map(|(what, _)| format!("    printf(\"%llu\\n\", (unsigned long long)({what}));\n"))
        .collect();
    let text = format!(
        "#include <infiniband/verbs.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n{lines}    return 0;\n}}\n"
    );
    fs::write(&source, text).expect("as above");
    let compiled = match Command::new("cc").arg("-o").arg(&program).arg(&source).output() {
        Ok(compiled) => compiled,
        Err(error) => {
            eprintln!("skipped: no C compiler (cc: {error}); apt-get install gcc");
            return;
        }
    };
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let output = Command::new(&program).output().expect("it was just compiled");
    fs::remove_dir_all(&folder).expect("as above");
    let said: Vec<u64> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.parse().expect("numbers alone"))
        .collect();
    assert_eq!(said.len(), facts.len());
    let wrong: Vec<String> = facts
        .iter()
        .zip(said)
        .filter(|((_, ours), theirs)| ours != theirs)
        .map(|((what, ours), theirs)| format!("{what} is {theirs}, here {ours}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
