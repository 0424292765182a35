// Computational storage: rows of fixed width stream through, and what a predicate does not want never reaches the host. A row is
// one beat: a key of 64 bits in the lowest lane, columns of 64 bits above it. Out come the chosen columns of the rows with
// low <= key <= high, and at the end of a scan one more beat with the aggregates: rows seen, rows kept, and the sum, the least and
// the largest of one column over the kept rows.
//
// A beat a cycle, whatever is kept. Registers of the host: 0 low, 1 high, 2 the columns that stay (bit n: lane n), 3 the aggregated
// column. They are written between scans.
`default_nettype none

module kv_filter #(
    parameter int unsigned DATA_W = 512
) (
    input  wire logic              clk,
    input  wire logic              rst,
    input  wire logic              cfg_we,
    input  wire logic [1:0]        cfg_addr,
    input  wire logic [63:0]       cfg_data,

    input  wire logic [DATA_W-1:0] s_axis_tdata,
    input  wire logic              s_axis_tvalid,
    output      logic              s_axis_tready,
    input  wire logic              s_axis_tlast,

    output      logic [DATA_W-1:0] m_axis_tdata,
    output      logic              m_axis_tvalid,
    input  wire logic              m_axis_tready,
    output      logic              m_axis_tlast,   // the aggregates: rows, kept, sum, least, largest, one per lane

    output      logic [31:0]       stat_rows
);

  if (DATA_W % 64 != 0 || DATA_W < 320) $fatal(1, "kv_filter: rows of %0d bits; whole lanes of 64, at least 5", DATA_W);

  localparam int unsigned Lanes = DATA_W / 64;

  logic [63:0]      low_q, high_q;
  logic [Lanes-1:0] keep_q;
  logic [7:0]       column_q;

  always_ff @(posedge clk)
    if (cfg_we)
      case (cfg_addr)
        2'd0: low_q    <= cfg_data;
        2'd1: high_q   <= cfg_data;
        2'd2: keep_q   <= cfg_data[Lanes-1:0];
        2'd3: column_q <= cfg_data[7:0];
      endcase

  // Four registers behind each other: two for the comparison, one for the choice, one for the way out. All move together, when the
  // last one may.
  logic              v1_q, v2_q, v3_q, last1_q, last2_q, last3_q;
  logic [DATA_W-1:0] d1_q, d2_q, d3_q;
  logic [63:0]       column1_q, column2_q, column3_q;
  logic [3:0]        below_q, above_q, low_eq_q, high_eq_q;  // chunks against the bounds
  logic              hit_q, hit3_q;
  logic              below, above;

  always_comb begin
    below = 1'b0;
    above = 1'b0;
    for (int unsigned c = 0; c < 4; c++) begin
      below = below_q[c] || (low_eq_q[c] && below);
      above = above_q[c] || (high_eq_q[c] && above);
    end
  end

  logic [63:0] rows_q, kept_q, sum_q, least_q, largest_q;
  logic        total_q;                  // the aggregates wait for their beat

  // One register holds what comes while the way out is taken, so that ready is a register.
  logic [DATA_W-1:0] skid_q;
  logic              skid_last_q, skid_valid_q;
  wire go        = !m_axis_tvalid || m_axis_tready;
  wire in_valid  = skid_valid_q || (s_axis_tvalid && s_axis_tready);
  wire in_last   = skid_valid_q ? skid_last_q : s_axis_tlast;
  wire [DATA_W-1:0] in_data = skid_valid_q ? skid_q : s_axis_tdata;
  // The aggregates take the way out for one cycle, and everything behind waits.
  wire step      = go && !total_q;
  assign s_axis_tready = !skid_valid_q;

  always_ff @(posedge clk) begin
    if (m_axis_tready) m_axis_tvalid <= 1'b0;
    if (s_axis_tvalid && s_axis_tready && !step) begin
      skid_q       <= s_axis_tdata;
      skid_last_q  <= s_axis_tlast;
      skid_valid_q <= 1'b1;
    end else if (step) begin
      skid_valid_q <= 1'b0;
    end
    if (s_axis_tvalid && s_axis_tready) stat_rows <= stat_rows + 32'd1;

    if (step) begin
      v1_q      <= in_valid;
      last1_q   <= in_last;
      d1_q      <= in_data;
      column1_q <= '0;
      for (int unsigned n = 0; n < Lanes; n++) if (column_q == 8'(n)) column1_q <= in_data[64*n +: 64];
      for (int unsigned c = 0; c < 4; c++) begin
        below_q[c]   <= in_data[16*c +: 16] <  low_q[16*c +: 16];
        low_eq_q[c]  <= in_data[16*c +: 16] == low_q[16*c +: 16];
        above_q[c]   <= in_data[16*c +: 16] >  high_q[16*c +: 16];
        high_eq_q[c] <= in_data[16*c +: 16] == high_q[16*c +: 16];
      end
      v2_q      <= v1_q;
      last2_q   <= last1_q;
      d2_q      <= d1_q;
      column2_q <= column1_q;
      hit_q     <= !below && !above;
      v3_q      <= v2_q;
      last3_q   <= last2_q;
      hit3_q    <= hit_q;
      column3_q <= column2_q;
      for (int unsigned n = 0; n < Lanes; n++) d3_q[64*n +: 64] <= keep_q[n] ? d2_q[64*n +: 64] : 64'd0;

      if (v3_q) begin
        rows_q <= rows_q + 64'd1;
        if (hit3_q) begin
          m_axis_tvalid <= 1'b1;
          m_axis_tdata  <= d3_q;
          m_axis_tlast  <= 1'b0;
          kept_q        <= kept_q + 64'd1;
          sum_q         <= sum_q + column3_q;
          if (kept_q == '0 || column3_q < least_q)   least_q   <= column3_q;
          if (kept_q == '0 || column3_q > largest_q) largest_q <= column3_q;
        end
        total_q <= last3_q;
      end
    end
    if (go && total_q) begin
      m_axis_tvalid <= 1'b1;
      m_axis_tdata  <= DATA_W'({largest_q, least_q, sum_q, kept_q, rows_q});
      m_axis_tlast  <= 1'b1;
      total_q       <= 1'b0;
      rows_q        <= '0;
      kept_q        <= '0;
      sum_q         <= '0;
      least_q       <= '0;
      largest_q     <= '0;
    end

    if (rst) begin
      {v1_q, v2_q, v3_q, skid_valid_q, m_axis_tvalid, total_q} <= '0;
      {rows_q, kept_q, sum_q, least_q, largest_q}              <= '0;
      stat_rows                                                <= '0;
    end
  end

endmodule

`default_nettype wire
