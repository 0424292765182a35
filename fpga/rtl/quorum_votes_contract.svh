  // What `quorum_votes` and the leader around it owe each other. Each is proved with the other's half taken for granted, which is no
  // circle: what the votes owe in a cycle follows from what they were asked in those before. `VOTES_ASK is `assume` in the votes and
  // `assert` in the leader, `VOTES_OWE the other way round; their names are the same in both.
  //
  // What the leader owes: numbers stand still for two cycles before they are applied; one thing at a time; nothing is applied while an
  // acknowledgement is in flight; `hold` begins after an acknowledgement and ends with it.
  logic [1:0] f_still = '0, f_rest = '0;
  logic       f_waits = 1'b0;
  logic [SLOT_W-1:0] f_value;
  logic [NODES:0]    f_node;
  wire f_stands = value == f_value && node == f_node;
  always_ff @(posedge clk) begin
    f_value <= value;
    f_node  <= node;
    f_still <= f_stands ? (f_still == 2'd3 ? 2'd3 : f_still + 2'd1) : 2'd0;
    f_rest  <= (apply_ack || apply_set || commit_take) ? 2'd0 : (f_rest == 2'd3 ? 2'd3 : f_rest + 2'd1);
    f_waits <= apply_ack || (f_waits && commit_valid && !commit_take);
    if (rst) begin
      f_rest  <= '0;
      f_waits <= 1'b0;
    end
  end
  (* anyconst *) logic [NODES-1:0] f_voters;
  (* anyconst *) logic [3:0]       f_quorum;
  always_comb begin
    assume (voters == f_voters && commit_count == f_quorum);
    assume (commit_count >= 4'd1 && commit_count <= 4'(NODES));
  end
  always_comb if (f_past && !rst) begin
    `VOTES_ASK (hold == f_waits);
    `VOTES_ASK (!(apply_ack && apply_set));
    // Two for the comparison, counted from here on, and the numbers that are compared did not change meanwhile.
    if (apply_ack || apply_set) begin
      `VOTES_ASK (f_still >= 2'd1 && f_rest == 2'd3 && !f_waits && f_stands);
      `VOTES_ASK ((node & (node - 1'b1)) == '0 && node != '0);
    end
    if (commit_take) `VOTES_ASK (f_waits && commit_valid);
    if (apply_ack)   `VOTES_ASK (!node[NODES]);
  end

  // What the votes owe, of any slot: it is committed when `commit_count` distinct voters have said that they have it, and never before;
  // and the commit end only grows, so that a slot is behind it once. The host's word (apply_set) counts as said.
  (* anyconst *) logic [SLOT_W-1:0] f_slot;
  logic [NODES-1:0]  f_has = '0;
  logic [SLOT_W-1:0] f_floor = '0;
  logic [3:0]        f_count;
  always_ff @(posedge clk) begin
    for (int unsigned j = 0; j < NODES; j++)
      if (node[j]) begin
        if (apply_set)                   f_has[j] <= value > f_slot;
        if (apply_ack && value > f_slot) f_has[j] <= 1'b1;
      end
    if (commit_take)              f_floor <= commit_end;
    if (apply_set && node[NODES]) f_floor <= value;
    if (rst) begin
      f_has   <= '0;
      f_floor <= '0;
    end
  end
  always_comb begin
    f_count = '0;
    for (int unsigned j = 0; j < NODES; j++) f_count = f_count + 4'(f_has[j] && voters[j]);
    if (f_past && !rst && commit_valid) begin
      `VOTES_OWE (commit_end > f_floor);
      if (commit_end > f_slot) `VOTES_OWE (f_count >= commit_count);
    end
  end
