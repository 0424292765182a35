// N x N weight-stationary systolic array of int8, with int32 sums, as the matrix unit of TPU v1 (Jouppi et al., ISCA 2017, section 2).
// Activations move right and partial sums down. Weights are shifted in from the top, row N-1 first, into registers behind those in use;
// `swap` comes with the first activation of a tile and travels with it, so that the next tile follows without a gap: the weights
// of a tile may be shifted in while the tile before is still computed, once the swap of that one has passed everywhere.
//
// Vectors go in and come out aligned; the skew is inside. c_valid comes 2N cycles after a_valid.
//
//   T tiles of M rows, from the first weight to the last result:  3N + M + (T - 1) * max(M, 3N - 1)
`default_nettype none

module systolic_array #(
    parameter int unsigned N     = 8,
    parameter int unsigned ACC_W = 32
) (
    input  wire logic               clk,
    input  wire logic               rst,
    input  wire logic               w_shift,
    input  wire logic [8*N-1:0]     w_i,
    input  wire logic               a_valid,
    input  wire logic               a_swap,
    input  wire logic [8*N-1:0]     a_i,
    output      logic               c_valid,
    output      logic [ACC_W*N-1:0] c_o
);

  if (N < 2 || N > 256) $fatal(1, "systolic_array: N is %0d; 2 to 256", N);
  if (ACC_W < 16) $fatal(1, "systolic_array: sums of %0d bits do not hold one product", ACC_W);

  localparam int unsigned Latency = 2 * N;

  logic signed [7:0]       a_w    [N][N+1];
  logic                    swap_w [N][N+1];
  logic signed [7:0]       w_w    [N+1][N];
  logic signed [ACC_W-1:0] p_w    [N+1][N];

  for (genvar r = 0; r < N; r++) begin : g_row
    // Row r starts r cycles late.
    if (r == 0) begin : g_straight
      assign a_w[r][0]    = a_i[7:0];
      assign swap_w[r][0] = a_swap;
    end else begin : g_skew
      logic [9*r-1:0] d_q;
      always_ff @(posedge clk) d_q <= (9*r)'({d_q, a_swap, a_i[8*r +: 8]});
      assign {swap_w[r][0], a_w[r][0]} = d_q[9*r-1 -: 9];
    end
    for (genvar c = 0; c < N; c++) begin : g_column
      systolic_pe #(.ACC_W(ACC_W)) pe (
          .clk, .w_shift, .w_i(w_w[r][c]), .w_o(w_w[r+1][c]), .swap_i(swap_w[r][c]), .swap_o(swap_w[r][c+1]),
          .a_i(a_w[r][c]), .a_o(a_w[r][c+1]), .p_i(p_w[r][c]), .p_o(p_w[r+1][c]));
    end
  end

  for (genvar c = 0; c < N; c++) begin : g_edge
    localparam int unsigned Early = N - 1 - c;
    assign w_w[0][c] = w_i[8*c +: 8];
    assign p_w[0][c] = '0;
    // Column c is done c cycles late.
    if (Early == 0) begin : g_straight
      assign c_o[ACC_W*c +: ACC_W] = p_w[N][c];
    end else begin : g_deskew
      logic [ACC_W*Early-1:0] d_q;
      always_ff @(posedge clk) d_q <= (ACC_W*Early)'({d_q, p_w[N][c]});
      assign c_o[ACC_W*c +: ACC_W] = d_q[ACC_W*Early-1 -: ACC_W];
    end
  end

  logic [Latency-1:0] valid_q;
  always_ff @(posedge clk) valid_q <= rst ? '0 : Latency'({valid_q, a_valid});
  assign c_valid = valid_q[Latency-1];

endmodule

`default_nettype wire
