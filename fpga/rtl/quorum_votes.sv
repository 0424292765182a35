// Which slots a quorum has: FastLeader of dataplane/quorum as hardware. Per node, everything before `acked` is safe there; the
// commit end is the highest of these numbers that `commit_count` voters have reached.
//
// Sorting numbers of 64 bits in a cycle is out of the question, so none is compared with another when an acknowledgement comes.
// Who is at least as far as whom stands in a matrix of single bits, which an acknowledgement changes in one row and one column,
// with the two-cycle comparison of its number with all others; the rest is counting bits. The commit end is in the matrix as
// one more node, the last, that nobody counts.
//
//   cycle 0, 1   `value` stands still: it is compared with every node's
//   cycle 2      apply: the row and the column that it would have are built, and who of them has a quorum then is counted
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
  logic [NODES-1:0]  qual_q;          // so many voters are at least as far as this node
  logic              news_q;          // the acknowledgement of the cycle before moves its node, and waits
  logic              write_q;         // what was built is written in this cycle
  // What was built, whether it is written or not: that is known late, and this is wide.
  logic [SLOT_W-1:0] value_q;
  logic [NODES:0]    node_q;
  logic [NODES:0]    new_q [NODES+1];

  for (genvar j = 0; j <= NODES; j++) begin : g_compare
    compare_pipe #(.W(SLOT_W), .CHUNKS(SLOT_W >= 32 ? 4 : 1)) pipe (
        .clk, .a(value), .b(acked_q[j]), .gt(gt_v[j]), .eq(eq_v[j]));
  end

  // The matrix with the node's row and column replaced, before it is known whether they will be.
  logic [NODES:0]   ge_d [NODES+1];
  logic [NODES-1:0] qual_d;
  logic [3:0]       count;
  always_comb begin
    for (int unsigned j = 0; j <= NODES; j++)
      for (int unsigned k = 0; k <= NODES; k++)
        ge_d[j][k] = (j == k) || (node[j] ? gt_v[k] || eq_v[k] : node[k] ? !gt_v[j] : ge_q[j][k]);
    count = '0;
    for (int unsigned j = 0; j < NODES; j++) begin
      count = '0;
      for (int unsigned k = 0; k < NODES; k++) count = count + 4'(voters[k] && ge_d[k][j]);
      qual_d[j] = voters[j] && count >= commit_count;
    end
  end

  wire  is_news = |(node & gt_v);
  logic has_quorum;

  // Of those that have a quorum, the farthest. Several may be equally far.
  logic [NODES-1:0] chosen;
  always_comb begin
    has_quorum = 1'b0;
    commit_end = '0;
    for (int unsigned j = 0; j < NODES; j++) begin
      chosen[j] = qual_q[j];
      for (int unsigned k = 0; k < NODES; k++) if (qual_q[k] && !new_q[j][k]) chosen[j] = 1'b0;
      if (chosen[j]) commit_end = commit_end | (node_q[j] ? value_q : acked_q[j]);
      if (qual_q[j] && !new_q[Floor][j]) has_quorum = 1'b1;
    end
  end
  assign commit_valid = news_q && has_quorum;

  // The commit end becomes equal to the chosen one, and with it its row and its column.
  logic [NODES:0] floor_row, floor_column;
  always_comb begin
    floor_row    = '0;
    floor_column = '0;
    for (int unsigned j = 0; j < NODES; j++)
      if (chosen[j]) begin
        floor_row = floor_row | new_q[j];
        for (int unsigned k = 0; k <= NODES; k++) if (new_q[k][j]) floor_column[k] = 1'b1;
      end
  end

  always_ff @(posedge clk) begin
    write_q <= apply_set || (apply_ack && is_news);
    if (!hold) begin
      news_q  <= apply_ack && is_news;
      value_q <= value;
      node_q  <= node;
      qual_q  <= qual_d;
      for (int unsigned j = 0; j <= NODES; j++) new_q[j] <= ge_d[j];
    end
    for (int unsigned j = 0; j <= NODES; j++)
      if (write_q) begin
        ge_q[j] <= new_q[j];
        if (node_q[j]) acked_q[j] <= value_q;
      end
    if (commit_take) begin
      news_q         <= 1'b0;
      acked_q[Floor] <= commit_end;
      for (int unsigned k = 0; k <= NODES; k++) begin
        ge_q[Floor][k] <= floor_row[k] || k == Floor;
        ge_q[k][Floor] <= floor_column[k] || k == Floor;
      end
    end
    if (rst) begin
      news_q  <= 1'b0;
      write_q <= 1'b0;
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
