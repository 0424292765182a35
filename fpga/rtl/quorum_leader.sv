// The leader's fast path: gives a client's put the next slot and sends it to the followers, counts their acknowledgements, and
// turns the one that completes a quorum into the client's answer. It obeys FastLeader (dataplane/quorum/src/fast.rs) and the rules of
// the XDP program quorum_leader, with these bounds: no VLAN tag and no IPv6; a session's newest request alone is taken
// (session_window 0); no chain; the leader's own vote counts at once (waits_for_disk 0). All else goes out on `slow` as it came.
//
//   m_axis_tx      appends and answers, to the network
//   m_axis_slow    frames that the host must see, untouched
//   m_axis_log     requests that were given a slot, as they came; the slot in tuser
//   m_axis_commit  every new commit end; one cannot overtake or overwrite another
//
// DATA_W 64: an acknowledgement has 11 beats; the last arrives in cycle 10, is checked and applied in 11, the commit end is
// chosen in 12, and m_axis_commit_tvalid stands in 13.
//
// Registers of the host (cfg_we, while cfg_ready): fpga/model/src/registers.rs names the addresses. What is drained is taken in any
// cycle, ready or not: it only makes room, and must get in when frames come without a gap.
`default_nettype none

module quorum_leader #(
    parameter int unsigned DATA_W        = 64,
    parameter int unsigned NODES         = 5,
    parameter int unsigned RING_LOG2     = 8,   // entries in flight
    parameter int unsigned SESSIONS_LOG2 = 8,
    parameter int unsigned DEPTH_LOG2    = 9    // beats that are kept until their frame is decided
) (
    input  wire logic                clk,
    input  wire logic                rst,

    input  wire logic                cfg_we,
    input  wire logic [7:0]          cfg_addr,
    input  wire logic [63:0]         cfg_data,
    output      logic                cfg_ready,

`include "node_ports.svh"

    output      logic [63:0]         m_axis_commit_tdata,
    output      logic                m_axis_commit_tvalid,
    input  wire logic                m_axis_commit_tready,

    output      logic [63:0]         stat_next,
    output      logic [63:0]         stat_commit_end
);

  if (DATA_W != 64 && DATA_W != 512) $fatal(1, "quorum_leader: DATA_W is %0d; 64 and 512 are built", DATA_W);
  if (NODES < 2 || NODES > 8) $fatal(1, "quorum_leader: %0d nodes; 2 to 8 are possible", NODES);
  if (RING_LOG2 < 1 || RING_LOG2 > 12) $fatal(1, "quorum_leader: RING_LOG2 is %0d; 1 to 12", RING_LOG2);
  if (SESSIONS_LOG2 < 1 || SESSIONS_LOG2 > 12) $fatal(1, "quorum_leader: SESSIONS_LOG2 is %0d; 1 to 12", SESSIONS_LOG2);

  localparam int unsigned Ring     = 2 ** RING_LOG2;
  localparam int unsigned Sessions = 2 ** SESSIONS_LOG2;
  // A frame this long is no fast path's, and is half of what is kept.
  localparam int unsigned LongBeats = 2 ** (DEPTH_LOG2 - 1);

  localparam logic [7:0] KindRequest = 8'd3;
  localparam logic [7:0] KindReply   = 8'd4;
  localparam logic [7:0] KindAppend  = 8'd5;
  localparam logic [7:0] KindAck     = 8'd6;

  // ---------------------------------------------------------------------------------------------------- host's registers
  logic        on_q;
  logic [47:0] local_mac_q, group_mac_q;
  logic [31:0] local_ipv4_q, group_ipv4_q;
  logic [15:0] local_port_q, group_port_q;
  logic [63:0] term_q, drained_q, append_end_q;
  logic [15:0] in_flight_q, entry_bytes_q;
  logic [NODES-1:0] voters_q, peers_q;
  logic [NODES:0]   self_q;
  logic [3:0]       commit_count_q;
  logic [47:0]      places_q [NODES];    // address and port
  logic [63:0]      session_id_q;
  logic [63:0]      next_q, commit_end_q;

  // States, a bit each.
  localparam int unsigned Idle = 0, Select = 1, Entry0 = 2, Entry1 = 3, Entry2 = 4, Entry3 = 5, Entry4 = 6, Ask0 = 7, Ask1 = 8,
                          Ask2 = 9, Ask3 = 10, Ask4 = 11, Ask5 = 12, Head0 = 13, Head1 = 14, Head2 = 15, Go = 16, States = 17;
  logic [States-1:0] state_q, state_d;

  // A number that nodes are compared with stands still for two cycles before it is applied, and the next one for two after. The
  // host's numbers do not come between a frame and its commit.
  logic [2:0]     set_wait_q;
  logic           set_now, frame_end;
  logic           we_q, set_we_q;              // a write that was accepted is done in this cycle
  logic [7:0]     addr_q;
  logic [63:0]    data_q;
  wire   is_set    = set_wait_q == 3'd0;
  assign cfg_ready = is_set && state_q[Idle] && !frame_end && !we_q;
  assign set_now   = set_wait_q == 3'd3;
  // What the votes are asked about: the frame's slot, or this, of the host or of an entry of our own.
  logic           other_q;
  logic [63:0]    other_value_q, next_end_q;
  logic [NODES:0] other_node_q;

  always_ff @(posedge clk) begin
    if (set_wait_q != 3'd0) set_wait_q <= set_wait_q - 3'd1;
    we_q   <= cfg_we && cfg_ready && cfg_addr != 8'd11;
    if (cfg_we && cfg_addr == 8'd11) drained_q <= cfg_data;
    addr_q <= cfg_addr;
    data_q <= cfg_data;
    if (we_q) begin
      case (addr_q)
        8'd0:  on_q           <= data_q[0];
        8'd1:  local_mac_q    <= data_q[47:0];
        8'd2:  local_ipv4_q   <= data_q[31:0];
        8'd3:  local_port_q   <= data_q[15:0];
        8'd4:  group_mac_q    <= data_q[47:0];
        8'd5:  group_ipv4_q   <= data_q[31:0];
        8'd6:  group_port_q   <= data_q[15:0];
        8'd7:  term_q         <= data_q;
        8'd10: in_flight_q    <= data_q[15:0];
        8'd12: append_end_q   <= data_q;
        8'd13: entry_bytes_q  <= data_q[15:0];
        8'd14: voters_q       <= data_q[NODES-1:0];
        8'd15: commit_count_q <= data_q[3:0];
        8'd16: begin
          for (int unsigned j = 0; j <= NODES; j++) self_q[j] <= data_q == 64'(j) && j < NODES;
        end
        8'd18: session_id_q   <= data_q;
        default: ;
      endcase
      for (int unsigned j = 0; j < NODES; j++) if (addr_q == 8'(32 + j)) places_q[j] <= data_q[47:0];
    end
    if (set_now || state_q[Ask5]) other_q <= 1'b0;
    if (state_q[Ask0] && is_set) begin
      other_q       <= 1'b1;
      other_value_q <= next_end_q;
      other_node_q  <= self_q;
    end
    // Addresses 48 and on: what the nodes have; the one behind the last: the commit end.
    set_we_q <= cfg_we && cfg_ready && cfg_addr >= 8'd48 && cfg_addr <= 8'(48 + NODES);
    if (set_we_q) begin
      other_q       <= 1'b1;
      other_value_q <= data_q;
      for (int unsigned j = 0; j <= NODES; j++) other_node_q[j] <= addr_q == 8'(48 + j);
      set_wait_q    <= 3'd5;
    end
    // A place without a port is nobody's.
    for (int unsigned j = 0; j < NODES; j++) peers_q[j] <= voters_q[j] && !self_q[j] && places_q[j][15:0] != 16'd0;
    if (rst) begin
      we_q       <= 1'b0;
      set_we_q   <= 1'b0;
      on_q       <= 1'b0;
      other_q    <= 1'b0;
      set_wait_q <= 3'd0;
    end
  end

  // --------------------------------------------------------------------------------------------------------------- parser
  wire [47:0] heard_mac  = '0;   // a leader is sent nothing by its group
  wire [31:0] heard_ipv4 = '0;
`include "node_parser.svh"

  // Of whom the frame is, while it still arrives.
  logic [NODES-1:0] from_q;
  logic             term_hi_eq_q, term_lo_eq_q, may_ack_q, may_ask_q;
  always_ff @(posedge clk) begin
    for (int unsigned j = 0; j < NODES; j++) from_q[j] <= peers_q[j] && {p_src_ipv4, p_src_port} == places_q[j];
    term_hi_eq_q <= p_term[63:32] == term_q[63:32];
    term_lo_eq_q <= p_term[31:0] == term_q[31:0];
    // What is known of an acknowledgement before its last beat is checked.
    may_ack_q <= on_q && is_set && p_kind == KindAck && term_hi_eq_q && term_lo_eq_q && |from_q;
    may_ask_q <= on_q && is_set && p_kind == KindRequest;
  end

  // -------------------------------------------------------------------------------------------------------------- votes
  logic        votes_ack, votes_set, commit_valid, commit_take;
  logic [63:0] votes_end;
  wire [63:0]    votes_value = other_q ? other_value_q : p_slot;
  wire [NODES:0] votes_node  = other_q ? other_node_q : {1'b0, from_q};

  quorum_votes #(.NODES(NODES)) votes (
      .clk, .rst, .voters(voters_q), .commit_count(commit_count_q),
      .value(votes_value), .node(votes_node), .apply_ack(votes_ack), .apply_set(votes_set), .hold(state_q[Select]),
      .commit_valid, .commit_end(votes_end), .commit_take);

  logic ahead, level;                          // the acknowledgement against our next slot
  compare_pipe next_compare (.clk, .a(p_slot), .b(next_q), .gt(ahead), .eq(level));

  // --------------------------------------------------------------------------------------------------------------- tables
  // An entry in flight: who asked, and which slot it is. Its place is the slot's lowest bits.
  localparam int unsigned EntryW  = 5 * 64 + 96;
  localparam int unsigned LiveLog2 = (RING_LOG2 + 1) / 2;  // one of many is chosen in two cycles, a row first
  localparam int unsigned LiveRow  = 2 ** LiveLog2;
  (* no_rw_check *)
  logic [EntryW-1:0]        entries [Ring];
  logic [Ring-1:0]          live_q;
  (* no_rw_check *)
  logic [127:0]             sessions [Sessions];
  logic [EntryW-1:0]        entry_ram_q, entry_q;
  logic                     entry_live_q;
  logic [LiveRow-1:0]       live_row_q;
  logic [127:0]             session_ram_q, session_q, session_new_q;
  logic [SESSIONS_LOG2-1:0] session_at, session_new_at_q;
  logic                     session_we_q;
  logic [RING_LOG2-1:0]     entry_at_q, live_at_q;
  logic                     lives_q;           // an entry was written in the cycle before

  wire [63:0] entry_end      = entry_q[0 +: 64];
  wire [63:0] entry_term     = entry_q[64 +: 64];
  wire [63:0] entry_client   = entry_q[128 +: 64];
  wire [63:0] entry_sequence = entry_q[192 +: 64];
  wire [63:0] entry_sent     = entry_q[256 +: 64];
  wire [47:0] entry_mac      = entry_q[320 +: 48];
  wire [47:0] entry_place    = entry_q[368 +: 48];

  // ------------------------------------------------------------------------------------------------------ the frame's state
  logic        d_asks_q, d_behind_q, d_put_q, d_may_q, d_pay_ok_q;
  logic        d_drop_q, d_slow_q, d_tx_q, d_append_q;
  logic [15:0] d_beats_q, d_payload_len_q, d_ip_len_q, d_ip_checksum_q, d_src_port_q;
  logic [31:0] d_payload_crc_q, d_src_ipv4_q, d_dst_ipv4_q;
  logic [47:0] d_src_mac_q;
  logic [63:0] d_sent_q, d_client_q, d_sequence_q, d_end_q, d_expected_q;
  logic        d_one_q, d_end_ok_q, d_term_ok_q, d_room_q;

  // The head of what leaves.
  logic [47:0]  h_mac_q;
  logic [47:0]  h_place_q;
  logic [63:0]  h_slot_q, h_sent_q;
  logic [815:0] head;
  frame_head frame_head (
      .clk, .local_mac(local_mac_q), .local_ipv4(local_ipv4_q), .local_port(local_port_q),
      .dst_mac(h_mac_q), .dst_ipv4(h_place_q[47:16]), .dst_port(h_place_q[15:0]),
      .old_src_ipv4(d_src_ipv4_q), .old_dst_ipv4(d_dst_ipv4_q), .old_ip_len(d_ip_len_q), .old_ip_checksum(d_ip_checksum_q),
      .kind(d_append_q ? KindAppend : KindReply), .payload_len(d_append_q ? d_payload_len_q : 16'd20), .term(term_q),
      .slot(h_slot_q), .sent_ns(h_sent_q), .payload_crc(d_payload_crc_q), .is_reply(!d_append_q),
      .client(d_client_q), .sequence_no(d_sequence_q), .head);

  // Room for an entry, said two cycles late: numbers move at most once per frame.
  logic [63:0] undrained_q, uncommitted_q;
  logic        is_end, end_eq, is_full_q;
  wire  [16:0] is_below = {1'b0, uncommitted_q[15:0]} - {1'b0, in_flight_q};
  compare_pipe end_compare (.clk, .a(append_end_q), .b(next_q), .gt(is_end), .eq(end_eq));
  always_ff @(posedge clk) begin
    undrained_q   <= next_q - drained_q;
    uncommitted_q <= next_q - commit_end_q;
    is_full_q     <= |undrained_q[63:RING_LOG2] || |uncommitted_q[63:16] || !is_below[16] || !is_end;
    next_end_q    <= next_q + 64'd1;
  end

  logic is_same, newer, newer_eq, id_gt;
  compare_pipe id_compare (.clk, .a(d_client_q), .b(session_q[127:64]), .gt(id_gt), .eq(is_same));
  compare_pipe sequence_compare (.clk, .a(d_sequence_q), .b(session_q[63:0]), .gt(newer), .eq(newer_eq));

  // ----------------------------------------------------------------------------------------------------------- decisions
  logic ready, load;
  wire  may_take = frame_end && settled && state_q[Idle];
  wire  is_fast  = is_ours && !other_q && !we_q;
  wire  is_ack   = is_fast && may_ack_q && is_bare && !ahead;
  wire  is_asked = is_fast && may_ask_q;
  assign take      = may_take;
  assign votes_ack = may_take && is_ack;

  wire commit_free = !m_axis_commit_tvalid || m_axis_commit_tready;
  assign commit_take = state_q[Select] && commit_valid && commit_free;

  wire takes  = d_may_q && d_pay_ok_q && is_same && newer && !is_full_q;
  logic append;                                // in Ask5
  assign votes_set = set_now || append;
  assign load      = state_q[Go] && ready;
  assign session_at = d_client_q[SESSIONS_LOG2-1:0];

  wire answers = d_one_q && d_end_ok_q && d_term_ok_q;
  always_comb begin
    state_d = '0;
    if (state_q[Idle]) begin
      if (!may_take)     state_d[Idle]   = 1'b1;
      else if (is_ack)   state_d[Select] = 1'b1;
      else if (is_asked) state_d[Ask0]   = 1'b1;
      else               state_d[Go]     = 1'b1;
    end
    if (state_q[Select]) begin
      if (!commit_valid)    state_d[Go]     = 1'b1;
      else if (commit_free) state_d[Entry0] = 1'b1;
      else                  state_d[Select] = 1'b1;
    end
    for (int unsigned n = Entry0; n < Entry4; n++) if (state_q[n]) state_d[n+1] = 1'b1;
    if (state_q[Entry4]) begin
      if (answers) state_d[Head1] = 1'b1;
      else         state_d[Go]    = 1'b1;
    end
    for (int unsigned n = Ask0; n < Ask5; n++) if (state_q[n]) state_d[n+1] = 1'b1;
    if (state_q[Ask5]) begin
      if (append) state_d[Head0] = 1'b1;
      else        state_d[Go]    = 1'b1;
    end
    for (int unsigned n = Head0; n < Go; n++) if (state_q[n]) state_d[n+1] = 1'b1;
    if (state_q[Go]) begin
      if (ready) state_d[Idle] = 1'b1;
      else       state_d[Go]   = 1'b1;
    end
  end

  wire session_we = we_q && addr_q == 8'd19;

  always_ff @(posedge clk) begin
    if (append) entries[next_q[RING_LOG2-1:0]] <= {d_src_ipv4_q, d_src_port_q, d_src_mac_q, d_sent_q, d_sequence_q, d_client_q,
                                                   term_q, next_end_q};
    entry_ram_q <= entries[entry_at_q];
    session_we_q     <= !rst && (append || session_we);
    session_new_at_q <= append ? session_at : session_id_q[SESSIONS_LOG2-1:0];
    session_new_q    <= append ? {d_client_q, d_sequence_q} : {session_id_q, data_q};
    if (session_we_q) sessions[session_new_at_q] <= session_new_q;
    session_ram_q <= sessions[session_at];
  end

  always_ff @(posedge clk) begin
    entry_q       <= entry_ram_q;
    live_row_q    <= live_q[entry_at_q & ~RING_LOG2'(LiveRow - 1) +: LiveRow];
    entry_live_q  <= live_row_q[entry_at_q[LiveLog2-1:0]];
    session_q     <= session_ram_q;
    stat_next     <= next_q;
    stat_commit_end <= commit_end_q;
    if (we_q && addr_q == 8'd8) next_q       <= data_q;
    if (we_q && addr_q == 8'd9) commit_end_q <= data_q;
    if (append) begin
      next_q                          <= next_end_q;
    end

    state_q <= state_d;
    append  <= state_q[Ask4] && takes;
    lives_q   <= append;
    live_at_q <= next_q[RING_LOG2-1:0];
    for (int unsigned n = 0; n < Ring; n++) if (lives_q && live_at_q == RING_LOG2'(n)) live_q[n] <= 1'b1;
    if (state_q[Idle]) begin
      d_beats_q       <= p_beats;
      d_asks_q        <= p_sent[63];
      d_behind_q      <= !ahead && !level;
      d_payload_len_q <= p_payload_len;
      d_payload_crc_q <= p_payload_crc;
      d_ip_len_q      <= p_ip_len;
      d_ip_checksum_q <= p_ip_checksum;
      d_src_ipv4_q    <= p_src_ipv4;
      d_dst_ipv4_q    <= p_dst_ipv4;
      d_src_port_q    <= p_src_port;
      d_src_mac_q     <= p_src_mac;
      d_sent_q        <= p_sent;
      d_client_q      <= p_client;
      d_sequence_q    <= p_sequence;
      d_append_q      <= 1'b0;
      d_tx_q          <= 1'b0;
      d_drop_q        <= is_bad;
      d_slow_q        <= !is_bad;
    end
    // An acknowledgement that has been counted: without a commit the host sees it only if it asks for what it missed.
    if (state_q[Select]) begin
      d_slow_q     <= d_asks_q && d_behind_q;
      d_drop_q     <= !(d_asks_q && d_behind_q);
      d_end_q      <= votes_end;
      d_expected_q <= commit_end_q + 64'd1;
    end
    if (commit_free) begin
      m_axis_commit_tvalid <= state_q[Select] && commit_valid;
      m_axis_commit_tdata  <= votes_end;
    end
    if (state_q[Entry0]) begin
      commit_end_q <= d_end_q;
      entry_at_q <= d_end_q[RING_LOG2-1:0] - 1'b1;
      d_one_q    <= d_end_q == d_expected_q;
    end
    if (state_q[Entry3]) begin
      d_end_ok_q   <= entry_live_q && entry_end == d_end_q;
      d_term_ok_q  <= entry_term == term_q;
      d_client_q   <= entry_client;
      d_sequence_q <= entry_sequence;
      h_mac_q      <= entry_mac;
      h_place_q    <= entry_place;
      h_slot_q     <= entry_sequence;
      h_sent_q     <= entry_sent;
    end
    // Several commits at once need several answers, and of an entry that is not here the host knows who asked.
    if (state_q[Entry4]) begin
      d_tx_q   <= answers;
      d_slow_q <= !answers;
      d_drop_q <= 1'b0;
    end
    // A request. The session is read in Ask0, stands in session_q in Ask2, and has been compared in Ask4, and the verdict is a
    // register in Ask5.
    if (state_q[Ask1]) begin
      d_put_q  <= is_put;
      d_room_q <= d_payload_len_q <= entry_bytes_q;
    end
    if (state_q[Ask3]) begin
      d_pay_ok_q <= pay_ok;
      d_may_q    <= d_put_q && d_room_q && d_client_q != '0 && on_q && is_set;
    end
    if (append) begin
      d_append_q <= 1'b1;
      d_tx_q     <= 1'b1;
      d_slow_q   <= 1'b0;
      d_end_q    <= next_q;
      h_mac_q    <= group_mac_q;
      h_place_q  <= {group_ipv4_q, group_port_q};
      h_slot_q   <= next_q;
      h_sent_q   <= commit_end_q;
    end

    if (rst) begin
      state_q              <= States'(1) << Idle;
      append               <= 1'b0;
      lives_q              <= 1'b0;
      live_q               <= '0;
      next_q               <= '0;
      commit_end_q         <= '0;
      m_axis_commit_tvalid <= 1'b0;
    end
  end

  // ------------------------------------------------------------------------------------------------------ flow of the input
  // A frame may end while the one before is decided, but then no beat of a third arrives: it would write over the second.
  logic has_room;
  wire  frame_end_next = ends_now || (frame_end && !take);
  wire  busy_next      = !state_q[Idle] || may_take;
  always_ff @(posedge clk)
    s_axis_tready <= !rst && has_room && !(frame_end_next && busy_next) && (DATA_W == 64 || !(frame_end_next || busy_next));

  frame_emit #(.DATA_W(DATA_W), .DEPTH_LOG2(DEPTH_LOG2)) emit (
      .clk, .rst, .beat(s_axis_tvalid && s_axis_tready), .beat_data(s_axis_tdata), .beat_keep(s_axis_tkeep),
      .beat_last(s_axis_tlast), .beat_user(s_axis_tuser), .has_room,
      .load, .load_drop(d_drop_q), .load_slow(d_slow_q), .load_log(d_append_q), .load_tx(d_tx_q), .load_payload(d_append_q),
      .load_reply(!d_append_q), .load_beats(d_beats_q), .load_slot(d_end_q), .load_head(head), .ready,
      .m_axis_tx_tdata, .m_axis_tx_tkeep, .m_axis_tx_tlast, .m_axis_tx_tvalid, .m_axis_tx_tready,
      .m_axis_slow_tdata, .m_axis_slow_tkeep, .m_axis_slow_tlast, .m_axis_slow_tuser, .m_axis_slow_tvalid,
      .m_axis_slow_tready,
      .m_axis_log_tdata, .m_axis_log_tkeep, .m_axis_log_tlast, .m_axis_log_tuser, .m_axis_log_tvalid, .m_axis_log_tready);

`ifdef FORMAL
`include "quorum_leader_fv.svh"
`endif
endmodule

`default_nettype wire
