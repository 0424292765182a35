// AXI4-Stream skid buffer: one register for the output and one for what arrives while the output stands still, so that valid,
// data and ready are all registered and every cycle can carry a word. It cuts every combinational path between its two sides.
`default_nettype none

module axis_skid #(
    parameter int unsigned DATA_W = 64
) (
    input  wire logic              clk,
    input  wire logic              rst,
    input  wire logic [DATA_W-1:0] s_axis_tdata,
    input  wire logic              s_axis_tvalid,
    output      logic              s_axis_tready,
    output      logic [DATA_W-1:0] m_axis_tdata,
    output      logic              m_axis_tvalid,
    input  wire logic              m_axis_tready
);

  if (DATA_W < 1) $fatal(1, "axis_skid: DATA_W is %0d; at least one bit is needed", DATA_W);

  logic [DATA_W-1:0] skid_q;

  // The input is ready while the skid register is free; so the register that says so says the opposite of "taken".
  wire in_en = s_axis_tvalid && s_axis_tready;
  wire move  = !m_axis_tvalid || m_axis_tready;

  always_ff @(posedge clk) begin
    if (in_en) skid_q <= s_axis_tdata;
    if (move) begin
      m_axis_tdata  <= s_axis_tready ? s_axis_tdata : skid_q;
      m_axis_tvalid <= in_en || !s_axis_tready;
      s_axis_tready <= 1'b1;
    end else if (in_en) begin
      s_axis_tready <= 1'b0;
    end
    if (rst) begin
      m_axis_tvalid <= 1'b0;
      s_axis_tready <= 1'b1;
    end
  end

`ifdef FORMAL
`include "axis_skid_fv.svh"
`endif
endmodule

`default_nettype wire
