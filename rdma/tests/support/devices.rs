//! Devices that the environment names: `scripts/rxe` has them in its virtual machine.

use std::{env, net::IpAddr, path::PathBuf};

use rdma::verbs::{VerbsDevice, VerbsOptions};

use crate::place::Place;

/// The two of DPLAB_VERBS ("rxe1,rxe2"), or the first that there is, twice. `None`, with the reason on the terminal: there is none.
///
/// # Panics
/// If one was named and cannot be opened: who names a device means it.
pub fn verbs() -> Option<[VerbsOptions; 2]> {
    let named = env::var("DPLAB_VERBS").unwrap_or_default();
    let mut names = named.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
    let first = VerbsOptions {
        device: names.next(),
        local: None,
    };
    let second = VerbsOptions {
        device: names.next().or_else(|| first.device.clone()),
        local: None,
    };
    for options in [&first, &second] {
        match VerbsDevice::open(options) {
            Ok(_) => {}
            Err(error) if !named.is_empty() => panic!("{error}"),
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        }
    }
    Some([first, second])
}

/// A device of libibverbs, and where an endpoint of ours can be its peer.
pub struct Across {
    pub verbs: VerbsOptions,
    /// Another namespace: rdma_rxe has the port in its own.
    pub place: Place,
    /// Ours, and a stranger's.
    pub locals: [IpAddr; 2],
}

/// DPLAB_ACROSS: the device, two addresses, and the file of the namespace that has them
/// ("rxe0,192.168.77.2,192.168.77.3,/run/netns/ours").
///
/// # Panics
/// If it says something else.
pub fn across() -> Option<Across> {
    let Ok(named) = env::var("DPLAB_ACROSS") else {
        eprintln!("skipped: no device named by DPLAB_ACROSS; scripts/rxe across names one");
        return None;
    };
    let [device, ours, strangers, namespace] = named.split(',').collect::<Vec<_>>()[..] else {
        panic!("DPLAB_ACROSS is {named:?}, and not DEVICE,ADDRESS,ADDRESS,NAMESPACE");
    };
    Some(Across {
        verbs: VerbsOptions {
            device: Some(device.to_owned()),
            local: None,
        },
        place: Place::At(PathBuf::from(namespace)),
        locals: [ours, strangers].map(|address| address.parse().expect("an address")),
    })
}
