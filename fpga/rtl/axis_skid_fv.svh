  // Formal properties: words come out as they went in, in order, none twice and none lost; what is shown stays until it is taken.
  logic f_past = 1'b0;
  always_ff @(posedge clk) f_past <= 1'b1;
  always_comb if (!f_past) assume (rst);

  // Counters of words in and words out, and one word, any one, that is followed.
  logic [3:0] f_in = '0, f_out = '0;
  (* anyconst *) logic [3:0] f_n;
  logic [DATA_W-1:0] f_word;
  logic              f_inside = 1'b0;
  wire f_enters = s_axis_tvalid && s_axis_tready && !rst;
  wire f_leaves = m_axis_tvalid && m_axis_tready && !rst;
  always_ff @(posedge clk) begin
    if (f_enters) f_in <= f_in + 4'd1;
    if (f_leaves) f_out <= f_out + 4'd1;
    if (f_leaves && f_out == f_n) f_inside <= 1'b0;
    if (f_enters && f_in == f_n) begin
      f_word   <= s_axis_tdata;
      f_inside <= 1'b1;
    end
    if (rst) begin
      f_in     <= '0;
      f_out    <= '0;
      f_inside <= 1'b0;
    end
  end

  always_ff @(posedge clk) if (f_past && !rst && !$past(rst) && $past(m_axis_tvalid && !m_axis_tready)) begin
    ap_valid_holds: assert (m_axis_tvalid);
    ap_data_stable: assert ($stable(m_axis_tdata));
  end
  always_comb if (f_past && !rst) begin
    ap_conserved: assert (4'(f_in - f_out) == 4'(m_axis_tvalid) + 4'(!s_axis_tready));
    ap_skid:      assert (s_axis_tready || m_axis_tvalid);
    if (f_inside && m_axis_tvalid && f_out == f_n)          ap_shown:   assert (m_axis_tdata == f_word);
    if (f_inside && !s_axis_tready && f_out + 4'd1 == f_n)  ap_waiting: assert (skid_q == f_word);
    if (f_inside) ap_somewhere: assert ((m_axis_tvalid && f_out == f_n) || (!s_axis_tready && f_out + 4'd1 == f_n));
    cp_full:      cover (!s_axis_tready && f_out == 4'd3);
  end
