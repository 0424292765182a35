//! Stamps from a driver: the XDP program `stamp` at an end's interface, for as long as this is held. Each end attaches its own: the
//! client's for replies, the server's process for requests.

use anyhow::{Context, bail};
use dataplane_wire::{frame::Kind, trace::Station};
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings, kinds};

use crate::{
    backends::xdp,
    place::{End, Endpoint, Place},
};

/// A program, attached.
#[derive(Debug)]
pub struct DriverStamps {
    _program: Attachment,
}

impl DriverStamps {
    /// Attaches the program for replies at the client's interface, in the driver. A generic program would not do: the network
    /// stack has stamped the frame before it runs.
    ///
    /// # Errors
    /// Why there are no stamps from the driver here: no namespaces, no privilege, no XDP in the driver.
    pub fn of_client(place: &Place) -> anyhow::Result<DriverStamps> {
        if !place.has_fixed_addresses() {
            bail!(
                "the loopback interface runs no XDP program in its driver; run as root for two namespaces and a veth pair"
            );
        }
        let endpoint = place.endpoint(End::Client);
        place.inside(End::Client, || {
            attach(&endpoint, Kind::EchoReply, Station::ClientDriverRx).context("at the client's interface")
        })?
    }

    /// Attaches the program for requests at the server's interface, in the namespace of the calling thread.
    ///
    /// # Errors
    /// As [`DriverStamps::of_client`].
    pub(super) fn of_server(endpoint: &Endpoint) -> anyhow::Result<DriverStamps> {
        attach(endpoint, Kind::EchoRequest, Station::ServerDriverRx).context("at the server's interface")
    }
}

fn attach(endpoint: &Endpoint, kind: Kind, station: Station) -> anyhow::Result<DriverStamps> {
    let settings = Settings {
        kinds: kinds(&[kind]),
        ..xdp::settings(endpoint)
    }
    .stamping(station);
    let loaded = Loaded::load_at_mtu(Program::Stamp, &settings, endpoint.mtu_bytes)
        .context("loading the program that stamps")?;
    let attached = loaded.attach(&endpoint.interface, Mode::Native);
    Ok(DriverStamps {
        _program: attached.context("attaching the program that stamps")?,
    })
}
