// Timing shell of systolic_array: as quorum_leader_shell.sv.
`default_nettype none

module systolic_array_shell #(
    parameter int unsigned N = 8
) (
    input  wire logic clk,
    input  wire logic si,
    output      logic so
);

  localparam int unsigned InW  = 4 + 16 * N;
  localparam int unsigned OutW = 1 + 32 * N;

  logic [InW-1:0]  in_q;
  logic [OutW-1:0] out, out_q;

  fold #(.W(OutW)) fold (.clk, .d(out_q), .q(so));

  always_ff @(posedge clk) begin
    in_q  <= {in_q[InW-2:0], si};
    out_q <= out;
  end

  systolic_array #(.N(N)) dut (
      .clk, .rst(in_q[0]), .w_shift(in_q[1]), .a_valid(in_q[2]), .a_swap(in_q[3]), .w_i(in_q[4 +: 8*N]),
      .a_i(in_q[8*N + 4 +: 8*N]), .c_valid(out[0]), .c_o(out[1 +: 32*N]));

endmodule

`default_nettype wire
