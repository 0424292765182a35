//! Lesson 5, your turn. Each program is a list of BPF instructions; the verifier of your kernel reads it where you are
//! root, and an interpreter runs it everywhere. Delete an `#[ignore]`, watch the test fail, mend the program above it.
#![forbid(unsafe_code)]

use ebpf_host::Verdict;
use lessons::{
    bpf::{
        DATA, DATA_END, Line, Program,
        Reg::{R0, R1, R2, R3, R4, R5},
        Size::{H, W},
        XDP_DROP, XDP_PASS, add, be16, exit, jgt_reg, jne, label, ldx, mov, mov_reg,
    },
    frames::{OUR_PORT, at, of_others, ours, ours_cut},
};

/// Loads a program; the verifier's words are the panic's message.
fn load(lines: &[Line]) -> Program {
    Program::load(lines).unwrap_or_else(|error| panic!("{error}"))
}

fn run(program: &Program, frame: &[u8]) -> Verdict {
    program.run(frame).unwrap_or_else(|fault| panic!("{fault}"))
}

// ---- 1. Is it still the packet? -------------------------------------------------------------------------------------

/// Drops what is for our port, and passes what is too short to say.
fn drop_our_port() -> Vec<Line> {
    vec![
        // R2: where the packet begins. R3: where it ends.
        ldx(W, R2, R1, DATA),
        ldx(W, R3, R1, DATA_END),
        // Are the headers there? The verifier remembers what this comparison proves: "r=34".
        mov_reg(R4, R2),
        add(R4, 34),
        jgt_reg(R4, R3, "pass"),
        ldx(H, R5, R2, at::DST_PORT),
        be16(R5),
        jne(R5, OUR_PORT.into(), "pass"),
        mov(R0, XDP_DROP),
        exit(),
        label("pass"),
        mov(R0, XDP_PASS),
        exit(),
    ]
}

#[test]
#[ignore = "your turn: delete this line"]
fn what_is_read_is_the_packets() {
    let program = load(&drop_our_port());
    assert_eq!(run(&program, &ours()), Verdict::Drop);
    for frame in ours_cut() {
        assert_eq!(run(&program, &frame), Verdict::Pass, "cut to {} bytes", frame.len());
    }
}

// ---- 2. Somebody is logged in over this interface -------------------------------------------------------------------

/// Drops UDP datagrams to OUR_PORT of OUR_ADDRESS. Nothing else: what it does not understand is not its business.
///
/// `frames::at` says where the fields are; `frames::of_others` who else is on the wire. `jne32` compares 32 bits, `and`
/// takes bits out, and a load may also be of `Size::B`.
fn drop_ours() -> Vec<Line> {
    vec![
        ldx(W, R2, R1, DATA),
        ldx(W, R3, R1, DATA_END),
        mov_reg(R4, R2),
        add(R4, at::PAYLOAD.into()),
        jgt_reg(R4, R3, "pass"),
        // Whatever stands there is called a port.
        ldx(H, R5, R2, at::DST_PORT),
        be16(R5),
        jne(R5, OUR_PORT.into(), "pass"),
        mov(R0, XDP_DROP),
        exit(),
        label("pass"),
        mov(R0, XDP_PASS),
        exit(),
    ]
}

#[test]
#[ignore = "your turn: delete this line"]
fn others_come_through() {
    let program = load(&drop_ours());
    assert_eq!(run(&program, &ours()), Verdict::Drop);
    for (whose, frame) in of_others() {
        assert_eq!(run(&program, &frame), Verdict::Pass, "{whose}");
    }
}

// ---- 3. Accepted, attached, and nothing happens ---------------------------------------------------------------------

/// The verifier has nothing against this program, and it never drops a frame.
fn drop_by_ether_type_and_port() -> Vec<Line> {
    vec![
        ldx(W, R2, R1, DATA),
        ldx(W, R3, R1, DATA_END),
        mov_reg(R4, R2),
        add(R4, at::PAYLOAD.into()),
        jgt_reg(R4, R3, "pass"),
        // IPv4 only.
        ldx(H, R5, R2, at::ETHER_TYPE),
        jne(R5, 0x0800, "pass"),
        ldx(H, R5, R2, at::DST_PORT),
        jne(R5, OUR_PORT.into(), "pass"),
        mov(R0, XDP_DROP),
        exit(),
        label("pass"),
        mov(R0, XDP_PASS),
        exit(),
    ]
}

#[test]
#[ignore = "your turn: delete this line"]
fn ours_is_recognised() {
    let program = load(&drop_by_ether_type_and_port());
    assert_eq!(run(&program, &ours()), Verdict::Drop);
}
