//! The asking end of a breakdown: ping-pong over an end that stamps, and out of each reply the whole way of its request.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use dataplane_ports::stamped::{ClockOffset, TxStation, monotonic_ns};
use dataplane_wire::{
    echo,
    frame::{self, HEADER_BYTES, Header, Kind},
    trace::{self, Station, TRAILER_BYTES},
};

use super::{
    end::StampedEnd,
    stages::{Clocks, POINTS_COUNT, Point, Stages, Stations, Way},
};
use crate::load::thread::ThreadUsage;

/// Header, the echo's client number, some filler, and the trailer of stamps.
pub const FRAME_BYTES: usize = 128;
const _: () = assert!(FRAME_BYTES >= HEADER_BYTES + echo::PAYLOAD_BYTES_MIN + TRAILER_BYTES);

/// A request without a reply for this long is lost: long beside a round trip, and short beside a trial, which stands still
/// meanwhile.
const TIMEOUT: Duration = Duration::from_millis(50);
/// Round trips before this are not recorded.
const WARM_UP: Duration = Duration::from_millis(15);

/// How the client asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientOptions {
    pub(super) duration: Duration,
    pub(super) client_id: u32,
    pub(super) stations: Stations,
    pub(super) clocks: Clocks,
}

/// What the client found.
pub(super) struct Asked {
    pub(super) stages: Stages,
    pub(super) sent_count: u64,
    pub(super) elapsed: Duration,
    pub(super) clock_error_ns: u64,
    pub(super) clock_step_ns: Option<i64>,
    pub(super) used: ThreadUsage,
}

/// One request after the other until the time is over, or `stop`. `begun` is called when the warm-up is.
pub(super) fn ask(
    mut end: StampedEnd,
    options: &ClientOptions,
    begun: &mut dyn FnMut(),
    stop: &AtomicBool,
) -> anyhow::Result<Asked> {
    let offset = ClockOffset::measure(end.wall())?;
    let mut stages = Stages::new(options.stations, options.clocks);
    let warm_until_ns = monotonic_ns() + WARM_UP.as_nanos() as u64;
    let mut measured_from_ns = None;
    let mut used_before = ThreadUsage::now();
    let mut sent_count = 0;
    // Answered, and waiting for the stamp that travels in the next reply.
    let mut unfinished: Option<Way> = None;
    for seq in 0_u64.. {
        let now_ns = monotonic_ns();
        let elapsed_ns = measured_from_ns.map_or(0, |from_ns| now_ns.saturating_sub(from_ns));
        if elapsed_ns >= options.duration.as_nanos() as u64 || stop.load(Ordering::Relaxed) {
            break;
        }
        if measured_from_ns.is_none() && now_ns >= warm_until_ns {
            begun();
            used_before = ThreadUsage::now();
            unfinished = None;
            measured_from_ns = Some(monotonic_ns());
        }
        let is_measured = measured_from_ns.is_some();
        sent_count += u64::from(is_measured);
        let answered = round_trip(&mut end, options, seq, &offset)?;
        // The stamp that the request before this one lacked.
        if let Some(mut way) = unfinished.take() {
            match answered {
                Some((next, before_ns)) if is_between(&way, before_ns, &next) => {
                    way[Point::ServerSent as usize] = before_ns;
                    stages.record(&way);
                }
                _ => stages.record_incomplete(),
            }
        }
        match answered {
            Some((way, _)) if is_measured => unfinished = Some(way),
            None if is_measured => stages.record_lost(),
            _ => {}
        }
    }
    // The last one's stamp never comes: it is left out, and is none of the incomplete.
    let later = ClockOffset::measure(end.wall())?;
    Ok(Asked {
        stages,
        sent_count,
        elapsed: Duration::from_nanos(measured_from_ns.map_or(0, |from_ns| monotonic_ns() - from_ns)),
        clock_error_ns: offset.error_ns,
        clock_step_ns: later.step_since(&offset),
        used: ThreadUsage::now().since(&used_before),
    })
}

/// The stamp of the reply before is the one of `way` if the server's driver passed it on after the server's sending and before
/// the server received the `next` request; a lost reply in between would bring another's. All three are of the server's clocks.
fn is_between(way: &Way, sent_ns: u64, next: &Way) -> bool {
    // Clocks are compared by the stages' gate, not here: a millisecond tells one request from another.
    const DOUBT_NS: u64 = 1_000_000;
    sent_ns.saturating_add(DOUBT_NS) > way[Point::ServerReply as usize]
        && sent_ns < next[Point::ServerReceive as usize].saturating_add(DOUBT_NS)
}

/// One request and its reply: its way, without the stamp that is not known yet, and that stamp of the reply before. `None`:
/// no reply came in time.
fn round_trip(
    end: &mut StampedEnd,
    options: &ClientOptions,
    seq: u64,
    offset: &ClockOffset,
) -> anyhow::Result<Option<(Way, u64)>> {
    let mut bytes = [0; FRAME_BYTES];
    request(options.client_id, seq, monotonic_ns(), &mut bytes);
    // Behind the checksums: writing a request is no part of its way.
    let app_tx_ns = monotonic_ns();
    let key = end.send(&bytes).context("sending")?;
    let deadline_ns = app_tx_ns + TIMEOUT.as_nanos() as u64;
    loop {
        let received = end.recv(&mut bytes)?;
        let app_rx_ns = monotonic_ns();
        let reply = received.and_then(|received| {
            let trailer = *trailer_of(&bytes[..received.len_bytes], options.client_id, seq)?;
            Some((received, trailer))
        });
        let Some((received, trailer)) = reply else {
            // Nothing, or a late reply to an earlier request.
            if app_rx_ns > deadline_ns {
                return Ok(None);
            }
            continue;
        };
        let mut way: Way = [0; POINTS_COUNT];
        let mut set = |point: Point, at_ns: Option<u64>| way[point as usize] = at_ns.unwrap_or(0);
        let of_server = |station| Some(trace::stamp(&trailer, station));
        set(Point::ClientSend, Some(app_tx_ns));
        set(Point::ServerDriver, of_server(Station::ServerDriverRx));
        set(Point::ServerStack, of_server(Station::ServerSocketRx));
        set(Point::ServerReceive, of_server(Station::ServerAppRx));
        set(Point::ServerReply, of_server(Station::ServerAppTx));
        set(Point::ClientDriver, of_server(Station::ClientDriverRx));
        set(
            Point::ClientStack,
            received.stack.and_then(|stamp| offset.monotonic_ns(stamp)),
        );
        set(Point::ClientReceive, Some(app_rx_ns));
        let look = &mut |of_key, station, stamp| {
            if Some(of_key) == key {
                let point = match station {
                    TxStation::Scheduled => Point::ClientScheduled,
                    TxStation::Sent => Point::ClientSent,
                };
                set(point, offset.monotonic_ns(stamp));
            }
        };
        end.tx_stamps(look).context("reading transmit stamps")?;
        return Ok(Some((way, trace::stamp(&trailer, Station::ServerDriverTxBefore))));
    }
}

/// Writes a request with an empty trailer over all of `bytes`.
pub(super) fn request(client_id: u32, seq: u64, sent_ns: u64, bytes: &mut [u8; FRAME_BYTES]) {
    const FILLER: [u8; FRAME_BYTES - HEADER_BYTES - echo::PAYLOAD_BYTES_MIN] =
        [0; FRAME_BYTES - HEADER_BYTES - echo::PAYLOAD_BYTES_MIN];
    let payload = echo::Echo {
        client: client_id,
        filler: &FILLER,
    };
    echo::emit(&payload, &mut bytes[HEADER_BYTES..]);
    let header = Header {
        kind: Kind::EchoRequest,
        term: 0,
        slot: seq,
        sent_ns,
    };
    frame::emit(&header, bytes);
}

/// The trailer of a reply to this client's request `seq`.
fn trailer_of(bytes: &[u8], client_id: u32, seq: u64) -> Option<&[u8; TRAILER_BYTES]> {
    let reply = frame::parse(bytes).ok()?;
    let is_ours = reply.header.kind == Kind::EchoReply
        && reply.header.slot == seq
        && echo::parse(reply.payload).is_ok_and(|echo| echo.client == client_id);
    trace::trailer(reply.payload).filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_belongs_to_the_request_between_whose_server_stations_it_lies() {
        const MS: u64 = 1_000_000;
        let at = |server_ns: u64| {
            let mut way: Way = [0; POINTS_COUNT];
            // The client's clock was started long after the server's.
            way[Point::ClientSend as usize] = 5;
            way[Point::ClientReceive as usize] = 60_000;
            way[Point::ServerReceive as usize] = server_ns;
            way[Point::ServerReply as usize] = server_ns + 1_000;
            way
        };
        let (way, next) = (at(9_000 * MS), at(9_050 * MS));
        assert!(is_between(&way, 9_000 * MS + 2_000, &next));
        assert!(!is_between(&way, 0, &next), "none");
        assert!(!is_between(&way, 8_950 * MS, &next), "of a request before");
        assert!(!is_between(&way, 9_100 * MS, &next), "of one after");
        assert!(!is_between(&way, u64::MAX, &next), "nonsense");
    }

    #[test]
    fn only_this_request_s_reply_is_read() {
        let mut bytes = [0; FRAME_BYTES];
        request(7, 11, 12, &mut bytes);
        assert_eq!(trailer_of(&bytes, 7, 11), None, "a request is no reply");
        let header = Header {
            kind: Kind::EchoReply,
            term: 0,
            slot: 11,
            sent_ns: 12,
        };
        frame::emit(&header, &mut bytes);
        assert_eq!(trailer_of(&bytes, 7, 11), Some(&[0; TRAILER_BYTES]));
        assert_eq!(trailer_of(&bytes, 8, 11), None);
        assert_eq!(trailer_of(&bytes, 7, 12), None);
        bytes[100] ^= 1;
        assert_eq!(trailer_of(&bytes, 7, 11), None, "damaged");
        assert_eq!(trailer_of(&[], 7, 11), None);
    }
}
