// Finds one of our frames in Ethernet, IPv4 and UDP, beside the stream: it watches the beats that are accepted and holds what
// it has read until it is told to go on. It takes what the XDP programs take (ebpf/programs/src/lib.rs), and less: no VLAN tag, no
// IPv6, nothing behind the datagram.
//
// Checked here: addresses, port, magic, version, kind, the three lengths and the frame's own, the header's CRC-32C, the payload's
// CRC-32C. Not checked, as in the XDP programs: the checksums of IPv4 and UDP, which cover less than ours. The frame check
// sequence is the MAC's business, which says by `tuser` on the last beat that it was wrong.
//
//   frame_end   the frame is over, or longer than LONG_BEATS; its fields stand until `take`
//   settled     two cycles have passed since the last of them was written, so that comparisons of two cycles are done
//   is_put      right three cycles after the frame's end
//   pay_ok      the payload's checksum: right four cycles after the frame's end, until the next frame has reached its payload
`default_nettype none

module eth_ipv4_udp_parser #(
    parameter int unsigned DATA_W     = 64,
    parameter int unsigned LONG_BEATS = 256
) (
    input  wire logic                clk,
    input  wire logic                rst,

    input  wire logic [DATA_W-1:0]   s_axis_tdata,
    input  wire logic [DATA_W/8-1:0] s_axis_tkeep,
    input  wire logic                s_axis_tvalid,
    input  wire logic                s_axis_tready,  // watched, not driven
    input  wire logic                s_axis_tlast,
    input  wire logic                s_axis_tuser,

    input  wire logic [47:0]         cfg_local_mac,
    input  wire logic [31:0]         cfg_local_ipv4,
    input  wire logic [15:0]         cfg_local_port,
    input  wire logic [47:0]         cfg_group_mac,   // zeros: none
    input  wire logic [31:0]         cfg_group_ipv4,  // zeros: none

    input  wire logic                take,
    output      logic                frame_end,
    output      logic                settled,
    output      logic                ends_now,   // this very cycle: the next one has frame_end
    output      logic                is_ours,    // all checks but the payload's checksum
    output      logic                is_bad,     // the frame check sequence was wrong
    output      logic [15:0]         beats,      // of a frame that is not too long
    output      logic                pay_ok,

    output      logic [7:0]          kind,
    output      logic [15:0]         payload_len,
    output      logic [63:0]         term,
    output      logic [63:0]         slot,
    output      logic [63:0]         sent_ns,
    output      logic [31:0]         payload_crc,
    output      logic [47:0]         src_mac,
    output      logic [31:0]         src_ipv4,
    output      logic [31:0]         dst_ipv4,
    output      logic [15:0]         src_port,
    output      logic [15:0]         ip_len,
    output      logic [15:0]         ip_checksum,
    output      logic [63:0]         client,
    output      logic [63:0]         sequence_no,
    output      logic                is_bare,    // no payload, and the checksum of none
    output      logic                is_put      // the request is a put whose lengths agree
);

  if (DATA_W != 64 && DATA_W != 512) $fatal(1, "eth_ipv4_udp_parser: DATA_W is %0d; 64 and 512 are built", DATA_W);
  if (LONG_BEATS < 16 || LONG_BEATS > 4096) $fatal(1, "eth_ipv4_udp_parser: LONG_BEATS is %0d; 16 to 4096", LONG_BEATS);

`include "crc32c.svh"

  localparam int unsigned Bytes     = DATA_W / 8;
  localparam int unsigned HeadBytes = 106;                // to the end of a request's fixed part
  localparam int unsigned PayloadAt = 82;
  localparam int unsigned SlotBeat  = 65 / Bytes;         // carries the last byte of the slot
  localparam int unsigned LastBeat  = (PayloadAt - 1) / Bytes;

  localparam int unsigned AtW       = (HeadBytes + Bytes - 1) / Bytes;

  // Offset o of the frame is byte HeadBytes-1-o of this vector, so that a field is a part of it in its own order.
  logic [8*HeadBytes-1:0] head_q;

  function automatic logic [7:0] lane(input logic [DATA_W-1:0] d, input int unsigned n);
    lane = d[8*n +: 8];
  endfunction

  // ------------------------------------------------------------------------------------------- beats and the frame's end
  logic [12:0]      beat_q;
  logic [AtW-1:0]   at_q;          // the same in single bits, up to the head's end
  logic             at_cap_q;      // the frame is too long if this beat is not its last
  logic             is_tail_q;     // of a frame that was too long: nobody looks
  logic             is_short_q;
  logic             is_long;         // the frame was not at its end after LONG_BEATS
  logic [1:0]       settle_q;
  logic [12:0]      last_beat_q;
  logic [Bytes-1:0] last_keep_q;

  wire beat    = s_axis_tvalid && s_axis_tready;
  wire is_last = s_axis_tlast || at_cap_q;
  assign ends_now = beat && is_last && !is_tail_q;

  always_ff @(posedge clk) begin
    if (take) frame_end <= 1'b0;
    if (settle_q != 2'd2) settle_q <= settle_q + 2'd1;
    if (beat) begin
      beat_q    <= s_axis_tlast ? 13'd0 : (is_tail_q || is_last) ? beat_q : beat_q + 13'd1;
      is_tail_q <= !s_axis_tlast && (is_tail_q || is_last);
      at_q      <= s_axis_tlast ? AtW'(1) : AtW'({at_q, 1'b0});
      at_cap_q  <= !s_axis_tlast && beat_q == 13'(LONG_BEATS - 2);
      // At 512 bits the length is compared after the end.
      if (!is_tail_q && (beat_q <= 13'(SlotBeat) || (DATA_W == 512 && is_last))) settle_q <= 2'd0;
    end
    if (ends_now) begin
      frame_end   <= 1'b1;
      is_short_q  <= |at_q[LastBeat-1:0];
      is_long     <= !s_axis_tlast;
      is_bad      <= s_axis_tlast && s_axis_tuser;
      last_beat_q <= beat_q;
      last_keep_q <= s_axis_tkeep;
    end
    if (rst) begin
      frame_end <= 1'b0;
      beat_q    <= 13'd0;
      at_q      <= AtW'(1);
      at_cap_q  <= 1'b0;
      is_tail_q <= 1'b0;
      settle_q  <= 2'd0;
    end
  end
  // At 64 bits the last byte that is compared comes two beats before the end.
  assign settled = DATA_W == 64 || settle_q == 2'd2 || is_short_q;
  assign beats   = 16'(last_beat_q) + 16'd1;

  for (genvar o = 0; o < HeadBytes; o++) begin : g_head
    always_ff @(posedge clk)
      if (beat && at_q[o/Bytes])
        head_q[8*(HeadBytes-1-o) +: 8] <= lane(s_axis_tdata, o % Bytes);
  end

  // Where the field of `count` bytes that begins at offset `at` has its lowest bit.
  function automatic int unsigned bit_of(input int unsigned at, input int unsigned count);
    bit_of = 8 * (HeadBytes - at - count);
  endfunction

  wire [47:0] dst_mac    = head_q[bit_of(0, 6) +: 48];
  wire [23:0] type_ihl   = head_q[bit_of(12, 3) +: 24];
  wire [15:0] fragment   = head_q[bit_of(20, 2) +: 16];
  wire [7:0]  protocol   = head_q[bit_of(23, 1) +: 8];
  wire [15:0] dst_port   = head_q[bit_of(36, 2) +: 16];
  wire [15:0] udp_len    = head_q[bit_of(38, 2) +: 16];
  wire [39:0] magic      = head_q[bit_of(42, 5) +: 40];
  wire [31:0] head_crc   = head_q[bit_of(78, 4) +: 32];
  wire [7:0]  command    = head_q[bit_of(98, 1) +: 8];
  wire [7:0]  key_len    = head_q[bit_of(99, 1) +: 8];
  wire [15:0] first_len  = head_q[bit_of(100, 2) +: 16];
  wire [31:0] rest_zero  = head_q[bit_of(102, 4) +: 32];
  assign src_mac     = head_q[bit_of(6, 6) +: 48];
  assign ip_len      = head_q[bit_of(16, 2) +: 16];
  assign ip_checksum = head_q[bit_of(24, 2) +: 16];
  assign src_ipv4    = head_q[bit_of(26, 4) +: 32];
  assign dst_ipv4    = head_q[bit_of(30, 4) +: 32];
  assign src_port    = head_q[bit_of(34, 2) +: 16];
  assign kind        = head_q[bit_of(47, 1) +: 8];
  assign payload_len = head_q[bit_of(48, 2) +: 16];
  assign term        = head_q[bit_of(50, 8) +: 64];
  assign slot        = head_q[bit_of(58, 8) +: 64];
  assign sent_ns     = head_q[bit_of(66, 8) +: 64];
  assign payload_crc = head_q[bit_of(74, 4) +: 32];
  assign client      = head_q[bit_of(82, 8) +: 64];
  assign sequence_no = head_q[bit_of(90, 8) +: 64];

  // -------------------------------------------------------------------------------- checks, registers between their parts
  // Sums of lengths have 17 bits, so that none that is too large looks small.
  logic        local_hi_q, local_lo_q, group_hi_q, group_lo_q, has_group_q, mac_ok_q;
  logic        type_ok_q, ip_ok_q, to_port_q, to_local_q, to_group_q, to_some_q, to_ok_q;
  logic        ours_ok_q, len_ok_q, match_q, size_ok_q, crc_ok_q, put_ok_q;
  logic [16:0] udp_want_q, ip_want_q, put_want_q;
  logic [16:0] last_byte;                // the frame's own, by what IPv4 says

  always_ff @(posedge clk) begin
    local_hi_q  <= dst_mac[47:24] == cfg_local_mac[47:24];
    local_lo_q  <= dst_mac[23:0] == cfg_local_mac[23:0];
    group_hi_q  <= dst_mac[47:24] == cfg_group_mac[47:24];
    group_lo_q  <= dst_mac[23:0] == cfg_group_mac[23:0];
    has_group_q <= cfg_group_mac != '0;
    mac_ok_q    <= (local_hi_q && local_lo_q) || (has_group_q && group_hi_q && group_lo_q);
    // Ethernet's type, IPv4 without options, no fragment, UDP.
    type_ok_q   <= type_ihl == 24'h080045;
    ip_ok_q     <= type_ok_q && fragment[13:0] == 14'd0 && protocol == 8'd17;
    to_port_q   <= dst_port == cfg_local_port;
    to_local_q  <= dst_ipv4 == cfg_local_ipv4;
    to_group_q  <= dst_ipv4 == cfg_group_ipv4;
    to_some_q   <= dst_ipv4 != '0;
    to_ok_q     <= to_port_q && to_some_q && (to_local_q || to_group_q);
    ours_ok_q   <= magic == 40'h44504c3101;
    udp_want_q  <= {1'b0, payload_len} + 17'd48;
    ip_want_q   <= {1'b0, payload_len} + 17'd68;
    len_ok_q    <= {1'b0, udp_len} == udp_want_q && {1'b0, ip_len} == ip_want_q;
    last_byte   <= {1'b0, ip_len} + 17'd13;
    match_q     <= mac_ok_q && ip_ok_q && to_ok_q && ours_ok_q && len_ok_q;
    is_bare     <= payload_len == 16'd0 && payload_crc == 32'd0;
    put_ok_q    <= command == 8'd1 && key_len != 8'd0 && rest_zero == '0;
    put_want_q  <= 17'd24 + {9'd0, key_len} + {1'b0, first_len};
    is_put      <= put_ok_q && {1'b0, payload_len} == put_want_q;
  end
  // Of a frame that is too short these flags say nothing; one that is too long or bad has no size_ok_q.
  assign is_ours = match_q && size_ok_q && crc_ok_q && !is_short_q;

  // ------------------------------------------------------------------------------------------------------- the checksums
  // A stored checksum comes before what it covers, and the payload's end stands anywhere in a beat. So zeros are counted in behind
  // the payload, up to the beat's end, and the stored checksum is moved over as many: `pad` of them.
  logic [DATA_W-1:0] kept;             // the beat, with zeros where it has no bytes
  always_comb
    for (int unsigned n = 0; n < Bytes; n++) kept[8*n +: 8] = s_axis_tkeep[n] ? lane(s_axis_tdata, n) : 8'd0;

  localparam int unsigned PadW = $clog2(Bytes);
  logic [PadW-1:0] pad_q;
  logic [31:0]     stored0_q, stored1_q, stored2_q;
  // 82 bytes stand before the payload.
  always_ff @(posedge clk) pad_q <= PadW'(0) - PadW'(7'd82 + payload_len[6:0]);

  if (DATA_W == 64) begin : g_crc64
    // The header's, straight from the wire, because its last bytes are the frame's: beats 5 to 8 are counted in whole, and the first six
    // bytes of whatever comes next beside them. Beat 5 has two bytes before our header; what they add is taken away at the end.
    logic [31:0] head_state_q, head_crc_q, before_q;
    // The payload's, a register later: it has no hurry.
    logic [63:0] kept_q;
    logic        begins_q, counts_q;
    logic        is_past_q;              // a beat behind the payload's first
    logic [31:0] state_q;

    logic [7:0]  exp_keep_q;
    logic [13:0] exp_beat_q;
    logic        is_fit_q;

    always_ff @(posedge clk) begin
      exp_beat_q <= last_byte[16:3];
      is_fit_q   <= last_byte[16:3] < 14'(LONG_BEATS);
      for (int unsigned n = 0; n < 8; n++) exp_keep_q[n] <= 3'(n) <= last_byte[2:0];
      before_q   <= crc32c_at36({head_q[bit_of(41, 1) +: 8], head_q[bit_of(40, 1) +: 8]});
      if (beat) begin
        head_state_q <= crc32c_step8(head_state_q, s_axis_tdata);
        if (at_q[4]) head_state_q <= Crc32cOnesBack2;
        head_crc_q   <= ~(crc32c_step6(head_state_q, s_axis_tdata[47:0]) ^ before_q);
        if (at_q[LastBeat]) crc_ok_q <= head_crc_q == {head_crc[31:16], lane(s_axis_tdata, 0), lane(s_axis_tdata, 1)};
        size_ok_q <= is_fit_q && {1'b0, beat_q} == exp_beat_q && s_axis_tkeep == exp_keep_q && s_axis_tlast && !s_axis_tuser
                     && !is_tail_q;
        is_past_q <= !s_axis_tlast && (at_q[LastBeat] || is_past_q);
      end
      kept_q   <= kept;
      if (at_q[LastBeat]) kept_q[15:0] <= '0;
      begins_q <= beat && at_q[LastBeat-1];
      counts_q <= beat && (at_q[LastBeat] || is_past_q);
      if (counts_q) state_q <= crc32c_step8(state_q, kept_q);
      if (begins_q) state_q <= Crc32cOnesBack2;

      stored0_q <= pad_q[2] ? crc32c_zero4(~payload_crc) : ~payload_crc;
      stored1_q <= pad_q[1] ? crc32c_zero2(stored0_q) : stored0_q;
      stored2_q <= pad_q[0] ? crc32c_zero1(stored1_q) : stored1_q;
      pay_ok    <= state_q == stored2_q;
      if (rst) is_past_q <= 1'b0;
    end
  end else begin : g_crc512
    // Everything a register later than the beat: 64 bytes are a deep tree.
    logic [511:0] kept_q;
    logic         first_q, more_q, first2_q, more2_q;
    logic [31:0]  part_q, state_q;

    // The header's, out of the captured bytes.
    logic [31:0]  head_a_q, head_b_q;
    wire  [63:0]  exp_keep_last = 64'hffff_ffff_ffff_ffff >> (6'd63 - last_byte[5:0]);

    logic [511:0] masked;
    always_comb begin
      masked = kept;
      if (at_q[1]) masked[8*(PayloadAt % Bytes)-1:0] = '0;
    end

    always_ff @(posedge clk) begin
      // The captured fields are complete one cycle after the beat, this is one more, and the comparison the next.
      head_a_q  <= Crc32cOnes36 ^ crc32c_at28(swap8(head_q[bit_of(42, 8) +: 64]))
                                ^ crc32c_at20(swap8(head_q[bit_of(50, 8) +: 64]));
      head_b_q  <= crc32c_at12(swap8(slot)) ^ crc32c_at4(swap8(sent_ns)) ^ crc32c_at0(swap4(payload_crc));
      crc_ok_q  <= ~(head_a_q ^ head_b_q) == head_crc;
      size_ok_q <= last_byte[16:6] < 11'(LONG_BEATS) && last_beat_q == 13'(last_byte[16:6]) && last_keep_q == exp_keep_last
                   && !is_long && !is_bad;

      first_q  <= beat && at_q[1];
      more_q   <= beat && !is_tail_q && beat_q > 13'(PayloadAt / Bytes);
      first2_q <= first_q;
      more2_q  <= more_q;
      kept_q   <= masked;
      part_q   <= crc32c_beat512(kept_q);
      // 46 bytes of the payload's first beat are its own.
      if (first2_q) state_q <= Crc32cOnes46 ^ part_q;
      if (more2_q)  state_q <= crc32c_zero64(state_q) ^ part_q;

      stored0_q <= pad(pad_q[5:4], ~payload_crc, crc32c_zero16(~payload_crc), crc32c_zero32(~payload_crc),
                       crc32c_zero32(crc32c_zero16(~payload_crc)));
      stored1_q <= pad(pad_q[3:2], stored0_q, crc32c_zero4(stored0_q), crc32c_zero8(stored0_q),
                       crc32c_zero8(crc32c_zero4(stored0_q)));
      stored2_q <= pad(pad_q[1:0], stored1_q, crc32c_zero1(stored1_q), crc32c_zero2(stored1_q),
                       crc32c_zero2(crc32c_zero1(stored1_q)));
      pay_ok    <= state_q == stored2_q;
    end

    function automatic logic [31:0] pad(input logic [1:0] by, input logic [31:0] none, input logic [31:0] one,
                                        input logic [31:0] two, input logic [31:0] three);
      pad = by == 2'd0 ? none : by == 2'd1 ? one : by == 2'd2 ? two : three;
    endfunction
  end

`ifdef FORMAL
`include "eth_ipv4_udp_parser_fv.svh"
`endif
endmodule

`default_nettype wire
