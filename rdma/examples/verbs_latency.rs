//! What `ib_write_lat`, `ib_send_lat` and `ib_read_lat` measure, by the provider `verbs`: `scripts/rxe perftest` runs both beside each
//! other.
//!
//! `verbs_latency WHAT BYTES COUNT DEVICE PEER_DEVICE`: WHAT is write, send or read. Prints the median in microseconds: of half a round for
//! write (each side looks at its memory until the other's bytes are there) and send, of a whole one for read (perftest 4.5,
//! perftest_resources.c: `run_iter_lat_write`, `run_iter_lat_send`, `run_iter_lat`).
#![forbid(unsafe_code)]

use std::{
    error::Error,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::WrId;
use rdma::{
    Access, Completion, Data, Local, Memory, Operation, Provider, Qp, QpOptions, ReceiveRequest, Registered, Remote,
    Rts, SendRequest,
    verbs::{VerbsDevice, VerbsOptions},
};

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The first rounds fill caches and neighbours' tables.
const WARM_UP_COUNT: usize = 50;
/// As perftest's `-r`.
const RECEIVES_COUNT: usize = 512;
const PATIENCE: Duration = Duration::from_secs(30);
/// Where a side's own bytes are; what comes lies before.
const OUT: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Write,
    Send,
    Read,
}

/// One side.
struct Side {
    device: VerbsDevice,
    qp: Qp<Rts>,
    memory: Arc<Memory>,
    own: Registered,
    theirs: Registered,
    len: usize,
}

impl Side {
    fn local(&self, at: usize) -> Local {
        Local {
            key: self.own.key,
            at_bytes: at as u64,
            len_bytes: self.len as u32,
        }
    }

    fn receive(&mut self) -> Done<()> {
        let into = self.local(0);
        let wr_id = WrId(0);
        Ok(self.device.post_receive(&self.qp, ReceiveRequest { wr_id, into })?)
    }

    fn post(&mut self, what: What, byte: u8) -> Done<()> {
        let bytes = vec![byte; self.len];
        let inline_max = QpOptions::default().inline_bytes_max;
        let data = if bytes.len() <= inline_max {
            Data::Inline(&bytes)
        } else {
            self.memory.write(OUT, &bytes);
            Data::Local(self.local(OUT))
        };
        let far = Remote {
            address: self.theirs.address,
            rkey: self.theirs.key.0,
        };
        let operation = match what {
            What::Write => Operation::Write {
                data,
                to: far,
                imm: None,
            },
            What::Send => Operation::Send { data, imm: None },
            What::Read => Operation::Read {
                into: self.local(0),
                from: far,
            },
        };
        let request = SendRequest {
            wr_id: WrId(1),
            operation,
            signalled: true,
        };
        Ok(self.device.post_send(&self.qp, &request)?)
    }

    /// Looks until a completion of this kind is there; others are done with.
    fn complete(&mut self, is_it: impl Fn(&Completion) -> bool) -> Done<()> {
        let begin = Instant::now();
        loop {
            let mut found = false;
            let mut failed = None;
            self.device.poll_cq(1, &mut |done| {
                found |= is_it(&done);
                failed = done.result.err();
            });
            match failed {
                Some(error) => return Err(error.into()),
                None if found => return Ok(()),
                None if begin.elapsed() > PATIENCE => return Err("no completion".into()),
                None => {}
            }
        }
    }

    /// Looks at memory until the last byte is this one.
    fn see(&self, byte: u8) -> Done<()> {
        let begin = Instant::now();
        let mut last = [!byte];
        while last[0] != byte {
            self.memory.read(self.len - 1, &mut last);
            if begin.elapsed() > PATIENCE {
                return Err("the peer's bytes do not come".into());
            }
        }
        Ok(())
    }

    /// The other's bytes of this round.
    fn hear(&mut self, what: What, byte: u8) -> Done<()> {
        match what {
            What::Write => self.see(byte)?,
            What::Send => {
                self.complete(|done| done.kind.is_receive())?;
                self.receive()?;
            }
            What::Read => {}
        }
        Ok(())
    }

    /// Rounds as the side that begins; how long each took, in nanoseconds.
    fn ask(&mut self, what: What, count: usize) -> Done<Vec<u64>> {
        let mut times = Vec::with_capacity(count);
        for round in 0..WARM_UP_COUNT + count {
            let byte = (round % 255) as u8 + 1;
            let begin = Instant::now();
            self.post(what, byte)?;
            match what {
                What::Read => self.complete(|done| !done.kind.is_receive())?,
                What::Write | What::Send => self.hear(what, byte)?,
            }
            if round >= WARM_UP_COUNT {
                times.push(begin.elapsed().as_nanos() as u64);
            }
            // Its own completion may have been seen while it looked for a receive.
            if what == What::Write {
                self.complete(|done| !done.kind.is_receive())?;
            }
        }
        Ok(times)
    }

    /// The same as the side that answers.
    fn answer(&mut self, what: What, count: usize) -> Done<()> {
        if what == What::Read {
            return Ok(());
        }
        for round in 0..WARM_UP_COUNT + count {
            let byte = (round % 255) as u8 + 1;
            self.hear(what, byte)?;
            self.post(what, byte)?;
            if what == What::Write {
                self.complete(|done| !done.kind.is_receive())?;
            }
        }
        Ok(())
    }
}

fn sides(devices: [&str; 2], len: usize) -> Done<[Side; 2]> {
    let options = QpOptions {
        receive_requests_max: RECEIVES_COUNT,
        send_requests_max: RECEIVES_COUNT,
        retries_max: 6,
        ..QpOptions::default()
    };
    let mut made = Vec::new();
    for name in devices {
        let options_of = VerbsOptions {
            device: Some(name.to_owned()),
            local: None,
        };
        let mut device = VerbsDevice::open(&options_of)?;
        let pd = device.create_pd();
        let memory = Memory::new(2 * OUT);
        let own = device.register(pd, Arc::clone(&memory), Access::ALL);
        let qp = device.create_qp(pd, &options)?;
        let address = device.address(&qp).ok_or("no address")?;
        made.push((device.init(qp), device, memory, own, address));
    }
    let [(_, _, _, own_a, address_a), (_, _, _, own_b, address_b)] = &made[..] else {
        return Err("two devices are two sides".into());
    };
    let theirs = [(*own_b, *address_b), (*own_a, *address_a)];
    let mut sides = Vec::new();
    for ((qp, mut device, memory, own, _), (theirs, address)) in made.into_iter().zip(theirs) {
        let qp = device.ready_to_receive(qp, &address)?;
        let qp = device.ready_to_send(qp);
        let mut side = Side {
            device,
            qp,
            memory,
            own,
            theirs,
            len,
        };
        for _ in 0..RECEIVES_COUNT / 2 {
            side.receive()?;
        }
        sides.push(side);
    }
    sides.try_into().map_err(|_| "two devices are two sides".into())
}

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, len, count, first, second] = &arguments[..] else {
        return Err("usage: verbs_latency write|send|read BYTES COUNT DEVICE PEER_DEVICE".into());
    };
    let what = match what.as_str() {
        "write" => What::Write,
        "send" => What::Send,
        "read" => What::Read,
        other => return Err(format!("{other:?} is not one of write, send, read").into()),
    };
    let (len, count): (usize, usize) = (len.parse()?, count.parse()?);
    if !(1..=OUT).contains(&len) || count == 0 {
        return Err(format!("{len} bytes, {count} rounds: 1 to {OUT} bytes and at least one round are needed").into());
    }
    let [mut asks, mut answers] = sides([first, second], len)?;
    let barrier = Barrier::new(2);
    let mut times = thread::scope(|scope| {
        let answering = scope.spawn(|| {
            barrier.wait();
            answers.answer(what, count)
        });
        barrier.wait();
        let times = asks.ask(what, count);
        let answered = answering.join().map_err(|_| "the answering side panicked")?;
        answered?;
        times
    })?;
    times.sort_unstable();
    let rounds_part = if what == What::Read { 1.0 } else { 2.0 };
    println!("{:.2}", times[times.len() / 2] as f64 / rounds_part / 1000.0);
    Ok(())
}
