/* The other side of the interoperation test: a program over libibverbs, for the kernel's rdma_rxe. It is in C because the
 * test is of our own code against somebody else's; scripts/rxe builds it.
 *
 * usage: peer DEVICE GID_INDEX TCP_PORT
 *
 * Both sides say a line: "PSN QPN RKEY ADDRESS" in hex. Then the other side does what it likes to this side's memory, until it
 * sends a byte; then this side does its operations, checks them, and sends "K" or "F". */
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BYTES = 1 << 20, HALF = BYTES / 2, RECEIVES = 256, RECEIVE_BYTES = 4096, ROUNDS = 100 };
#define MUST(x) do { if (!(x)) { fprintf(stderr, "peer: line %d: %s\n", __LINE__, #x); perror("peer"); exit(1); } } while (0)

static struct ibv_qp *qp; static struct ibv_cq *cq, *rcq; static struct ibv_mr *mr; static unsigned char *memory;
static unsigned rkey; static unsigned long long address;

static void receive(int place) {
    struct ibv_sge sge = {(uintptr_t)memory + BYTES - (place + 1) * RECEIVE_BYTES, RECEIVE_BYTES, mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = place, .sg_list = &sge, .num_sge = 1}, *bad;
    MUST(!ibv_post_recv(qp, &wr, &bad));
}

/* One operation, and its completion. */
static void operate(enum ibv_wr_opcode opcode, size_t at, unsigned len, size_t far, unsigned imm, uint64_t a, uint64_t b) {
    struct ibv_sge sge = {(uintptr_t)memory + at, len, mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED}, *bad;
    wr.imm_data = htonl(imm);
    if (opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = address + far; wr.wr.atomic.rkey = rkey;
        wr.wr.atomic.compare_add = a; wr.wr.atomic.swap = b;
    } else { wr.wr.rdma.remote_addr = address + far; wr.wr.rdma.rkey = rkey; }
    MUST(!ibv_post_send(qp, &wr, &bad));
    struct ibv_wc wc; int n;
    while (!(n = ibv_poll_cq(cq, 1, &wc))) sched_yield();
    MUST(n == 1);
    if (wc.status) { fprintf(stderr, "peer: operation %d: %s\n", opcode, ibv_wc_status_str(wc.status)); exit(1); }
}

int main(int argc, char **argv) {
    MUST(argc == 4);
    int count; struct ibv_device **list = ibv_get_device_list(&count), *device = NULL;
    for (int i = 0; i < count; i++) if (!strcmp(ibv_get_device_name(list[i]), argv[1])) device = list[i];
    MUST(device);
    struct ibv_context *context = ibv_open_device(device); MUST(context);
    struct ibv_pd *pd = ibv_alloc_pd(context); MUST(pd);
    memory = aligned_alloc(4096, BYTES); memset(memory, 0, BYTES);
    int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
    MUST((mr = ibv_reg_mr(pd, memory, BYTES, access)));
    MUST((cq = ibv_create_cq(context, 512, NULL, NULL, 0))); MUST((rcq = ibv_create_cq(context, 512, NULL, NULL, 0)));
    struct ibv_qp_init_attr make = {.send_cq = cq, .recv_cq = rcq, .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = 64, .max_recv_wr = RECEIVES, .max_send_sge = 1, .max_recv_sge = 1}};
    MUST((qp = ibv_create_qp(pd, &make)));
    struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = access};
    MUST(!ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
    for (int i = 0; i < RECEIVES / 2; i++) receive(i);

    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))}, there; socklen_t len = sizeof there;
    MUST(!bind(listener, (void *)&here, sizeof here) && !listen(listener, 1));
    int stream = accept(listener, (void *)&there, &len); MUST(stream >= 0);
    char line[128] = {0}; unsigned psn, number;
    for (size_t n = 0; n < sizeof line - 1; n++) { MUST(read(stream, line + n, 1) == 1); if (line[n] == '\n') break; }
    MUST(sscanf(line, "%x %x %x %llx", &psn, &number, &rkey, &address) == 4);
    struct ibv_qp_attr rtr = {.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = number, .rq_psn = psn,
        .max_dest_rd_atomic = 16, .min_rnr_timer = 12, .ah_attr = {.is_global = 1, .port_num = 1}};
    rtr.ah_attr.grh.sgid_index = atoi(argv[2]); rtr.ah_attr.grh.hop_limit = 64;
    rtr.ah_attr.grh.dgid.raw[10] = rtr.ah_attr.grh.dgid.raw[11] = 0xff;
    memcpy(rtr.ah_attr.grh.dgid.raw + 12, &there.sin_addr, 4);
    MUST(!ibv_modify_qp(qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
        IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
    struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .sq_psn = 0xfffff0,
        .max_rd_atomic = 16};
    MUST(!ibv_modify_qp(qp, &rts, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
        IBV_QP_MAX_QP_RD_ATOMIC));
    dprintf(stream, "%x %x %x %llx\n", 0xfffff0, qp->qp_num, mr->rkey, (unsigned long long)(uintptr_t)memory);

    char byte; MUST(read(stream, &byte, 1) == 1);
    struct ibv_wc wc; unsigned received = 0, words = 0;
    while (ibv_poll_cq(rcq, 1, &wc) == 1) {
        if (wc.status) { fprintf(stderr, "peer: receive: %s\n", ibv_wc_status_str(wc.status)); exit(1); }
        received++; words += wc.wc_flags & IBV_WC_WITH_IMM ? 1 : 0;
    }
    printf("peer: was sent %u messages, %u with a word\n", received, words);
    uint64_t *word = (void *)(memory + HALF / 2 + 65536);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned bytes = 1 + round * 97 % 5000;
        for (unsigned i = 0; i < bytes; i++) memory[i] = i * 7 + round;
        operate(IBV_WR_RDMA_WRITE, 0, bytes, 0, 0, 0, 0);
        memset(memory + 65536, 0, 5000);
        operate(IBV_WR_RDMA_READ, 65536, bytes, 0, 0, 0, 0);
        MUST(!memcmp(memory, memory + 65536, bytes));
        operate(IBV_WR_SEND_WITH_IMM, 0, bytes > 4000 ? 4000 : bytes, 0, round, 0, 0);
        operate(IBV_WR_RDMA_WRITE_WITH_IMM, 0, 64, 8192, round, 0, 0);
        operate(IBV_WR_ATOMIC_CMP_AND_SWP, (char *)word - (char *)memory, 8, 16384, 0, 6 * round, 6 * round + 1);
        MUST(*word == 6 * round);
        operate(IBV_WR_ATOMIC_FETCH_AND_ADD, (char *)word - (char *)memory, 8, 16384, 0, 5, 0);
        MUST(*word == 6 * round + 1);
    }
    printf("peer: %u rounds of write, read, send, write with a word, compare and swap, fetch and add: all checked\n", ROUNDS);
    MUST(write(stream, "K", 1) == 1);
    return 0;
}
