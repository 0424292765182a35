// A follower's fast path: takes the leader's next entry and acknowledges it. It obeys FastFollower (dataplane/quorum/src/fast.rs)
// and the rules of the XDP program quorum_follower, with these bounds: no VLAN tag and no IPv6; what comes too early goes up
// (hold_slots 0); no chain; nothing waits for a disk (waits_for_disk 0). All else goes out on `slow` as it came.
//
//   m_axis_tx    acknowledgements, to the network
//   m_axis_slow  frames that the host must see, untouched
//   m_axis_log   appends that were taken, as they came, in the order of their slots; the slot in tuser
//
// An acknowledgement leaves while its entry goes into the log, and after the whole entry was checked: what is acknowledged is
// in this block's memory or beyond it, and nothing but a reset takes it away.
//
// Registers of the host (cfg_we): fpga/model/src/registers.rs names the addresses.
`default_nettype none

module quorum_follower #(
    parameter int unsigned DATA_W     = 64,
    parameter int unsigned RING_LOG2  = 8,   // entries that the host has not drained
    parameter int unsigned DEPTH_LOG2 = 9    // beats that are kept until their frame is decided
) (
    input  wire logic                clk,
    input  wire logic                rst,

    input  wire logic                cfg_we,
    input  wire logic [7:0]          cfg_addr,
    input  wire logic [63:0]         cfg_data,

`include "node_ports.svh"

    output      logic [63:0]         stat_next,
    output      logic [63:0]         stat_commit_end
);

  if (DATA_W != 64 && DATA_W != 512) $fatal(1, "quorum_follower: DATA_W is %0d; 64 and 512 are built", DATA_W);
  if (RING_LOG2 < 1 || RING_LOG2 > 16) $fatal(1, "quorum_follower: RING_LOG2 is %0d; 1 to 16", RING_LOG2);

  localparam int unsigned Ring      = 2 ** RING_LOG2;
  localparam int unsigned LongBeats = 2 ** (DEPTH_LOG2 - 1);

  localparam logic [7:0] KindAppend = 8'd5;
  localparam logic [7:0] KindAck    = 8'd6;

  // ---------------------------------------------------------------------------------------------------- host's registers
  logic        on_q;
  logic [47:0] local_mac_q, group_mac_q, leader_q;
  logic [31:0] local_ipv4_q, group_ipv4_q;
  logic [15:0] local_port_q, entry_bytes_q;
  logic [63:0] term_q, drained_q, append_end_q;
  logic [63:0] next_q, commit_end_q;

  always_ff @(posedge clk) begin
    if (cfg_we)
      case (cfg_addr)
        8'd0:  on_q          <= cfg_data[0];
        8'd1:  local_mac_q   <= cfg_data[47:0];
        8'd2:  local_ipv4_q  <= cfg_data[31:0];
        8'd3:  local_port_q  <= cfg_data[15:0];
        8'd4:  group_mac_q   <= cfg_data[47:0];
        8'd5:  group_ipv4_q  <= cfg_data[31:0];
        8'd7:  term_q        <= cfg_data;
        8'd11: drained_q     <= cfg_data;
        8'd12: append_end_q  <= cfg_data;
        8'd13: entry_bytes_q <= cfg_data[15:0];
        8'd17: leader_q      <= cfg_data[47:0];
        default: ;
      endcase
    if (rst) on_q <= 1'b0;
  end

  // --------------------------------------------------------------------------------------------------------------- parser
  logic       frame_end;
  wire [47:0] heard_mac  = group_mac_q;
  wire [31:0] heard_ipv4 = group_ipv4_q;
`include "node_parser.svh"

  logic is_leader_q, term_eq_q;
  always_ff @(posedge clk) begin
    is_leader_q <= {p_src_ipv4, p_src_port} == leader_q && p_src_port != 16'd0;
    term_eq_q   <= p_term == term_q;
  end

  logic ahead, level;                    // the entry against our next slot
  compare_pipe next_compare (.clk, .a(p_slot), .b(next_q), .gt(ahead), .eq(level));

  // ------------------------------------------------------------------------------------------------------ the frame's state
  // The head of the acknowledgement follows from Pay1 on what h_end_q says, and stands before Go.
  typedef enum logic [2:0] {Idle, Pay0, Pay1, Pay2, Decide, Go} state_e;
  state_e state_q;

  logic        d_ahead_q, d_level_q, d_room_q, d_pay_ok_q;
  logic        d_drop_q, d_slow_q, d_tx_q, d_log_q;
  logic [15:0] d_beats_q, d_payload_len_q, d_ip_len_q, d_ip_checksum_q;
  logic [31:0] d_src_ipv4_q, d_dst_ipv4_q;
  logic [15:0] d_src_port_q;
  logic [47:0] d_src_mac_q;
  logic [63:0] d_sent_q, d_slot_q, h_end_q;

  logic [815:0] head;
  frame_head frame_head (
      .clk, .local_mac(local_mac_q), .local_ipv4(local_ipv4_q), .local_port(local_port_q),
      .dst_mac(d_src_mac_q), .dst_ipv4(d_src_ipv4_q), .dst_port(d_src_port_q),
      .old_src_ipv4(d_src_ipv4_q), .old_dst_ipv4(d_dst_ipv4_q), .old_ip_len(d_ip_len_q), .old_ip_checksum(d_ip_checksum_q),
      .kind(KindAck), .payload_len(16'd0), .term(term_q), .slot(h_end_q), .sent_ns(64'd0), .payload_crc(32'd0),
      .is_reply(1'b0), .client(64'd0), .sequence_no(64'd0), .head);

  // Room for an entry in our next slot, said two cycles late: numbers move at most once per frame.
  logic [63:0] undrained_q, next_end_q;
  logic        is_end, end_eq, is_full_q;
  compare_pipe end_compare (.clk, .a(append_end_q), .b(next_q), .gt(is_end), .eq(end_eq));
  logic        sent_ahead, sent_eq;      // the leader's commit end against the one that we know
  compare_pipe sent_compare (.clk, .a(d_sent_q), .b(commit_end_q), .gt(sent_ahead), .eq(sent_eq));
  always_ff @(posedge clk) begin
    undrained_q <= next_q - drained_q;
    is_full_q   <= undrained_q >= 64'(Ring) || !is_end;
    next_end_q  <= next_q + 64'd1;
  end

  // ----------------------------------------------------------------------------------------------------------- decisions
  logic ready, load;
  wire  may_take = frame_end && settled && state_q == Idle;
  wire  is_mine  = is_ours && on_q && p_kind == KindAppend && term_eq_q && is_leader_q;
  wire  is_again = !d_ahead_q && !d_level_q;
  wire  takes    = d_level_q && d_room_q && !is_full_q && d_pay_ok_q && on_q;
  wire  acks     = takes || (is_again && d_pay_ok_q && on_q);
  assign take = may_take;
  assign load = state_q == Go && ready;

  always_ff @(posedge clk) begin
    stat_next       <= next_q;
    stat_commit_end <= commit_end_q;
    if (cfg_we && cfg_addr == 8'd8) next_q       <= cfg_data;
    if (cfg_we && cfg_addr == 8'd9) commit_end_q <= cfg_data;

    case (state_q)
      Idle: if (may_take) begin
        d_beats_q       <= p_beats;
        d_ahead_q       <= ahead;
        d_level_q       <= level;
        d_payload_len_q <= p_payload_len;
        d_ip_len_q      <= p_ip_len;
        d_ip_checksum_q <= p_ip_checksum;
        d_src_ipv4_q    <= p_src_ipv4;
        d_dst_ipv4_q    <= p_dst_ipv4;
        d_src_port_q    <= p_src_port;
        d_src_mac_q     <= p_src_mac;
        d_sent_q        <= p_sent;
        d_slot_q        <= p_slot;
        d_tx_q          <= 1'b0;
        d_log_q         <= 1'b0;
        d_drop_q        <= is_bad;
        d_slow_q        <= !is_bad;
        state_q         <= is_mine ? Pay0 : Go;
      end
      Pay0: begin
        d_room_q <= d_payload_len_q <= entry_bytes_q;
        h_end_q  <= d_level_q ? next_end_q : next_q;
        state_q  <= Pay1;
      end
      Pay1: state_q <= Pay2;
      Pay2: begin
        d_pay_ok_q <= pay_ok;
        state_q    <= Decide;
      end
      Decide: begin
        if (takes) begin
          next_q  <= next_end_q;
          d_log_q <= 1'b1;
          if (sent_ahead) commit_end_q <= d_sent_q;
        end
        d_tx_q   <= acks;
        d_slow_q <= !acks;
        state_q  <= Go;
      end
      Go: if (ready) state_q <= Idle;
      default: state_q <= Idle;
    endcase

    if (rst) begin
      state_q      <= Idle;
      next_q       <= '0;
      commit_end_q <= '0;
    end
  end

  // ------------------------------------------------------------------------------------------------------ flow of the input
  // A frame may end while the one before is decided, but then no beat of a third arrives: it would write over the second.
  logic has_room;
  wire  frame_end_next = ends_now || (frame_end && !take);
  wire  busy_next      = state_q != Idle || may_take;
  always_ff @(posedge clk)
    s_axis_tready <= !rst && has_room && !(frame_end_next && busy_next) && (DATA_W == 64 || !(frame_end_next || busy_next));

  frame_emit #(.DATA_W(DATA_W), .DEPTH_LOG2(DEPTH_LOG2)) emit (
      .clk, .rst, .beat(s_axis_tvalid && s_axis_tready), .beat_data(s_axis_tdata), .beat_keep(s_axis_tkeep),
      .beat_last(s_axis_tlast), .beat_user(s_axis_tuser), .has_room,
      .load, .load_drop(d_drop_q), .load_slow(d_slow_q), .load_log(d_log_q), .load_tx(d_tx_q), .load_payload(1'b0),
      .load_reply(1'b0), .load_beats(d_beats_q), .load_slot(d_slot_q), .load_head(head), .ready,
      .m_axis_tx_tdata, .m_axis_tx_tkeep, .m_axis_tx_tlast, .m_axis_tx_tvalid, .m_axis_tx_tready,
      .m_axis_slow_tdata, .m_axis_slow_tkeep, .m_axis_slow_tlast, .m_axis_slow_tuser, .m_axis_slow_tvalid,
      .m_axis_slow_tready,
      .m_axis_log_tdata, .m_axis_log_tkeep, .m_axis_log_tlast, .m_axis_log_tuser, .m_axis_log_tvalid, .m_axis_log_tready);

endmodule

`default_nettype wire
