//! The two ends of a trial: the server started, the client's end made or ready to be opened.

use anyhow::Context;
use dataplane_ports::{
    loopback::{self, RingOptions},
    shm::ShmRegion,
};
use dataplane_waist::Port;

use super::{Load, Trial};
use crate::{
    backends::{BackEnd, Kind, Wiring},
    experiment::Lab,
    host::Seat,
    place::End,
    server::{Server, ServerConfig},
};

/// The two ends, wired together.
pub(super) struct Ends {
    pub(super) server: Server,
    /// The client's end, where both ends are made together; otherwise it is opened on the client's thread.
    pub(super) client_port: ClientPort,
    pub(super) client_seat: Seat,
}

/// What it takes to open the client's end.
pub(super) struct ToOpen {
    pub(super) backend: BackEnd,
    pub(super) wiring: Wiring,
    /// Kept until both ends have opened it.
    pub(super) region: Option<ShmRegion>,
}

pub(super) enum ClientPort {
    Made(Box<dyn Port>),
    ToOpen(Box<ToOpen>),
}

impl Ends {
    pub(super) fn start(lab: &Lab<'_>, trial: &Trial<'_>) -> anyhow::Result<Ends> {
        let [client_cpu, server_cpu] = trial.cpus.of(lab.place.cpus());
        let is_shared = client_cpu == server_cpu;
        let client_backend = trial.client_backend.unwrap_or(trial.backend);
        let client_seat = Seat {
            cpu: client_cpu,
            spins: !client_backend.sleeps(),
            is_shared,
        };
        let mut config = ServerConfig {
            parent_pid: std::process::id(),
            backend: trial.backend.name.to_owned(),
            wiring: Wiring {
                end: End::Server,
                local: lab.place.endpoint(End::Server),
                remote: lab.place.has_fixed_addresses().then(|| lab.place.endpoint(End::Client)),
                frame_bytes_max: trial.frame_bytes,
                room: trial.room,
                untimed: true,
                region: None,
            },
            seat: Seat {
                cpu: server_cpu,
                spins: !trial.backend.sleeps(),
                is_shared,
            },
            service_spin: trial.service_spin,
            times_turns: trial.stall.is_some(),
        };
        let ring = RingOptions {
            slots_count: trial.room.frames_count.next_power_of_two(),
            frame_bytes_max: trial.frame_bytes,
            ..RingOptions::default()
        };
        match trial.backend.kind {
            Kind::Loopback => {
                let (client, server) = loopback::pair(&ring);
                let server = Server::start_thread(Box::new(server), &config)?;
                Ok(Ends {
                    server,
                    client_port: ClientPort::Made(Box::new(client)),
                    client_seat,
                })
            }
            _ => {
                let region = match trial.backend.kind {
                    Kind::Shm => Some(ShmRegion::create(&ring).context("making the shared-memory region")?),
                    _ => None,
                };
                config.wiring.region = region.as_ref().map(|region| region.path_for(std::process::id()));
                let server = lab.place.inside(End::Server, || Server::spawn(&config))??;
                let mut remote = config.wiring.local.clone();
                if let Some(addr) = server.addr() {
                    remote.addr = addr;
                }
                let wiring = Wiring {
                    end: End::Client,
                    local: lab.place.endpoint(End::Client),
                    remote: Some(remote),
                    region: config.wiring.region.clone(),
                    // An open loop waits for the next send, too, and needs its time-outs.
                    untimed: matches!(trial.load, Load::Closed { .. }),
                    ..config.wiring
                };
                Ok(Ends {
                    server,
                    client_port: ClientPort::ToOpen(Box::new(ToOpen {
                        backend: *client_backend,
                        wiring,
                        region,
                    })),
                    client_seat,
                })
            }
        }
    }
}
