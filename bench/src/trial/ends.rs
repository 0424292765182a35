//! The two ends of a trial: the server started, the client's end made or ready to be opened.

use std::sync::Arc;

use anyhow::{Context, bail};
use dataplane_ports::{
    loopback::{self, RingOptions},
    shm::ShmRegion,
    udp::UdpCloser,
};
use dataplane_waist::Port;
use ebpf_host::Attachment;

use super::{Cpus, Load, Trial};
use crate::{
    agent::{Agent, protocol::Start},
    backends::{BackEnd, Kind, Room, Wiring},
    experiment::Lab,
    host::Seat,
    place::End,
    server::{Role, Server, ServerConfig},
};

/// What two ends are to be.
pub(super) struct Wanted<'a> {
    /// The server's back end.
    pub(super) server: &'a BackEnd,
    /// The client's.
    pub(super) client: &'a BackEnd,
    pub(super) cpus: Cpus,
    pub(super) frame_bytes: usize,
    pub(super) room: Room,
    /// What the server does.
    pub(super) role: Role,
    /// The server's blocking waits need no time-out: somebody ends them.
    pub(super) server_untimed: bool,
    /// The client's likewise.
    pub(super) client_untimed: bool,
}

impl<'a> Wanted<'a> {
    /// What a trial of requests and replies needs.
    pub(super) fn by(trial: &'a Trial<'_>) -> Wanted<'a> {
        Wanted {
            server: trial.backend,
            client: trial.client_backend.unwrap_or(trial.backend),
            cpus: trial.cpus,
            frame_bytes: trial.frame_bytes,
            room: trial.room,
            role: Role::Echo {
                service_spin: trial.service_spin,
                times_turns: trial.stall.is_some(),
            },
            server_untimed: true,
            // An open loop waits for the next send, too, and needs its time-outs.
            client_untimed: matches!(trial.load, Load::Closed { .. }),
        }
    }
}

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

/// The client's end, open. Fields are dropped in this order: the port first, then what it stands on.
pub(super) struct ClientEnd {
    pub(super) port: Box<dyn Port>,
    /// Ends a wait of the port that has no time-out, where it has one.
    pub(super) closer: Option<UdpCloser>,
    _region: Option<ShmRegion>,
    _program: Option<Attachment>,
}

impl ClientPort {
    /// Opens it, in the client's host, if it is not open yet. To be called on the thread that will use it.
    ///
    /// # Errors
    /// What the back end said.
    pub(super) fn open(self, lab: &Lab<'_>) -> anyhow::Result<ClientEnd> {
        let to_open = match self {
            ClientPort::Made(port) => {
                return Ok(ClientEnd {
                    port,
                    closer: None,
                    _region: None,
                    _program: None,
                });
            }
            ClientPort::ToOpen(to_open) => to_open,
        };
        let ToOpen {
            backend,
            wiring,
            region,
        } = *to_open;
        let opened = lab.place.inside(End::Client, || backend.open(&wiring))??;
        Ok(ClientEnd {
            port: opened.port,
            closer: opened.closer.filter(|_| wiring.untimed),
            _region: region,
            _program: opened.keeps,
        })
    }
}

impl Ends {
    pub(super) fn start(lab: &Lab<'_>, wanted: &Wanted<'_>) -> anyhow::Result<Ends> {
        if let Some(agent) = lab.place.agent() {
            return Ends::with_agent(lab, wanted, agent);
        }
        let [client_cpu, server_cpu] = wanted.cpus.of(lab.place.cpus());
        let is_shared = client_cpu == server_cpu;
        // A flood leaves a sleeping end no time to sleep.
        let is_flood = matches!(wanted.role, Role::Sink { .. });
        let client_seat = Seat {
            cpu: client_cpu,
            spins: is_flood || !wanted.client.sleeps(),
            is_shared,
        };
        let mut config = ServerConfig {
            parent_pid: std::process::id(),
            backend: wanted.server.name.to_owned(),
            wiring: Wiring {
                end: End::Server,
                local: lab.place.endpoint(End::Server),
                remote: lab.place.has_fixed_addresses().then(|| lab.place.endpoint(End::Client)),
                members: Vec::new(),
                over_veth: lab.place.is_veth(),
                frame_bytes_max: wanted.frame_bytes,
                room: wanted.room,
                untimed: wanted.server_untimed,
                region: None,
            },
            seat: Seat {
                cpu: server_cpu,
                spins: is_flood || !wanted.server.sleeps(),
                is_shared,
            },
            role: wanted.role,
        };
        let ring = RingOptions {
            slots_count: wanted.room.frames_count.next_power_of_two(),
            frame_bytes_max: wanted.frame_bytes,
            ..RingOptions::default()
        };
        match wanted.server.kind {
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
                let region = match wanted.server.kind {
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
                    untimed: wanted.client_untimed,
                    ..config.wiring
                };
                Ok(Ends {
                    server,
                    client_port: ClientPort::ToOpen(Box::new(ToOpen {
                        backend: *wanted.client,
                        wiring,
                        region,
                    })),
                    client_seat,
                })
            }
        }
    }

    /// The server on another machine, whose agent chooses its address and its CPU.
    fn with_agent(lab: &Lab<'_>, wanted: &Wanted<'_>, agent: &Arc<Agent>) -> anyhow::Result<Ends> {
        if wanted.cpus == Cpus::One {
            bail!("two machines have no CPU in common");
        }
        let local = lab.place.endpoint(End::Client);
        let start = Start {
            backend: wanted.server.name.to_owned(),
            client: local.addr,
            client_mac: local.mac,
            server_port: lab.place.endpoint(End::Server).addr.port(),
            frame_bytes_max: wanted.frame_bytes,
            room_frames_count: wanted.room.frames_count,
            role: wanted.role,
        };
        let server = Server::start_remote(agent, start)?;
        let remote = lab.place.server_at(server.addr())?;
        let wiring = Wiring {
            end: End::Client,
            local,
            remote: Some(remote),
            members: Vec::new(),
            over_veth: lab.place.is_veth(),
            frame_bytes_max: wanted.frame_bytes,
            room: wanted.room,
            untimed: wanted.client_untimed,
            region: None,
        };
        Ok(Ends {
            server,
            client_port: ClientPort::ToOpen(Box::new(ToOpen {
                backend: *wanted.client,
                wiring,
                region: None,
            })),
            client_seat: Seat {
                cpu: lab.place.cpus().first().copied(),
                // A flood leaves a sleeping end no time to sleep.
                spins: matches!(wanted.role, Role::Sink { .. }) || !wanted.client.sleeps(),
                is_shared: false,
            },
        })
    }
}
