// One element of the array: a weight in use, the next weight behind it, a product and a sum.
`default_nettype none

module systolic_pe #(
    parameter int unsigned ACC_W = 32
) (
    input  wire logic                    clk,
    input  wire logic                    w_shift,
    input  wire logic signed [7:0]       w_i,
    output      logic signed [7:0]       w_o,
    input  wire logic                    swap_i,  // with this activation, and from it on, the next weight is used
    output      logic                    swap_o,
    input  wire logic signed [7:0]       a_i,
    output      logic signed [7:0]       a_o,
    input  wire logic signed [ACC_W-1:0] p_i,
    output      logic signed [ACC_W-1:0] p_o
);

  logic signed [7:0]  w_q;
  // A register of its own, so that a multiplier and a wide adder are not one path.
  logic signed [15:0] product_q;

  wire logic signed [7:0] weight = swap_i ? w_o : w_q;

  always_ff @(posedge clk) begin
    if (w_shift) w_o <= w_i;
    if (swap_i)  w_q <= w_o;
    swap_o    <= swap_i;
    a_o       <= a_i;
    product_q <= a_i * weight;
    p_o       <= p_i + ACC_W'(product_q);
  end

endmodule

`default_nettype wire
