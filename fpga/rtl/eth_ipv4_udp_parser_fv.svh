  // What the leader's proof takes for granted of a parser (quorum_leader_fv.svh), at 64 bits: an acknowledgement's fields stand still
  // while they are compared, and between two frames that may be ours are as many cycles as such a frame has beats.
  logic f_past = 1'b0;
  always_ff @(posedge clk) f_past <= 1'b1;
  always_comb assume (rst == !f_past);

  // What the leader around it does, and quorum_leader_fv.svh proves: a frame that waits is not written over.
  always_comb if (f_past) begin
    assume (!(beat && frame_end && !take));
    assume (!take || frame_end);
  end

  // How often, one after the other, a field was the same in the cycle before; and how long ago a frame was taken.
  localparam int unsigned SaysW = 8 + 64 + 32 + 16;
  logic [63:0]      f_slot_q;
  logic [SaysW-1:0] f_says_q;
  logic [1:0]       f_slot_still = '0, f_says_still = '0;
  logic [3:0]       f_since = 4'd15;
  wire  [SaysW-1:0] f_says = {kind, term, src_ipv4, src_port};
  wire f_slot_stands = slot == f_slot_q;
  wire f_says_stand  = f_says == f_says_q;
  always_ff @(posedge clk) begin
    f_slot_q     <= slot;
    f_says_q     <= f_says;
    f_slot_still <= f_slot_stands ? (f_slot_still == 2'd3 ? 2'd3 : f_slot_still + 2'd1) : 2'd0;
    f_says_still <= f_says_stand ? (f_says_still == 2'd3 ? 2'd3 : f_says_still + 2'd1) : 2'd0;
    f_since      <= take ? 4'd1 : f_since == 4'd15 ? 4'd15 : f_since + 4'd1;
  end

  always_comb if (f_past && !rst && frame_end && is_ours) begin
    ap_slot_stands: assert (f_slot_stands && f_slot_still >= 2'd1);
    ap_says_stand:  assert (f_says_stand && f_says_still >= 2'd2);
    ap_spaced:      assert (f_since >= 4'd11);
    cp_ours:        cover (f_since != 4'd15);
  end

  // What makes it inductive: where in the frame we are, and how long ago its fields came.
  always_comb if (f_past && !rst) begin
    assert (is_tail_q ? at_q == '0 : at_q == (beat_q < 13'(AtW) ? AtW'(1) << beat_q : AtW'(0)));
    assert (!is_tail_q || beat_q == 13'(LONG_BEATS - 1));
    assert (at_cap_q == (!is_tail_q && beat_q == 13'(LONG_BEATS - 1)));
    assert (beat_q < 13'(LONG_BEATS));
    if (frame_end) assert (beat_q == '0 || is_tail_q);
    if (!frame_end && !is_tail_q) assert (f_since >= beat_q);
    if (!is_tail_q && beat_q >= 13'd9)  assert (f_says_stand);
    if (!is_tail_q && beat_q >= 13'd10) assert (f_slot_stands && f_says_still >= 2'd1);
    if (!is_tail_q && beat_q >= 13'd11) assert (f_slot_still >= 2'd1 && f_says_still >= 2'd2);
    if (frame_end && !is_short_q) assert (f_slot_stands && f_slot_still >= 2'd1 && f_says_stand && f_says_still >= 2'd2);
    if (frame_end && !is_short_q) assert (f_since >= 4'd11);
  end
