// Which slots a quorum has: FastLeader of dataplane/quorum as hardware. Per node, everything before `acked` is safe there; the
// commit end is the highest of these numbers that `commit_count` voters have reached.
//
// Sorting numbers of 64 bits in a cycle is out of the question, so none is compared with another when an acknowledgement comes.
// Who is at least as far as whom stands in a matrix of single bits, which an acknowledgement changes in one row and one column,
// with the two-cycle comparison of its number with all others; the rest is counting bits. The commit end is in the matrix as
// one more node, the last, that nobody counts.
//
//   cycle 0, 1   `value` and `node` stand still: the value is compared with every node's, and the other voters are counted without it.
//                Of those, in their order, `high` is the one that a quorum has with one vote more, `low` the one that it has already.
//   cycle 2      apply: the new commit end is the value, but not more than `high` and not less than `low`; and the row and the
//                column of the matrix are built
//   cycle 3      they are written; commit_valid, commit_end; as long as `hold` is there, that stands
`default_nettype none

module quorum_votes #(
    parameter int unsigned NODES  = 5,
    parameter int unsigned SLOT_W = 64
) (
    input  wire logic              clk,
    input  wire logic              rst,
    input  wire logic [NODES-1:0]  voters,
    input  wire logic [3:0]        commit_count,

    input  wire logic [SLOT_W-1:0] value,
    input  wire logic [NODES:0]    node,       // one bit; the last is the commit end
    input  wire logic              apply_ack,  // the node has everything before `value`, unless it had more already
    input  wire logic              apply_set,  // the node has everything before `value`, and no more

    input  wire logic              hold,         // from the cycle after an acknowledgement until its commit is taken

    output      logic              commit_valid,  // an acknowledgement has moved the quorum beyond the commit end
    output      logic [SLOT_W-1:0] commit_end,
    input  wire logic              commit_take
);

  if (NODES < 1 || NODES > 8) $fatal(1, "quorum_votes: %0d nodes; 1 to 8 are possible", NODES);

  localparam int unsigned Floor = NODES;

  logic [SLOT_W-1:0] acked_q [NODES+1];
  logic [NODES:0]    ge_q [NODES+1];  // ge_q[j][k]: node j is at least as far as node k
  logic [NODES:0]    gt_v, eq_v;      // `value` against every node
  logic              news_q;          // the acknowledgement of the cycle before moves its node, and waits
  logic              write_q;         // what was built is written in this cycle
  logic              take_q;          // the commit end was taken in the cycle before, and becomes the one in the matrix
  // What was built, whether it is written or not: that is known late, and this is wide.
  logic [SLOT_W-1:0] value_q;
  logic [NODES:0]    node_q;
  logic [NODES:0]    new_q [NODES+1];

  for (genvar j = 0; j <= NODES; j++) begin : g_compare
    compare_pipe #(.W(SLOT_W), .CHUNKS(SLOT_W >= 32 ? 4 : 1)) pipe (
        .clk, .a(value), .b(acked_q[j]), .gt(gt_v[j]), .eq(eq_v[j]));
  end

  // The matrix with the node's row and column replaced, before it is known whether they will be.
  logic [NODES:0] ge_d [NODES+1];
  always_comb
    for (int unsigned j = 0; j <= NODES; j++)
      for (int unsigned k = 0; k <= NODES; k++)
        ge_d[j][k] = (j == k) || (node[j] ? gt_v[k] || eq_v[k] : node[k] ? !gt_v[j] : ge_q[j][k]);

  // The other voters, while the value is still compared. Nodes that are equally far are all high, or all low.
  logic [NODES-1:0] others_q, high_q, low_q;
  logic             votes_q, votes_late_q;      // the node is a voter
  logic             is_one_q;                   // a vote is a quorum
  logic [NODES-1:0] high_d, low_d;
  logic [3:0]       behind, beyond;             // others that are at least as far as this one; others that are farther
  always_comb begin
    behind = '0;
    beyond = '0;
    for (int unsigned j = 0; j < NODES; j++) begin
      behind = '0;
      beyond = '0;
      for (int unsigned k = 0; k < NODES; k++) begin
        behind = behind + 4'(others_q[k] && ge_q[k][j]);
        beyond = beyond + 4'(others_q[k] && !ge_q[j][k]);
      end
      high_d[j] = others_q[j] && votes_q && behind + 4'd1 == commit_count;
      low_d[j]  = others_q[j] && behind >= commit_count && beyond < commit_count;
    end
  end
  always_ff @(posedge clk) begin
    others_q <= voters & ~node[NODES-1:0];
    votes_q  <= |(voters & node[NODES-1:0]);
    high_q   <= high_d;
    low_q    <= low_d;
    votes_late_q <= votes_q;
    is_one_q     <= commit_count == 4'd1;
  end

  wire is_news    = |(node & gt_v);
  wire reaches    = |(high_q & (gt_v[NODES-1:0] | eq_v[NODES-1:0]));
  // Without a `high`, either one vote is a quorum, or a quorum has `low` whatever the node says, or there is none.
  wire may_own    = votes_late_q && (is_one_q || high_q != '0);
  wire falls      = |(low_q & ~gt_v[NODES-1:0]) || !may_own;

  // Which of the three it is, and whether that is beyond the commit end.
  logic [SLOT_W-1:0] high_end, low_end, high_end_q, low_end_q;
  logic [NODES-1:0]  chosen_high_q, chosen_low_q;
  logic              is_high_q, is_low_q, is_own_q, high_beyond_q, low_beyond_q, own_beyond_q;
  logic [NODES:0]    floor_lags;
  always_comb begin
    high_end = '0;
    low_end  = '0;
    for (int unsigned j = 0; j < NODES; j++) begin
      if (high_q[j]) high_end = high_end | acked_q[j];
      if (low_q[j])  low_end  = low_end | acked_q[j];
    end
    floor_lags = ~ge_q[Floor];
  end

  assign commit_valid = news_q && ((is_high_q && high_beyond_q) || (is_low_q && low_beyond_q) || (is_own_q && own_beyond_q));
  assign commit_end   = ({SLOT_W{is_high_q}} & high_end_q) | ({SLOT_W{is_low_q}} & low_end_q) | ({SLOT_W{is_own_q}} & value_q);

  // The commit end becomes equal to the chosen one, and with it its row and its column.
  logic [NODES-1:0] chosen;
  logic [NODES:0]   floor_row, floor_column;
  always_comb begin
    floor_row    = '0;
    floor_column = '0;
    for (int unsigned j = 0; j < NODES; j++) begin
      chosen[j] = (is_high_q && chosen_high_q[j]) || (is_low_q && chosen_low_q[j]) || (is_own_q && node_q[j]);
      if (chosen[j]) begin
        floor_row = floor_row | new_q[j];
        for (int unsigned k = 0; k <= NODES; k++) if (new_q[k][j]) floor_column[k] = 1'b1;
      end
    end
  end

  always_ff @(posedge clk) begin
    write_q <= apply_set || (apply_ack && is_news);
    if (!hold) begin
      news_q        <= apply_ack && is_news;
      value_q       <= value;
      node_q        <= node;
      high_end_q    <= high_end;
      low_end_q     <= low_end;
      chosen_high_q <= high_q;
      chosen_low_q  <= low_q;
      is_high_q     <= reaches;
      is_low_q      <= !reaches && falls;
      is_own_q      <= !reaches && !falls;
      high_beyond_q <= |(high_q & floor_lags[NODES-1:0]);
      low_beyond_q  <= |(low_q & floor_lags[NODES-1:0]);
      own_beyond_q  <= gt_v[Floor];
      for (int unsigned j = 0; j <= NODES; j++) new_q[j] <= ge_d[j];
    end
    for (int unsigned j = 0; j <= NODES; j++)
      if (write_q) begin
        ge_q[j] <= new_q[j];
        if (node_q[j]) acked_q[j] <= value_q;
      end
    // A cycle later, when what was chosen still stands.
    take_q <= commit_take;
    if (commit_take) news_q <= 1'b0;
    if (take_q) begin
      acked_q[Floor] <= commit_end;
      for (int unsigned k = 0; k <= NODES; k++) begin
        ge_q[Floor][k] <= floor_row[k] || k == Floor;
        ge_q[k][Floor] <= floor_column[k] || k == Floor;
      end
    end
    if (rst) begin
      news_q  <= 1'b0;
      write_q <= 1'b0;
      take_q  <= 1'b0;
      for (int unsigned j = 0; j <= NODES; j++) begin
        acked_q[j] <= '0;
        ge_q[j]    <= '1;
      end
    end
  end

`ifdef FORMAL
`include "quorum_votes_fv.svh"
`endif
endmodule

`default_nettype wire
