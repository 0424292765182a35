//! What a scenario file says of TCP, as the two halves of a flow want it.

use std::time::Duration;

use dataplane_transports::{
    ControllerKind, EcnMode, Pacing, ReceiverOptions, SenderOptions,
    controllers::{Bbr1Options, DctcpOptions, SwiftOptions},
};

use super::setup::FlowOptions;
use crate::scenario::{
    file::{TcpBase, TcpFile},
    units::Span,
};

/// What `own` says, and the rest from `base`.
pub(super) fn over(own: TcpFile, base: TcpFile) -> TcpFile {
    TcpFile {
        base: own.base.or(base.base),
        controller: own.controller.or(base.controller),
        ecn: own.ecn.or(base.ecn),
        dctcp_gain: own.dctcp_gain.or(base.dctcp_gain),
        dctcp_window_min: own.dctcp_window_min.or(base.dctcp_window_min),
        mss: own.mss.or(base.mss),
        initial_window: own.initial_window.or(base.initial_window),
        receive_window: own.receive_window.or(base.receive_window),
        sack: own.sack.or(base.sack),
        rack: own.rack.or(base.rack),
        tlp: own.tlp.or(base.tlp),
        frto: own.frto.or(base.frto),
        limited_transmit: own.limited_transmit.or(base.limited_transmit),
        prr: own.prr.or(base.prr),
        timestamps: own.timestamps.or(base.timestamps),
        rto_min: own.rto_min.or(base.rto_min),
        rto_max: own.rto_max.or(base.rto_max),
        rto_initial: own.rto_initial.or(base.rto_initial),
        rto_randomised: own.rto_randomised.or(base.rto_randomised),
        timer_tick: own.timer_tick.or(base.timer_tick),
        ack_delay: own.ack_delay.or(base.ack_delay),
        quick_acks: own.quick_acks.or(base.quick_acks),
        pacing: own.pacing.or(base.pacing),
        bbr_holds_bursts: own.bbr_holds_bursts.or(base.bbr_holds_bursts),
        bbr_sends_bursts: own.bbr_sends_bursts.or(base.bbr_sends_bursts),
        bbr_aggregation: own.bbr_aggregation.or(base.bbr_aggregation),
        bbr_policers: own.bbr_policers.or(base.bbr_policers),
        swift_window_min: own.swift_window_min.or(base.swift_window_min),
        swift_increase: own.swift_increase.or(base.swift_increase),
        idle_restart: own.idle_restart.or(base.idle_restart),
    }
}

/// The two halves of a flow as a file wants them.
pub fn flow_options(tcp: &TcpFile) -> FlowOptions {
    let (mut sender, mut receiver) = match tcp.base.unwrap_or_default() {
        TcpBase::Rfc => (SenderOptions::default(), ReceiverOptions::default()),
        TcpBase::Linux2008 => (SenderOptions::linux_2008(), ReceiverOptions::linux_2008()),
        TcpBase::Linux2026 => (SenderOptions::linux_2026(), ReceiverOptions::linux_2026()),
    };
    let controller = tcp
        .controller
        .map_or(ControllerKind::NewReno, |controller| controller.0);
    let ecn = match (controller, tcp.ecn) {
        (ControllerKind::Dctcp, None | Some(true)) => EcnMode::Dctcp,
        (_, Some(true)) => EcnMode::Classic,
        _ => EcnMode::Off,
    };
    (sender.ecn, receiver.ecn) = (ecn, ecn);
    let set = |value: Option<bool>, into: &mut bool| *into = value.unwrap_or(*into);
    let set_time = |value: Option<Span>, into: &mut Duration| {
        *into = value.map_or(*into, |span| span.duration());
    };
    set(tcp.sack, &mut sender.sack);
    set(tcp.rack, &mut sender.rack);
    set(tcp.tlp, &mut sender.tlp);
    set(tcp.frto, &mut sender.frto);
    set(tcp.limited_transmit, &mut sender.limited_transmit);
    set(tcp.prr, &mut sender.prr);
    set(tcp.timestamps, &mut sender.timestamps);
    set(tcp.rto_randomised, &mut sender.rto_randomised);
    set(tcp.idle_restart, &mut sender.idle_restart);
    set_time(tcp.rto_min, &mut sender.rto_min);
    set_time(tcp.rto_max, &mut sender.rto_max);
    set_time(tcp.rto_initial, &mut sender.rto_initial);
    set_time(tcp.timer_tick, &mut sender.timer_tick);
    set_time(tcp.timer_tick, &mut receiver.timer_tick);
    set_time(tcp.ack_delay, &mut receiver.ack_delay);
    receiver.sack = sender.sack;
    sender.ack_delay_max = sender.ack_delay_max.max(receiver.ack_delay);
    if let Some(mss) = tcp.mss {
        (sender.mss_bytes, receiver.mss_bytes) = (mss.bytes as u32, mss.bytes as u32);
    }
    sender.initial_window_segments = tcp.initial_window.unwrap_or(sender.initial_window_segments);
    receiver.quick_acks_count = tcp.quick_acks.unwrap_or(receiver.quick_acks_count);
    receiver.window_bytes = tcp
        .receive_window
        .map_or(receiver.window_bytes, |size| size.bytes as u32);
    sender.pacing = match tcp.pacing {
        Some(true) => Pacing::Window,
        Some(false) => Pacing::Off,
        None => sender.pacing,
    };
    let defaults = DctcpOptions::default();
    let dctcp = DctcpOptions {
        gain: tcp.dctcp_gain.map_or(defaults.gain, |gain| gain as f32),
        window_min_segments: tcp.dctcp_window_min.map_or(defaults.window_min_segments, u32::from),
        ..defaults
    };
    let dctcp = (dctcp != defaults).then_some(dctcp);
    let defaults = Bbr1Options::default();
    let bbr1 = Bbr1Options {
        holds_bursts: tcp.bbr_holds_bursts.unwrap_or(defaults.holds_bursts),
        sends_bursts: tcp.bbr_sends_bursts.unwrap_or(defaults.sends_bursts),
        allows_aggregation: tcp.bbr_aggregation.unwrap_or(defaults.allows_aggregation),
        detects_policers: tcp.bbr_policers.unwrap_or(defaults.detects_policers),
    };
    let bbr1 = (bbr1 != defaults).then_some(bbr1);
    let defaults = SwiftOptions::default();
    let swift = SwiftOptions {
        window_min: tcp
            .swift_window_min
            .map_or(defaults.window_min, |segments| segments.count),
        additive_increase: tcp
            .swift_increase
            .map_or(defaults.additive_increase, |segments| segments.count),
        ..defaults
    };
    FlowOptions {
        quinn: tcp.controller.and_then(|controller| controller.1),
        bbr1,
        swift: (swift != defaults).then_some(swift),
        sender,
        receiver,
        controller,
        dctcp,
    }
}
