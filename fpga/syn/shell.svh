  // A timing shell: every input comes from a flip-flop of a scan chain and every output folds into one, so that place and route times
  // the block from register to register and not its pads. The shell says how many bits there are of each, and connects them.
  logic [InW-1:0]  in_q;
  logic [OutW-1:0] out, out_q;

  fold #(.W(OutW)) fold (.clk, .d(out_q), .q(so));

  always_ff @(posedge clk) begin
    in_q  <= {in_q[InW-2:0], si};
    out_q <= out;
  end
