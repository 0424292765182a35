// CRC-32C (RFC 3720, section 12.1) as matrices of XOR, least significant bit first, byte 0 in the lowest lane. Generated
// from fpga/model/src/crc.rs: `WRITE=1 cargo test -p fpga-model crc` writes it anew.

localparam logic [31:0] Crc32cOnes20 = 32'h433aa9c1;  // a state of ones, 20 zeros later
localparam logic [31:0] Crc32cOnes36 = 32'h05d9d92d;  // a state of ones, 36 zeros later
localparam logic [31:0] Crc32cOnes46 = 32'h92197085;  // a state of ones, 46 zeros later
localparam logic [31:0] Crc32cOnesBack2 = 32'h2804363b;  // becomes ones, two zeros later

// Fields are numbers, most significant byte first; the matrices take four bytes as they lie.
function automatic logic [31:0] swap4(input logic [31:0] v);
  for (int n = 0; n < 4; n++) swap4[8*n +: 8] = v[8*(3-n) +: 8];
endfunction

// Fields are numbers, most significant byte first; the matrices take eight bytes as they lie.
function automatic logic [63:0] swap8(input logic [63:0] v);
  for (int n = 0; n < 8; n++) swap8[8*n +: 8] = v[8*(7-n) +: 8];
endfunction

// crc32c_step8: moves a state over eight bytes.
function automatic logic [31:0] crc32c_step8(input logic [31:0] s, input logic [63:0] d);
  crc32c_step8[0] = ^({s, d} & 96'h386f2c251f91caf6386f2c25);
  crc32c_step8[1] = ^({s, d} & 96'h70de584b3f2395ec70de584b);
  crc32c_step8[2] = ^({s, d} & 96'he1bcb0977e472bd8e1bcb097);
  crc32c_step8[3] = ^({s, d} & 96'hc379612efc8e57b1c379612e);
  crc32c_step8[4] = ^({s, d} & 96'hbe9dee78e68d6595be9dee78);
  crc32c_step8[5] = ^({s, d} & 96'h4554f0d5d28b01dd4554f0d5);
  crc32c_step8[6] = ^({s, d} & 96'hb2c6cd8eba87c94cb2c6cd8e);
  crc32c_step8[7] = ^({s, d} & 96'h5de2b7386a9e586f5de2b738);
  crc32c_step8[8] = ^({s, d} & 96'hbbc56e71d53cb0debbc56e71);
  crc32c_step8[9] = ^({s, d} & 96'h4fe5f0c6b5e8ab4b4fe5f0c6);
  crc32c_step8[10] = ^({s, d} & 96'ha7a4cda974409c60a7a4cda9);
  crc32c_step8[11] = ^({s, d} & 96'h4f499b53e88138c14f499b53);
  crc32c_step8[12] = ^({s, d} & 96'ha6fc1a83ce93bb74a6fc1a83);
  crc32c_step8[13] = ^({s, d} & 96'h7597192382b6bc1f75971923);
  crc32c_step8[14] = ^({s, d} & 96'hd3411e631afcb2c8d3411e63);
  crc32c_step8[15] = ^({s, d} & 96'ha6823cc635f96591a6823cc6);
  crc32c_step8[16] = ^({s, d} & 96'h4d04798c6bf2cb234d04798c);
  crc32c_step8[17] = ^({s, d} & 96'h9a08f318d7e596469a08f318);
  crc32c_step8[18] = ^({s, d} & 96'h0c7eca15b05ae67b0c7eca15);
  crc32c_step8[19] = ^({s, d} & 96'h2092b80f7f2406002092b80f);
  crc32c_step8[20] = ^({s, d} & 96'h4125701ffe480c004125701f);
  crc32c_step8[21] = ^({s, d} & 96'hba25cc1be301d2f6ba25cc1b);
  crc32c_step8[22] = ^({s, d} & 96'h4c24b412d9926f1b4c24b412);
  crc32c_step8[23] = ^({s, d} & 96'ha0264400acb514c0a0264400);
  crc32c_step8[24] = ^({s, d} & 96'h7823a42546fbe3777823a425);
  crc32c_step8[25] = ^({s, d} & 96'hf047484a8df7c6eef047484a);
  crc32c_step8[26] = ^({s, d} & 96'hd8e1bcb0047e472bd8e1bcb0);
  crc32c_step8[27] = ^({s, d} & 96'hb1c3796108fc8e57b1c37961);
  crc32c_step8[28] = ^({s, d} & 96'h6386f2c211f91caf6386f2c2);
  crc32c_step8[29] = ^({s, d} & 96'hc70de58423f2395ec70de584);
  crc32c_step8[30] = ^({s, d} & 96'h8e1bcb0947e472bd8e1bcb09);
  crc32c_step8[31] = ^({s, d} & 96'h1c3796128fc8e57b1c379612);
endfunction

// crc32c_step6: moves a state over six bytes.
function automatic logic [31:0] crc32c_step6(input logic [31:0] s, input logic [47:0] d);
  crc32c_step6[0] = ^({s, d} & 80'hcaf6386f1f91caf6386f);
  crc32c_step6[1] = ^({s, d} & 80'h95ec70de3f2395ec70de);
  crc32c_step6[2] = ^({s, d} & 80'h2bd8e1bc7e472bd8e1bc);
  crc32c_step6[3] = ^({s, d} & 80'h57b1c379fc8e57b1c379);
  crc32c_step6[4] = ^({s, d} & 80'h6595be9de68d6595be9d);
  crc32c_step6[5] = ^({s, d} & 80'h01dd4554d28b01dd4554);
  crc32c_step6[6] = ^({s, d} & 80'hc94cb2c6ba87c94cb2c6);
  crc32c_step6[7] = ^({s, d} & 80'h586f5de26a9e586f5de2);
  crc32c_step6[8] = ^({s, d} & 80'hb0debbc5d53cb0debbc5);
  crc32c_step6[9] = ^({s, d} & 80'hab4b4fe5b5e8ab4b4fe5);
  crc32c_step6[10] = ^({s, d} & 80'h9c60a7a474409c60a7a4);
  crc32c_step6[11] = ^({s, d} & 80'h38c14f49e88138c14f49);
  crc32c_step6[12] = ^({s, d} & 80'hbb74a6fcce93bb74a6fc);
  crc32c_step6[13] = ^({s, d} & 80'hbc1f759782b6bc1f7597);
  crc32c_step6[14] = ^({s, d} & 80'hb2c8d3411afcb2c8d341);
  crc32c_step6[15] = ^({s, d} & 80'h6591a68235f96591a682);
  crc32c_step6[16] = ^({s, d} & 80'hcb234d046bf2cb234d04);
  crc32c_step6[17] = ^({s, d} & 80'h96469a08d7e596469a08);
  crc32c_step6[18] = ^({s, d} & 80'he67b0c7eb05ae67b0c7e);
  crc32c_step6[19] = ^({s, d} & 80'h060020927f2406002092);
  crc32c_step6[20] = ^({s, d} & 80'h0c004125fe480c004125);
  crc32c_step6[21] = ^({s, d} & 80'hd2f6ba25e301d2f6ba25);
  crc32c_step6[22] = ^({s, d} & 80'h6f1b4c24d9926f1b4c24);
  crc32c_step6[23] = ^({s, d} & 80'h14c0a026acb514c0a026);
  crc32c_step6[24] = ^({s, d} & 80'he377782346fbe3777823);
  crc32c_step6[25] = ^({s, d} & 80'hc6eef0478df7c6eef047);
  crc32c_step6[26] = ^({s, d} & 80'h472bd8e1047e472bd8e1);
  crc32c_step6[27] = ^({s, d} & 80'h8e57b1c308fc8e57b1c3);
  crc32c_step6[28] = ^({s, d} & 80'h1caf638611f91caf6386);
  crc32c_step6[29] = ^({s, d} & 80'h395ec70d23f2395ec70d);
  crc32c_step6[30] = ^({s, d} & 80'h72bd8e1b47e472bd8e1b);
  crc32c_step6[31] = ^({s, d} & 80'he57b1c378fc8e57b1c37);
endfunction

// crc32c_zero1: moves a state over one zero.
function automatic logic [31:0] crc32c_zero1(input logic [31:0] s);
  crc32c_zero1[0] = ^(s & 32'h0000011f);
  crc32c_zero1[1] = ^(s & 32'h0000023f);
  crc32c_zero1[2] = ^(s & 32'h0000047e);
  crc32c_zero1[3] = ^(s & 32'h000008fc);
  crc32c_zero1[4] = ^(s & 32'h000010e6);
  crc32c_zero1[5] = ^(s & 32'h000020d2);
  crc32c_zero1[6] = ^(s & 32'h000040ba);
  crc32c_zero1[7] = ^(s & 32'h0000806a);
  crc32c_zero1[8] = ^(s & 32'h000100d5);
  crc32c_zero1[9] = ^(s & 32'h000200b5);
  crc32c_zero1[10] = ^(s & 32'h00040074);
  crc32c_zero1[11] = ^(s & 32'h000800e8);
  crc32c_zero1[12] = ^(s & 32'h001000ce);
  crc32c_zero1[13] = ^(s & 32'h00200082);
  crc32c_zero1[14] = ^(s & 32'h0040001a);
  crc32c_zero1[15] = ^(s & 32'h00800035);
  crc32c_zero1[16] = ^(s & 32'h0100006b);
  crc32c_zero1[17] = ^(s & 32'h020000d7);
  crc32c_zero1[18] = ^(s & 32'h040000b0);
  crc32c_zero1[19] = ^(s & 32'h0800007f);
  crc32c_zero1[20] = ^(s & 32'h100000fe);
  crc32c_zero1[21] = ^(s & 32'h200000e3);
  crc32c_zero1[22] = ^(s & 32'h400000d9);
  crc32c_zero1[23] = ^(s & 32'h800000ac);
  crc32c_zero1[24] = ^(s & 32'h00000046);
  crc32c_zero1[25] = ^(s & 32'h0000008d);
  crc32c_zero1[26] = ^(s & 32'h00000004);
  crc32c_zero1[27] = ^(s & 32'h00000008);
  crc32c_zero1[28] = ^(s & 32'h00000011);
  crc32c_zero1[29] = ^(s & 32'h00000023);
  crc32c_zero1[30] = ^(s & 32'h00000047);
  crc32c_zero1[31] = ^(s & 32'h0000008f);
endfunction

// crc32c_zero2: moves a state over two zeros.
function automatic logic [31:0] crc32c_zero2(input logic [31:0] s);
  crc32c_zero2[0] = ^(s & 32'h00011f91);
  crc32c_zero2[1] = ^(s & 32'h00023f23);
  crc32c_zero2[2] = ^(s & 32'h00047e47);
  crc32c_zero2[3] = ^(s & 32'h0008fc8e);
  crc32c_zero2[4] = ^(s & 32'h0010e68d);
  crc32c_zero2[5] = ^(s & 32'h0020d28b);
  crc32c_zero2[6] = ^(s & 32'h0040ba87);
  crc32c_zero2[7] = ^(s & 32'h00806a9e);
  crc32c_zero2[8] = ^(s & 32'h0100d53c);
  crc32c_zero2[9] = ^(s & 32'h0200b5e8);
  crc32c_zero2[10] = ^(s & 32'h04007440);
  crc32c_zero2[11] = ^(s & 32'h0800e881);
  crc32c_zero2[12] = ^(s & 32'h1000ce93);
  crc32c_zero2[13] = ^(s & 32'h200082b6);
  crc32c_zero2[14] = ^(s & 32'h40001afc);
  crc32c_zero2[15] = ^(s & 32'h800035f9);
  crc32c_zero2[16] = ^(s & 32'h00006bf2);
  crc32c_zero2[17] = ^(s & 32'h0000d7e5);
  crc32c_zero2[18] = ^(s & 32'h0000b05a);
  crc32c_zero2[19] = ^(s & 32'h00007f24);
  crc32c_zero2[20] = ^(s & 32'h0000fe48);
  crc32c_zero2[21] = ^(s & 32'h0000e301);
  crc32c_zero2[22] = ^(s & 32'h0000d992);
  crc32c_zero2[23] = ^(s & 32'h0000acb5);
  crc32c_zero2[24] = ^(s & 32'h000046fb);
  crc32c_zero2[25] = ^(s & 32'h00008df7);
  crc32c_zero2[26] = ^(s & 32'h0000047e);
  crc32c_zero2[27] = ^(s & 32'h000008fc);
  crc32c_zero2[28] = ^(s & 32'h000011f9);
  crc32c_zero2[29] = ^(s & 32'h000023f2);
  crc32c_zero2[30] = ^(s & 32'h000047e4);
  crc32c_zero2[31] = ^(s & 32'h00008fc8);
endfunction

// crc32c_zero4: moves a state over four zeros.
function automatic logic [31:0] crc32c_zero4(input logic [31:0] s);
  crc32c_zero4[0] = ^(s & 32'h1f91caf6);
  crc32c_zero4[1] = ^(s & 32'h3f2395ec);
  crc32c_zero4[2] = ^(s & 32'h7e472bd8);
  crc32c_zero4[3] = ^(s & 32'hfc8e57b1);
  crc32c_zero4[4] = ^(s & 32'he68d6595);
  crc32c_zero4[5] = ^(s & 32'hd28b01dd);
  crc32c_zero4[6] = ^(s & 32'hba87c94c);
  crc32c_zero4[7] = ^(s & 32'h6a9e586f);
  crc32c_zero4[8] = ^(s & 32'hd53cb0de);
  crc32c_zero4[9] = ^(s & 32'hb5e8ab4b);
  crc32c_zero4[10] = ^(s & 32'h74409c60);
  crc32c_zero4[11] = ^(s & 32'he88138c1);
  crc32c_zero4[12] = ^(s & 32'hce93bb74);
  crc32c_zero4[13] = ^(s & 32'h82b6bc1f);
  crc32c_zero4[14] = ^(s & 32'h1afcb2c8);
  crc32c_zero4[15] = ^(s & 32'h35f96591);
  crc32c_zero4[16] = ^(s & 32'h6bf2cb23);
  crc32c_zero4[17] = ^(s & 32'hd7e59646);
  crc32c_zero4[18] = ^(s & 32'hb05ae67b);
  crc32c_zero4[19] = ^(s & 32'h7f240600);
  crc32c_zero4[20] = ^(s & 32'hfe480c00);
  crc32c_zero4[21] = ^(s & 32'he301d2f6);
  crc32c_zero4[22] = ^(s & 32'hd9926f1b);
  crc32c_zero4[23] = ^(s & 32'hacb514c0);
  crc32c_zero4[24] = ^(s & 32'h46fbe377);
  crc32c_zero4[25] = ^(s & 32'h8df7c6ee);
  crc32c_zero4[26] = ^(s & 32'h047e472b);
  crc32c_zero4[27] = ^(s & 32'h08fc8e57);
  crc32c_zero4[28] = ^(s & 32'h11f91caf);
  crc32c_zero4[29] = ^(s & 32'h23f2395e);
  crc32c_zero4[30] = ^(s & 32'h47e472bd);
  crc32c_zero4[31] = ^(s & 32'h8fc8e57b);
endfunction

// crc32c_zero8: moves a state over eight zeros.
function automatic logic [31:0] crc32c_zero8(input logic [31:0] s);
  crc32c_zero8[0] = ^(s & 32'h386f2c25);
  crc32c_zero8[1] = ^(s & 32'h70de584b);
  crc32c_zero8[2] = ^(s & 32'he1bcb097);
  crc32c_zero8[3] = ^(s & 32'hc379612e);
  crc32c_zero8[4] = ^(s & 32'hbe9dee78);
  crc32c_zero8[5] = ^(s & 32'h4554f0d5);
  crc32c_zero8[6] = ^(s & 32'hb2c6cd8e);
  crc32c_zero8[7] = ^(s & 32'h5de2b738);
  crc32c_zero8[8] = ^(s & 32'hbbc56e71);
  crc32c_zero8[9] = ^(s & 32'h4fe5f0c6);
  crc32c_zero8[10] = ^(s & 32'ha7a4cda9);
  crc32c_zero8[11] = ^(s & 32'h4f499b53);
  crc32c_zero8[12] = ^(s & 32'ha6fc1a83);
  crc32c_zero8[13] = ^(s & 32'h75971923);
  crc32c_zero8[14] = ^(s & 32'hd3411e63);
  crc32c_zero8[15] = ^(s & 32'ha6823cc6);
  crc32c_zero8[16] = ^(s & 32'h4d04798c);
  crc32c_zero8[17] = ^(s & 32'h9a08f318);
  crc32c_zero8[18] = ^(s & 32'h0c7eca15);
  crc32c_zero8[19] = ^(s & 32'h2092b80f);
  crc32c_zero8[20] = ^(s & 32'h4125701f);
  crc32c_zero8[21] = ^(s & 32'hba25cc1b);
  crc32c_zero8[22] = ^(s & 32'h4c24b412);
  crc32c_zero8[23] = ^(s & 32'ha0264400);
  crc32c_zero8[24] = ^(s & 32'h7823a425);
  crc32c_zero8[25] = ^(s & 32'hf047484a);
  crc32c_zero8[26] = ^(s & 32'hd8e1bcb0);
  crc32c_zero8[27] = ^(s & 32'hb1c37961);
  crc32c_zero8[28] = ^(s & 32'h6386f2c2);
  crc32c_zero8[29] = ^(s & 32'hc70de584);
  crc32c_zero8[30] = ^(s & 32'h8e1bcb09);
  crc32c_zero8[31] = ^(s & 32'h1c379612);
endfunction

// crc32c_zero16: moves a state over sixteen zeros.
function automatic logic [31:0] crc32c_zero16(input logic [31:0] s);
  crc32c_zero16[0] = ^(s & 32'h1954cd1e);
  crc32c_zero16[1] = ^(s & 32'h32a99a3d);
  crc32c_zero16[2] = ^(s & 32'h6553347b);
  crc32c_zero16[3] = ^(s & 32'hcaa668f7);
  crc32c_zero16[4] = ^(s & 32'h8c181cf1);
  crc32c_zero16[5] = ^(s & 32'h0164f4fd);
  crc32c_zero16[6] = ^(s & 32'h1b9d24e5);
  crc32c_zero16[7] = ^(s & 32'h2e6e84d5);
  crc32c_zero16[8] = ^(s & 32'h5cdd09ab);
  crc32c_zero16[9] = ^(s & 32'ha0eede48);
  crc32c_zero16[10] = ^(s & 32'h5889718f);
  crc32c_zero16[11] = ^(s & 32'hb112e31f);
  crc32c_zero16[12] = ^(s & 32'h7b710b20);
  crc32c_zero16[13] = ^(s & 32'hefb6db5e);
  crc32c_zero16[14] = ^(s & 32'hc6397ba2);
  crc32c_zero16[15] = ^(s & 32'h8c72f744);
  crc32c_zero16[16] = ^(s & 32'h18e5ee88);
  crc32c_zero16[17] = ^(s & 32'h31cbdd10);
  crc32c_zero16[18] = ^(s & 32'h7ac3773f);
  crc32c_zero16[19] = ^(s & 32'hecd22361);
  crc32c_zero16[20] = ^(s & 32'hd9a446c2);
  crc32c_zero16[21] = ^(s & 32'haa1c409a);
  crc32c_zero16[22] = ^(s & 32'h4d6c4c2a);
  crc32c_zero16[23] = ^(s & 32'h838c554a);
  crc32c_zero16[24] = ^(s & 32'h1e4c678a);
  crc32c_zero16[25] = ^(s & 32'h3c98cf15);
  crc32c_zero16[26] = ^(s & 32'h60655334);
  crc32c_zero16[27] = ^(s & 32'hc0caa668);
  crc32c_zero16[28] = ^(s & 32'h81954cd1);
  crc32c_zero16[29] = ^(s & 32'h032a99a3);
  crc32c_zero16[30] = ^(s & 32'h06553347);
  crc32c_zero16[31] = ^(s & 32'h0caa668f);
endfunction

// crc32c_zero32: moves a state over 32 zeros.
function automatic logic [31:0] crc32c_zero32(input logic [31:0] s);
  crc32c_zero32[0] = ^(s & 32'h5f513d79);
  crc32c_zero32[1] = ^(s & 32'hbea27af3);
  crc32c_zero32[2] = ^(s & 32'h7d44f5e6);
  crc32c_zero32[3] = ^(s & 32'hfa89ebcd);
  crc32c_zero32[4] = ^(s & 32'haa42eae2);
  crc32c_zero32[5] = ^(s & 32'h0bd4e8bc);
  crc32c_zero32[6] = ^(s & 32'h48f8ec01);
  crc32c_zero32[7] = ^(s & 32'hcea0e57b);
  crc32c_zero32[8] = ^(s & 32'h9d41caf6);
  crc32c_zero32[9] = ^(s & 32'h65d2a894);
  crc32c_zero32[10] = ^(s & 32'h94f46c50);
  crc32c_zero32[11] = ^(s & 32'h29e8d8a0);
  crc32c_zero32[12] = ^(s & 32'h0c808c39);
  crc32c_zero32[13] = ^(s & 32'h4650250a);
  crc32c_zero32[14] = ^(s & 32'hd3f1776d);
  crc32c_zero32[15] = ^(s & 32'ha7e2eedb);
  crc32c_zero32[16] = ^(s & 32'h4fc5ddb6);
  crc32c_zero32[17] = ^(s & 32'h9f8bbb6d);
  crc32c_zero32[18] = ^(s & 32'h60464ba3);
  crc32c_zero32[19] = ^(s & 32'h9fddaa3e);
  crc32c_zero32[20] = ^(s & 32'h3fbb547c);
  crc32c_zero32[21] = ^(s & 32'h20279581);
  crc32c_zero32[22] = ^(s & 32'h1f1e167a);
  crc32c_zero32[23] = ^(s & 32'h616d118d);
  crc32c_zero32[24] = ^(s & 32'h9d8b1e63);
  crc32c_zero32[25] = ^(s & 32'h3b163cc6);
  crc32c_zero32[26] = ^(s & 32'h297d44f5);
  crc32c_zero32[27] = ^(s & 32'h52fa89eb);
  crc32c_zero32[28] = ^(s & 32'ha5f513d7);
  crc32c_zero32[29] = ^(s & 32'h4bea27af);
  crc32c_zero32[30] = ^(s & 32'h97d44f5e);
  crc32c_zero32[31] = ^(s & 32'h2fa89ebc);
endfunction

// crc32c_zero64: moves a state over 64 zeros.
function automatic logic [31:0] crc32c_zero64(input logic [31:0] s);
  crc32c_zero64[0] = ^(s & 32'ha660c35c);
  crc32c_zero64[1] = ^(s & 32'h4cc186b9);
  crc32c_zero64[2] = ^(s & 32'h99830d72);
  crc32c_zero64[3] = ^(s & 32'h33061ae4);
  crc32c_zero64[4] = ^(s & 32'hc06cf694);
  crc32c_zero64[5] = ^(s & 32'h26b92e74);
  crc32c_zero64[6] = ^(s & 32'heb129fb4);
  crc32c_zero64[7] = ^(s & 32'h7045fc34);
  crc32c_zero64[8] = ^(s & 32'he08bf869);
  crc32c_zero64[9] = ^(s & 32'h6777338f);
  crc32c_zero64[10] = ^(s & 32'h688ea443);
  crc32c_zero64[11] = ^(s & 32'hd11d4887);
  crc32c_zero64[12] = ^(s & 32'h045a5252);
  crc32c_zero64[13] = ^(s & 32'haed467f9);
  crc32c_zero64[14] = ^(s & 32'hfbc80caf);
  crc32c_zero64[15] = ^(s & 32'hf790195f);
  crc32c_zero64[16] = ^(s & 32'hef2032be);
  crc32c_zero64[17] = ^(s & 32'hde40657d);
  crc32c_zero64[18] = ^(s & 32'h1ae009a7);
  crc32c_zero64[19] = ^(s & 32'h93a0d013);
  crc32c_zero64[20] = ^(s & 32'h2741a026);
  crc32c_zero64[21] = ^(s & 32'he8e38310);
  crc32c_zero64[22] = ^(s & 32'h77a7c57c);
  crc32c_zero64[23] = ^(s & 32'h492f49a4);
  crc32c_zero64[24] = ^(s & 32'h343e5014);
  crc32c_zero64[25] = ^(s & 32'h687ca028);
  crc32c_zero64[26] = ^(s & 32'h7699830d);
  crc32c_zero64[27] = ^(s & 32'hed33061a);
  crc32c_zero64[28] = ^(s & 32'hda660c35);
  crc32c_zero64[29] = ^(s & 32'hb4cc186b);
  crc32c_zero64[30] = ^(s & 32'h699830d7);
  crc32c_zero64[31] = ^(s & 32'hd33061ae);
endfunction

// crc32c_at36: what two bytes add with 36 bytes behind them.
function automatic logic [31:0] crc32c_at36(input logic [15:0] d);
  crc32c_at36[0] = ^(d & 16'h7e84);
  crc32c_at36[1] = ^(d & 16'hfd08);
  crc32c_at36[2] = ^(d & 16'hfa10);
  crc32c_at36[3] = ^(d & 16'hf420);
  crc32c_at36[4] = ^(d & 16'h96c4);
  crc32c_at36[5] = ^(d & 16'h530d);
  crc32c_at36[6] = ^(d & 16'hd89e);
  crc32c_at36[7] = ^(d & 16'hcfb8);
  crc32c_at36[8] = ^(d & 16'h9f70);
  crc32c_at36[9] = ^(d & 16'h4064);
  crc32c_at36[10] = ^(d & 16'hfe4c);
  crc32c_at36[11] = ^(d & 16'hfc98);
  crc32c_at36[12] = ^(d & 16'h87b4);
  crc32c_at36[13] = ^(d & 16'h71ed);
  crc32c_at36[14] = ^(d & 16'h9d5e);
  crc32c_at36[15] = ^(d & 16'h3abd);
  crc32c_at36[16] = ^(d & 16'h757b);
  crc32c_at36[17] = ^(d & 16'heaf7);
  crc32c_at36[18] = ^(d & 16'hab6b);
  crc32c_at36[19] = ^(d & 16'h2853);
  crc32c_at36[20] = ^(d & 16'h50a6);
  crc32c_at36[21] = ^(d & 16'hdfc8);
  crc32c_at36[22] = ^(d & 16'hc114);
  crc32c_at36[23] = ^(d & 16'hfcad);
  crc32c_at36[24] = ^(d & 16'h87df);
  crc32c_at36[25] = ^(d & 16'h0fbf);
  crc32c_at36[26] = ^(d & 16'h61fa);
  crc32c_at36[27] = ^(d & 16'hc3f4);
  crc32c_at36[28] = ^(d & 16'h87e8);
  crc32c_at36[29] = ^(d & 16'h0fd0);
  crc32c_at36[30] = ^(d & 16'h1fa1);
  crc32c_at36[31] = ^(d & 16'h3f42);
endfunction

// crc32c_at28: what eight bytes add with 28 bytes behind them.
function automatic logic [31:0] crc32c_at28(input logic [63:0] d);
  crc32c_at28[0] = ^(d & 64'h5f513d79b5fd0998);
  crc32c_at28[1] = ^(d & 64'hbea27af36bfa1330);
  crc32c_at28[2] = ^(d & 64'h7d44f5e6d7f42661);
  crc32c_at28[3] = ^(d & 64'hfa89ebcdafe84cc3);
  crc32c_at28[4] = ^(d & 64'haa42eae2ea2d901f);
  crc32c_at28[5] = ^(d & 64'h0bd4e8bc61a629a7);
  crc32c_at28[6] = ^(d & 64'h48f8ec0176b15ad6);
  crc32c_at28[7] = ^(d & 64'hcea0e57b589fbc35);
  crc32c_at28[8] = ^(d & 64'h9d41caf6b13f786b);
  crc32c_at28[9] = ^(d & 64'h65d2a894d783f94f);
  crc32c_at28[10] = ^(d & 64'h94f46c501afafb06);
  crc32c_at28[11] = ^(d & 64'h29e8d8a035f5f60d);
  crc32c_at28[12] = ^(d & 64'h0c808c39de16e583);
  crc32c_at28[13] = ^(d & 64'h4650250a09d0c29f);
  crc32c_at28[14] = ^(d & 64'hd3f1776da65c8ca6);
  crc32c_at28[15] = ^(d & 64'ha7e2eedb4cb9194d);
  crc32c_at28[16] = ^(d & 64'h4fc5ddb69972329a);
  crc32c_at28[17] = ^(d & 64'h9f8bbb6d32e46534);
  crc32c_at28[18] = ^(d & 64'h60464ba3d035c3f1);
  crc32c_at28[19] = ^(d & 64'h9fddaa3e15968e7b);
  crc32c_at28[20] = ^(d & 64'h3fbb547c2b2d1cf6);
  crc32c_at28[21] = ^(d & 64'h20279581e3a73074);
  crc32c_at28[22] = ^(d & 64'h1f1e167a72b36971);
  crc32c_at28[23] = ^(d & 64'h616d118d509bdb7b);
  crc32c_at28[24] = ^(d & 64'h9d8b1e6314cabf6f);
  crc32c_at28[25] = ^(d & 64'h3b163cc629957edf);
  crc32c_at28[26] = ^(d & 64'h297d44f5e6d7f426);
  crc32c_at28[27] = ^(d & 64'h52fa89ebcdafe84c);
  crc32c_at28[28] = ^(d & 64'ha5f513d79b5fd099);
  crc32c_at28[29] = ^(d & 64'h4bea27af36bfa133);
  crc32c_at28[30] = ^(d & 64'h97d44f5e6d7f4266);
  crc32c_at28[31] = ^(d & 64'h2fa89ebcdafe84cc);
endfunction

// crc32c_at20: what eight bytes add with 20 bytes behind them.
function automatic logic [31:0] crc32c_at20(input logic [63:0] d);
  crc32c_at20[0] = ^(d & 64'h61745c3ae969f40a);
  crc32c_at20[1] = ^(d & 64'hc2e8b875d2d3e814);
  crc32c_at20[2] = ^(d & 64'h85d170eba5a7d029);
  crc32c_at20[3] = ^(d & 64'h0ba2e1d74b4fa052);
  crc32c_at20[4] = ^(d & 64'h76319f947ff6b4af);
  crc32c_at20[5] = ^(d & 64'h8d17631216849d55);
  crc32c_at20[6] = ^(d & 64'h7b5a9a1ec460cea0);
  crc32c_at20[7] = ^(d & 64'h97c1680761a8694a);
  crc32c_at20[8] = ^(d & 64'h2f82d00ec350d295);
  crc32c_at20[9] = ^(d & 64'h3e71fc276fc85121);
  crc32c_at20[10] = ^(d & 64'h1d97a47436f95648);
  crc32c_at20[11] = ^(d & 64'h3b2f48e86df2ac91);
  crc32c_at20[12] = ^(d & 64'h172acdea328cad28);
  crc32c_at20[13] = ^(d & 64'h4f21c7ee8c70ae5a);
  crc32c_at20[14] = ^(d & 64'hff37d3e7f188a8be);
  crc32c_at20[15] = ^(d & 64'hfe6fa7cfe311517d);
  crc32c_at20[16] = ^(d & 64'hfcdf4f9fc622a2fb);
  crc32c_at20[17] = ^(d & 64'hf9be9f3f8c4545f6);
  crc32c_at20[18] = ^(d & 64'h92096245f1e37fe7);
  crc32c_at20[19] = ^(d & 64'h456698b10aaf0bc4);
  crc32c_at20[20] = ^(d & 64'h8acd3162155e1789);
  crc32c_at20[21] = ^(d & 64'h74ee3efec3d5db18);
  crc32c_at20[22] = ^(d & 64'h88a821c76ec2423a);
  crc32c_at20[23] = ^(d & 64'h70241fb434ed707e);
  crc32c_at20[24] = ^(d & 64'h813c635280b314f6);
  crc32c_at20[25] = ^(d & 64'h0278c6a5016629ed);
  crc32c_at20[26] = ^(d & 64'h6585d170eba5a7d0);
  crc32c_at20[27] = ^(d & 64'hcb0ba2e1d74b4fa0);
  crc32c_at20[28] = ^(d & 64'h961745c3ae969f40);
  crc32c_at20[29] = ^(d & 64'h2c2e8b875d2d3e81);
  crc32c_at20[30] = ^(d & 64'h585d170eba5a7d02);
  crc32c_at20[31] = ^(d & 64'hb0ba2e1d74b4fa05);
endfunction

// crc32c_at12: what eight bytes add with 12 bytes behind them.
function automatic logic [31:0] crc32c_at12(input logic [63:0] d);
  crc32c_at12[0] = ^(d & 64'h1954cd1ef5e1bbd9);
  crc32c_at12[1] = ^(d & 64'h32a99a3debc377b2);
  crc32c_at12[2] = ^(d & 64'h6553347bd786ef65);
  crc32c_at12[3] = ^(d & 64'hcaa668f7af0ddecb);
  crc32c_at12[4] = ^(d & 64'h8c181cf1abfa064f);
  crc32c_at12[5] = ^(d & 64'h0164f4fda215b747);
  crc32c_at12[6] = ^(d & 64'h1b9d24e5b1cad556);
  crc32c_at12[7] = ^(d & 64'h2e6e84d596741175);
  crc32c_at12[8] = ^(d & 64'h5cdd09ab2ce822eb);
  crc32c_at12[9] = ^(d & 64'ha0eede48ac31fe0f);
  crc32c_at12[10] = ^(d & 64'h5889718fad8247c7);
  crc32c_at12[11] = ^(d & 64'hb112e31f5b048f8e);
  crc32c_at12[12] = ^(d & 64'h7b710b2043e8a4c5);
  crc32c_at12[13] = ^(d & 64'hefb6db5e7230f253);
  crc32c_at12[14] = ^(d & 64'hc6397ba211805f7f);
  crc32c_at12[15] = ^(d & 64'h8c72f7442300beff);
  crc32c_at12[16] = ^(d & 64'h18e5ee8846017dff);
  crc32c_at12[17] = ^(d & 64'h31cbdd108c02fbff);
  crc32c_at12[18] = ^(d & 64'h7ac3773fede44c26);
  crc32c_at12[19] = ^(d & 64'hecd223612e292394);
  crc32c_at12[20] = ^(d & 64'hd9a446c25c524728);
  crc32c_at12[21] = ^(d & 64'haa1c409a4d453588);
  crc32c_at12[22] = ^(d & 64'h4d6c4c2a6f6bd0c9);
  crc32c_at12[23] = ^(d & 64'h838c554a2b361a4a);
  crc32c_at12[24] = ^(d & 64'h1e4c678aa38d8f4d);
  crc32c_at12[25] = ^(d & 64'h3c98cf15471b1e9b);
  crc32c_at12[26] = ^(d & 64'h606553347bd786ef);
  crc32c_at12[27] = ^(d & 64'hc0caa668f7af0dde);
  crc32c_at12[28] = ^(d & 64'h81954cd1ef5e1bbd);
  crc32c_at12[29] = ^(d & 64'h032a99a3debc377b);
  crc32c_at12[30] = ^(d & 64'h06553347bd786ef6);
  crc32c_at12[31] = ^(d & 64'h0caa668f7af0ddec);
endfunction

// crc32c_at4: what eight bytes add with 4 bytes behind them.
function automatic logic [31:0] crc32c_at4(input logic [63:0] d);
  crc32c_at4[0] = ^(d & 64'h386f2c25de275318);
  crc32c_at4[1] = ^(d & 64'h70de584bbc4ea630);
  crc32c_at4[2] = ^(d & 64'he1bcb097789d4c60);
  crc32c_at4[3] = ^(d & 64'hc379612ef13a98c0);
  crc32c_at4[4] = ^(d & 64'hbe9dee783c526299);
  crc32c_at4[5] = ^(d & 64'h4554f0d5a683962b);
  crc32c_at4[6] = ^(d & 64'hb2c6cd8e93207f4e);
  crc32c_at4[7] = ^(d & 64'h5de2b738f867ad84);
  crc32c_at4[8] = ^(d & 64'hbbc56e71f0cf5b08);
  crc32c_at4[9] = ^(d & 64'h4fe5f0c63fb9e508);
  crc32c_at4[10] = ^(d & 64'ha7a4cda9a1549909);
  crc32c_at4[11] = ^(d & 64'h4f499b5342a93212);
  crc32c_at4[12] = ^(d & 64'ha6fc1a835b75373d);
  crc32c_at4[13] = ^(d & 64'h7597192368cd3d62);
  crc32c_at4[14] = ^(d & 64'hd3411e630fbd29dd);
  crc32c_at4[15] = ^(d & 64'ha6823cc61f7a53bb);
  crc32c_at4[16] = ^(d & 64'h4d04798c3ef4a777);
  crc32c_at4[17] = ^(d & 64'h9a08f3187de94eee);
  crc32c_at4[18] = ^(d & 64'h0c7eca1525f5cec4);
  crc32c_at4[19] = ^(d & 64'h2092b80f95ccce90);
  crc32c_at4[20] = ^(d & 64'h4125701f2b999d21);
  crc32c_at4[21] = ^(d & 64'hba25cc1b8914695b);
  crc32c_at4[22] = ^(d & 64'h4c24b412cc0f81af);
  crc32c_at4[23] = ^(d & 64'ha026440046385046);
  crc32c_at4[24] = ^(d & 64'h7823a4255257f395);
  crc32c_at4[25] = ^(d & 64'hf047484aa4afe72a);
  crc32c_at4[26] = ^(d & 64'hd8e1bcb097789d4c);
  crc32c_at4[27] = ^(d & 64'hb1c379612ef13a98);
  crc32c_at4[28] = ^(d & 64'h6386f2c25de27531);
  crc32c_at4[29] = ^(d & 64'hc70de584bbc4ea63);
  crc32c_at4[30] = ^(d & 64'h8e1bcb097789d4c6);
  crc32c_at4[31] = ^(d & 64'h1c379612ef13a98c);
endfunction

// crc32c_at0: what the last four bytes add.
function automatic logic [31:0] crc32c_at0(input logic [31:0] d);
  crc32c_at0[0] = ^(d & 32'h1f91caf6);
  crc32c_at0[1] = ^(d & 32'h3f2395ec);
  crc32c_at0[2] = ^(d & 32'h7e472bd8);
  crc32c_at0[3] = ^(d & 32'hfc8e57b1);
  crc32c_at0[4] = ^(d & 32'he68d6595);
  crc32c_at0[5] = ^(d & 32'hd28b01dd);
  crc32c_at0[6] = ^(d & 32'hba87c94c);
  crc32c_at0[7] = ^(d & 32'h6a9e586f);
  crc32c_at0[8] = ^(d & 32'hd53cb0de);
  crc32c_at0[9] = ^(d & 32'hb5e8ab4b);
  crc32c_at0[10] = ^(d & 32'h74409c60);
  crc32c_at0[11] = ^(d & 32'he88138c1);
  crc32c_at0[12] = ^(d & 32'hce93bb74);
  crc32c_at0[13] = ^(d & 32'h82b6bc1f);
  crc32c_at0[14] = ^(d & 32'h1afcb2c8);
  crc32c_at0[15] = ^(d & 32'h35f96591);
  crc32c_at0[16] = ^(d & 32'h6bf2cb23);
  crc32c_at0[17] = ^(d & 32'hd7e59646);
  crc32c_at0[18] = ^(d & 32'hb05ae67b);
  crc32c_at0[19] = ^(d & 32'h7f240600);
  crc32c_at0[20] = ^(d & 32'hfe480c00);
  crc32c_at0[21] = ^(d & 32'he301d2f6);
  crc32c_at0[22] = ^(d & 32'hd9926f1b);
  crc32c_at0[23] = ^(d & 32'hacb514c0);
  crc32c_at0[24] = ^(d & 32'h46fbe377);
  crc32c_at0[25] = ^(d & 32'h8df7c6ee);
  crc32c_at0[26] = ^(d & 32'h047e472b);
  crc32c_at0[27] = ^(d & 32'h08fc8e57);
  crc32c_at0[28] = ^(d & 32'h11f91caf);
  crc32c_at0[29] = ^(d & 32'h23f2395e);
  crc32c_at0[30] = ^(d & 32'h47e472bd);
  crc32c_at0[31] = ^(d & 32'h8fc8e57b);
endfunction

// crc32c_beat512: what a beat of 64 bytes adds.
function automatic logic [31:0] crc32c_beat512(input logic [511:0] d);
  crc32c_beat512[0] = ^(d & 512'h1f91caf6386f2c25de2753181954cd1ef5e1bbd961745c3ae969f40a5f513d79b5fd09987e8408f7ba1e130ded04e470468f38caa6a136723dda585da660c35c);
  crc32c_beat512[1] = ^(d & 512'h3f2395ec70de584bbc4ea63032a99a3debc377b2c2e8b875d2d3e814bea27af36bfa1330fd0811ef743c261bda09c8e08d1e71954d426ce47bb4b0bb4cc186b9);
  crc32c_beat512[2] = ^(d & 512'h7e472bd8e1bcb097789d4c606553347bd786ef6585d170eba5a7d0297d44f5e6d7f42661fa1023dee8784c37b41391c11a3ce32a9a84d9c8f769617699830d72);
  crc32c_beat512[3] = ^(d & 512'hfc8e57b1c379612ef13a98c0caa668f7af0ddecb0ba2e1d74b4fa052fa89ebcdafe84cc3f42047bdd0f0986f682723823479c6553509b391eed2c2ed33061ae4);
  crc32c_beat512[4] = ^(d & 512'he68d6595be9dee783c5262998c181cf1abfa064f76319f947ff6b4afaa42eae2ea2d901f96c4878c1bff23d33d4aa3742e7cb460ccb25151e07fdd87c06cf694);
  crc32c_beat512[5] = ^(d & 512'hd28b01dd4554f0d5a683962b0164f4fda215b7478d17631216849d550bd4e8bc61a629a7530d07ef8de054ab9791a2981a76500b3fc594d1fd25e35226b92e74);
  crc32c_beat512[6] = ^(d & 512'hba87c94cb2c6cd8e93207f4e1b9d24e5b1cad5567b5a9a1ec460cea048f8ec0176b15ad6d89e0728a1deba5ac227a140726398dcd92a1fd1c7919ef9eb129fb4);
  crc32c_beat512[7] = ^(d & 512'h6a9e586f5de2b738f867ad842e6e84d59674117597c1680761a8694acea0e57b589fbc35cfb806a6f9a367b8694ba6f0a248097314f509d1b2f965ae7045fc34);
  crc32c_beat512[8] = ^(d & 512'hd53cb0debbc56e71f0cf5b085cdd09ab2ce822eb2f82d00ec350d2959d41caf6b13f786b9f700d4df346cf70d2974de1449012e629ea13a365f2cb5ce08bf869);
  crc32c_beat512[9] = ^(d & 512'hb5e8ab4b4fe5f0c63fb9e508a0eede48ac31fe0f3e71fc276fc8512165d2a894d783f94f4064126c5c938dec482a7fb2cfaf1d06f5751134f63fcee46777338f);
  crc32c_beat512[10] = ^(d & 512'h74409c60a7a4cda9a15499095889718fad8247c71d97a47436f9564894f46c501afafb06fe4c2c2f033908d57d501b15d9d102c74c4b141bd1a5c595688ea443);
  crc32c_beat512[11] = ^(d & 512'he88138c14f499b5342a93212b112e31f5b048f8e3b2f48e86df2ac9129e8d8a035f5f60dfc98585e067211aafaa0362bb3a2058e98962837a34b8b2ad11d4887);
  crc32c_beat512[12] = ^(d & 512'hce93bb74a6fc1a835b75373d7b710b2043e8a4c5172acdea328cad280c808c39de16e58387b4b84bb6fa30581844882721cb33d7978d661d7b4d4e08045a5252);
  crc32c_beat512[13] = ^(d & 512'h82b6bc1f7597192368cd3d62efb6db5e7230f2534f21c7ee8c70ae5a4650250a09d0c29f71ed7860d7ea73bddd8df43e05195f6589bbfa48cb40c44daed467f9);
  crc32c_beat512[14] = ^(d & 512'h1afcb2c8d3411e630fbd29ddc6397ba211805f7fff37d3e7f188a8bed3f1776da65c8ca69d5ef83615caf476561f0c0c4cbd8601b5d6c2e3ab5bd0c6fbc80caf);
  crc32c_beat512[15] = ^(d & 512'h35f96591a6823cc61f7a53bb8c72f7442300befffe6fa7cfe311517da7e2eedb4cb9194d3abdf06c2b95e8ecac3e1818997b0c036bad85c756b7a18df790195f);
  crc32c_beat512[16] = ^(d & 512'h6bf2cb234d04798c3ef4a77718e5ee8846017dfffcdf4f9fc622a2fb4fc5ddb69972329a757be0d8572bd1d9587c303132f61806d75b0b8ead6f431bef2032be);
  crc32c_beat512[17] = ^(d & 512'hd7e596469a08f3187de94eee31cbdd108c02fbfff9be9f3f8c4545f69f8bbb6d32e46534eaf7c1b0ae57a3b2b0f8606265ec300daeb6171d5ade8637de40657d);
  crc32c_beat512[18] = ^(d & 512'hb05ae67b0c7eca1525f5cec47ac3773fede44c2692096245f1e37fe760464ba3d035c3f1ab6b8b96e6b154688cf424b48d5758d1fbcd1848886754321ae009a7);
  crc32c_beat512[19] = ^(d & 512'h7f2406002092b80f95ccce90ecd223612e292394456698b10aaf0bc49fddaa3e15968e7b28531fda777cbbdcf4ecad195c218969513b06e32d14f03993a0d013);
  crc32c_beat512[20] = ^(d & 512'hfe480c004125701f2b999d21d9a446c25c5247288acd3162155e17893fbb547c2b2d1cf650a63fb4eef977b9e9d95a32b84312d2a2760dc65a29e0732741a026);
  crc32c_beat512[21] = ^(d & 512'he301d2f6ba25cc1b8914695baa1c409a4d45358874ee3efec3d5db1820279581e3a73074dfc8779e67ecfc7e3eb6501536091d6fe24d2dfe898998bbe8e38310);
  crc32c_beat512[22] = ^(d & 512'hd9926f1b4c24b412cc0f81af4d6c4c2a6f6bd0c988a821c76ec2423a1f1e167a72b36971c114e7cb75c7ebf19068445a2a9d0215623b6d8f2ec9692a77a7c57c);
  crc32c_beat512[23] = ^(d & 512'hacb514c0a026440046385046838c554a2b361a4a70241fb434ed707e616d118d509bdb7bfcadc7615191c4eecdd46cc413b53ce062d7ed6c60488a09492f49a4);
  crc32c_beat512[24] = ^(d & 512'h46fbe3777823a4255257f3951e4c678aa38d8f4d813c635280b314f69d8b1e6314cabf6f87df8635193d9ad076ac3df861e5410a630eecaafd4b4c4f343e5014);
  crc32c_beat512[25] = ^(d & 512'h8df7c6eef047484aa4afe72a3c98cf15471b1e9b0278c6a5016629ed3b163cc629957edf0fbf0c6a327b35a0ed587bf0c3ca8214c61dd955fa96989e687ca028);
  crc32c_beat512[26] = ^(d & 512'h047e472bd8e1bcb097789d4c606553347bd786ef6585d170eba5a7d0297d44f5e6d7f42661fa1023dee8784c37b41391c11a3ce32a9a84d9c8f769617699830d);
  crc32c_beat512[27] = ^(d & 512'h08fc8e57b1c379612ef13a98c0caa668f7af0ddecb0ba2e1d74b4fa052fa89ebcdafe84cc3f42047bdd0f0986f682723823479c6553509b391eed2c2ed33061a);
  crc32c_beat512[28] = ^(d & 512'h11f91caf6386f2c25de2753181954cd1ef5e1bbd961745c3ae969f40a5f513d79b5fd09987e8408f7ba1e130ded04e470468f38caa6a136723dda585da660c35);
  crc32c_beat512[29] = ^(d & 512'h23f2395ec70de584bbc4ea63032a99a3debc377b2c2e8b875d2d3e814bea27af36bfa1330fd0811ef743c261bda09c8e08d1e71954d426ce47bb4b0bb4cc186b);
  crc32c_beat512[30] = ^(d & 512'h47e472bd8e1bcb097789d4c606553347bd786ef6585d170eba5a7d0297d44f5e6d7f42661fa1023dee8784c37b41391c11a3ce32a9a84d9c8f769617699830d7);
  crc32c_beat512[31] = ^(d & 512'h8fc8e57b1c379612ef13a98c0caa668f7af0ddecb0ba2e1d74b4fa052fa89ebcdafe84cc3f42047bdd0f0986f682723823479c6553509b391eed2c2ed33061ae);
endfunction
