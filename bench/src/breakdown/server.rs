//! The answering end of a breakdown: an echo that writes into each reply when it passed the server's own stations
//! ([`dataplane_wire::trace`]). A process of its own like `serve-echo`, with an end that stamps in place of a port.
//!
//! When the driver passed a reply on is known only after it has left, so that stamp travels in the reply after it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_ports::stamped::{ClockOffset, TxStation, monotonic_ns};
use dataplane_wire::{
    Reject,
    frame::{self, HEADER_BYTES, Header, Kind},
    trace::{self, Station},
};
use serde::{Deserialize, Serialize};

use super::{Wait, client::FRAME_BYTES, driver::DriverStamps, end::StampedEnd, stages::Stations};
use crate::{
    backends::Wiring,
    host::{self, Seat},
    server::{self, Role, ServerConfig, ServerReport, StampClocks},
};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "serve-stamped";

/// What the server's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StampedConfig {
    /// Who starts it; it ends when that process does.
    pub parent_pid: u32,
    /// Where it stands, and whom it answers.
    pub wiring: Wiring,
    /// Who stamps.
    pub stations: Stations,
    /// How it waits.
    pub wait: Wait,
    /// Where it is to run.
    pub seat: Seat,
}

impl StampedConfig {
    /// The server that does with stamps what `plain` would do without.
    ///
    /// # Errors
    /// Its back end has no stamps from such stations, or it does other than answer at once.
    pub fn from_plain(plain: ServerConfig, stations: Stations) -> anyhow::Result<StampedConfig> {
        let wait = Wait::of_plain(&plain.backend, stations)
            .with_context(|| format!("{} has no stamps of {stations:?}", plain.backend))?;
        let at_once = Role::Echo {
            service_spin: Duration::ZERO,
            times_turns: false,
        };
        if plain.role != at_once {
            bail!("a server that stamps answers at once, and another role was asked for");
        }
        Ok(StampedConfig {
            parent_pid: plain.parent_pid,
            wiring: plain.wiring,
            stations,
            wait,
            seat: plain.seat,
        })
    }
}

/// The server's process: everything behind [`SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read, a socket that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: StampedConfig = serde_json::from_str(config).context("reading the server's configuration")?;
    server::die_with(config.parent_pid)?;
    // Before the socket: attaching one changes how the interface receives.
    let _driver = match config.stations {
        Stations::SocketAndDriver => Some(DriverStamps::of_server(&config.wiring.local)?),
        Stations::Socket | Stations::Ring => None,
    };
    let end = StampedEnd::open(&config.wiring, config.wait, config.stations)?;
    server::settle_and_say_ready("server", Some(end.local_addr()), config.seat)?;
    let stop = server::stop_at_eof(|_| {}, || {});
    host::own_files();
    let report = serve(end, &stop)?;
    server::say(&report)
}

fn serve(mut end: StampedEnd, stop: &AtomicBool) -> anyhow::Result<ServerReport> {
    let offset = ClockOffset::measure(end.wall())?;
    let mut report = ServerReport::default();
    let mut buffer = [0; FRAME_BYTES];
    // Of the reply before: its key, and when the driver passed it on.
    let mut before: Option<(u64, u64)> = None;
    while !stop.load(Ordering::Acquire) {
        let Some(received) = end.recv(&mut buffer)? else {
            continue;
        };
        let app_rx_ns = monotonic_ns();
        report.rx_frames_count += 1;
        if received.is_cut {
            count(&mut report, Reject::Long);
            continue;
        }
        let bytes = &mut buffer[..received.len_bytes];
        let stack_rx_ns = received.stack.and_then(|stamp| offset.monotonic_ns(stamp));
        let stamps = [
            (Station::ServerSocketRx, stack_rx_ns.unwrap_or(0)),
            (Station::ServerAppRx, app_rx_ns),
            (Station::ServerDriverTxBefore, before.map_or(0, |(_, sent_ns)| sent_ns)),
        ];
        if let Err(reason) = answer(bytes, &stamps) {
            count(&mut report, reason);
            continue;
        }
        let Some(key) = end.send(bytes).context("sending")? else {
            report.tx_dropped_count += 1;
            before = None;
            continue;
        };
        // The reply is on its way; what is done now is nobody's latency.
        before = None;
        let look = &mut |of_key, station, stamp| {
            if of_key == key && station == TxStation::Sent {
                before = offset.monotonic_ns(stamp).map(|sent_ns| (key, sent_ns));
            }
        };
        end.tx_stamps(look).context("reading transmit stamps")?;
    }
    let later = ClockOffset::measure(end.wall())?;
    report.stamps = Some(StampClocks {
        error_ns: offset.error_ns,
        step_ns: later.step_since(&offset),
    });
    Ok(report)
}

/// Turns a request into its reply, with the stamps in its trailer and the moment of sending last.
fn answer(bytes: &mut [u8], stamps: &[(Station, u64)]) -> Result<(), Reject> {
    let request = frame::parse(bytes)?;
    if request.header.kind != Kind::EchoRequest {
        return Err(Reject::Kind);
    }
    let header = Header {
        kind: Kind::EchoReply,
        ..request.header
    };
    let trailer = trace::trailer_mut(&mut bytes[HEADER_BYTES..]).ok_or(Reject::Short)?;
    for (station, at_ns) in stamps {
        trace::set_stamp(trailer, *station, *at_ns);
    }
    trace::set_stamp(trailer, Station::ServerAppTx, monotonic_ns());
    frame::emit(&header, bytes);
    Ok(())
}

fn count(report: &mut ServerReport, reason: Reject) {
    *report.rejects.entry(reason.name().to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breakdown::client::request;

    #[test]
    fn a_request_is_answered_with_its_stamps_and_what_xdp_wrote_is_kept() {
        let mut bytes = [0; FRAME_BYTES];
        request(7, 11, 12, &mut bytes);
        let trailer = trace::trailer_mut(&mut bytes[HEADER_BYTES..]).expect("it has one");
        trace::set_stamp(trailer, Station::ServerDriverRx, 99);
        let header = Header {
            kind: Kind::EchoRequest,
            term: 0,
            slot: 11,
            sent_ns: 12,
        };
        frame::emit(&header, &mut bytes);
        answer(&mut bytes, &[(Station::ServerAppRx, 100)]).expect("a good request");
        let reply = frame::parse(&bytes).expect("its checksums are right");
        assert_eq!((reply.header.kind, reply.header.slot), (Kind::EchoReply, 11));
        let trailer = trace::trailer(reply.payload).expect("it has one");
        assert_eq!(trace::stamp(trailer, Station::ServerDriverRx), 99);
        assert_eq!(trace::stamp(trailer, Station::ServerAppRx), 100);
        assert!(trace::stamp(trailer, Station::ServerAppTx) > 0);
        assert_eq!(answer(&mut bytes, &[]), Err(Reject::Kind), "a reply is not answered");
    }

    #[test]
    fn only_back_ends_that_are_taken_apart_have_a_stamped_server() {
        let plain = |backend: &str| -> ServerConfig {
            let endpoint = r#"{"addr":"192.0.2.2:7000","interface":"eth0","mac":[0,0,0,0,0,0],"mtu_bytes":1500}"#;
            let config = format!(
                r#"{{"parent_pid":1,"backend":"{backend}","wiring":{{"end":"Server","local":{endpoint},"remote":null,
                "over_veth":false,"frame_bytes_max":128,"room":{{"frames_count":64}},"untimed":true,"region":null}},
                "seat":{{"cpu":null,"spins":false,"is_shared":false}},
                "role":{{"echo":{{"service_spin":{{"secs":0,"nanos":0}},"times_turns":false}}}}}}"#
            );
            serde_json::from_str(&config).expect("a configuration")
        };
        for stations in [Stations::Socket, Stations::SocketAndDriver, Stations::Ring] {
            for wait in [Wait::Blocking, Wait::Spinning] {
                let config = StampedConfig::from_plain(plain(wait.plain(stations)), stations).expect("one of ours");
                assert_eq!((config.wait, config.stations), (wait, stations));
            }
            for other in ["io-uring", "xdp-echo", "af-packet", "udp-epoll"] {
                let error = StampedConfig::from_plain(plain(other), stations).expect_err("no stamps");
                assert!(error.to_string().contains(other), "{error}");
            }
        }
        let sink = ServerConfig {
            role: Role::Sink { stream_id: 1 },
            ..plain("udp-spin")
        };
        assert!(StampedConfig::from_plain(sink, Stations::Socket).is_err());
        assert!(StampedConfig::from_plain(plain("udp-spin"), Stations::Ring).is_err());
        assert!(StampedConfig::from_plain(plain("af-xdp"), Stations::SocketAndDriver).is_err());
    }

    #[test]
    fn a_request_without_room_for_stamps_is_refused() {
        let mut bytes = [0; 64];
        dataplane_echo::request(7, 1, 2, &mut bytes);
        assert_eq!(answer(&mut bytes, &[]), Err(Reject::Short));
        assert!(answer(&mut [0; 3], &[]).is_err());
    }
}
