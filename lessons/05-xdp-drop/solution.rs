//! Lesson 5, solved: what the verifier wants to see, what a program must leave alone, and what no verifier finds.
#![forbid(unsafe_code)]

use ebpf_host::{HostError, Loaded, Program as LabProgram, Settings, Verdict};
use lessons::{
    bpf::{
        DATA, DATA_END, Fault, Line, Program,
        Reg::{R0, R1, R2, R3, R4, R5},
        Size::{B, H, W},
        XDP_DROP, XDP_PASS, add, and, assemble, be16, exit, interpret, jgt_reg, jne, jne32, label, ldx, mov, mov_reg,
    },
    frames::{OUR_ADDRESS, OUR_PORT, at, of_others, ours, ours_cut, ours_tagged},
};

fn load(lines: &[Line]) -> Program {
    Program::load(lines).unwrap_or_else(|error| panic!("{error}"))
}

fn run(program: &Program, frame: &[u8]) -> Verdict {
    program.run(frame).unwrap_or_else(|fault| panic!("{fault}"))
}

/// R2: the packet's beginning, R3: its end; on to "pass" if it has fewer than `headers_bytes`.
fn checked(headers_bytes: i16) -> Vec<Line> {
    vec![
        ldx(W, R2, R1, DATA),
        ldx(W, R3, R1, DATA_END),
        mov_reg(R4, R2),
        add(R4, headers_bytes.into()),
        jgt_reg(R4, R3, "pass"),
    ]
}

/// What a program ends with whose last comparison found one of ours.
fn drop_or_pass() -> Vec<Line> {
    vec![mov(R0, XDP_DROP), exit(), label("pass"), mov(R0, XDP_PASS), exit()]
}

// ---- 1. Is it still the packet? -------------------------------------------------------------------------------------

fn port_behind(proven_bytes: i16) -> Vec<Line> {
    let compare = vec![ldx(H, R5, R2, at::DST_PORT), be16(R5), jne(R5, OUR_PORT.into(), "pass")];
    [checked(proven_bytes), compare, drop_or_pass()].concat()
}

/// All headers, not only the bytes that are read: half a UDP header is nobody's datagram.
fn drop_our_port() -> Vec<Line> {
    port_behind(at::PAYLOAD)
}

#[test]
fn what_is_read_is_the_packets() {
    let program = load(&drop_our_port());
    assert_eq!(run(&program, &ours()), Verdict::Drop);
    for frame in ours_cut() {
        assert_eq!(run(&program, &frame), Verdict::Pass, "cut to {} bytes", frame.len());
    }
}

/// The check must reach as far as the read: 38 bytes do for the verifier, 37 do not.
#[test]
fn the_verifier_says_what_was_proven_and_what_was_read() {
    for proven_bytes in [14, 34, 37] {
        match Program::load(&port_behind(proven_bytes)) {
            Err(HostError::ForeignRefused { log_tail, .. }) => {
                println!("a check of {proven_bytes} bytes:\n{log_tail}\n");
                assert!(
                    log_tail.contains("invalid access to packet, off=36 size=2"),
                    "{log_tail}"
                );
                assert!(log_tail.contains(&format!("r={proven_bytes}")), "{log_tail}");
            }
            Err(error) => panic!("{error}"),
            Ok(program) => assert!(
                !program.is_verified(),
                "no verifier believes a check of {proven_bytes} bytes"
            ),
        }
        // The interpreter finds it too, if it is shown the right packet…
        let program = assemble(&port_behind(proven_bytes));
        let fault = interpret(&program, &ours()[..37]).expect_err("one byte is not there");
        println!("on a packet of 37 bytes: {fault}\n");
        assert!(matches!(fault, Fault::Packet { offset_bytes: 36, .. }), "{fault}");
        // … and only then. The verifier needs none.
        assert_eq!(interpret(&program, &ours()), Ok(XDP_DROP as u64));
    }
    let program = load(&port_behind(38));
    assert_eq!(run(&program, &ours()[..38]), Verdict::Drop, "believed, and careless");
}

// ---- 2. Somebody is logged in over this interface -------------------------------------------------------------------

/// The comparisons that make a frame ours, in front of the port's; R2 is where an untagged frame would begin.
fn is_ours() -> Vec<Line> {
    vec![
        ldx(H, R5, R2, at::ETHER_TYPE),
        be16(R5),
        jne(R5, 0x0800, "pass"),
        // Version 4, five words: with options, all that follows stands elsewhere.
        ldx(B, R5, R2, at::VERSION_IHL),
        jne(R5, 0x45, "pass"),
        // More-fragments and the offset: only a first fragment has a port, and none is whole.
        ldx(H, R5, R2, at::FRAGMENT),
        be16(R5),
        and(R5, 0x3fff),
        jne(R5, 0, "pass"),
        ldx(B, R5, R2, at::PROTOCOL),
        jne(R5, 17, "pass"),
        // As it stands in memory; `jne` would extend an address above 127.255.255.255 by its sign.
        ldx(W, R5, R2, at::DST_ADDRESS),
        jne32(R5, u32::from_ne_bytes(OUR_ADDRESS.octets()), "pass"),
        ldx(H, R5, R2, at::DST_PORT),
        be16(R5),
        jne(R5, OUR_PORT.into(), "pass"),
    ]
}

fn drop_ours() -> Vec<Line> {
    [checked(at::PAYLOAD), is_ours(), drop_or_pass()].concat()
}

#[test]
fn others_come_through() {
    let program = load(&drop_ours());
    assert_eq!(run(&program, &ours()), Verdict::Drop);
    for (whose, frame) in of_others() {
        assert_eq!(run(&program, &frame), Verdict::Pass, "{whose}");
    }
    for frame in ours_cut() {
        assert_eq!(run(&program, &frame), Verdict::Pass, "cut to {} bytes", frame.len());
    }
}

/// Each comparison has somebody who needs it: without it, one of the others is dropped.
#[test]
fn the_port_alone_hits_others() {
    let program = load(&drop_our_port());
    let hit: Vec<&str> = of_others()
        .into_iter()
        .filter(|(_, frame)| run(&program, frame) == Verdict::Drop)
        .map(|(whose, _)| whose)
        .collect();
    println!(
        "dropped by a program that looks at the port alone:\n  {}",
        hit.join("\n  ")
    );
    assert_eq!(hit.len(), of_others().len() - 1, "all but the one to another port");
}

/// The lab's own program, which asks for its magic number besides, lets even the lesson's frame through.
#[test]
fn the_labs_program_is_more_careful_still() {
    let settings = Settings {
        local_mac: dataplane_wire::ethernet::Mac([2, 0, 0, 0, 0, 2]),
        local_ipv4: Some(OUR_ADDRESS),
        local_port: OUR_PORT,
        kinds: u32::MAX,
        ..Settings::default()
    };
    let program = match Loaded::load(LabProgram::CountDrop, &settings) {
        Ok(program) => program,
        Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. })) => {
            println!("skipped: count_drop: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for (whose, frame) in [of_others(), vec![("the lesson's: no magic number", ours())]].concat() {
        assert_eq!(
            program.test_run(&frame).expect("it runs").verdict,
            Verdict::Pass,
            "{whose}"
        );
    }
    println!("count_drop: {}", program.counts().expect("it counts"));
}

// ---- 3. Accepted, attached, and nothing happens ---------------------------------------------------------------------

/// With the port in the network's order, as it stands in the packet. (`be16` after the load does the same at run time; the
/// constant costs nothing.)
fn drop_by_ether_type_and_port(ether_type: u16, port: u16) -> Vec<Line> {
    let compare = vec![
        ldx(H, R5, R2, at::ETHER_TYPE),
        jne(R5, ether_type.into(), "pass"),
        ldx(H, R5, R2, at::DST_PORT),
        jne(R5, port.into(), "pass"),
    ];
    [checked(at::PAYLOAD), compare, drop_or_pass()].concat()
}

#[test]
fn ours_is_recognised() {
    let program = load(&drop_by_ether_type_and_port(0x0800_u16.to_be(), OUR_PORT.to_be()));
    assert_eq!(run(&program, &ours()), Verdict::Drop);
}

/// The verifier proves that a program is safe, not that it does anything.
#[test]
fn a_number_in_the_wrong_order_is_safe_and_useless() {
    let program = load(&drop_by_ether_type_and_port(0x0800, OUR_PORT));
    let expected = match cfg!(target_endian = "little") {
        true => Verdict::Pass,
        false => Verdict::Drop,
    };
    assert_eq!(run(&program, &ours()), expected);
}

/// A VLAN tag moves everything by four bytes. Who does not look for it passes such frames, which is safe and may surprise;
/// who does must prove the four bytes as well.
#[test]
fn behind_a_tag_everything_stands_four_bytes_further() {
    let plain = load(&drop_ours());
    assert_eq!(run(&plain, &ours_tagged()), Verdict::Pass, "no IPv4 where it looked");

    let behind_a_tag = vec![
        ldx(H, R5, R2, at::ETHER_TYPE),
        be16(R5),
        jne(R5, 0x8100, "untagged"),
        // The frame that begins four bytes further would look untagged; what was proven of R2 must be proven again.
        add(R2, 4),
        mov_reg(R4, R2),
        add(R4, at::PAYLOAD.into()),
        jgt_reg(R4, R3, "pass"),
        label("untagged"),
    ];
    let lines = [checked(at::PAYLOAD), behind_a_tag, is_ours(), drop_or_pass()].concat();
    let program = load(&lines);
    for frame in [ours(), ours_tagged()] {
        assert_eq!(run(&program, &frame), Verdict::Drop);
    }
    for (whose, frame) in of_others() {
        assert_eq!(run(&program, &frame), Verdict::Pass, "{whose}");
    }
    let tagged = ours_tagged();
    for len_bytes in 14..at::PAYLOAD as usize + 4 {
        assert_eq!(
            run(&program, &tagged[..len_bytes]),
            Verdict::Pass,
            "cut to {len_bytes} bytes"
        );
    }
}
