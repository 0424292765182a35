// Keeps the beats of frames until it is told what becomes of each, in the order in which they came, and sends them out: to the
// network with another head, to the host as they came, into the host's log as they came, or nowhere.
//
// A frame that is dropped costs one cycle, whatever its length: its beats are not read. A frame whose length is not known yet
// (`load_long`) is read a beat at a time until its last.
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
    output      logic                has_room,    // for this cycle's beat and two more

    // What becomes of the oldest frame. Only while `ready`.
    input  wire logic                load,
    input  wire logic                load_drop,
    input  wire logic                load_slow,
    input  wire logic                load_log,
    input  wire logic                load_tx,
    input  wire logic                load_payload,  // tx: what follows our header stays, to the frame's end
    input  wire logic                load_reply,    // tx: 102 bytes of the head; otherwise 82, unless `load_payload`
    input  wire logic                load_long,
    input  wire logic [15:0]         load_beats,
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
  localparam int unsigned BareLast  = 81 / Bytes;          // the beat with the last byte of a frame without payload
  localparam int unsigned ReplyLast = 101 / Bytes;
  localparam logic [Bytes-1:0] BareKeep  = Bytes'((65'd1 << (82 - BareLast * Bytes)) - 65'd1);
  localparam logic [Bytes-1:0] ReplyKeep = Bytes'((65'd1 << (102 - ReplyLast * Bytes)) - 65'd1);

  // ------------------------------------------------------------------------------------------------------ the kept beats
  // Never read where it is written: a beat is read only once the pointers differ.
  (* no_rw_check *)
  logic [WordW-1:0]    mem [Depth];
  logic [DEPTH_LOG2:0] write_q, read_q;
  wire  [DEPTH_LOG2:0] used = write_q - read_q;
  assign has_room = used < (DEPTH_LOG2+1)'(Depth - 3);

  logic             a_valid_q, b_valid_q;
  logic [WordW-1:0] a_q, b_q;
  logic             pop;
  wire b_free = !b_valid_q || pop;
  wire a_free = !a_valid_q || b_free;

  logic        active_q, long_q, src_done_q;
  logic [15:0] left_q;                 // beats of the frame that are still to be read; of a long one, unknown
  wire can_read = long_q ? !a_valid_q && !b_valid_q : left_q != 16'd0 && a_free;
  wire read = active_q && can_read && write_q != read_q && !(long_q && src_done_q);

  always_ff @(posedge clk) begin
    if (beat) mem[write_q[DEPTH_LOG2-1:0]] <= {beat_user, beat_last, beat_keep, beat_data};
    if (read) a_q <= mem[read_q[DEPTH_LOG2-1:0]];
    if (b_free) b_q <= a_q;
  end

  wire [DATA_W-1:0] b_data = b_q[DATA_W-1:0];
  wire [Bytes-1:0]  b_keep = b_q[DATA_W +: Bytes];
  wire              b_last = b_q[DATA_W+Bytes];
  wire              b_user = b_q[DATA_W+Bytes+1];

  // ------------------------------------------------------------------------------------------------------------ sending
  logic              to_slow_q, to_log_q, to_tx_q, payload_q, reply_q, tx_done_q, load_q;
  logic              at_end_q;         // the beat is the last of a frame that ends with its head
  logic [3:0]        at_q;             // the beat, up to the head's end
  logic [ShiftW-1:0] shift_q;
  logic [63:0]       slot_q;

  wire slow_free = !m_axis_slow_tvalid || m_axis_slow_tready;
  wire log_free  = !m_axis_log_tvalid || m_axis_log_tready;
  wire tx_free   = !m_axis_tx_tvalid || m_axis_tx_tready;

  wire src_left = !src_done_q;
  wire tx_left  = to_tx_q && !tx_done_q;
  wire step = active_q && (!src_left || b_valid_q) && (!(src_left && to_slow_q) || slow_free)
              && (!(src_left && to_log_q) || log_free) && (!tx_left || tx_free);
  wire is_tx_last = payload_q ? b_last : at_end_q;
  wire done = step && (!src_left || b_last) && (!tx_left || is_tx_last);
  assign pop   = step && src_left;
  assign ready = !active_q || done;

  // Which bytes of the beat stay as they came.
  logic [Bytes-1:0] stays;
  always_comb
    for (int unsigned n = 0; n < Bytes; n++) begin
      stays[n] = payload_q && at_q > 4'(81 / Bytes);
      for (int unsigned k = 0; k < ShiftW / DATA_W; k++)
        if (at_q == 4'(k))
          stays[n] = (k * Bytes + n >= 12 && k * Bytes + n < 16) || (k * Bytes + n >= 18 && k * Bytes + n < 24)
                     || (payload_q && k * Bytes + n >= 82);
    end

  logic [ShiftW-1:0] head;             // byte 0 in the lowest lane
  always_comb begin
    head = '0;
    for (int unsigned n = 0; n < HeadBytes; n++) head[8*n +: 8] = load_head[8*(HeadBytes-1-n) +: 8];
  end

  always_ff @(posedge clk) begin
    if (beat) write_q <= write_q + 1'b1;
    if (a_free) a_valid_q <= read;
    if (b_free) b_valid_q <= a_valid_q;
    if (read) begin
      read_q <= read_q + 1'b1;
      left_q <= left_q - 16'd1;
    end

    if (m_axis_slow_tready) m_axis_slow_tvalid <= 1'b0;
    if (m_axis_log_tready)  m_axis_log_tvalid  <= 1'b0;
    if (m_axis_tx_tready)   m_axis_tx_tvalid   <= 1'b0;

    if (step) begin
      if (src_left) begin
        if (to_slow_q) begin
          m_axis_slow_tvalid <= 1'b1;
          m_axis_slow_tdata  <= b_data;
          m_axis_slow_tkeep  <= b_keep;
          m_axis_slow_tlast  <= b_last;
          m_axis_slow_tuser  <= b_user;
        end
        if (to_log_q) begin
          m_axis_log_tvalid <= 1'b1;
          m_axis_log_tdata  <= b_data;
          m_axis_log_tkeep  <= b_keep;
          m_axis_log_tlast  <= b_last;
        end
        src_done_q <= b_last;
      end
      if (tx_left) begin
        m_axis_tx_tvalid <= 1'b1;
        for (int unsigned n = 0; n < Bytes; n++)
          m_axis_tx_tdata[8*n +: 8] <= stays[n] ? b_data[8*n +: 8] : shift_q[8*n +: 8];
        m_axis_tx_tkeep  <= !is_tx_last ? '1 : payload_q ? b_keep : reply_q ? ReplyKeep : BareKeep;
        m_axis_tx_tlast  <= is_tx_last;
        tx_done_q        <= is_tx_last;
      end
      shift_q <= shift_q >> DATA_W;
      at_end_q <= at_q + 4'd1 == (reply_q ? 4'(ReplyLast) : 4'(BareLast));
      if (at_q != 4'd15) at_q <= at_q + 4'd1;
      if (done) active_q <= 1'b0;
    end

    if (load) begin
      if (load_drop) read_q <= read_q + (DEPTH_LOG2+1)'(load_beats);
      active_q         <= !load_drop;
      to_slow_q        <= load_slow;
      to_log_q         <= load_log;
      to_tx_q          <= load_tx;
      payload_q        <= load_payload;
      reply_q          <= load_reply;
      long_q           <= load_long;
      left_q           <= load_beats;
      src_done_q       <= 1'b0;
      tx_done_q        <= 1'b0;
      at_q             <= 4'd0;
      at_end_q         <= 1'b0;
      if (load_log) slot_q <= load_slot;
    end

    // The first beat is read two cycles after the decision, and the head still stands in the next one: that spares the decision
    // the way to so many registers.
    load_q <= load;
    if (load_q) shift_q <= head;

    // With the beat, so that it does not change while the last of the entry before is still waiting.
    if (step && src_left && to_log_q) m_axis_log_tuser <= slot_q;

    if (rst) begin
      write_q            <= '0;
      read_q             <= '0;
      a_valid_q          <= 1'b0;
      b_valid_q          <= 1'b0;
      active_q           <= 1'b0;
      m_axis_slow_tvalid <= 1'b0;
      m_axis_log_tvalid  <= 1'b0;
      m_axis_tx_tvalid   <= 1'b0;
    end
  end

endmodule

`default_nettype wire
