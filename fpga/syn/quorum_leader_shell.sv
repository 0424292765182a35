// Timing shell: see shell.svh.
`default_nettype none

module quorum_leader_shell #(
    parameter int unsigned DATA_W = 64,
    parameter int unsigned NODES  = 5
) (
    input  wire logic clk,
    input  wire logic si,
    output      logic so
);

  localparam int unsigned Bytes = DATA_W / 8;
  localparam int unsigned InW   = 1 + 73 + DATA_W + Bytes + 3 + 4;
  localparam int unsigned OutW  = 266 + 3 * (DATA_W + Bytes);

`include "shell.svh"

  quorum_leader #(.DATA_W(DATA_W), .NODES(NODES)) dut (
      .clk, .rst(in_q[0]), .cfg_we(in_q[1]), .cfg_addr(in_q[2 +: 8]), .cfg_data(in_q[10 +: 64]),
      .s_axis_tvalid(in_q[74]), .s_axis_tlast(in_q[75]), .s_axis_tuser(in_q[76]),
      .m_axis_tx_tready(in_q[77]), .m_axis_slow_tready(in_q[78]), .m_axis_log_tready(in_q[79]),
      .m_axis_commit_tready(in_q[80]), .s_axis_tdata(in_q[81 +: DATA_W]), .s_axis_tkeep(in_q[81+DATA_W +: Bytes]),
      .cfg_ready(out[0]), .s_axis_tready(out[1]),
      .m_axis_tx_tdata(out[2 +: DATA_W]), .m_axis_tx_tkeep(out[2+DATA_W +: Bytes]),
      .m_axis_tx_tlast(out[2+DATA_W+Bytes]), .m_axis_tx_tvalid(out[3+DATA_W+Bytes]),
      .m_axis_slow_tdata(out[4+DATA_W+Bytes +: DATA_W]), .m_axis_slow_tkeep(out[4+2*DATA_W+Bytes +: Bytes]),
      .m_axis_slow_tlast(out[4+2*DATA_W+2*Bytes]), .m_axis_slow_tvalid(out[5+2*DATA_W+2*Bytes]),
      .m_axis_slow_tuser(out[6+2*DATA_W+2*Bytes]),
      .m_axis_log_tdata(out[7+2*DATA_W+2*Bytes +: DATA_W]), .m_axis_log_tkeep(out[7+3*DATA_W+2*Bytes +: Bytes]),
      .m_axis_log_tlast(out[7+3*DATA_W+3*Bytes]), .m_axis_log_tvalid(out[8+3*DATA_W+3*Bytes]),
      .m_axis_log_tuser(out[9+3*DATA_W+3*Bytes +: 64]),
      .m_axis_commit_tdata(out[73+3*DATA_W+3*Bytes +: 64]), .m_axis_commit_tvalid(out[137+3*DATA_W+3*Bytes]),
      .stat_next(out[138+3*DATA_W+3*Bytes +: 64]), .stat_commit_end(out[202+3*DATA_W+3*Bytes +: 64]));

endmodule

`default_nettype wire
