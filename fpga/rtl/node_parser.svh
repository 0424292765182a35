  // The parser of a node, and what it has read; `frame_end`, the node's addresses and those of its group are the node's own.
  logic        take, settled, ends_now, is_ours, is_bad, pay_ok, is_bare, is_put;
  logic [15:0] p_beats, p_payload_len, p_src_port, p_ip_len, p_ip_checksum;
  logic [7:0]  p_kind;
  logic [63:0] p_term, p_slot, p_sent, p_client, p_sequence;
  logic [31:0] p_payload_crc, p_src_ipv4, p_dst_ipv4;
  logic [47:0] p_src_mac;

  eth_ipv4_udp_parser #(.DATA_W(DATA_W), .LONG_BEATS(LongBeats)) parser (
      .clk, .rst, .s_axis_tdata, .s_axis_tkeep, .s_axis_tvalid, .s_axis_tready, .s_axis_tlast, .s_axis_tuser,
      .cfg_local_mac(local_mac_q), .cfg_local_ipv4(local_ipv4_q), .cfg_local_port(local_port_q),
      .cfg_group_mac(heard_mac), .cfg_group_ipv4(heard_ipv4),
      .take, .frame_end, .settled, .ends_now, .is_ours, .is_bad, .beats(p_beats), .pay_ok,
      .kind(p_kind), .payload_len(p_payload_len), .term(p_term), .slot(p_slot), .sent_ns(p_sent),
      .payload_crc(p_payload_crc), .src_mac(p_src_mac), .src_ipv4(p_src_ipv4), .dst_ipv4(p_dst_ipv4),
      .src_port(p_src_port), .ip_len(p_ip_len), .ip_checksum(p_ip_checksum),
      .client(p_client), .sequence_no(p_sequence), .is_bare, .is_put);
