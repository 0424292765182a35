// Folds many registers into one, in steps of four with a register each, so that nothing here is the slowest path.
`default_nettype none

module fold #(
    parameter int unsigned W = 4
) (
    input  wire logic         clk,
    input  wire logic [W-1:0] d,
    output      logic         q
);

  localparam int unsigned Next = (W + 3) / 4;
  logic [4*Next-1:0] padded;
  logic [Next-1:0]   part_q;
  assign padded = (4*Next)'(d);
  always_ff @(posedge clk) for (int unsigned n = 0; n < Next; n++) part_q[n] <= ^padded[4*n +: 4];

  if (Next == 1) begin : g_last
    assign q = part_q[0];
  end else begin : g_more
    fold #(.W(Next)) fold (.clk, .d(part_q), .q);
  end

endmodule

`default_nettype wire
