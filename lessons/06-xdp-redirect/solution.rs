//! Lesson 6, solved: what a native XDP_TX over a veth needs, and how counters tell where frames are lost.
#![forbid(unsafe_code)]

use dataplane_netns::Host;
use ebpf_host::{Attachment, Mode, Program};
use lessons::veth::{Evidence, InterfaceCounts, attach, ends, observe, pair};

const ASKED: u64 = 10;

// ---- 1. Every answer was sent ---------------------------------------------------------------------------------------

/// A veth takes frames from its peer's driver only if it has a native program itself: `veth_xdp_xmit` (drivers/net/veth.c) puts
/// them into a ring that is emptied by the NAPI instance that attaching one creates.
fn answer_in_the_driver(client: &Host, server: &Host) -> (Attachment, Vec<Attachment>) {
    let echo = attach(server, Program::Echo, Mode::Native);
    let pass = attach(client, Program::Pass, Mode::Native);
    (echo, vec![pass])
}

#[test]
fn every_answer_arrives() {
    let Some(network) = pair() else {
        return;
    };
    let (client, server) = ends(&network);
    let (echo, _others) = answer_in_the_driver(client, server);
    let evidence = observe((client, server), &echo, ASKED);
    assert_eq!(evidence.answered, ASKED, "{evidence:#?}");
    assert_eq!(where_lost(&evidence), Place::Nowhere);
}

/// And when the program goes, so do the answers. (A kernel that no longer needs one would answer all: what must hold on any
/// is that every question was taken, and that each answer arrived or was dropped.)
#[test]
fn without_the_peers_program_answers_end_in_the_driver() {
    let Some(network) = pair() else {
        return;
    };
    let (client, server) = ends(&network);
    let (echo, others) = answer_in_the_driver(client, server);
    drop(others);
    let evidence = observe((client, server), &echo, ASKED);
    println!(
        "pass detached: {} of {ASKED} answered, {} dropped",
        evidence.answered, evidence.server.tx_dropped
    );
    assert_eq!(evidence.taken, ASKED, "{evidence:#?}");
    assert!(evidence.answered + evidence.server.tx_dropped >= ASKED, "{evidence:#?}");
}

// ---- 2. There is a program, and it does not help --------------------------------------------------------------------

/// Generic mode asks nothing of the driver, so the driver does not know of it.
#[test]
fn a_generic_program_on_the_peer_is_none_for_the_driver() {
    let Some(network) = pair() else {
        return;
    };
    let (client, server) = ends(&network);
    let echo = attach(server, Program::Echo, Mode::Native);
    let generic = attach(client, Program::Pass, Mode::Generic);
    let evidence = observe((client, server), &echo, ASKED);
    println!("pass, generic: {} of {ASKED} answered", evidence.answered);
    assert_eq!(evidence.taken, ASKED, "{evidence:#?}");
    // One mode at a time: it must go before the other can come.
    drop(generic);
    let _native = attach(client, Program::Pass, Mode::Native);
    let evidence = observe((client, server), &echo, ASKED);
    assert_eq!(evidence.answered, ASKED, "{evidence:#?}");
}

// ---- 3. Where are they? ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    BeforeTheServer,
    NotTaken,
    NotDelivered,
    InTheClientsStack,
}

/// Follows the frames: the loss is before the first one who has seen too few. Only what the *receiving* side counted is
/// believed: a verdict, and a driver's "sent", are intentions. Drops are not waited for, because some losses have none.
fn where_lost(evidence: &Evidence) -> Place {
    if evidence.answered == evidence.asked {
        Place::Nowhere
    } else if evidence.server.rx < evidence.asked {
        Place::BeforeTheServer
    } else if evidence.taken < evidence.asked {
        Place::NotTaken
    } else if evidence.client.rx < evidence.asked {
        Place::NotDelivered
    } else {
        Place::InTheClientsStack
    }
}

#[test]
fn each_loss_has_its_place() {
    let interface = |rx, rx_dropped, tx, tx_dropped| InterfaceCounts {
        rx,
        rx_dropped,
        tx,
        tx_dropped,
    };
    let case = |answered, taken, client, server| Evidence {
        asked: 10,
        answered,
        taken,
        client,
        server,
    };
    let cases = [
        (
            case(10, 10, interface(11, 0, 11, 0), interface(11, 0, 11, 0)),
            Place::Nowhere,
        ),
        (
            case(0, 0, interface(1, 0, 0, 11), interface(1, 0, 1, 0)),
            Place::BeforeTheServer,
        ),
        (
            case(0, 0, interface(9, 0, 12, 0), interface(12, 0, 9, 0)),
            Place::NotTaken,
        ),
        (
            case(0, 10, interface(1, 10, 11, 0), interface(11, 0, 1, 10)),
            Place::NotDelivered,
        ),
        (
            case(1, 10, interface(2, 0, 10, 0), interface(10, 0, 10, 0)),
            Place::NotDelivered,
        ),
        (
            case(0, 10, interface(10, 0, 10, 0), interface(10, 0, 10, 0)),
            Place::InTheClientsStack,
        ),
    ];
    for (evidence, place) in cases {
        assert_eq!(where_lost(&evidence), place, "{evidence:#?}");
    }
}

/// The table of the lesson: every way of attaching two programs, and what the counters say of it.
#[test]
fn every_way_to_attach() {
    let Some(network) = pair() else {
        return;
    };
    let (client, server) = ends(&network);
    let native = Some(Mode::Native);
    let generic = Some(Mode::Generic);
    println!(
        "{:8} {:8} {:>8} {:>6} {:>17} {:>17}  lost",
        "echo", "pass", "answered", "taken", "server tx/dropped", "client rx/dropped"
    );
    for (mode, pass) in [
        (Mode::Native, None),
        (Mode::Native, generic),
        (Mode::Native, native),
        (Mode::Generic, None),
        (Mode::Generic, native),
    ] {
        let echo = attach(server, Program::Echo, mode);
        let _pass = pass.map(|mode| attach(client, Program::Pass, mode));
        let evidence = observe((client, server), &echo, ASKED);
        print(
            &mode.to_string(),
            &pass.map_or("none".into(), |mode| mode.to_string()),
            &evidence,
        );
        assert_eq!(
            evidence.taken, ASKED,
            "every question reached the program: {evidence:#?}"
        );
        let arrives = mode == Mode::Generic || pass == native;
        assert!(!arrives || where_lost(&evidence) == Place::Nowhere, "{evidence:#?}");
    }
    // On the wrong end: no question ever comes there.
    let echo = attach(client, Program::Echo, Mode::Native);
    let evidence = observe((client, server), &echo, ASKED);
    print("client's", "none", &evidence);
    assert_eq!(evidence.answered, 0, "{evidence:#?}");
    assert_eq!(where_lost(&evidence), Place::NotTaken, "{evidence:#?}");
}

fn print(echo: &str, pass: &str, evidence: &Evidence) {
    let pair = |counted, dropped| format!("{counted}/{dropped}");
    println!(
        "{echo:8} {pass:8} {:>8} {:>6} {:>17} {:>17}  {:?}",
        evidence.answered,
        evidence.taken,
        pair(evidence.server.tx, evidence.server.tx_dropped),
        pair(evidence.client.rx, evidence.client.rx_dropped),
        where_lost(evidence)
    );
}
