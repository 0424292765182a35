//! Any bytes as what a peer with the cluster's key offers: it makes sense, and says the same again, or it is none; and a queue pair
//! gets ready for it, or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rdma::{Provider, handshake::Offer};
use tests_fuzz::packets::device;

fuzz_target!(|bytes: &[u8]| {
    let Some(Some(offer)) = bytes.first_chunk().map(Offer::parse) else {
        return;
    };
    assert_eq!(Offer::parse(&offer.emit()), Some(offer));
    let (mut device, options) = device();
    let pd = device.create_pd();
    let qp = device.create_qp(pd, &options).expect("room for one");
    let qp = device.init(qp);
    if let Ok(qp) = device.ready_to_receive(qp, &offer.qp) {
        let qp = device.ready_to_send(qp);
        device.progress().expect("memory works");
        device.destroy(qp);
    }
});
