//! The congestion controllers, one file each, and [`AnyController`], which is whichever a scenario names.

mod bbr1;
mod bbr3;
mod cubic;
mod dctcp;
mod hystart;
mod max_filter;
mod newreno;
mod swift;

use std::{fmt, str::FromStr};

pub use self::{
    bbr1::{Bbr1, Bbr1Options},
    bbr3::Bbr3,
    cubic::{BETA as CUBIC_BETA, C as CUBIC_C, Cubic, CubicOptions},
    dctcp::{Dctcp, DctcpOptions},
    newreno::{Growth, NewReno},
    swift::{Swift, SwiftOptions},
};
use crate::{AckSample, Controller, LossSample, LostPacket, SenderOptions};

/// Declares the controllers once: their kinds, their names, how each is made, and the enum that is any of them. An enum and not a
/// box: a flow stays in one piece, and the branch is always the same one.
macro_rules! controllers {
    ($($(#[$doc:meta])* $kind:ident $name:literal => $make:expr;)*) => {
        /// The controllers by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ControllerKind { $($(#[$doc])* $kind,)* }

        impl ControllerKind {
            /// All of them, in the order of the documentation.
            pub const ALL: &[ControllerKind] = &[$(ControllerKind::$kind,)*];

            /// Its name in scenarios and tables.
            pub fn name(self) -> &'static str {
                match self { $(ControllerKind::$kind => $name,)* }
            }

            /// A new controller of this kind, with its own defaults and the sender's segment size and initial window.
            pub fn build(self, options: &SenderOptions) -> AnyController {
                match self {
                    $(ControllerKind::$kind => {
                        let make: fn(&SenderOptions) -> $kind = $make;
                        AnyController::$kind(make(options))
                    })*
                }
            }
        }

        /// One of the controllers, chosen at run time.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "each names the type that it holds")]
        pub enum AnyController { $($kind($kind),)* }

        $(impl From<$kind> for AnyController {
            fn from(controller: $kind) -> AnyController { AnyController::$kind(controller) }
        })*

        impl Controller for AnyController {
            #[inline]
            fn on_ack(&mut self, ack: &AckSample) { match self { $(AnyController::$kind(c) => c.on_ack(ack),)* } }
            fn on_congestion(&mut self, loss: &LossSample) {
                match self { $(AnyController::$kind(c) => c.on_congestion(loss),)* }
            }
            fn on_rto(&mut self, loss: &LossSample) { match self { $(AnyController::$kind(c) => c.on_rto(loss),)* } }
            fn on_ecn(&mut self, loss: &LossSample) { match self { $(AnyController::$kind(c) => c.on_ecn(loss),)* } }
            fn on_recovered(&mut self) { match self { $(AnyController::$kind(c) => c.on_recovered(),)* } }
            fn undo(&mut self) { match self { $(AnyController::$kind(c) => c.undo(),)* } }
            fn on_packet_lost(&mut self, packet: &LostPacket) {
                match self { $(AnyController::$kind(c) => c.on_packet_lost(packet),)* }
            }
            fn on_idle_restart(&mut self, now_ns: u64, initial_bytes: u64) {
                match self { $(AnyController::$kind(c) => c.on_idle_restart(now_ns, initial_bytes),)* }
            }
            #[inline]
            fn window_bytes(&self) -> u64 { match self { $(AnyController::$kind(c) => c.window_bytes(),)* } }
            #[inline]
            fn pacing_bytes_per_sec(&self) -> Option<u64> {
                match self { $(AnyController::$kind(c) => c.pacing_bytes_per_sec(),)* }
            }
            #[inline]
            fn burst_bytes(&self) -> u64 { match self { $(AnyController::$kind(c) => c.burst_bytes(),)* } }
            fn is_slow_start(&self) -> bool { match self { $(AnyController::$kind(c) => c.is_slow_start(),)* } }
            fn rules_recovery(&self) -> bool { match self { $(AnyController::$kind(c) => c.rules_recovery(),)* } }
        }
    };
}

controllers! {
    /// RFC 5681 and 6582.
    NewReno "newreno" => |options| NewReno::new(options.mss_bytes, options.initial_window_bytes())
        .with_growth(if options.ns3.grows_per_ack { Growth::Acks } else { Growth::Bytes });
    /// RFC 9438, without HyStart++.
    Cubic "cubic" => |options| Cubic::new(options.mss_bytes, options.initial_window_bytes(), CubicOptions::default());
    /// RFC 8257. The flow's two halves need [`crate::EcnMode::Dctcp`].
    Dctcp "dctcp" => |options| Dctcp::new(options.mss_bytes, options.initial_window_bytes(), DctcpOptions::default());
    /// BBR of 2016.
    Bbr1 "bbr1" => |options| Bbr1::new(options.mss_bytes, options.initial_window_bytes(), options.seed, Bbr1Options::default());
    /// draft-ietf-ccwg-bbr.
    Bbr3 "bbr3" => |options| Bbr3::new(options.mss_bytes, options.initial_window_bytes(), options.seed);
    /// SIGCOMM'20.
    Swift "swift" => |options| Swift::new(options.mss_bytes, options.initial_window_bytes(), SwiftOptions::default());
}

impl fmt::Display for ControllerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no controller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownController(String);

impl fmt::Display for UnknownController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = ControllerKind::ALL.iter().map(|kind| kind.name()).collect();
        write!(
            f,
            "there is no congestion controller {:?}: it is one of {}",
            self.0,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownController {}

impl FromStr for ControllerKind {
    type Err = UnknownController;

    fn from_str(name: &str) -> Result<ControllerKind, UnknownController> {
        let found = ControllerKind::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| UnknownController(name.into()))
    }
}
