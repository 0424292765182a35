// The first 102 bytes of a frame that leaves: Ethernet, IPv4, UDP, our header, and a reply's payload. It is right four cycles
// after its inputs have stood still; there is no valid bit, as there is none of a comparison.
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

  // What is said, and the sums of what came: a register each.
  logic [7:0]  kind_q;
  logic [15:0] len_q;
  logic        reply_q;
  logic [31:0] crc_q;
  logic [16:0] old0_q, old1_q, old2_q, local_q, dst_q;
  logic [18:0] old_q, new_q;
  logic [19:0] sum_q;
  logic [16:0] folded_q;
  logic [15:0] ip_len_q, udp_len_q, ip_checksum;
  logic [31:0] reply0_q, reply1_q, payload_crc_q, says_q, term_part_q, slot_part_q, sent_part_q, parts_q, head_crc_q;

  always_ff @(posedge clk) begin
    kind_q  <= kind;
    len_q   <= payload_len;
    reply_q <= is_reply;
    crc_q   <= payload_crc;

    ip_len_q  <= payload_len + 16'd68;
    udp_len_q <= payload_len + 16'd48;

    // The checksum of a reply's payload, then our header's over it.
    reply0_q      <= Crc32cOnes20 ^ crc32c_at0(swap4(Done)) ^ crc32c_at12(swap8(client));
    reply1_q      <= crc32c_at4(swap8(sequence_no));
    payload_crc_q <= reply_q ? ~(reply0_q ^ reply1_q) : crc_q;
    term_part_q   <= crc32c_at20(swap8(term));
    slot_part_q   <= crc32c_at12(swap8(slot));
    sent_part_q   <= crc32c_at4(swap8(sent_ns));
    says_q        <= Crc32cOnes36 ^ crc32c_at28(swap8({MagicVersion, kind_q, len_q}));
    parts_q       <= says_q ^ term_part_q ^ slot_part_q ^ sent_part_q;
    head_crc_q    <= ~(parts_q ^ crc32c_at0(swap4(payload_crc_q)));

    // Ones' complement sums may be taken in any order: out with the old words, in with the new.
    old0_q        <= {1'b0, ~old_ip_checksum} + {1'b0, ~old_ip_len};
    old1_q        <= {1'b0, ~old_src_ipv4[31:16]} + {1'b0, ~old_src_ipv4[15:0]};
    old2_q        <= {1'b0, ~old_dst_ipv4[31:16]} + {1'b0, ~old_dst_ipv4[15:0]};
    local_q       <= {1'b0, local_ipv4[31:16]} + {1'b0, local_ipv4[15:0]};
    dst_q         <= {1'b0, dst_ipv4[31:16]} + {1'b0, dst_ipv4[15:0]};
    old_q         <= {2'd0, old0_q} + {2'd0, old1_q} + {2'd0, old2_q};
    new_q         <= {2'd0, local_q} + {2'd0, dst_q} + {3'd0, ip_len_q};
    sum_q         <= {1'b0, old_q} + {1'b0, new_q};
    folded_q      <= {1'b0, sum_q[15:0]} + {13'd0, sum_q[19:16]};
  end
  assign ip_checksum = ~(folded_q[15:0] + {15'd0, folded_q[16]});

  assign head = {dst_mac, local_mac, 32'd0, ip_len_q, 48'd0, ip_checksum, local_ipv4, dst_ipv4,
                 local_port, dst_port, udp_len_q, 16'd0,
                 MagicVersion, kind, payload_len, term, slot, sent_ns, payload_crc_q, head_crc_q,
                 client, sequence_no, Done};

endmodule

`default_nettype wire
