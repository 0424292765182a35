//! This crate's endpoint at one end, a device of libibverbs at the other, in both roles: `scripts/rxe across` runs it against the
//! kernel's rdma_rxe. Both must mean the same by every packet.

use std::{cell::Cell, io, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use dataplane_waist::Instant;
use rdma::{
    Access, Completion, CompletionError, Device, EndpointCounters, Error, Faults, Faulty, Init, Memory, MemoryKey,
    MemoryWindow, Pd, PostError, Provider, ProviderError, Qp, QpAddress, QpOptions, ReceiveRequest, Registered, Reset,
    Rtr, Rts, SendRequest, TakesReceives, verbs::VerbsDevice,
};

use crate::{
    devices::{self, Across},
    pair::Testable,
    place::Inside,
};

/// Either end.
#[allow(clippy::large_enum_variant, reason = "there are two of them at a time")]
enum Either {
    Ours(Ours),
    Verbs(VerbsDevice),
}

/// Our end, which adds what it saw to the whole run's when the case is over.
struct Ours {
    device: Device<Faulty<Inside>>,
    seen: Rc<Seen>,
    /// Its peer is a requester that mistakes a late acknowledgement ([`Faults::acks_are_punctual`]).
    acks_are_punctual: bool,
}

/// What our ends saw in all cases together.
#[derive(Debug, Default)]
struct Seen {
    wrong_icrc_count: Cell<u64>,
    malformed_count: Cell<u64>,
    lost_on_purpose_count: Cell<u64>,
    resent_count: Cell<u64>,
    timeouts_count: Cell<u64>,
}

impl Drop for Ours {
    fn drop(&mut self) {
        let add = |to: &Cell<u64>, more: u64| to.set(to.get() + more);
        let wire = self.device.wire().inner().wire().counters();
        add(&self.seen.wrong_icrc_count, wire.icrc_count);
        add(&self.seen.malformed_count, wire.rejected_counts.iter().sum());
        add(&self.seen.lost_on_purpose_count, self.device.wire().lost_count());
        let qp = self.device.counters().qp;
        add(&self.seen.resent_count, qp.resent_count);
        add(&self.seen.timeouts_count, qp.timeouts_count);
    }
}

/// The same of whichever it is.
macro_rules! of {
    ($either:expr, $device:ident => $what:expr) => {
        match $either {
            Either::Ours(Ours { device: $device, .. }) => $what,
            Either::Verbs($device) => $what,
        }
    };
}

impl Provider for Either {
    fn name(&self) -> &'static str {
        of!(self, device => device.name())
    }
    fn local(&self) -> IpAddr {
        of!(self, device => device.local())
    }
    fn now(&self) -> Instant {
        of!(self, device => device.now())
    }
    fn create_pd(&mut self) -> Pd {
        of!(self, device => device.create_pd())
    }
    fn register(&mut self, pd: Pd, memory: Arc<Memory>, access: Access) -> Registered {
        of!(self, device => device.register(pd, memory, access))
    }
    fn deregister(&mut self, key: MemoryKey) -> bool {
        of!(self, device => device.deregister(key))
    }
    fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        of!(self, device => device.set_access(key, access))
    }
    fn allocate_window(&mut self, pd: Pd) -> Result<MemoryWindow, ProviderError> {
        of!(self, device => device.allocate_window(pd))
    }
    fn free_window(&mut self, window: MemoryWindow) -> bool {
        of!(self, device => device.free_window(window))
    }
    fn create_qp(&mut self, pd: Pd, options: &QpOptions) -> Result<Qp<Reset>, ProviderError> {
        of!(self, device => device.create_qp(pd, options))
    }
    fn address<S>(&self, qp: &Qp<S>) -> Option<QpAddress> {
        of!(self, device => device.address(qp))
    }
    fn init(&mut self, qp: Qp<Reset>) -> Qp<Init> {
        of!(self, device => device.init(qp))
    }
    fn ready_to_receive(&mut self, qp: Qp<Init>, peer: &QpAddress) -> Result<Qp<Rtr>, ProviderError> {
        of!(self, device => device.ready_to_receive(qp, peer))
    }
    fn ready_to_send(&mut self, qp: Qp<Rtr>) -> Qp<Rts> {
        of!(self, device => device.ready_to_send(qp))
    }
    fn take_down<S>(&mut self, qp: Qp<S>) -> Qp<Error> {
        of!(self, device => device.take_down(qp))
    }
    fn reset(&mut self, qp: Qp<Error>) -> Qp<Reset> {
        of!(self, device => device.reset(qp))
    }
    fn destroy<S>(&mut self, qp: Qp<S>) {
        of!(self, device => device.destroy(qp));
    }
    fn is_broken<S>(&self, qp: &Qp<S>) -> bool {
        of!(self, device => device.is_broken(qp))
    }
    fn post_receive<S: TakesReceives>(&mut self, qp: &Qp<S>, request: ReceiveRequest) -> Result<(), PostError> {
        of!(self, device => device.post_receive(qp, request))
    }
    fn post_send(&mut self, qp: &Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError> {
        of!(self, device => device.post_send(qp, request))
    }
    fn poll_cq(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        of!(self, device => device.poll_cq(count_max, sink))
    }
    fn poll_qp<S>(&mut self, qp: &Qp<S>, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        of!(self, device => device.poll_qp(qp, count_max, sink))
    }
    fn progress(&mut self) -> io::Result<usize> {
        of!(self, device => device.progress())
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        of!(self, device => device.wait(max))
    }
}

impl Testable for Either {
    fn is_software(&self) -> bool {
        of!(self, device => device.is_software())
    }
    fn revoked(&self) -> CompletionError {
        of!(self, device => device.revoked())
    }
    fn has_bounded_windows(&self) -> bool {
        of!(self, device => device.has_bounded_windows())
    }
    fn set_faults(&mut self, faults: Faults) {
        match self {
            Either::Ours(ours) => ours.device.set_faults(Faults {
                acks_are_punctual: ours.acks_are_punctual,
                ..faults
            }),
            Either::Verbs(device) => device.set_faults(faults),
        }
    }
    fn counters(&self) -> Option<EndpointCounters> {
        of!(self, device => Testable::counters(device))
    }
    fn lost_count(&self) -> u64 {
        of!(self, device => device.lost_count())
    }
}

#[test]
fn roce_and_verbs_conform() {
    let Some(Across { verbs, place, locals }) = devices::across() else {
        return;
    };
    let options = QpOptions {
        // As for `verbs_conforms`.
        retries_max: 6,
        timeout: crate::EMULATED_TIMEOUT,
        ..crate::real()
    };
    for is_requester in [true, false] {
        let seen = Rc::new(Seen::default());
        let role = if is_requester { "requester" } else { "responder" };
        eprintln!("roce is the {role}, {verbs:?} its peer");
        crate::conform(options, || {
            let ours = Either::Ours(Ours {
                device: crate::device(Inside::open(&place, locals[0])),
                seen: Rc::clone(&seen),
                acks_are_punctual: !is_requester,
            });
            let theirs = Either::Verbs(VerbsDevice::open(&verbs).expect("the device that was named"));
            match is_requester {
                true => (ours, theirs),
                false => (theirs, ours),
            }
        });
        eprintln!("roce as {role} saw {seen:?}");
        assert_eq!(seen.wrong_icrc_count.get(), 0, "packets with a wrong ICRC");
        assert_eq!(seen.malformed_count.get(), 0, "packets that make no sense");
    }
}
