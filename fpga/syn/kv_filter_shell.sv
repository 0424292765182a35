// Timing shell: see shell.svh.
`default_nettype none

module kv_filter_shell (
    input  wire logic clk,
    input  wire logic si,
    output      logic so
);

  localparam int unsigned InW  = 583;
  localparam int unsigned OutW = 547;

`include "shell.svh"

  kv_filter #(.DATA_W(512)) dut (
      .clk, .rst(in_q[0]), .cfg_we(in_q[1]), .cfg_addr(in_q[2 +: 2]), .cfg_data(in_q[4 +: 64]),
      .s_axis_tdata(in_q[68 +: 512]), .s_axis_tvalid(in_q[580]), .s_axis_tlast(in_q[581]), .m_axis_tready(in_q[582]),
      .s_axis_tready(out[0]), .m_axis_tdata(out[1 +: 512]), .m_axis_tvalid(out[513]), .m_axis_tlast(out[514]),
      .stat_rows(out[515 +: 32]));

endmodule

`default_nettype wire
