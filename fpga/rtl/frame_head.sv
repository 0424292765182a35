// The first 102 bytes of a frame that leaves: Ethernet, IPv4, UDP, our header, and a reply's payload. It is right three cycles
// after its inputs have stood still, like the comparison's verdict; there is no valid bit.
//
// IPv4's checksum is carried over (RFC 1624), as the XDP programs do: wrong before is wrong after. UDP's is zero, "none". Bytes 12
// to 15 and 18 to 23 are zeros here, and stay in the frame as they came.
`default_nettype none

module frame_head (
    input  wire logic         clk,
    input  wire logic [47:0]  local_mac,
    input  wire logic [31:0]  local_ipv4,
    input  wire logic [15:0]  local_port,
    input  wire logic [47:0]  dst_mac,
    input  wire logic [31:0]  dst_ipv4,
    input  wire logic [15:0]  dst_port,
    // Of the frame that came.
    input  wire logic [31:0]  old_src_ipv4,
    input  wire logic [31:0]  old_dst_ipv4,
    input  wire logic [15:0]  old_ip_len,
    input  wire logic [15:0]  old_ip_checksum,

    input  wire logic [7:0]   kind,
    input  wire logic [15:0]  payload_len,
    input  wire logic [63:0]  term,
    input  wire logic [63:0]  slot,
    input  wire logic [63:0]  sent_ns,
    input  wire logic [31:0]  payload_crc,  // of what follows; of a reply it is made here
    input  wire logic         is_reply,
    input  wire logic [63:0]  client,
    input  wire logic [63:0]  sequence_no,

    output      logic [815:0] head          // byte 0 in the highest lane
);

`include "crc32c.svh"

  localparam logic [39:0] MagicVersion = 40'h44504c3101;
  localparam logic [31:0] Done         = 32'h01000000;

  logic [15:0] ip_len_q, udp_len_q, ip_checksum_q;
  logic [31:0] payload_crc_q, parts_q, head_crc_q;
  logic [18:0] sum0_q, sum1_q, sum2_q;
  logic [19:0] sum_q;
  wire  [16:0] folded = {1'b0, sum_q[15:0]} + {13'd0, sum_q[19:16]};

  function automatic logic [18:0] add4(input logic [15:0] a, input logic [15:0] b, input logic [15:0] c,
                                       input logic [15:0] d);
    add4 = {3'd0, a} + {3'd0, b} + {3'd0, c} + {3'd0, d};
  endfunction

  always_ff @(posedge clk) begin
    ip_len_q      <= payload_len + 16'd68;
    udp_len_q     <= payload_len + 16'd48;
    payload_crc_q <= is_reply ? ~(Crc32cOnes20 ^ crc32c_at12(swap8(client)) ^ crc32c_at4(swap8(sequence_no))
                                  ^ crc32c_at0(swap4(Done)))
                              : payload_crc;
    parts_q       <= Crc32cOnes36 ^ crc32c_at28(swap8({MagicVersion, kind, payload_len})) ^ crc32c_at20(swap8(term))
                                  ^ crc32c_at12(swap8(slot)) ^ crc32c_at4(swap8(sent_ns));
    head_crc_q    <= ~(parts_q ^ crc32c_at0(swap4(payload_crc_q)));

    // Ones' complement sums may be taken in any order: out with the old words, in with the new.
    sum0_q <= add4(~old_ip_checksum, ~old_ip_len, ~old_src_ipv4[31:16], ~old_src_ipv4[15:0]);
    sum1_q <= add4(~old_dst_ipv4[31:16], ~old_dst_ipv4[15:0], local_ipv4[31:16], local_ipv4[15:0]);
    sum2_q <= add4(dst_ipv4[31:16], dst_ipv4[15:0], payload_len + 16'd68, 16'd0);
    sum_q  <= {1'b0, sum0_q} + {1'b0, sum1_q} + {1'b0, sum2_q};
    ip_checksum_q <= ~(folded[15:0] + {15'd0, folded[16]});
  end

  assign head = {dst_mac, local_mac, 32'd0, ip_len_q, 48'd0, ip_checksum_q, local_ipv4, dst_ipv4,
                 local_port, dst_port, udp_len_q, 16'd0,
                 MagicVersion, kind, payload_len, term, slot, sent_ns, payload_crc_q, head_crc_q,
                 client, sequence_no, Done};

endmodule

`default_nettype wire
