// Keeps the beats of frames until it is told what becomes of each, in the order in which they came, and sends them out: to the
// network with another head, to the host as they came, into the host's log as they came, or nowhere.
//
// A frame that is dropped costs one cycle, whatever its length: its beats are passed over. One that is sent ends with the beat that
// says so, so that its length need not be known: of a frame that is too long it is not.
`default_nettype none

module frame_emit #(
    parameter int unsigned DATA_W     = 64,
    parameter int unsigned DEPTH_LOG2 = 9
) (
    input  wire logic                clk,
    input  wire logic                rst,

    input  wire logic                beat,
    input  wire logic [DATA_W-1:0]   beat_data,
    input  wire logic [DATA_W/8-1:0] beat_keep,
    input  wire logic                beat_last,
    input  wire logic                beat_user,
    output      logic                has_room,      // for this cycle's beat and two more

    // What becomes of the oldest frame. Only while `ready`.
    input  wire logic                load,
    input  wire logic                load_drop,
    input  wire logic                load_slow,
    input  wire logic                load_log,
    input  wire logic                load_tx,
    input  wire logic                load_payload,  // tx: what follows our header stays, to the frame's end
    input  wire logic                load_reply,    // tx: 102 bytes of the head; otherwise 82, unless `load_payload`
    input  wire logic [15:0]         load_beats,    // drop: how many
    input  wire logic [63:0]         load_slot,     // goes along in the log
    input  wire logic [815:0]        load_head,
    output      logic                ready,

    output      logic [DATA_W-1:0]   m_axis_tx_tdata,
    output      logic [DATA_W/8-1:0] m_axis_tx_tkeep,
    output      logic                m_axis_tx_tlast,
    output      logic                m_axis_tx_tvalid,
    input  wire logic                m_axis_tx_tready,

    output      logic [DATA_W-1:0]   m_axis_slow_tdata,
    output      logic [DATA_W/8-1:0] m_axis_slow_tkeep,
    output      logic                m_axis_slow_tlast,
    output      logic                m_axis_slow_tuser,
    output      logic                m_axis_slow_tvalid,
    input  wire logic                m_axis_slow_tready,

    output      logic [DATA_W-1:0]   m_axis_log_tdata,
    output      logic [DATA_W/8-1:0] m_axis_log_tkeep,
    output      logic                m_axis_log_tlast,
    output      logic [63:0]         m_axis_log_tuser,  // the slot
    output      logic                m_axis_log_tvalid,
    input  wire logic                m_axis_log_tready
);

  if (DATA_W != 64 && DATA_W != 512) $fatal(1, "frame_emit: DATA_W is %0d; 64 and 512 are built", DATA_W);
  if (DEPTH_LOG2 < 4 || DEPTH_LOG2 > 12) $fatal(1, "frame_emit: DEPTH_LOG2 is %0d; 4 to 12", DEPTH_LOG2);

  localparam int unsigned Bytes     = DATA_W / 8;
  localparam int unsigned Depth     = 2 ** DEPTH_LOG2;
  localparam int unsigned WordW     = DATA_W + Bytes + 2;
  localparam int unsigned HeadBytes = 102;
  localparam int unsigned ShiftW    = DATA_W == 64 ? 13 * 64 : 2 * 512;  // the head, in whole beats
  localparam int unsigned HeadBeats = ShiftW / DATA_W;
  localparam int unsigned BareLast  = 81 / Bytes;          // the beat with the last byte of a frame without payload
  localparam int unsigned ReplyLast = 101 / Bytes;
  localparam logic [Bytes-1:0] BareKeep  = Bytes'((65'd1 << (82 - BareLast * Bytes)) - 65'd1);
  localparam logic [Bytes-1:0] ReplyKeep = Bytes'((65'd1 << (102 - ReplyLast * Bytes)) - 65'd1);

  // ------------------------------------------------------------------------------------------------------ the kept beats
  // The oldest beats are read ahead of any decision, through the memory's own register a, and r, into a queue of two, so that
  // whether to read depends on registers alone; r is there because a memory answers late, and wants a register close by. `pop_q` counts the beats that are gone: between frames it is where the next one begins, and a frame
  // that is dropped moves it, and the reading, to the frame's end.
  // Never read where it is written: a beat is read only once the pointers differ.
  (* no_rw_check *)
  logic [WordW-1:0]    mem [Depth];
  logic [DEPTH_LOG2:0] write_q, read_q, pop_q, used_q;
  // One cycle late, and so with room for one beat more.
  assign has_room = used_q < (DEPTH_LOG2+1)'(Depth - 4);

  logic             a_valid_q, r_valid_q;
  logic             one_q, two_q;        // one or two in the queue
  logic             in_at_q, out_at_q;
  logic [WordW-1:0] a_q, r_q, queue0_q, queue1_q;
  logic             pop;
  wire flush = load && load_drop;
  wire push  = r_valid_q && !two_q;
  wire r_free = !(r_valid_q && two_q);
  wire read  = write_q != read_q && (!a_valid_q || r_free);

  always_ff @(posedge clk) begin
    if (beat) mem[write_q[DEPTH_LOG2-1:0]] <= {beat_user, beat_last, beat_keep, beat_data};
    if (read) a_q <= mem[read_q[DEPTH_LOG2-1:0]];
    if (r_free) r_q <= a_q;
    if (push && !in_at_q) queue0_q <= r_q;
    if (push && in_at_q)  queue1_q <= r_q;
  end

  wire              b_valid = one_q || two_q;
  wire [WordW-1:0]  b       = out_at_q ? queue1_q : queue0_q;
  wire [DATA_W-1:0] b_data  = b[DATA_W-1:0];
  wire [Bytes-1:0]  b_keep  = b[DATA_W +: Bytes];
  wire              b_last  = b[DATA_W+Bytes];
  wire              b_user  = b[DATA_W+Bytes+1];

  // ------------------------------------------------------------------------------------------------------------ sending
  // What the frame still needs; all of it is known a cycle before a beat is asked whether it may go.
  logic              busy_q, load_q, active_q, need_src_q, need_slow_q, need_log_q, need_tx_q;
  logic              load_slow_q, load_log_q, load_tx_q, payload_q, reply_q;
  logic              at_end_q;         // the beat is the last of a frame that ends with its head
  logic [HeadBeats-1:0] next_q;        // the beat after this one, a bit each, up to the head's end
  logic [63:0]       slot_q;

  wire slow_free = !m_axis_slow_tvalid || m_axis_slow_tready;
  wire log_free  = !m_axis_log_tvalid || m_axis_log_tready;
  wire tx_free   = !m_axis_tx_tvalid || m_axis_tx_tready;
  wire step = active_q && (!need_src_q || b_valid) && (!need_slow_q || slow_free) && (!need_log_q || log_free)
              && (!need_tx_q || tx_free);
  wire is_tx_last = payload_q ? b_last : at_end_q;
  wire done = step && (!need_src_q || b_last) && (!need_tx_q || is_tx_last);
  assign pop   = step && need_src_q;
  assign ready = !busy_q;

  // The head, in whole beats, byte 0 in the lowest lane of the first; and which bytes of each beat stay as they came. Both stand a
  // cycle before their beat goes out.
  logic [ShiftW-1:0] head, head_q;
  logic [DATA_W-1:0] word_q;
  logic [Bytes-1:0]  stays_q;
  logic [DATA_W-1:0] word_next;
  logic [Bytes-1:0]  stays_next;

  function automatic logic stays(input int unsigned offset, input logic payload);
    stays = (offset >= 12 && offset < 16) || (offset >= 18 && offset < 24) || (payload && offset >= 82);
  endfunction

  always_comb begin
    head = '0;
    for (int unsigned n = 0; n < HeadBytes; n++) head[8*n +: 8] = load_head[8*(HeadBytes-1-n) +: 8];
    word_next = '0;
    for (int unsigned k = 1; k < HeadBeats; k++)
      if (next_q[k]) word_next = word_next | head_q[DATA_W*k +: DATA_W];
    for (int unsigned n = 0; n < Bytes; n++) begin
      stays_next[n] = payload_q && next_q[BareLast:1] == '0;
      for (int unsigned k = 1; k < HeadBeats; k++) if (next_q[k] && stays(k * Bytes + n, payload_q)) stays_next[n] = 1'b1;
    end
  end

  always_ff @(posedge clk) begin
    used_q <= write_q - pop_q;
    if (beat) write_q <= write_q + 1'b1;
    if (read) read_q <= read_q + 1'b1;
    if (pop)  pop_q  <= pop_q + 1'b1;
    a_valid_q <= read || (a_valid_q && !r_free);
    if (r_free) r_valid_q <= a_valid_q;
    if (push) in_at_q  <= !in_at_q;
    if (pop)  out_at_q <= !out_at_q;
    if (push != pop) begin
      one_q <= push ? !one_q : two_q;
      two_q <= push && one_q;
    end

    // Data follow whether there are any or not: only the valid bits wait for the decision.
    if (slow_free) begin
      m_axis_slow_tvalid <= step && need_slow_q;
      m_axis_slow_tdata  <= b_data;
      m_axis_slow_tkeep  <= b_keep;
      m_axis_slow_tlast  <= b_last;
      m_axis_slow_tuser  <= b_user;
    end
    if (log_free) begin
      m_axis_log_tvalid <= step && need_log_q;
      m_axis_log_tdata  <= b_data;
      m_axis_log_tkeep  <= b_keep;
      m_axis_log_tlast  <= b_last;
      // With the beat, so that it does not change while the last of the entry before is still waiting.
      m_axis_log_tuser  <= slot_q;
    end
    if (tx_free) begin
      m_axis_tx_tvalid <= step && need_tx_q;
      for (int unsigned n = 0; n < Bytes; n++)
        m_axis_tx_tdata[8*n +: 8] <= stays_q[n] ? b_data[8*n +: 8] : word_q[8*n +: 8];
      m_axis_tx_tkeep  <= !is_tx_last ? '1 : payload_q ? b_keep : reply_q ? ReplyKeep : BareKeep;
      m_axis_tx_tlast  <= is_tx_last;
    end
    if (step) begin
      if (b_last) {need_src_q, need_slow_q, need_log_q} <= 3'b000;
      if (is_tx_last) need_tx_q <= 1'b0;
      word_q   <= word_next;
      stays_q  <= stays_next;
      at_end_q <= reply_q ? next_q[ReplyLast] : next_q[BareLast];
      next_q   <= next_q << 1;
    end
    if (done) begin
      active_q <= 1'b0;
      busy_q   <= 1'b0;
    end

    if (flush) begin
      read_q    <= pop_q + (DEPTH_LOG2+1)'(load_beats);
      pop_q     <= pop_q + (DEPTH_LOG2+1)'(load_beats);
      a_valid_q <= 1'b0;
      r_valid_q <= 1'b0;
      one_q     <= 1'b0;
      two_q     <= 1'b0;
      in_at_q   <= out_at_q;
    end
    // The head still stands in the cycle after the decision: that spares the decision the way to so many registers.
    load_q <= load && !load_drop;
    if (load) begin
      busy_q      <= !load_drop;
      load_slow_q <= load_slow;
      load_log_q  <= load_log;
      load_tx_q   <= load_tx;
      payload_q   <= load_payload;
      reply_q     <= load_reply;
      slot_q      <= load_slot;
    end
    if (load_q) begin
      active_q    <= 1'b1;
      need_src_q  <= 1'b1;
      need_slow_q <= load_slow_q;
      need_log_q  <= load_log_q;
      need_tx_q   <= load_tx_q;
      head_q      <= head;
      word_q      <= head[DATA_W-1:0];
      for (int unsigned n = 0; n < Bytes; n++) stays_q[n] <= stays(n, payload_q);
      next_q      <= HeadBeats'(2);
      at_end_q    <= 1'b0;
    end

    if (rst) begin
      write_q            <= '0;
      read_q             <= '0;
      pop_q              <= '0;
      used_q             <= '0;
      a_valid_q          <= 1'b0;
      r_valid_q          <= 1'b0;
      one_q              <= 1'b0;
      two_q              <= 1'b0;
      in_at_q            <= 1'b0;
      out_at_q           <= 1'b0;
      busy_q             <= 1'b0;
      load_q             <= 1'b0;
      active_q           <= 1'b0;
      m_axis_slow_tvalid <= 1'b0;
      m_axis_log_tvalid  <= 1'b0;
      m_axis_tx_tvalid   <= 1'b0;
    end
  end

endmodule

`default_nettype wire
