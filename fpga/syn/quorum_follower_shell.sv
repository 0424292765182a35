// Timing shell: see shell.svh.
`default_nettype none

module quorum_follower_shell (
    input  wire logic clk,
    input  wire logic si,
    output      logic so
);

  localparam int unsigned InW  = 152;
  localparam int unsigned OutW = 416;

`include "shell.svh"

  quorum_follower #(.DATA_W(64)) dut (
      .clk, .rst(in_q[0]), .cfg_we(in_q[1]), .cfg_addr(in_q[2 +: 8]), .cfg_data(in_q[10 +: 64]),
      .s_axis_tdata(in_q[74 +: 64]), .s_axis_tkeep(in_q[138 +: 8]), .s_axis_tvalid(in_q[146]), .s_axis_tlast(in_q[147]),
      .s_axis_tuser(in_q[148]), .m_axis_tx_tready(in_q[149]), .m_axis_slow_tready(in_q[150]), .m_axis_log_tready(in_q[151]),
      .s_axis_tready(out[0]), .m_axis_tx_tdata(out[1 +: 64]), .m_axis_tx_tkeep(out[65 +: 8]), .m_axis_tx_tlast(out[73]),
      .m_axis_tx_tvalid(out[74]), .m_axis_slow_tdata(out[75 +: 64]), .m_axis_slow_tkeep(out[139 +: 8]),
      .m_axis_slow_tlast(out[147]), .m_axis_slow_tuser(out[148]), .m_axis_slow_tvalid(out[149]),
      .m_axis_log_tdata(out[150 +: 64]), .m_axis_log_tkeep(out[214 +: 8]), .m_axis_log_tlast(out[222]),
      .m_axis_log_tuser(out[223 +: 64]), .m_axis_log_tvalid(out[287]), .stat_next(out[288 +: 64]),
      .stat_commit_end(out[352 +: 64]));

endmodule

`default_nettype wire
