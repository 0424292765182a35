//! Lessons 15 and 16: two ends of a connection, over every provider of RDMA that is here; and a stranger on the wire.

use std::{net::IpAddr, sync::Arc, time::Duration, time::Instant};

use dataplane_waist::WrId;
use rdma::{
    Access, Completion, Data, Device, EndpointCounters, Init, Local, Memory, Operation, Pd, PostError, Provider, Qp,
    QpAddress, QpOptions, ReceiveRequest, Registered, Remote, Rts, SendRequest, Transmit, Wire,
    roce::{self, RoceDevice, RoceOptions},
    shm::{self, ShmDevice, ShmLink, ShmWire, Side},
    verbs::{VerbsDevice, VerbsOptions},
    wire::{Bth, HEADERS_BYTES_MAX, Headers, ICRC_BYTES, Opcode, QpNumber, Reth, emit},
};

/// Bytes of each end's memory.
pub const MEMORY_BYTES: usize = 1 << 16;
/// No part of a lesson takes so long, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end: a device, a protection domain, memory, and a queue pair once there is one.
#[derive(Debug)]
pub struct End<P> {
    /// Whoever moves the bytes.
    pub device: P,
    /// In which memory and queue pair are.
    pub pd: Pd,
    /// What is registered.
    pub memory: Arc<Memory>,
    /// What a peer needs to name it.
    pub region: Registered,
    /// Ready to send.
    pub qp: Option<Qp<Rts>>,
    /// Completions, in the order in which they came.
    pub done: Vec<Completion>,
}

impl<P: Provider> End<P> {
    /// With memory that is open to its peer, and no queue pair.
    pub fn new(mut device: P) -> End<P> {
        let pd = device.create_pd();
        let memory = Memory::new(MEMORY_BYTES);
        let region = device.register(pd, Arc::clone(&memory), Access::ALL);
        End {
            device,
            pd,
            memory,
            region,
            qp: None,
            done: Vec::new(),
        }
    }

    /// A queue pair in INIT, and where it is.
    ///
    /// # Panics
    /// If the device has no room.
    pub fn queue_pair(&mut self, options: &QpOptions) -> (Qp<Init>, QpAddress) {
        let qp = self.device.create_qp(self.pd, options).expect("room for a queue pair");
        let address = self.device.address(&qp).expect("it was just made");
        (self.device.init(qp), address)
    }

    /// INIT to RTR to RTS, towards a peer.
    ///
    /// # Panics
    /// If there is no way to the peer.
    pub fn connect(&mut self, qp: Qp<Init>, peer: &QpAddress) {
        let qp = self.device.ready_to_receive(qp, peer).expect("a path to the peer");
        self.qp = Some(self.device.ready_to_send(qp));
    }

    /// A piece of this end's memory.
    pub fn local(&self, at_bytes: usize, len_bytes: usize) -> Local {
        Local {
            key: self.region.key,
            at_bytes: at_bytes as u64,
            len_bytes: len_bytes as u32,
        }
    }

    /// A request for room for a message, there.
    pub fn room(&self, at_bytes: usize, len_bytes: usize) -> ReceiveRequest {
        ReceiveRequest {
            wr_id: WrId(0),
            into: self.local(at_bytes, len_bytes),
        }
    }

    /// A place in this end's memory, as its peer names it.
    pub fn remote(&self, at_bytes: u64) -> Remote {
        remote(&self.region, at_bytes)
    }

    /// What stands in this end's memory.
    pub fn bytes(&self, at_bytes: usize, len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        self.memory.read(at_bytes, &mut bytes);
        bytes
    }

    /// Posts an operation.
    ///
    /// # Errors
    /// What the device says; nothing was posted.
    ///
    /// # Panics
    /// Without a connection.
    pub fn post(&mut self, id: u64, operation: Operation<'_>, signalled: bool) -> Result<(), PostError> {
        let request = SendRequest {
            wr_id: WrId(id),
            operation,
            signalled,
        };
        self.device.post_send(self.qp.as_ref().expect("connected"), &request)
    }

    /// Posts room for a message.
    ///
    /// # Panics
    /// Without a connection, or without room for room.
    pub fn receive(&mut self, id: u64, into: Local) {
        let request = ReceiveRequest { wr_id: WrId(id), into };
        let qp = self.qp.as_ref().expect("connected");
        self.device.post_receive(qp, request).expect("there is room");
    }

    /// Its turn: packets come and go, and completions are kept in `done`.
    ///
    /// # Panics
    /// If the device fails.
    pub fn turn(&mut self) {
        self.device.progress().expect("the device works");
        let done = &mut self.done;
        self.device.poll_cq(64, &mut |completion| done.push(completion));
    }
}

/// A place in a region, as a peer names it.
pub fn remote(region: &Registered, at_bytes: u64) -> Remote {
    Remote {
        address: region.address.wrapping_add(at_bytes),
        rkey: region.key.0,
    }
}

/// A send of a few bytes.
pub fn send(bytes: &[u8]) -> Operation<'_> {
    Operation::Send {
        data: Data::Inline(bytes),
        imm: None,
    }
}

/// A write of a few bytes.
pub fn write(bytes: &[u8], to: Remote) -> Operation<'_> {
    Operation::Write {
        data: Data::Inline(bytes),
        to,
        imm: None,
    }
}

/// Both have their turns until `is_done`.
///
/// # Panics
/// If that does not come.
pub fn until<P: Provider, Q: Provider>(
    a: &mut End<P>,
    b: &mut End<Q>,
    what: &str,
    is_done: impl Fn(&End<P>, &End<Q>) -> bool,
) {
    let begin = Instant::now();
    while !is_done(a, b) {
        assert!(begin.elapsed() < PATIENCE, "{what} did not come");
        a.turn();
        b.turn();
    }
}

/// Both with a queue pair each, connected.
pub fn connected<P: Provider>((mut a, mut b): (End<P>, End<P>), options: &QpOptions) -> (End<P>, End<P>) {
    let (qp_a, address_a) = a.queue_pair(options);
    let (qp_b, address_b) = b.queue_pair(options);
    b.connect(qp_b, &address_a);
    a.connect(qp_a, &address_b);
    (a, b)
}

/// Memory that two ends share, and both of its sides.
///
/// # Panics
/// Without memfd_create(2): Linux has it since 3.17.
pub fn link() -> ShmLink {
    ShmLink::create().expect("shared memory")
}

/// Two ends over shared memory: everywhere.
///
/// # Panics
/// As [`link`].
pub fn shm(link: &ShmLink) -> (End<ShmDevice>, End<ShmDevice>) {
    let (mut a, mut b) = (shm::open(1).expect("randomness"), shm::open(2).expect("randomness"));
    a.wire_mut().attach(2, link, Side::A);
    b.wire_mut().attach(1, link, Side::B);
    (End::new(a), End::new(b))
}

/// Two ends over RoCEv2 in user space, between two addresses of loopback; `lesson` keeps those of lessons that run at once apart. Without
/// the port it says why not.
pub fn roce(lesson: u8) -> Option<(End<RoceDevice>, End<RoceDevice>)> {
    let pid = std::process::id();
    let open = |host| {
        let local: IpAddr = [127, 192 | (pid >> 8 & 31) as u8, pid as u8, 10 * (lesson % 24) + host].into();
        roce::open(&RoceOptions::new(local))
    };
    match (open(1), open(2)) {
        (Ok(a), Ok(b)) => Some((End::new(a), End::new(b))),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("skipped over roce: {error}");
            None
        }
    }
}

/// Two ends on the first device of libibverbs; where there is none it says so.
pub fn verbs() -> Option<(End<VerbsDevice>, End<VerbsDevice>)> {
    let open = || VerbsDevice::open(&VerbsOptions::default());
    match (open(), open()) {
        (Ok(a), Ok(b)) => Some((End::new(a), End::new(b))),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("skipped over verbs: {error}");
            None
        }
    }
}

/// What a software device counted.
pub fn counters<W: Wire>(end: &End<Device<W>>) -> &EndpointCounters {
    end.device.counters()
}

/// Somebody else on the wire, who can say anything in the name of the connection's first end.
#[derive(Debug)]
pub struct Stranger {
    wire: ShmWire,
}

impl Stranger {
    /// On a link of its own to the second end, which takes what comes there for the first end's: an address is not looked into.
    pub fn new(second: &mut End<ShmDevice>) -> Stranger {
        let link = link();
        second.device.wire_mut().attach(1, &link, Side::B);
        let mut wire = ShmWire::new(1);
        wire.attach(2, &link, Side::A);
        Stranger { wire }
    }

    /// Writes 8 bytes where `to` says, through the second end's queue pair `qp`, as the packet with the number `psn`.
    ///
    /// # Panics
    /// If the link is garbled.
    pub fn write(&mut self, qp: QpNumber, psn: rdma::wire::Psn, to: Remote, bytes: [u8; 8]) {
        let reth = Reth {
            address: to.address,
            rkey: to.rkey,
            len_bytes: 8,
        };
        let mut packet = [0; HEADERS_BYTES_MAX + 8 + ICRC_BYTES];
        let bth = Bth::new(qp, psn);
        let len_bytes = emit(Opcode::WriteOnly, &bth, &Headers::Reth(reth), 8, &mut packet, |into| {
            into.copy_from_slice(&bytes);
        });
        let to = shm::address_of(2);
        let transmit = Transmit { to, qp, len_bytes };
        self.wire.connect(qp, to).expect("its own link");
        self.wire.send(&transmit, &mut packet).expect("the link is sound");
    }
}
