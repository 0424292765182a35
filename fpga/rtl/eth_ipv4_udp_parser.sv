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
//   pay_ok      the payload's checksum: right three cycles after the frame's end (DATA_W 64), four (512), until the next frame
//               has reached its payload
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
    output      logic                is_long,    // the frame was not at its end after LONG_BEATS
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

  // Offset o of the frame is byte HeadBytes-1-o of this vector, so that a field is a part of it in its own order.
  logic [8*HeadBytes-1:0] head_q;

  function automatic logic [7:0] lane(input logic [DATA_W-1:0] d, input int unsigned n);
    lane = d[8*n +: 8];
  endfunction

  // ------------------------------------------------------------------------------------------- beats and the frame's end
  logic [12:0]      beat_q;
  logic             is_tail_q;     // of a frame that was too long: nobody looks
  logic             is_short_q;
  logic [1:0]       settle_q;
  logic [12:0]      last_beat_q;
  logic [Bytes-1:0] last_keep_q;

  wire beat    = s_axis_tvalid && s_axis_tready;
  wire is_last = s_axis_tlast || beat_q == 13'(LONG_BEATS - 1);
  assign ends_now = beat && is_last && !is_tail_q;

  always_ff @(posedge clk) begin
    if (take) frame_end <= 1'b0;
    if (settle_q != 2'd2) settle_q <= settle_q + 2'd1;
    if (beat) begin
      beat_q    <= s_axis_tlast ? 13'd0 : (is_tail_q || is_last) ? beat_q : beat_q + 13'd1;
      is_tail_q <= !s_axis_tlast && (is_tail_q || is_last);
      // At 512 bits the length is compared after the end.
      if (!is_tail_q && (beat_q <= 13'(SlotBeat) || (DATA_W == 512 && is_last))) settle_q <= 2'd0;
    end
    if (ends_now) begin
      frame_end   <= 1'b1;
      is_short_q  <= beat_q < 13'(LastBeat);
      is_long     <= !s_axis_tlast;
      is_bad      <= s_axis_tlast && s_axis_tuser;
      last_beat_q <= beat_q;
      last_keep_q <= s_axis_tkeep;
    end
    if (rst) begin
      frame_end <= 1'b0;
      beat_q    <= 13'd0;
      is_tail_q <= 1'b0;
      settle_q  <= 2'd0;
    end
  end
  // At 64 bits the last byte that is compared comes two beats before the end.
  assign settled = DATA_W == 64 || settle_q == 2'd2 || is_short_q;
  assign beats   = 16'(last_beat_q) + 16'd1;

  for (genvar o = 0; o < HeadBytes; o++) begin : g_head
    always_ff @(posedge clk)
      if (beat && !is_tail_q && beat_q == 13'(o / Bytes))
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

  // ---------------------------------------------------------------------------------- checks, a register behind each part
  // Sums of lengths have 17 bits, so that none that is too large looks small.
  logic        mac_ok_q, ip_ok_q, to_ok_q, ours_ok_q, len_ok_q, match_q, size_ok_q, crc_ok_q;
  logic [16:0] total_q;                  // bytes of the whole frame
  wire  [16:0] announced = {1'b0, payload_len} + 17'd48;
  wire  [16:0] last_byte = total_q - 17'd1;

  always_ff @(posedge clk) begin
    mac_ok_q  <= dst_mac == cfg_local_mac || (cfg_group_mac != '0 && dst_mac == cfg_group_mac);
    // Ethernet's type, IPv4 without options, no fragment, UDP.
    ip_ok_q   <= type_ihl == 24'h080045 && fragment[13:0] == 14'd0 && protocol == 8'd17;
    to_ok_q   <= dst_port == cfg_local_port && dst_ipv4 != '0
                 && (dst_ipv4 == cfg_local_ipv4 || dst_ipv4 == cfg_group_ipv4);
    ours_ok_q <= magic == 40'h44504c3101;
    len_ok_q  <= {1'b0, udp_len} == announced && {1'b0, ip_len} == announced + 17'd20;
    total_q   <= {1'b0, ip_len} + 17'd14;
    match_q   <= mac_ok_q && ip_ok_q && to_ok_q && ours_ok_q && len_ok_q;
    is_bare   <= payload_len == 16'd0 && payload_crc == 32'd0;
    is_put    <= command == 8'd1 && key_len != 8'd0 && rest_zero == '0
                 && {1'b0, payload_len} == 17'd24 + {9'd0, key_len} + {1'b0, first_len};
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
    logic [31:0] state_q;
    logic [15:0] head_crc_high_q;
    wire  [12:0] exp_beat = 13'(last_byte[16:3]);
    logic [12:0] exp_beat_q;
    logic [7:0]  exp_keep_q;
    logic        is_fit_q;

    // Which beat it is, said by the beat before: the checksum has no time to count.
    logic in_upper;                      // beats 5 and 10: six bytes, from lane 2 on, begin a message
    logic in_lower;                      // beat 9: six bytes end one
    logic in_ours, in_stored;            // from beat 5 on; beat 10
    wire [31:0] from   = in_upper ? '1 : state_q;
    wire [47:0] six    = in_upper ? kept[63:16] : kept[47:0];
    wire [31:0] stored = {head_crc_high_q, lane(s_axis_tdata, 0), lane(s_axis_tdata, 1)};

    always_ff @(posedge clk) begin
      exp_beat_q <= exp_beat;
      is_fit_q   <= last_byte[16:3] < 14'(LONG_BEATS);
      for (int unsigned n = 0; n < 8; n++) exp_keep_q[n] <= 3'(n) <= last_byte[2:0];
      if (beat && !is_tail_q) begin
        // Until the next frame begins one of its own, the last message's state stands.
        if (in_ours) state_q <= (in_upper || in_lower) ? crc32c_step6(from, six) : crc32c_step8(state_q, kept);
        if (in_lower) head_crc_high_q <= {lane(s_axis_tdata, 6), lane(s_axis_tdata, 7)};
        if (in_stored) crc_ok_q <= ~state_q == stored;
        size_ok_q <= is_fit_q && beat_q == exp_beat_q && s_axis_tkeep == exp_keep_q && s_axis_tlast && !s_axis_tuser;
      end
      if (beat) begin
        in_upper  <= !s_axis_tlast && (beat_q == 13'd4 || beat_q == 13'd9);
        in_lower  <= !s_axis_tlast && beat_q == 13'd8;
        in_ours   <= !s_axis_tlast && beat_q >= 13'd4;
        in_stored <= !s_axis_tlast && beat_q == 13'd9;
      end
      if (rst) {in_upper, in_lower, in_ours, in_stored} <= '0;
      stored0_q <= pad_q[2] ? crc32c_zero4(~payload_crc) : ~payload_crc;
      stored1_q <= pad_q[1] ? crc32c_zero2(stored0_q) : stored0_q;
      stored2_q <= pad_q[0] ? crc32c_zero1(stored1_q) : stored1_q;
      pay_ok    <= state_q == stored2_q;
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
      if (beat_q == 13'(PayloadAt / Bytes)) masked[8*(PayloadAt % Bytes)-1:0] = '0;
    end

    always_ff @(posedge clk) begin
      // The captured fields are complete one cycle after the beat, this is one more, and the comparison the next.
      head_a_q  <= Crc32cOnes36 ^ crc32c_at28(swap8(head_q[bit_of(42, 8) +: 64]))
                                ^ crc32c_at20(swap8(head_q[bit_of(50, 8) +: 64]));
      head_b_q  <= crc32c_at12(swap8(slot)) ^ crc32c_at4(swap8(sent_ns)) ^ crc32c_at0(swap4(payload_crc));
      crc_ok_q  <= ~(head_a_q ^ head_b_q) == head_crc;
      size_ok_q <= last_byte[16:6] < 11'(LONG_BEATS) && last_beat_q == 13'(last_byte[16:6]) && last_keep_q == exp_keep_last
                   && !is_long && !is_bad;

      first_q  <= beat && !is_tail_q && beat_q == 13'(PayloadAt / Bytes);
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

endmodule

`default_nettype wire
