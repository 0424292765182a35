//! Stamps from the drivers: the XDP program `stamp` at each of the two interfaces, for as long as this is held.

use anyhow::{Context, bail};
use dataplane_wire::{frame::Kind, trace::Station};
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings, kinds};

use crate::{
    backends::xdp,
    place::{End, Place},
};

/// Both programs, attached.
#[derive(Debug)]
pub struct DriverStamps {
    _server: Attachment,
    _client: Attachment,
}

impl DriverStamps {
    /// Attaches one program for requests at the server's interface and one for replies at the client's, in the driver. A
    /// generic program would not do: the network stack has stamped the frame before it runs.
    ///
    /// # Errors
    /// Why there are no stamps from the driver here: no namespaces, no privilege, no XDP in the driver.
    pub fn attach(place: &Place) -> anyhow::Result<DriverStamps> {
        if !place.has_fixed_addresses() {
            bail!(
                "the loopback interface runs no XDP program in its driver; run as root for two namespaces and a veth pair"
            );
        }
        Ok(DriverStamps {
            _server: at(place, End::Server, Kind::EchoRequest, Station::ServerDriverRx)?,
            _client: at(place, End::Client, Kind::EchoReply, Station::ClientDriverRx)?,
        })
    }
}

fn at(place: &Place, end: End, kind: Kind, station: Station) -> anyhow::Result<Attachment> {
    let endpoint = place.endpoint(end);
    let settings = Settings {
        kinds: kinds(&[kind]),
        ..xdp::settings(&endpoint)
    }
    .stamping(station);
    let loaded = Loaded::load(Program::Stamp, &settings).context("loading the program")?;
    let attached = place.inside(end, || loaded.attach(&endpoint.interface, Mode::Native))?;
    attached.with_context(|| format!("at the interface of the {end:?}"))
}
