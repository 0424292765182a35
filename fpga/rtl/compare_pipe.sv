// A comparison of two wide unsigned numbers in two cycles: chunks first, then the chunks' verdicts. What it says belongs to the
// numbers of two cycles ago, and it has no valid bit: whoever asks waits until both have stood still for two cycles.
`default_nettype none

module compare_pipe #(
    parameter int unsigned W      = 64,
    parameter int unsigned CHUNKS = 4
) (
    input  wire logic         clk,
    input  wire logic [W-1:0] a,
    input  wire logic [W-1:0] b,
    output      logic         gt,  // a > b
    output      logic         eq   // a == b
);

  if (CHUNKS < 1 || W % CHUNKS != 0) $fatal(1, "compare_pipe: %0d bits are no %0d equal chunks", W, CHUNKS);

  localparam int unsigned ChunkW = W / CHUNKS;

  logic [CHUNKS-1:0] gt_q, lt_q;
  logic              gt_d;

  // The topmost chunk that differs decides.
  always_comb begin
    gt_d = 1'b0;
    for (int unsigned c = 0; c < CHUNKS; c++) gt_d = gt_q[c] || (!lt_q[c] && gt_d);
  end

  for (genvar c = 0; c < CHUNKS; c++) begin : g_chunk
    wire [ChunkW-1:0] a_chunk = a[c*ChunkW +: ChunkW];
    wire [ChunkW-1:0] b_chunk = b[c*ChunkW +: ChunkW];
    // Two borrows. Yosys would make > and == out of one subtraction, with logic behind its carries.
    wire [ChunkW:0]   less    = {1'b0, a_chunk} - {1'b0, b_chunk};
    wire [ChunkW:0]   greater = {1'b0, b_chunk} - {1'b0, a_chunk};
    always_ff @(posedge clk) begin
      gt_q[c] <= greater[ChunkW];
      lt_q[c] <= less[ChunkW];
    end
  end

  always_ff @(posedge clk) begin
    gt <= gt_d;
    eq <= !(|gt_q) && !(|lt_q);
  end

endmodule

`default_nettype wire
