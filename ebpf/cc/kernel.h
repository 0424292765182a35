// SPDX-License-Identifier: GPL-2.0
// What the congestion controllers of this folder use of the kernel: the few fields, by name and type. Where a field stands in a
// running kernel is found when the object is loaded (BPF CO-RE, `preserve_access_index`), so one object fits many kernels and
// nobody needs a vmlinux.h of 130,000 lines.
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define inline_always static inline __attribute__((always_inline))
#define kernel_type __attribute__((preserve_access_index))

// include/net/inet_connection_sock.h, enum inet_csk_ack_state_t: the delayed-ack timer runs; an ack must leave now.
#define ICSK_ACK_TIMER 2
#define ICSK_ACK_NOW 16
// include/net/tcp.h: the receiver owes its peer ECE; what a controller asks of the handshake.
#define TCP_ECN_DEMAND_CWR 4
#define TCP_CONG_NEEDS_ECN 2
// include/uapi/linux/tcp.h, enum tcp_ca_state.
#define TCP_CA_RECOVERY 3
#define TCP_CA_LOSS 4

// include/net/tcp.h. Its numbers have moved between kernels, so the values are read from the running one's types.
enum tcp_ca_event {
    CA_EVENT_TX_START,
    CA_EVENT_CWND_RESTART,
    CA_EVENT_COMPLETE_CWR,
    CA_EVENT_LOSS,
    CA_EVENT_ECN_NO_CE,
    CA_EVENT_ECN_IS_CE,
};
#define event_here(event) __builtin_preserve_enum_value(*(typeof(enum tcp_ca_event) *)event, 1)

struct sock {
    int sk_err;
} kernel_type;

struct inet_sock {
    struct sock sk;
} kernel_type;

struct inet_connection_sock {
    struct inet_sock icsk_inet;
    __u8 icsk_ca_state : 5;
    struct {
        __u8 pending;
    } icsk_ack;
    __u64 icsk_ca_priv[13];
} kernel_type;

struct tcp_sock {
    struct inet_connection_sock inet_conn;
    __u32 rcv_nxt;
    __u32 snd_nxt;
    __u32 snd_una;
    __u8 ecn_flags;
    __u32 delivered;
    __u32 delivered_ce;
    __u32 packets_out;
    __u32 lost_out;
    __u32 sacked_out;
    __u32 retrans_out;
    __u32 prr_out;
    __u32 max_packets_out;
    __u32 snd_ssthresh;
    __u32 snd_cwnd;
    __u64 bytes_acked;
} kernel_type;

struct rate_sample {
    __u32 acked_sacked;
} kernel_type;

// The members that a controller may fill; the kernel's type has more, and the loader matches them by name.
struct tcp_congestion_ops {
    void (*init)(struct sock *sk);
    __u32 (*ssthresh)(struct sock *sk);
    void (*cong_control)(struct sock *sk, __u32 ack, int flag, const struct rate_sample *rs);
    __u32 (*undo_cwnd)(struct sock *sk);
    void (*cwnd_event)(struct sock *sk, enum tcp_ca_event event);
    char name[16];
    __u32 flags;
};

// include/uapi/linux/bpf.h, helper 116: sends an ack that says `rcv_nxt`.
static long (*const bpf_tcp_send_ack)(void *tp, __u32 rcv_nxt) = (void *)116;

// Sequence numbers wrap (RFC 9293 §3.4).
inline_always int before(__u32 a, __u32 b) {
    return (__s32)(a - b) < 0;
}

inline_always struct tcp_sock *tcp_sk(struct sock *sk) {
    return (struct tcp_sock *)sk;
}

inline_always struct inet_connection_sock *inet_csk(struct sock *sk) {
    return (struct inet_connection_sock *)sk;
}

// struct sock and what is built on it have no space before one another, so a pointer to one is a pointer to all.
inline_always void *controller_state(struct sock *sk) {
    return (void *)inet_csk(sk)->icsk_ca_priv;
}

// A bit field's place and size move with its neighbours: found when the object is loaded, as `BPF_CORE_READ_BITFIELD` of libbpf does
// it. The numbers are BPF_FIELD_BYTE_OFFSET, _LSHIFT_U64 and _RSHIFT_U64 (enum bpf_field_info_kind); one byte holds this one.
inline_always __u32 recovery_state(struct sock *sk) {
    struct inet_connection_sock *icsk = inet_csk(sk);
    __u64 word = *((__u8 *)icsk + __builtin_preserve_field_info(icsk->icsk_ca_state, 0));
    word <<= __builtin_preserve_field_info(icsk->icsk_ca_state, 4);
    return word >> __builtin_preserve_field_info(icsk->icsk_ca_state, 5);
}

inline_always __u32 max_of(__u32 a, __u32 b) {
    return a > b ? a : b;
}

inline_always __u32 min_of(__u32 a, __u32 b) {
    return a < b ? a : b;
}
