//! Does this kernel stamp datagrams? Asked by sending some over loopback.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{ProbeError, Support};

use super::{StampedOptions, StampedSocket, StampedWait};

/// How long stamps may take to come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends datagrams over loopback until one comes with a receive stamp, and looks for the transmit stamps.
///
/// # Errors
/// [`ProbeError`] when no socket could be opened.
pub fn probe() -> Result<Support, ProbeError> {
    let unasked = |error: io::Error| ProbeError {
        asked: "stamping a datagram over 127.0.0.1".to_owned(),
        error,
        mend: "bring the loopback interface up: ip link set lo up".to_owned(),
    };
    let options = |remote| StampedOptions {
        local: SocketAddr::from(([127, 0, 0, 1], 0)),
        remote,
        wait: StampedWait::Blocking(PATIENCE),
        hardware: false,
        interface: false,
    };
    let open = |remote| match StampedSocket::open(&options(remote)) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
        opened => opened.map(Some).map_err(unasked),
    };
    let absent = |why: &str| {
        Ok(Support::Absent {
            why: format!("{why}; SO_TIMESTAMPING with OPT_TSONLY came with Linux 4.0, and some sandboxes have none"),
        })
    };
    let Some(mut to) = open(None)? else {
        return absent("the kernel refuses the option");
    };
    let Some(mut from) = open(Some(to.local_addr()))? else {
        return absent("the kernel refuses the option");
    };
    if !is_stamped_in_time(&mut from, &mut to).map_err(unasked)? {
        return absent("datagrams came without a receive stamp");
    }
    let mut stamps_count = 0;
    let started = Instant::now();
    while stamps_count < 2 && started.elapsed() < PATIENCE {
        stamps_count += from.tx_stamps(&mut |_| {}).map_err(unasked)?;
    }
    match stamps_count {
        0 | 1 => absent("a datagram was sent without its two transmit stamps"),
        _ => Ok(Support::Native),
    }
}

/// Sends from one to the other until a datagram comes with a receive stamp: the first may come before the kernel's worker has
/// switched stamps on. `false`: none did.
fn is_stamped_in_time(from: &mut StampedSocket, to: &mut StampedSocket) -> io::Result<bool> {
    const STEP: Duration = Duration::from_millis(1);
    let started = Instant::now();
    loop {
        from.send(b"stamp")?;
        let received = to.recv(&mut [0; 8])?;
        if received.is_some_and(|received| received.software.is_some()) {
            return Ok(true);
        }
        if started.elapsed() >= PATIENCE {
            return Ok(false);
        }
        thread::sleep(STEP);
    }
}
