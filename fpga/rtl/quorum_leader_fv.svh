  // Formal properties of the leader as a whole, its parser and what sends its frames cut off: whatever they say, within what is
  // assumed here of the parser and eth_ipv4_udp_parser_fv.svh proves. A commit needs a quorum of distinct voters of this term, comes
  // once, and waits as it is. Numbers have all of their 64 bits.
  logic f_past = 1'b0;
  always_ff @(posedge clk) f_past <= 1'b1;
  always_comb assume (rst == !f_past);

  // The parser's word.
  localparam int unsigned SaysW = 8 + 64 + 32 + 16;
  logic [63:0]      f_slot_q;
  logic [SaysW-1:0] f_says_q;
  logic [1:0]       f_slot_still = '0, f_says_still = '0;
  logic [3:0]       f_since = 4'd15;
  wire  [SaysW-1:0] f_says = {p_kind, p_term, p_src_ipv4, p_src_port};
  wire f_slot_stands = p_slot == f_slot_q;
  wire f_says_stand  = f_says == f_says_q;
  always_ff @(posedge clk) begin
    f_slot_q     <= p_slot;
    f_says_q     <= f_says;
    f_slot_still <= f_slot_stands ? (f_slot_still == 2'd3 ? 2'd3 : f_slot_still + 2'd1) : 2'd0;
    f_says_still <= f_says_stand ? (f_says_still == 2'd3 ? 2'd3 : f_says_still + 2'd1) : 2'd0;
    f_since      <= take ? 4'd1 : f_since == 4'd15 ? 4'd15 : f_since + 4'd1;
  end
  always_comb if (f_past && frame_end && is_ours)
    assume (f_slot_stands && f_slot_still >= 2'd1 && f_says_stand && f_says_still >= 2'd2 && f_since >= 4'd11);
  always_comb assume (settled);
  logic f_frame_end;
  always_ff @(posedge clk) f_frame_end <= !rst && (ends_now || (frame_end && !take));
  always_comb if (f_past) assume (frame_end == f_frame_end);

  // The host's: who is where, who votes and which term it is are written before, and the log's ends while the fast path is off.
  // Voters have places of their own.
  wire f_is_early = cfg_addr == 8'd7 || (cfg_addr >= 8'd14 && cfg_addr <= 8'd16) || (cfg_addr >= 8'd32 && cfg_addr < 8'(32 + NODES));
  wire f_is_ends  = cfg_addr == 8'd8 || cfg_addr == 8'd9;
  always_comb if (f_past) begin
    if (cfg_we) assume (!f_is_early);
    if (cfg_we && on_q) assume (!f_is_ends);
    assume (self_q != '0 && (self_q & (self_q - 1'b1)) == '0 && !self_q[NODES]);
    for (int unsigned j = 0; j < NODES; j++) begin
      assume (peers_q[j] == (voters_q[j] && !self_q[j] && places_q[j][15:0] != 16'd0));
      for (int unsigned k = 0; k < j; k++) assume (places_q[j] != places_q[k]);
    end
  end

  // Who says, in the frame that is taken, that it has everything before its slot.
  logic [NODES-1:0] f_from;
  always_comb
    for (int unsigned j = 0; j < NODES; j++)
      f_from[j] = voters_q[j] && !self_q[j] && places_q[j][15:0] != 16'd0 && {p_src_ipv4, p_src_port} == places_q[j];

  // The votes, which are cut off too: what quorum_votes_fv.svh proves of them, if what they ask for holds.
  wire                apply_ack    = votes_ack;
  wire                apply_set    = votes_set;
  wire                hold         = state_q[Select];
  wire [63:0]         value        = votes_value;
  wire [NODES:0]      node         = votes_node;
  wire [63:0]         commit_end   = votes_end;
  wire [NODES-1:0]    voters       = voters_q;
  wire [3:0]          commit_count = commit_count_q;
  localparam int unsigned SLOT_W   = 64;
`define VOTES_ASK assert
`define VOTES_OWE assume
`include "quorum_votes_contract.svh"

  // Who has said in a frame that it has the contract's slot, or has it by the host's word or by an entry of our own; and what was shown
  // to be committed, or is by the host's word.
  logic [NODES-1:0] f_said = '0;
  logic [63:0]      f_set_value, f_shown = '0;
  logic [NODES:0]   f_set_node;
  always_ff @(posedge clk) begin
    if (cfg_we && cfg_ready && cfg_addr >= 8'd48 && cfg_addr <= 8'(48 + NODES)) begin
      f_set_value <= cfg_data;
      for (int unsigned j = 0; j <= NODES; j++) f_set_node[j] <= cfg_addr == 8'(48 + j);
    end
    for (int unsigned j = 0; j < NODES; j++) begin
      if (set_now && f_set_node[j])                  f_said[j] <= f_set_value > f_slot;
      if (append && self_q[j])                       f_said[j] <= next_q + 64'd1 > f_slot;
      if (votes_ack && f_from[j] && p_slot > f_slot) f_said[j] <= 1'b1;
    end
    if (commit_take)                  f_shown <= votes_end;
    if (set_now && f_set_node[NODES]) f_shown <= f_set_value;
    if (rst) begin
      f_said  <= '0;
      f_shown <= '0;
    end
  end
  logic [3:0] f_said_count;
  always_comb begin
    f_said_count = '0;
    for (int unsigned j = 0; j < NODES; j++) f_said_count = f_said_count + 4'(f_said[j] && voters_q[j]);
  end

  always_comb if (f_past && !rst) begin
    // What is counted is an acknowledgement of this term, of another voter, of what we have.
    if (votes_ack) begin
      ap_ack:    assert (is_ours && p_kind == KindAck && is_bare && p_term == term_q && p_slot <= next_q);
      ap_from:   assert (f_from != '0 && (f_from & (f_from - 1'b1)) == '0 && from_q == f_from && !other_q);
    end
    if (commit_take) ap_beyond: assert (votes_end > f_shown);
    if (commit_take && votes_end > f_slot) ap_quorum: assert (f_said_count >= commit_count_q);
    // What the parser takes for granted.
    ap_waits: assert (!(s_axis_tvalid && s_axis_tready && frame_end && !take));
    cp_commit: cover (m_axis_commit_tvalid && m_axis_commit_tdata > f_slot);
    cp_ack:    cover (votes_ack && commit_count_q > 4'd1);
  end
  // A commit is shown when it is taken out of the votes, and no other; it waits as it is.
  always_ff @(posedge clk) if (f_past && !rst && !$past(rst) && $past(f_past)) begin
    if ($past(m_axis_commit_tvalid && !m_axis_commit_tready)) begin
      ap_stands: assert (m_axis_commit_tvalid && $stable(m_axis_commit_tdata));
      ap_kept:   assert (!$past(commit_take));
    end else ap_shown: assert (m_axis_commit_tvalid == $past(commit_take) && (!m_axis_commit_tvalid || m_axis_commit_tdata == $past(votes_end)));
  end

  // What makes it inductive.
  always_comb if (f_past && !rst) begin
    assert (!(s_axis_tready && frame_end && !state_q[Idle]));
    assert (f_said == f_has && f_shown == f_floor);
    ap_state: assert (state_q != '0 && (state_q & (state_q - 1'b1)) == '0);
    assert (set_wait_q <= 3'd5);
    assert (!append || state_q[Ask5]);
    for (int unsigned n = 0; n < 6; n++) if (state_q[Ask0 + n]) assert (f_since == 4'(n + 1));
    if (other_q) assert (set_wait_q >= 3'd3 || |state_q[Ask5:Ask1]);
  end
