//! Lesson 6, your turn. The first two need root and say so; the third is arithmetic. Delete an `#[ignore]`, watch the test
//! fail, mend the function above it.
#![forbid(unsafe_code)]

use dataplane_netns::Host;
use ebpf_host::{Attachment, Mode, Program};
use lessons::veth::{Evidence, InterfaceCounts, attach, ends, observe, pair};

const ASKED: u64 = 10;

// ---- 1. Every answer was sent ---------------------------------------------------------------------------------------

/// The server answers in its driver. What else must be attached is returned beside it.
fn answer_in_the_driver(client: &Host, server: &Host) -> (Attachment, Vec<Attachment>) {
    let echo = attach(server, Program::Echo, Mode::Native);
    // The client has an ordinary socket, so it needs nothing. Does it?
    let _ = client;
    (echo, vec![])
}

#[test]
#[ignore = "your turn: delete this line"]
fn every_answer_arrives() {
    let Some(network) = pair() else {
        return;
    };
    let (client, server) = ends(&network);
    let (echo, _others) = answer_in_the_driver(client, server);
    let evidence = observe((client, server), &echo, ASKED);
    println!("{evidence:#?}");
    assert_eq!(evidence.answered, ASKED);
    assert_eq!(echo.mode(), Mode::Native);
}

// ---- 2. There is a program, and it does not help --------------------------------------------------------------------

fn with_a_program_on_the_client(client: &Host, server: &Host) -> (Attachment, Vec<Attachment>) {
    let echo = attach(server, Program::Echo, Mode::Native);
    // Generic mode runs anywhere and asks nothing of the driver.
    let pass = attach(client, Program::Pass, Mode::Generic);
    (echo, vec![pass])
}

#[test]
#[ignore = "your turn: delete this line"]
fn every_answer_arrives_here_too() {
    let Some(network) = pair() else {
        return;
    };
    let (client, server) = ends(&network);
    let (echo, _others) = with_a_program_on_the_client(client, server);
    let evidence = observe((client, server), &echo, ASKED);
    println!("{evidence:#?}");
    assert_eq!(evidence.answered, ASKED);
    assert_eq!(echo.mode(), Mode::Native, "it is to stay in the driver");
}

// ---- 3. Where are they? ---------------------------------------------------------------------------------------------

/// Where frames were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "a mistaken verdict knows fewer places than there are")]
enum Place {
    /// Nothing was lost.
    Nowhere,
    /// On the way from the client's socket to the server's interface.
    BeforeTheServer,
    /// The program let the questions pass, or was never asked: it is not on this interface.
    NotTaken,
    /// The program said XDP_TX, and the answers did not come to the client's interface.
    NotDelivered,
    /// The answers came to the client's interface, and its socket did not get them.
    InTheClientsStack,
}

/// Where the answers were lost that are missing.
fn where_lost(evidence: &Evidence) -> Place {
    if evidence.answered == evidence.asked {
        Place::Nowhere
    } else if evidence.taken < evidence.asked {
        Place::NotTaken
    } else {
        // All were answered, says the program that answered them.
        Place::InTheClientsStack
    }
}

#[test]
#[ignore = "your turn: delete this line"]
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
    // Other frames come and go as well: that is why there are 11 or 12 of some.
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
        // The driver dropped what the program sent, and counted it.
        (
            case(0, 10, interface(1, 10, 11, 0), interface(11, 0, 1, 10)),
            Place::NotDelivered,
        ),
        // The driver says that it sent, the other end has seen nothing, and nobody has dropped anything.
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
