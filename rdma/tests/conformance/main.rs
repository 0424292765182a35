//! Every provider through the same cases. A new provider is one function that opens two devices, and one test below.

mod across;
mod cases;
#[path = "../support/devices.rs"]
mod devices;
mod failures;
#[path = "../support/loopback.rs"]
mod loopback;
#[path = "../support/memory_wire.rs"]
mod memory_wire;
mod messages;
mod namespaces;
mod pair;
#[path = "../support/place.rs"]
mod place;
mod suite;
mod taken_back;
mod windows;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rdma::{
    Device, Faulty, QpOptions,
    roce::{ReceiveHow, RoceOptions, RoceWire},
    shm::{ShmLink, ShmWire, Side},
    verbs::VerbsDevice,
};
use suite::{conform, device, real};

/// An emulated kernel that binds windows between packets has been silent for more than 6 times 5 ms.
const EMULATED_TIMEOUT: Duration = Duration::from_millis(20);

#[test]
fn memory_conforms() {
    let options = QpOptions {
        timeout: Duration::from_millis(1),
        retries_max: 20,
        rnr_timer: 1,
        ..QpOptions::default()
    };
    conform(options, || {
        let (a, b) = memory_wire::pair();
        (
            Device::new(Faulty::new(a, Default::default()), memory_wire::random(1)),
            Device::new(Faulty::new(b, Default::default()), memory_wire::random(2)),
        )
    });
}

/// Two addresses that no other pair of endpoints has.
fn loopback_addresses() -> [std::net::IpAddr; 2] {
    static PAIRS_COUNT: AtomicU32 = AtomicU32::new(0);
    let pair = PAIRS_COUNT.fetch_add(1, Ordering::Relaxed) % 100;
    loopback::loopback(2 * pair as u8 + 1)
}

fn roce(receive: ReceiveHow) {
    let open = |local| {
        RoceWire::open(&RoceOptions {
            receive,
            ..RoceOptions::new(local)
        })
    };
    if let Err(error) = loopback_addresses()
        .map(open)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
    {
        eprintln!("skipped: {error}");
        return;
    }
    conform(real(), || {
        let [a, b] = loopback_addresses().map(|local| device(open(local).expect("as above")));
        (a, b)
    });
}

#[test]
fn roce_by_a_raw_socket_conforms() {
    roce(ReceiveHow::Raw);
}

#[test]
fn roce_by_a_udp_socket_conforms() {
    roce(ReceiveHow::Datagram);
}

#[test]
fn shm_conforms() {
    if let Err(error) = ShmLink::create() {
        eprintln!("skipped: no shared memory ({error})");
        return;
    }
    conform(real(), || {
        let link = ShmLink::create().expect("as above");
        let same = ShmLink::open(&link.path_for(std::process::id())).expect("the same, mapped again");
        let (mut a, mut b) = (ShmWire::new(1), ShmWire::new(2));
        a.attach(2, &link, Side::A);
        b.attach(1, &same, Side::B);
        (device(a), device(b))
    });
}

/// Over the first devices of libibverbs, or those that DPLAB_VERBS names: `scripts/rxe` runs this on the kernel's rdma_rxe.
#[test]
fn verbs_conforms() {
    let Some(named) = devices::verbs() else {
        return;
    };
    let options = QpOptions {
        // rdma_rxe takes 7 for "for ever" (drivers/infiniband/sw/rxe/rxe_comp.c, `COMPST_ERROR_RETRY`).
        retries_max: 6,
        timeout: EMULATED_TIMEOUT,
        ..real()
    };
    conform(options, || {
        named
            .each_ref()
            .map(|options| VerbsDevice::open(options).expect("it was there before"))
            .into()
    });
}
