// Timing shell: see shell.svh.
`default_nettype none

module eth_ipv4_udp_parser_shell (
    input  wire logic clk,
    input  wire logic si,
    output      logic so
);

  localparam int unsigned InW  = 254;
  localparam int unsigned OutW = 560;

`include "shell.svh"

  eth_ipv4_udp_parser #(.DATA_W(64)) dut (
      .clk, .rst(in_q[0]), .s_axis_tdata(in_q[1 +: 64]), .s_axis_tkeep(in_q[65 +: 8]), .s_axis_tvalid(in_q[73]),
      .s_axis_tready(in_q[74]), .s_axis_tlast(in_q[75]), .s_axis_tuser(in_q[76]), .cfg_local_mac(in_q[77 +: 48]),
      .cfg_local_ipv4(in_q[125 +: 32]), .cfg_local_port(in_q[157 +: 16]), .cfg_group_mac(in_q[173 +: 48]),
      .cfg_group_ipv4(in_q[221 +: 32]), .take(in_q[253]), .frame_end(out[0]), .settled(out[1]), .ends_now(out[2]),
      .is_ours(out[3]), .is_bad(out[4]), .beats(out[5 +: 16]), .pay_ok(out[21]), .kind(out[22 +: 8]),
      .payload_len(out[30 +: 16]), .term(out[46 +: 64]), .slot(out[110 +: 64]), .sent_ns(out[174 +: 64]),
      .payload_crc(out[238 +: 32]), .src_mac(out[270 +: 48]), .src_ipv4(out[318 +: 32]), .dst_ipv4(out[350 +: 32]),
      .src_port(out[382 +: 16]), .ip_len(out[398 +: 16]), .ip_checksum(out[414 +: 16]), .client(out[430 +: 64]),
      .sequence_no(out[494 +: 64]), .is_bare(out[558]), .is_put(out[559]));

endmodule

`default_nettype wire
