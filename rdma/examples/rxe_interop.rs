//! Our endpoint against the kernel's rdma_rxe, in both roles: `scripts/rxe` runs it in a virtual machine.
//!
//! `rxe_interop LOCAL_IP PEER_IP TCP_PORT LOSE_EVERY`: connects to the peer program (tests/rxe/peer.c), asks everything of rxe, checks
//! it, then answers everything that rxe asks. With LOSE_EVERY above 0 every so many of our packets are lost.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane_waist::WrId;
use rdma::{
    Access, Data, Device, Faults, Faulty, Local, Memory, Operation, PathMtu, Provider, Qp, QpAddress, QpOptions,
    ReceiveRequest, Remote, Rts, SendRequest,
    roce::{ReceiveHow, RoceOptions, RoceWire},
    system_randomness,
    wire::{Psn, QpNumber},
};

type Dev = Device<Faulty<RoceWire>>;
type Done<T> = Result<T, Box<dyn Error>>;

/// As the peer has it.
const BYTES: usize = 1 << 20;
const RECEIVE_BYTES: usize = 4096;
const RECEIVES_COUNT: usize = 256;
const ROUNDS: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(60);

struct Ours {
    device: Dev,
    memory: Arc<Memory>,
    key: rdma::MemoryKey,
    qp: Qp<Rts>,
    theirs: Remote,
}

impl Ours {
    fn local(&self, at: usize, len: usize) -> Local {
        Local {
            key: self.key,
            at_bytes: at as u64,
            len_bytes: len as u32,
        }
    }

    fn far(&self, at: usize) -> Remote {
        Remote {
            address: self.theirs.address + at as u64,
            ..self.theirs
        }
    }

    fn operate(&mut self, operation: Operation<'_>) -> Done<()> {
        let request = SendRequest {
            wr_id: WrId(1 << 40),
            operation,
            signalled: true,
        };
        self.device.post_send(&self.qp, &request)?;
        let begin = Instant::now();
        let mut result = None;
        while result.is_none() {
            self.device.progress()?;
            self.device.poll_cq(64, &mut |done| result = Some(done.result));
            if begin.elapsed() > PATIENCE {
                return Err(format!("{operation:?} does not finish: {:?}", self.device.counters()).into());
            }
            std::thread::yield_now();
        }
        Ok(result.ok_or("no result")??)
    }

    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at, &mut bytes);
        bytes
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at, 8).try_into().expect("8 bytes"))
    }

    /// Everything, asked of the peer.
    fn ask(&mut self) -> Done<()> {
        let (back, words) = (BYTES / 4, BYTES / 2);
        for round in 0..ROUNDS {
            let len = [0, 1, 1023, 1024, 1025, 4999, 65_537][round as usize % 7];
            let pattern: Vec<u8> = (0..len).map(|at| (at as u64 * 31 + round) as u8).collect();
            self.memory.write(0, &pattern);
            let data = Data::Local(self.local(0, len));
            let (to, at) = (self.far(0), self.far(BYTES / 2));
            let imm = (round % 2 == 1).then_some(round as u32);
            self.operate(Operation::Write { data, to, imm })?;
            self.memory.write(back, &vec![0; len]);
            let into = self.local(back, len);
            self.operate(Operation::Read { into, from: to })?;
            if self.bytes(back, len) != pattern {
                return Err(format!("round {round}: {len} bytes came back changed").into());
            }
            let sent = len.min(RECEIVE_BYTES);
            let data = Data::Local(self.local(0, sent));
            self.operate(Operation::Send {
                data,
                imm: Some(round as u32),
            })?;
            let into = self.local(words, 8);
            let (compare, swap) = (11 * round, 11 * round + 1);
            self.operate(Operation::CompareSwap {
                into,
                at,
                compare,
                swap,
            })?;
            let found = self.word(words);
            self.operate(Operation::FetchAdd { into, at, add: 10 })?;
            if (found, self.word(words)) != (compare, swap) {
                return Err(format!("round {round}: atomics found {found} and {}", self.word(words)).into());
            }
        }
        Ok(())
    }
}

fn line(reader: &mut impl BufRead) -> Done<(u32, u32, Remote)> {
    let mut line = String::new();
    reader.take(128).read_line(&mut line)?;
    let words: Vec<u64> = line
        .split_whitespace()
        .map(|word| u64::from_str_radix(word, 16))
        .collect::<Result<_, _>>()?;
    let [psn, qp, rkey, address] = words[..] else {
        return Err(format!("the peer said {line:?}").into());
    };
    let rkey = rkey as u32;
    Ok((psn as u32, qp as u32, Remote { address, rkey }))
}

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [local, peer, port, lose_every] = &arguments[..] else {
        return Err("usage: rxe_interop LOCAL_IP PEER_IP TCP_PORT LOSE_EVERY".into());
    };
    let (local, peer): (IpAddr, IpAddr) = (local.parse()?, peer.parse()?);
    let wire = RoceWire::open(&RoceOptions {
        receive: if local.is_ipv4() {
            ReceiveHow::Raw
        } else {
            ReceiveHow::Best
        },
        ..RoceOptions::new(local)
    })?;
    let faults = Faults {
        lose_every: lose_every.parse()?,
        ..Faults::default()
    };
    let mut device = Device::new(Faulty::new(wire, faults), system_randomness()?);
    let pd = device.create_pd();
    let memory = Memory::new(BYTES);
    let region = device.register(pd, Arc::clone(&memory), Access::ALL);
    let options = QpOptions {
        path_mtu: PathMtu::B1024,
        start_psn: Some(Psn::new(0xff_ffe0)),
        receive_requests_max: RECEIVES_COUNT,
        retries_max: 20,
        ..QpOptions::default()
    };
    let qp = device.create_qp(pd, &options)?;
    let qp = device.init(qp);
    let receive = |place: usize| ReceiveRequest {
        wr_id: WrId(place as u64),
        into: Local {
            key: region.key,
            at_bytes: (BYTES - (place + 1) * RECEIVE_BYTES % (BYTES / 4) - RECEIVE_BYTES) as u64,
            len_bytes: RECEIVE_BYTES as u32,
        },
    };
    for place in 0..RECEIVES_COUNT {
        device.post_receive(&qp, receive(place))?;
    }
    let address = device.address(&qp).ok_or("no address")?;
    let mut stream = TcpStream::connect((peer, port.parse()?))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (psn, number) = (address.start_psn.get(), address.qp.get());
    writeln!(stream, "{psn:x} {number:x} {:x} {:x}", region.key.0, region.address)?;
    let (psn, number, theirs) = line(&mut reader)?;
    let there = QpAddress {
        ip: peer,
        qp: QpNumber::new(number),
        start_psn: Psn::new(psn),
        path_mtu: PathMtu::B1024,
    };
    let qp = device.ready_to_receive(qp, &there)?;
    let qp = device.ready_to_send(qp);
    let key = region.key;
    let mut ours = Ours {
        device,
        memory,
        key,
        qp,
        theirs,
    };
    ours.ask()?;
    println!("requester: {ROUNDS} rounds of write, read, send, compare and swap, fetch and add: all checked");
    // Where the peer's atomics begin.
    ours.memory.write(0, &vec![0; BYTES / 4]);
    stream.write_all(b"B")?;
    stream.set_nonblocking(true)?;
    let (begin, mut received_count, mut said) = (Instant::now(), 0, [0]);
    loop {
        ours.device.progress()?;
        let mut failed = None;
        ours.device.poll_cq(64, &mut |done| match done.result {
            Ok(()) => received_count += 1,
            Err(error) => failed = Some(error),
        });
        if let Some(error) = failed {
            return Err(format!("a receive failed: {error}; {:?}", ours.device.counters()).into());
        }
        match reader.read(&mut said) {
            Ok(1) => break,
            Ok(_) => return Err("the peer gave up".into()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("the peer does not finish: {:?}", ours.device.counters()).into());
        }
        std::thread::yield_now();
    }
    println!(
        "responder: {received_count} receives, the peer says {:?}",
        char::from(said[0])
    );
    println!("{:?}", ours.device.counters());
    println!(
        "lost on purpose: {}; {:?}",
        ours.device.wire().lost_count(),
        ours.device.wire().inner().counters()
    );
    match (said, ours.device.wire().inner().counters().icrc_count) {
        ([b'K'], 0) => Ok(()),
        _ => Err("the peer found a fault, or an ICRC was wrong".into()),
    }
}
