// SPDX-License-Identifier: GPL-2.0
// DCTCP (RFC 8257) as a congestion controller in BPF, for kernels that were built without the one of their own.
//
// It is a `cong_control`: on every ack it decides the window alone, and writes both cwnd and ssthresh. What the kernel computes
// in between (PRR, the value that `ssthresh` returns, the one of `undo_cwnd`) lasts until the next ack at most. That is on
// purpose: one kernel was seen to skip the callbacks of BPF controllers on one ack in ten thousand and to take a stale word off
// the stack for the answer. So every change of state is also noticed here by comparing with what was seen last, and a window is
// never taken over from the kernel unless it is smaller than ours.
//
// The arithmetic is in `on_ack`, which touches no kernel type: `dctcp_step` at the end runs it, as the kernel runs it, on
// numbers from a test.
#include "kernel.h"

// alpha is a fraction of this. Linux has 2^10, and its estimate sticks at 15/1024; RFC 8257 §4.2 asks for enough bits that it
// does not.
#define ALPHA_ONE (1u << 20)
// g = 1/16 (RFC 8257 §4.2).
#define GAIN_SHIFT 4
// The least window after a reduction, in segments. RFC 8257 §3.3 has one; Linux two, as any TCP after a loss (RFC 5681).
#define WINDOW_MIN 2u

// What one connection remembers, in the 26 words that the kernel gives a controller. `ebpf/host/src/congestion` has the same layout.
struct dctcp {
    __u32 cwnd;      // segments; 0 before the first call
    __u32 ssthresh;  // segments
    __u32 cwnd_count; // acked segments that have not made the window grow yet
    __u32 alpha;     // of ALPHA_ONE
    __u64 acked_bytes;  // of the window under observation
    __u64 marked_bytes;
    __u32 window_end;   // where that window ends
    __u32 reduced_end;  // marks before this have been answered
    __u32 prior_cwnd;   // before the last loss
    __u32 delivered_ce; // of tcp_sock, at the last ack
    __u64 bytes_acked;  // the same
    __u32 state;        // of icsk_ca_state, at the last ack
    __u32 prr_delivered;
    __u32 prior_rcv_nxt; // the receiver's half: rcv_nxt and CE of the last segment
    __u32 ce_state;
};
_Static_assert(sizeof(struct dctcp) <= sizeof(((struct inet_connection_sock *)0)->icsk_ca_priv), "it does not fit");

// An ack, as `on_ack` sees it.
struct ack {
    __u64 acked_bytes;     // newly covered by the cumulative ack
    __u32 una;             // first byte not acknowledged
    __u32 nxt;             // first byte never sent
    __u32 delivered;       // segments newly known to have arrived, by the cumulative ack or SACK
    __u32 acked_segments;  // those among them that may make the window grow
    __u32 in_flight;       // segments
    __u32 packets_out_max; // the most that were out in the last round: says whether the window was used
    __u32 prr_out;         // segments sent since recovery began
    __u32 state;           // enum tcp_ca_state
    __u32 is_marked;       // ECE
};

// What all connections of this object saw together; read by user space.
struct {
    __u64 acks;
    __u64 marked_acks;
    __u64 reductions_for_marks;
    __u64 reductions_for_losses;
    __u64 ce_segments; // by receivers
    __u64 windows_taken_back; // the kernel's cwnd was above ours: an answer that it made up, or an undo
} totals;

#define count(what) __sync_fetch_and_add(&totals.what, 1)

// RFC 8257 §3.3, steps 1 to 8: alpha = alpha × (1 - g) + g × M, M the share of acked bytes that were marked, once per window.
inline_always void estimate(struct dctcp *ca, const struct ack *ack) {
    ca->acked_bytes += ack->acked_bytes;
    if (ack->is_marked)
        ca->marked_bytes += ack->acked_bytes;
    if (before(ack->una, ca->window_end))
        return;
    if (ca->acked_bytes > 0) {
        // A window has less than 2^32 bytes, so the product has less than 2^48.
        __u64 marked = (ca->marked_bytes << (20 - GAIN_SHIFT)) / ca->acked_bytes;
        __u32 left = ca->alpha - (ca->alpha >> GAIN_SHIFT);
        ca->alpha = min_of(left + (__u32)marked, ALPHA_ONE);
        // A step down of less than one unit would never end.
        if (ca->marked_bytes == 0 && ca->alpha < (1u << GAIN_SHIFT))
            ca->alpha = 0;
    }
    ca->window_end = ack->nxt;
    ca->acked_bytes = 0;
    ca->marked_bytes = 0;
}

// RFC 8257 §3.3, step 9: cwnd = cwnd × (1 - alpha / 2), once per window of data.
inline_always void reduce_for_mark(struct dctcp *ca, const struct ack *ack) {
    __u32 off = ((__u64)ca->cwnd * ca->alpha) >> 21;
    ca->cwnd = max_of(ca->cwnd - off, WINDOW_MIN);
    ca->ssthresh = ca->cwnd;
    ca->cwnd_count = 0;
    ca->reduced_end = ack->nxt;
}

// RFC 5681 §3.1: by what was acknowledged in slow start, by a segment per window beyond.
inline_always void grow(struct dctcp *ca, const struct ack *ack) {
    __u32 acked = ack->acked_segments;
    int is_slow_start = ca->cwnd < ca->ssthresh;
    // A window that was not used proves nothing (RFC 7661; tcp_is_cwnd_limited in include/net/tcp.h).
    if (is_slow_start ? ca->cwnd >= 2 * ack->packets_out_max : ca->cwnd > ack->packets_out_max)
        return;
    if (is_slow_start) {
        __u32 step = min_of(acked, ca->ssthresh - ca->cwnd);
        ca->cwnd += step;
        acked -= step;
    }
    ca->cwnd_count += acked;
    if (ca->cwnd_count >= ca->cwnd) {
        ca->cwnd_count -= ca->cwnd;
        ca->cwnd += 1;
    }
}

// RFC 8257 §3.5: a loss reduces as in any TCP, by half.
inline_always void reduce_for_loss(struct dctcp *ca) {
    ca->prior_cwnd = ca->cwnd;
    ca->ssthresh = max_of(ca->cwnd >> 1, WINDOW_MIN);
    ca->cwnd_count = 0;
    ca->prr_delivered = 0;
    count(reductions_for_losses);
}

// RFC 6937: fast recovery sends in proportion to what arrives, and ends at ssthresh. What may be in flight now.
inline_always __u32 recovery_window(struct dctcp *ca, const struct ack *ack) {
    __u32 sendable;
    ca->prr_delivered += ack->delivered;
    if (ack->in_flight > ca->ssthresh) {
        __u32 prior = max_of(ca->prior_cwnd, 1);
        __u32 due = ((__u64)ca->prr_delivered * ca->ssthresh + prior - 1) / prior;
        sendable = due > ack->prr_out ? due - ack->prr_out : 0;
    } else {
        __u32 owed = ca->prr_delivered > ack->prr_out ? ca->prr_delivered - ack->prr_out : 0;
        sendable = min_of(ca->ssthresh - ack->in_flight, max_of(owed, ack->delivered));
    }
    // The first retransmission leaves at once.
    if (ack->prr_out == 0)
        sendable = max_of(sendable, 1);
    return ack->in_flight + sendable;
}

// Everything that an ack does to a connection; what may be in flight afterwards.
inline_always __u32 on_ack(struct dctcp *ca, const struct ack *ack) {
    int was_recovering = ca->state == TCP_CA_RECOVERY;
    estimate(ca, ack);
    if (ack->state == TCP_CA_RECOVERY) {
        if (!was_recovering)
            reduce_for_loss(ca);
        ca->state = ack->state;
        ca->cwnd = ca->ssthresh;
        // A mark in recovery has been answered by the loss (RFC 8257 §3.3: once per window).
        ca->reduced_end = ack->nxt;
        return recovery_window(ca, ack);
    }
    ca->state = ack->state;
    if (ack->is_marked && !before(ack->una, ca->reduced_end) && ack->state != TCP_CA_LOSS) {
        reduce_for_mark(ca, ack);
        count(reductions_for_marks);
    }
    // As Linux: no growth until the acks of the window that was marked are back.
    if (!before(ack->una, ca->reduced_end))
        grow(ca, ack);
    return ca->cwnd;
}

inline_always void begin(struct dctcp *ca, __u32 cwnd, __u32 una, __u32 nxt, __u32 rcv_nxt) {
    ca->cwnd = max_of(cwnd, 1);
    ca->ssthresh = 0x7fffffff;
    ca->cwnd_count = 0;
    // RFC 8257 §4.2: 1, so that the first mark halves.
    ca->alpha = ALPHA_ONE;
    ca->acked_bytes = 0;
    ca->marked_bytes = 0;
    ca->window_end = nxt;
    ca->reduced_end = una;
    ca->prior_cwnd = ca->cwnd;
    ca->prr_delivered = 0;
    ca->state = 0;
    ca->prior_rcv_nxt = rcv_nxt;
    ca->ce_state = 0;
}

inline_always void begin_with(struct dctcp *ca, struct tcp_sock *tp) {
    begin(ca, tp->snd_cwnd, tp->snd_una, tp->snd_nxt, tp->rcv_nxt);
    ca->delivered_ce = tp->delivered_ce;
    ca->bytes_acked = tp->bytes_acked;
}

SEC("struct_ops")
void dctcp_init(__u64 *args) {
    struct sock *sk = (void *)args[0];
    begin_with(controller_state(sk), tcp_sk(sk));
}

// Only until the next ack, and for the timer, which may fire several times before one comes.
SEC("struct_ops")
__u32 dctcp_ssthresh(__u64 *args) {
    struct sock *sk = (void *)args[0];
    struct dctcp *ca = controller_state(sk);
    return max_of(ca->cwnd >> 1, WINDOW_MIN);
}

SEC("struct_ops")
__u32 dctcp_undo(__u64 *args) {
    struct sock *sk = (void *)args[0];
    struct dctcp *ca = controller_state(sk);
    ca->cwnd = max_of(ca->cwnd, ca->prior_cwnd);
    ca->ssthresh = max_of(ca->ssthresh, ca->cwnd);
    return ca->cwnd;
}

SEC("struct_ops")
void dctcp_cong_control(__u64 *args) {
    struct sock *sk = (void *)args[0];
    const struct rate_sample *rs = (void *)args[3];
    struct tcp_sock *tp = tcp_sk(sk);
    struct dctcp *ca = controller_state(sk);
    if (ca->cwnd == 0)
        begin_with(ca, tp);

    struct ack ack = {
        .acked_bytes = tp->bytes_acked - ca->bytes_acked,
        .una = tp->snd_una,
        .nxt = tp->snd_nxt,
        .delivered = rs->acked_sacked,
        .acked_segments = rs->acked_sacked,
        .packets_out_max = tp->max_packets_out,
        .prr_out = tp->prr_out,
        .state = recovery_state(sk),
        // Every ack with ECE that delivers something moves this counter (tcp_newly_delivered, net/ipv4/tcp_input.c).
        .is_marked = tp->delivered_ce != ca->delivered_ce,
    };
    __u32 out = tp->packets_out + tp->retrans_out;
    __u32 gone = tp->sacked_out + tp->lost_out;
    ack.in_flight = out > gone ? out - gone : 0;
    ca->bytes_acked = tp->bytes_acked;
    ca->delivered_ce = tp->delivered_ce;
    count(acks);
    if (ack.is_marked)
        count(marked_acks);

    __u32 theirs = tp->snd_cwnd;
    if (ack.state == TCP_CA_LOSS) {
        // `dctcp_cwnd_event` has halved ssthresh, unless it was skipped; one recovery reduces once.
        if (ca->state < TCP_CA_RECOVERY)
            reduce_for_loss(ca);
        // The retransmission timer begins again with one segment, each time that it fires (RFC 5681 §3.1).
        ca->cwnd = max_of(min_of(ca->cwnd, theirs), 1);
    } else if (ca->state != TCP_CA_RECOVERY) {
        // An idle connection begins anew (RFC 2861): the kernel has made the window smaller.
        if (theirs > ca->cwnd)
            count(windows_taken_back);
        ca->cwnd = max_of(min_of(ca->cwnd, theirs), 1);
    }
    tp->snd_cwnd = on_ack(ca, &ack);
    tp->snd_ssthresh = ca->ssthresh;
}

// Of the sender's half, a timer that fired; the ack that then comes may end the episode at once, and show nothing of it.
// The receiver's half, RFC 8257 §3.2: an ack says whether the segments that it covers were marked, so one leaves whenever that
// changes, with the old word for the old segments.
SEC("struct_ops")
void dctcp_cwnd_event(__u64 *args) {
    struct sock *sk = (void *)args[0];
    __u32 event = args[1];
    struct tcp_sock *tp = tcp_sk(sk);
    struct dctcp *ca = controller_state(sk);
    if (event == event_here(CA_EVENT_LOSS)) {
        reduce_for_loss(ca);
        ca->state = TCP_CA_LOSS;
        return;
    }
    __u32 is_ce = event == event_here(CA_EVENT_ECN_IS_CE);
    if (!is_ce && event != event_here(CA_EVENT_ECN_NO_CE))
        return;
    if (is_ce)
        count(ce_segments);
    if (ca->ce_state != is_ce) {
        if (inet_csk(sk)->icsk_ack.pending & ICSK_ACK_TIMER) {
            tp->ecn_flags = ca->ce_state ? tp->ecn_flags | TCP_ECN_DEMAND_CWR : tp->ecn_flags & ~TCP_ECN_DEMAND_CWR;
            bpf_tcp_send_ack(tp, ca->prior_rcv_nxt);
        }
        inet_csk(sk)->icsk_ack.pending |= ICSK_ACK_NOW;
    }
    ca->prior_rcv_nxt = tp->rcv_nxt;
    ca->ce_state = is_ce;
    tp->ecn_flags = is_ce ? tp->ecn_flags | TCP_ECN_DEMAND_CWR : tp->ecn_flags & ~TCP_ECN_DEMAND_CWR;
}

// What a test gives and gets: a connection's state, an ack, and the window after it.
struct step {
    struct dctcp ca;
    struct ack ack;
    __u32 begins; // 1: a new connection with `ca.cwnd` segments, before the ack
    __u32 window; // answer
};

// Word by word at constant offsets: the verifier wants the context's pointer as it came.
#define WORDS(what) (sizeof(what) / sizeof(__u64))

SEC("syscall")
int dctcp_step(volatile __u64 *context) {
    struct step step;
    __u64 *words = (__u64 *)&step;
    _Static_assert(sizeof(step) % sizeof(__u64) == 0, "whole words");
#pragma unroll
    for (int i = 0; i < WORDS(step); i++)
        words[i] = context[i];
    if (step.begins)
        begin(&step.ca, step.ca.cwnd, step.ack.una, step.ack.una, 0);
    step.window = on_ack(&step.ca, &step.ack);
#pragma unroll
    for (int i = 0; i < WORDS(step); i++)
        context[i] = words[i];
    return 0;
}

// The name is a placeholder, replaced before loading by one that no other process has.
SEC(".struct_ops.link")
struct tcp_congestion_ops dctcp = {
    .init = (void *)dctcp_init,
    .ssthresh = (void *)dctcp_ssthresh,
    .cong_control = (void *)dctcp_cong_control,
    .undo_cwnd = (void *)dctcp_undo,
    .cwnd_event = (void *)dctcp_cwnd_event,
    .name = "placeholder",
    .flags = TCP_CONG_NEEDS_ECN,
};

char LICENSE[] SEC("license") = "GPL";
