//! Two devices with a connection between them, driven in turn by one thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane_waist::WrId;
use rdma::{
    Access, Completion, CompletionError, Data, Device, EndpointCounters, Faults, Faulty, Init, Local, Memory,
    Operation, Pd, PostError, Provider, Qp, QpOptions, ReceiveRequest, Registered, Remote, Rts, SendRequest, Wire,
    verbs::VerbsDevice,
};

/// A provider in the suite.
pub trait Testable: Provider {
    /// Whether this crate moves its packets: then they can be lost, repeated and counted here. Cases that live by it are skipped
    /// where a device moves them.
    fn is_software(&self) -> bool;
    /// What a peer is told whose access was taken away.
    fn revoked(&self) -> CompletionError;
    /// Whether a request is held against the range of the window that it names the key of.
    fn has_bounded_windows(&self) -> bool;
    fn set_faults(&mut self, faults: Faults);
    /// `None`: a device's own, which it does not tell.
    fn counters(&self) -> Option<EndpointCounters>;
    fn lost_count(&self) -> u64;
}

impl<W: Wire> Testable for Device<Faulty<W>> {
    fn is_software(&self) -> bool {
        true
    }
    fn revoked(&self) -> CompletionError {
        CompletionError::RemoteAccess
    }
    fn has_bounded_windows(&self) -> bool {
        true
    }
    fn set_faults(&mut self, faults: Faults) {
        self.wire_mut().set_faults(faults);
    }
    fn counters(&self) -> Option<EndpointCounters> {
        Some(*Device::counters(self))
    }
    fn lost_count(&self) -> u64 {
        self.wire().lost_count()
    }
}

impl Testable for VerbsDevice {
    fn is_software(&self) -> bool {
        false
    }
    // The queue pair is closed, not the region.
    fn revoked(&self) -> CompletionError {
        CompletionError::RemoteInvalidRequest
    }
    // rdma_rxe holds it against the range of the window's region (rxe_resp.c, `check_rkey`: `mr_check_range` of `mw->mr`).
    fn has_bounded_windows(&self) -> bool {
        false
    }
    fn set_faults(&mut self, _: Faults) {}
    fn counters(&self) -> Option<EndpointCounters> {
        None
    }
    fn lost_count(&self) -> u64 {
        0
    }
}

/// Bytes of each end's memory: the longest message, twice, and a little.
pub const MEMORY_BYTES: usize = (2 << 20) + (64 << 10);
/// Where messages are received, and results go.
pub const INBOX: u64 = 1 << 20;

/// One end.
pub struct End<P> {
    pub device: P,
    pub pd: Pd,
    pub memory: Arc<Memory>,
    pub region: Registered,
    pub qp: Option<Qp<Rts>>,
    pub done: Vec<Completion>,
}

impl<P: Provider> End<P> {
    fn new(mut device: P) -> End<P> {
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

    pub fn local(&self, at_bytes: u64, len_bytes: u32) -> Local {
        Local {
            key: self.region.key,
            at_bytes,
            len_bytes,
        }
    }

    /// A place in this end's memory, as the other names it.
    pub fn remote(&self, at_bytes: u64) -> Remote {
        Remote {
            address: self.region.address.wrapping_add(at_bytes),
            rkey: self.region.key.0,
        }
    }

    pub fn fill(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at as usize, bytes);
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at as usize, &mut bytes);
        bytes
    }

    pub fn word(&self, at: u64) -> u64 {
        u64::from_ne_bytes(self.bytes(at, 8).try_into().expect("8 bytes"))
    }

    pub fn try_post(&mut self, id: u64, operation: Operation<'_>) -> Result<(), PostError> {
        let request = SendRequest {
            wr_id: WrId(id),
            operation,
            signalled: true,
        };
        self.device.post_send(self.qp.as_ref().expect("connected"), &request)
    }

    pub fn post(&mut self, id: u64, operation: Operation<'_>) {
        self.try_post(id, operation)
            .expect("there is room, and the queue pair is whole");
    }

    pub fn receive(&mut self, id: u64, into: Local) {
        let request = ReceiveRequest { wr_id: WrId(id), into };
        let qp = self.qp.as_ref().expect("connected");
        self.device.post_receive(qp, request).expect("there is room");
    }

    pub fn is_broken(&self) -> bool {
        self.device.is_broken(self.qp.as_ref().expect("connected"))
    }

    fn turn(&mut self) {
        self.device.progress().expect("the device works");
        let done = &mut self.done;
        self.device.poll_cq(64, &mut |completion| done.push(completion));
    }
}

/// Both ends.
pub struct Pair<P> {
    pub a: End<P>,
    pub b: End<P>,
    pub options: QpOptions,
}

/// No case takes so long, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl<P: Provider> Pair<P> {
    pub fn new((a, b): (P, P), options: QpOptions) -> Pair<P> {
        let mut pair = Pair {
            a: End::new(a),
            b: End::new(b),
            options,
        };
        pair.connect();
        pair
    }

    /// Makes a queue pair at each end and brings both to RTS.
    pub fn connect(&mut self) {
        let options = self.options;
        let [a, b] = [&mut self.a, &mut self.b].map(|end| {
            let qp = end.device.create_qp(end.pd, &options).expect("room for a queue pair");
            end.device.init(qp)
        });
        self.bring_up(a, b);
    }

    /// Brings a queue pair of each end from INIT to RTS.
    pub fn bring_up(&mut self, a: Qp<Init>, b: Qp<Init>) {
        let address_a = self.a.device.address(&a).expect("it is there");
        let address_b = self.b.device.address(&b).expect("it is there");
        let a = self.a.device.ready_to_receive(a, &address_b).expect("a path");
        let b = self.b.device.ready_to_receive(b, &address_a).expect("a path");
        self.a.qp = Some(self.a.device.ready_to_send(a));
        self.b.qp = Some(self.b.device.ready_to_send(b));
    }

    /// Turns both until `is_done`.
    pub fn until(&mut self, what: &str, is_done: impl Fn(&Pair<P>) -> bool) {
        let begin = Instant::now();
        while !is_done(self) {
            assert!(
                begin.elapsed() < PATIENCE,
                "{what} did not come; a has {} with {:?}, b has {} with {:?}",
                self.a.done.len(),
                self.a.done.iter().find(|done| done.result.is_err()),
                self.b.done.len(),
                self.b.done.iter().find(|done| done.result.is_err()),
            );
            self.a.turn();
            self.b.turn();
        }
    }

    /// Turns both until so many requests have finished at each end.
    pub fn finish(&mut self, a_count: usize, b_count: usize) {
        self.until("the completions", |pair| {
            pair.a.done.len() >= a_count && pair.b.done.len() >= b_count
        });
    }

    /// Has one end given up what its peer did not answer, and has that peer broken its own end? Who refuses does so after it has said why, once,
    /// and neither says it again nor answers what came before it anew.
    pub fn may_have_lost_a_refusal(&self) -> bool {
        let given_up = Err(CompletionError::RetryExceeded);
        [(&self.a, &self.b), (&self.b, &self.a)].into_iter().any(|(end, peer)| {
            end.done.iter().any(|done| done.result == given_up)
                && peer.qp.as_ref().is_some_and(|qp| peer.device.is_broken(qp))
        })
    }

    /// Some more turns: for what must not happen.
    pub fn settle(&mut self) {
        for _ in 0..50 {
            self.a.turn();
            self.b.turn();
        }
    }
}

/// Bytes that are nowhere alike.
pub fn pattern(len: usize, salt: u64) -> Vec<u8> {
    let word = |index: u64| (index + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[3];
    (0..len as u64).map(word).collect()
}

/// From registered memory.
pub fn from(local: Local) -> Data<'static> {
    Data::Local(local)
}
