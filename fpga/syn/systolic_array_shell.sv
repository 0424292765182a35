// Timing shell: see shell.svh.
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

`include "shell.svh"

  systolic_array #(.N(N)) dut (
      .clk, .rst(in_q[0]), .w_shift(in_q[1]), .a_valid(in_q[2]), .a_swap(in_q[3]), .w_i(in_q[4 +: 8*N]),
      .a_i(in_q[8*N + 4 +: 8*N]), .c_valid(out[0]), .c_o(out[1 +: 32*N]));

endmodule

`default_nettype wire
