//! The answering end of a breakdown: an echo that writes into each reply when it passed the server's own stations
//! ([`dataplane_wire::trace`]). A process of its own like `serve-echo`, with an end that stamps in place of a port.
//!
//! When the driver passed a reply on is known only after it has left, so that stamp travels in the reply after it.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use dataplane_ports::stamped::{ClockOffset, TxStation, monotonic_ns};
use dataplane_wire::{
    Reject,
    frame::{self, HEADER_BYTES, Header, Kind},
    trace::{self, Station},
};
use serde::{Deserialize, Serialize};

use super::{Wait, client::FRAME_BYTES, end::StampedEnd, stages::Stations};
use crate::{
    backends::Wiring,
    host::{self, Seat},
    server::{self, ServerReport},
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

/// The last line on the server's stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StampedReport {
    /// What any server counts.
    pub server: ServerReport,
    /// How exactly it knew the offset of its clocks, in nanoseconds.
    pub clock_error_ns: u64,
    /// By how much its wall clock was stepped meanwhile, if it was.
    pub clock_step_ns: Option<i64>,
}

/// The server's process: everything behind [`SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read, a socket that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: StampedConfig = serde_json::from_str(config).context("reading the server's configuration")?;
    server::die_with(config.parent_pid)?;
    let end = StampedEnd::open(&config.wiring, config.wait, config.stations)?;
    server::settle_and_say_ready("server", Some(end.local_addr()), config.seat)?;
    let stop = server::stop_at_eof(|_| {}, || {});
    host::own_files();
    let report = serve(end, &stop)?;
    server::say(&report)
}

fn serve(mut end: StampedEnd, stop: &AtomicBool) -> anyhow::Result<StampedReport> {
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
    Ok(StampedReport {
        server: report,
        clock_error_ns: offset.error_ns,
        clock_step_ns: later.step_since(&offset),
    })
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
    fn a_request_without_room_for_stamps_is_refused() {
        let mut bytes = [0; 64];
        dataplane_echo::request(7, 1, 2, &mut bytes);
        assert_eq!(answer(&mut bytes, &[]), Err(Reject::Short));
        assert!(answer(&mut [0; 3], &[]).is_err());
    }
}
