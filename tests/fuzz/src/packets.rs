//! An endpoint that is sent a fuzzer's packets.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dataplane_waist::{Clock, Instant, WrId};
use rdma::{
    Access, Bind, Data, Device, Local, Memory, MemoryKey, Operation, Provider, Qp, QpAddress, QpOptions,
    ReceiveRequest, Registered, Remote, Rts, SendRequest, Transmit, Wire,
    wire::{ICRC_BYTES, Packet, Psn, QpNumber, parse},
};

/// In a packet's flags: its queue pair is made ours, and its number one that is near; a fuzzer would not find either.
pub const OURS: u8 = 1;
/// Its key and address are made ours, where the header that the opcode has would hold them.
const OPEN: u8 = 2;
/// The endpoint speaks and its timers run out, before.
const TURN: u8 = 4;
/// The key of its memory window stands where a send that takes one back would hold it.
const TAKES: u8 = 8;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const START: u32 = 0xff_fff8;
const OPEN_BYTES: usize = 4096;

/// Time that passes when it is told to.
#[derive(Clone, Debug, Default)]
pub struct HandClock(Arc<AtomicU64>);

impl Clock for HandClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Ordering::Relaxed))
    }
}

/// A wire that says what it is told, to nobody.
#[derive(Default)]
pub struct Mouth {
    packets: VecDeque<Vec<u8>>,
    clock: HandClock,
}

impl Wire for Mouth {
    type Clock = HandClock;

    fn name(&self) -> &'static str {
        "fuzz"
    }
    fn local(&self) -> IpAddr {
        [10, 0, 0, 1].into()
    }
    fn clock(&self) -> HandClock {
        self.clock.clone()
    }
    fn connect(&mut self, _qp: QpNumber, _to: IpAddr) -> io::Result<()> {
        Ok(())
    }
    fn disconnect(&mut self, _qp: QpNumber) {}
    fn receive(&mut self, _max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        let count = self.packets.len();
        for packet in self.packets.drain(..) {
            if let Ok(packet) = parse(&packet) {
                sink(PEER, &packet);
            }
        }
        Ok(count)
    }
    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        parse(&packet[..transmit.len_bytes + ICRC_BYTES]).expect("what an endpoint says makes sense");
        Ok(())
    }
    fn wait(&mut self, _max: Duration) -> io::Result<()> {
        Ok(())
    }
}

/// A device without anything, and how its queue pairs are made.
pub fn device() -> (Device<Mouth>, QpOptions) {
    let mut state = 0u64;
    let random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state ^ state >> 30
    };
    let options = QpOptions {
        start_psn: Some(Psn::new(START)),
        ..QpOptions::default()
    };
    (Device::new(Mouth::default(), Box::new(random)), options)
}

/// The endpoint.
pub struct Victim {
    device: Device<Mouth>,
    qp: Qp<Rts>,
    open: Registered,
    /// Nobody but its owner may write it; through a window it is read.
    shut: Arc<Memory>,
    window_key: MemoryKey,
}

impl Default for Victim {
    fn default() -> Victim {
        Victim::new()
    }
}

impl Victim {
    /// Connected to nobody, asking for everything.
    pub fn new() -> Victim {
        let (mut device, options) = device();
        let pd = device.create_pd();
        let open = device.register(pd, Memory::new(OPEN_BYTES), Access::ALL);
        let shut = Memory::new(OPEN_BYTES);
        let region = device.register(pd, Arc::clone(&shut), Access::WINDOWS);
        let window = device.allocate_window(pd).expect("software has windows");
        let qp = device.create_qp(pd, &options).expect("room for one");
        let qp = device.init(qp);
        let peer = QpAddress {
            ip: PEER,
            qp: QpNumber::new(77),
            start_psn: Psn::new(START),
            path_mtu: options.path_mtu,
        };
        let qp = device.ready_to_receive(qp, &peer).expect("a path");
        let qp = device.ready_to_send(qp);
        let local = |len_bytes| Local {
            key: open.key,
            at_bytes: 0,
            len_bytes,
        };
        let far = Remote {
            address: 0x1000,
            rkey: 1,
        };
        let data = Data::Local(local(3000));
        let bind = Bind {
            window,
            key_part: window.first_part(),
            region: region.key,
            at_bytes: 0,
            len_bytes: OPEN_BYTES as u64 / 2,
            access: Access {
                remote_read: true,
                ..Access::default()
            },
        };
        let operations = [
            Operation::Bind(bind),
            Operation::Send { data, imm: Some(1) },
            Operation::Read {
                into: local(3000),
                from: far,
            },
            Operation::FetchAdd {
                into: local(8),
                at: far,
                add: 1,
            },
            Operation::Write {
                data,
                to: far,
                imm: None,
            },
        ];
        for (id, operation) in operations.into_iter().enumerate() {
            let wr_id = WrId(id as u64);
            let request = SendRequest {
                wr_id,
                operation,
                signalled: true,
            };
            device.post_send(&qp, &request).expect("room");
            let into = local(2000);
            device.post_receive(&qp, ReceiveRequest { wr_id, into }).expect("room");
        }
        device.progress().expect("memory works");
        let window_key = window.key(bind.key_part);
        Victim {
            device,
            qp,
            open,
            shut,
            window_key,
        }
    }

    /// One packet of the fuzzer's.
    pub fn take(&mut self, packet: &[u8], flags: u8, ahead: u8) {
        let mut packet = packet.to_vec();
        if flags & OURS != 0 && packet.len() >= 12 {
            packet[1] &= 0xf0;
            packet[2..4].fill(0xff);
            packet[5..8].copy_from_slice(&self.qp.number().get().to_be_bytes()[1..]);
            let psn = Psn::new(START).plus(u64::from(ahead & 31)).get();
            packet[9..12].copy_from_slice(&psn.to_be_bytes()[1..]);
        }
        if flags & OPEN != 0 && packet.len() >= 28 {
            let address = self.open.address + u64::from(ahead) * 32;
            packet[12..20].copy_from_slice(&address.to_be_bytes());
            packet[20..24].copy_from_slice(&self.open.key.0.to_be_bytes());
        }
        if flags & TAKES != 0 && packet.len() >= 16 {
            packet[12..16].copy_from_slice(&self.window_key.0.to_be_bytes());
        }
        if flags & TURN != 0 {
            self.device.wire_mut().clock.0.fetch_add(50_000_000, Ordering::Relaxed);
            self.device.progress().expect("memory works");
        }
        self.device.wire_mut().packets.push_back(packet);
        self.device.progress().expect("memory works");
    }

    /// Everything finishes or is under way, and what was shut stayed as it was.
    pub fn check(&mut self) {
        let (mut count, mut taken_back) = (0, Vec::new());
        self.device.poll_cq(usize::MAX, &mut |done| {
            count += 1;
            taken_back.extend(done.invalidated);
        });
        assert!(count <= 10, "{count} completions of 10 requests");
        assert!(
            taken_back.is_empty() || taken_back == [self.window_key],
            "one window was bound, once"
        );
        let mut bytes = [0; OPEN_BYTES];
        self.shut.read(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0), "memory that is shut was written");
    }
}
