// One frame in, a copy for each of up to PEERS destinations out: what a leader's append needs where the network floods nothing. A
// copy has its peer's MAC address, IPv4 address and port; IPv4's checksum is carried over (RFC 1624), UDP's is zero and stays so.
// Frames are stored whole before the first copy leaves, and one waits while the one before is copied.
//
// Registers of the host: 0 how many peers there are; 16 + n the address and port of peer n, 32 + n its MAC address.
`default_nettype none

module replicate #(
    parameter int unsigned PEERS      = 6,
    parameter int unsigned DEPTH_LOG2 = 8   // beats of the longest frame
) (
    input  wire logic        clk,
    input  wire logic        rst,
    input  wire logic        cfg_we,
    input  wire logic [7:0]  cfg_addr,
    input  wire logic [63:0] cfg_data,

    input  wire logic [63:0] s_axis_tdata,
    input  wire logic [7:0]  s_axis_tkeep,
    input  wire logic        s_axis_tvalid,
    output      logic        s_axis_tready,
    input  wire logic        s_axis_tlast,

    output      logic [63:0] m_axis_tdata,
    output      logic [7:0]  m_axis_tkeep,
    output      logic        m_axis_tlast,
    output      logic        m_axis_tvalid,
    input  wire logic        m_axis_tready
);

  if (PEERS < 1 || PEERS > 7) $fatal(1, "replicate: %0d peers; 1 to 7", PEERS);
  if (DEPTH_LOG2 < 4 || DEPTH_LOG2 > 12) $fatal(1, "replicate: DEPTH_LOG2 is %0d; 4 to 12", DEPTH_LOG2);

  localparam int unsigned Depth = 2 ** DEPTH_LOG2;

  logic [2:0]  peers_q;
  logic [47:0] places_q [PEERS];
  logic [47:0] macs_q   [PEERS];
  always_ff @(posedge clk) begin
    if (cfg_we && cfg_addr == 8'd0) peers_q <= cfg_data[2:0];
    for (int unsigned n = 0; n < PEERS; n++) begin
      if (cfg_we && cfg_addr == 8'(16 + n)) places_q[n] <= cfg_data[47:0];
      if (cfg_we && cfg_addr == 8'(32 + n)) macs_q[n]   <= cfg_data[47:0];
    end
  end

  // Two halves: one is filled while the other is copied.
  (* no_rw_check *)
  logic [72:0]           mem [2*Depth];
  logic                  in_half_q, out_half_q;
  logic [1:0]            full_q;
  logic [DEPTH_LOG2-1:0] in_at_q, out_at_q;
  logic [DEPTH_LOG2-1:0] last_q [2];
  logic [15:0]           checksum_q [2];
  logic [31:0]           dst_q [2];

  function automatic logic [15:0] swap16(input logic [15:0] v);
    swap16 = {v[7:0], v[15:8]};
  endfunction

  wire beat = s_axis_tvalid && s_axis_tready;
  always_ff @(posedge clk) begin
    if (beat) begin
      mem[{in_half_q, in_at_q}] <= {s_axis_tlast, s_axis_tkeep, s_axis_tdata};
      // Bytes 24 and 25 are IPv4's checksum, 30 to 33 the address of whom the frame was to.
      if (in_at_q == DEPTH_LOG2'(3)) checksum_q[in_half_q]   <= swap16(s_axis_tdata[15:0]);
      if (in_at_q == DEPTH_LOG2'(3)) dst_q[in_half_q][31:16] <= swap16(s_axis_tdata[63:48]);
      if (in_at_q == DEPTH_LOG2'(4)) dst_q[in_half_q][15:0]  <= swap16(s_axis_tdata[15:0]);
    end
  end

  // ------------------------------------------------------------------------------------------------------------- copying
  typedef enum logic [2:0] {Wait, Sum0, Sum1, Sum2, Copy} state_e;
  state_e      state_q;
  logic [2:0]  peer_q;
  logic [47:0] place_q, mac_q;
  logic [18:0] sum_q;
  logic [16:0] fold_q;
  logic [15:0] new_checksum_q;
  logic        a_valid_q, read_done_q;
  logic [72:0] a_q;
  logic [3:0]  at_q;

  wire go   = !m_axis_tvalid || m_axis_tready;
  wire read = state_q == Copy && !read_done_q && (!a_valid_q || go);

  logic [63:0] changed;
  always_comb begin
    changed = a_q[63:0];
    for (int unsigned n = 0; n < 6; n++) if (at_q == 4'd0) changed[8*n +: 8] = mac_q[8*(5-n) +: 8];
    if (at_q == 4'd3) changed[15:0]  = swap16(new_checksum_q);
    if (at_q == 4'd3) changed[63:48] = swap16(place_q[47:32]);
    if (at_q == 4'd4) changed[15:0]  = swap16(place_q[31:16]);
    if (at_q == 4'd4) changed[47:32] = swap16(place_q[15:0]);
  end

  wire is_last_out = a_valid_q && go && a_q[72];
  wire done        = is_last_out && peer_q + 3'd1 == peers_q;
  // What is longer than half of the memory is swallowed.
  logic       too_long_q;
  logic [1:0] full_d;
  wire stored    = beat && s_axis_tlast && !too_long_q && peers_q != 3'd0;
  wire in_half_d = stored ? !in_half_q : in_half_q;
  always_comb begin
    full_d = full_q;
    if (stored) full_d[in_half_q] = 1'b1;
    if (done) full_d[out_half_q] = 1'b0;
  end

  always_ff @(posedge clk) begin
    if (read) a_q <= mem[{out_half_q, out_at_q}];
    place_q <= places_q[0];
    mac_q   <= macs_q[0];
    for (int unsigned n = 0; n < PEERS; n++)
      if (peer_q == 3'(n)) begin
        place_q <= places_q[n];
        mac_q   <= macs_q[n];
      end

    if (beat) begin
      in_at_q    <= s_axis_tlast ? '0 : in_at_q + 1'b1;
      if (s_axis_tlast) last_q[in_half_q] <= in_at_q;
      too_long_q <= !s_axis_tlast && (too_long_q || in_at_q == DEPTH_LOG2'(Depth - 1));
    end
    full_q        <= full_d;
    in_half_q     <= in_half_d;
    s_axis_tready <= !rst && !full_d[in_half_d];

    if (m_axis_tready) m_axis_tvalid <= 1'b0;
    case (state_q)
      Wait: if (full_q[out_half_q]) state_q <= Sum0;
      Sum0: begin
        sum_q   <= {3'd0, ~checksum_q[out_half_q]} + {3'd0, ~dst_q[out_half_q][31:16]} + {3'd0, ~dst_q[out_half_q][15:0]}
                   + {3'd0, place_q[47:32]} + {3'd0, place_q[31:16]};
        state_q <= Sum1;
      end
      Sum1: begin
        fold_q  <= {1'b0, sum_q[15:0]} + {14'd0, sum_q[18:16]};
        state_q <= Sum2;
      end
      Sum2: begin
        new_checksum_q <= ~(fold_q[15:0] + {15'd0, fold_q[16]});
        out_at_q       <= '0;
        at_q           <= 4'd0;
        read_done_q    <= 1'b0;
        state_q        <= Copy;
      end
      Copy: begin
        if (read) begin
          out_at_q    <= out_at_q + 1'b1;
          read_done_q <= out_at_q == last_q[out_half_q];
        end
        if (go) a_valid_q <= read;
        else if (read) a_valid_q <= 1'b1;
        if (a_valid_q && go) begin
          m_axis_tvalid <= 1'b1;
          m_axis_tdata  <= changed;
          m_axis_tkeep  <= a_q[71:64];
          m_axis_tlast  <= a_q[72];
          if (at_q != 4'd15) at_q <= at_q + 4'd1;
        end
        if (is_last_out) begin
          a_valid_q <= 1'b0;
          peer_q    <= done ? 3'd0 : peer_q + 3'd1;
          if (done) out_half_q <= !out_half_q;
          state_q   <= Wait;
        end
      end
      default: state_q <= Wait;
    endcase

    if (rst) begin
      state_q       <= Wait;
      full_q        <= '0;
      in_half_q     <= 1'b0;
      out_half_q    <= 1'b0;
      in_at_q       <= '0;
      peer_q        <= '0;
      a_valid_q     <= 1'b0;
      too_long_q    <= 1'b0;
      m_axis_tvalid <= 1'b0;
    end
  end

endmodule

`default_nettype wire
