  // Formal properties: what the contract says. Acknowledgements of other terms never come here: quorum_leader applies none.
  logic f_past = 1'b0;
  always_ff @(posedge clk) f_past <= 1'b1;
  always_comb if (!f_past) assume (rst);
  always_ff @(posedge clk) if (f_past) assume (!rst);

`define VOTES_ASK assume
`define VOTES_OWE assert
`include "quorum_votes_contract.svh"

  logic f_committed = 1'b0;
  always_ff @(posedge clk) begin
    if (commit_take && commit_end > f_slot) f_committed <= 1'b1;
    if (apply_set && node[NODES])           f_committed <= value > f_slot;
    if (rst) f_committed <= 1'b0;
  end

  // What was found out of the others while the value was compared, counted again from what was built: who is high and who is low,
  // and which of them, or the value, the commit end may become.
  logic [NODES-1:0] f_others, f_high, f_low;
  logic [3:0]       f_behind, f_beyond;
  logic             f_votes, f_reaches, f_falls;
  always_comb begin
    f_others = voters & ~node_q[NODES-1:0];
    f_votes  = |(voters & node_q[NODES-1:0]);
    f_behind = '0;
    f_beyond = '0;
    for (int unsigned j = 0; j < NODES; j++) begin
      f_behind = '0;
      f_beyond = '0;
      for (int unsigned k = 0; k < NODES; k++) begin
        f_behind = f_behind + 4'(f_others[k] && new_q[k][j]);
        f_beyond = f_beyond + 4'(f_others[k] && !new_q[j][k]);
      end
      f_high[j] = f_others[j] && f_votes && f_behind + 4'd1 == commit_count;
      f_low[j]  = f_others[j] && f_behind >= commit_count && f_beyond < commit_count;
    end
    f_reaches = 1'b0;
    f_falls   = !(f_votes && (commit_count == 4'd1 || f_high != '0));
    for (int unsigned j = 0; j < NODES; j++) begin
      if (f_high[j] && value_q >= acked_q[j]) f_reaches = 1'b1;
      if (f_low[j] && value_q <= acked_q[j])  f_falls = 1'b1;
    end
  end

  always_comb if (f_past && !rst) begin
    // Live: when nothing is in flight, a quorum's slot that an acknowledgement completed is committed.
    cp_commit:  cover (commit_take && commit_end > f_slot && !f_committed);
    cp_jump:    cover (commit_take && commit_end > acked_q[Floor] + 1'b1);
  end

  // What makes it inductive: the matrix says what the numbers say, and the ghosts too.
  always_comb if (f_past && !rst) begin
    for (int unsigned j = 0; j <= NODES; j++)
      for (int unsigned k = 0; k <= NODES; k++) begin
        assert (ge_q[j][k] == (acked_q[j] >= acked_q[k]));
        if (write_q || news_q || take_q)
          assert (new_q[j][k] == ((node_q[j] ? value_q : acked_q[j]) >= (node_q[k] ? value_q : acked_q[k])));
      end
    for (int unsigned j = 0; j < NODES; j++)
      assert (f_has[j] == ((write_q && node_q[j] ? value_q : acked_q[j]) > f_slot));
    if ((news_q || take_q) && !write_q)
      for (int unsigned j = 0; j < NODES; j++) if (node_q[j]) assert (acked_q[j] == value_q);
    if (take_q) assert (!news_q && !write_q && commit_end > acked_q[Floor]);
    if (news_q || take_q) begin
      assert (!node_q[NODES] && node_q != '0 && (node_q & (node_q - 1'b1)) == '0);
      assert (chosen_high_q == f_high && chosen_low_q == f_low);
      assert (is_high_q == f_reaches && is_low_q == (!f_reaches && f_falls) && is_own_q == (!f_reaches && !f_falls));
      for (int unsigned j = 0; j < NODES; j++) begin
        if (f_high[j]) assert (high_end_q == acked_q[j] && high_beyond_q == (acked_q[j] > acked_q[Floor]));
        if (f_low[j])  assert (low_end_q == acked_q[j] && low_beyond_q == (acked_q[j] > acked_q[Floor]));
      end
      if (f_high == '0) assert (!high_beyond_q);
      if (f_low == '0)  assert (!low_beyond_q);
      assert (own_beyond_q == (value_q > acked_q[Floor]));
    end
    assert (f_floor == (take_q ? commit_end : write_q && node_q[Floor] ? value_q : acked_q[Floor]));
    ap_committed: assert (f_committed == ((take_q ? commit_end : acked_q[Floor]) > f_slot) || write_q);
  end
  // A commit waits as it is.
  always_ff @(posedge clk) if (f_past && $past(f_past) && !rst && $past(commit_valid && hold && !commit_take)) begin
    ap_commit_holds: assert (commit_valid);
    ap_end_stable:   assert ($stable(commit_end));
  end
