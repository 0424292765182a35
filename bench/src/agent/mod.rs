//! Two machines: an agent that answers on one, and what the other asks of it.
//!
//! ```text
//! machine A  dplab run                                   machine B  dplab agent
//!
//! place, server ─▶ remote (asks) ─▶ channel ═══ TCP ═══ channel ─▶ serve (answers) ─▶ Server::spawn
//!                                      protocol: what may be asked, and its bounds
//!                                      key: who may ask
//!                                      told: what is believed of an answer
//! port ═══════════════════════ frames, UDP, the measured interface ═══════════════════════ port
//! ```
//!
//! The channel is authenticated, not secret. Nothing crosses it while a load is timed, but the pauses of a stalled server.
//! No time is ever compared across machines: what crosses it are durations, counts and facts.

pub mod channel;
mod handshake;
pub mod key;
pub mod protocol;
mod remote;
mod serve;
mod session;
mod told;

pub use remote::Agent;
pub use serve::{AgentOptions, serve};

/// The agent's TCP port, unless another is named.
pub const PORT_DEFAULT: u16 = 7400;
