//! After the first few operations nothing is allocated per packet, whatever the operation.

#[path = "support/memory_wire.rs"]
mod memory_wire;

use std::sync::Arc;

use dataplane_waist::WrId;
use rdma::{
    Access, Data, Device, Local, Memory, Operation, Provider, Qp, QpOptions, ReceiveRequest, Registered, Remote, Rts,
    SendRequest,
};

type Dev = Device<memory_wire::MemoryWire>;

fn round(a: &mut Dev, b: &mut Dev, qps: (&Qp<Rts>, &Qp<Rts>), own: &Registered, theirs: &Registered) {
    let local = |len_bytes| Local {
        key: own.key,
        at_bytes: 0,
        len_bytes,
    };
    let to = Remote {
        address: theirs.address,
        rkey: theirs.key.0,
    };
    let receive = ReceiveRequest {
        wr_id: WrId(0),
        into: Local {
            key: theirs.key,
            at_bytes: 8192,
            len_bytes: 5000,
        },
    };
    b.post_receive(qps.1, receive).expect("room");
    let data = Data::Local(local(5000));
    let operations = [
        Operation::Send { data, imm: None },
        Operation::Write { data, to, imm: None },
        Operation::Write {
            data: Data::Inline(&[1; 64]),
            to,
            imm: None,
        },
        Operation::Read {
            into: local(5000),
            from: to,
        },
        Operation::FetchAdd {
            into: local(8),
            at: to,
            add: 1,
        },
    ];
    for operation in operations {
        let request = SendRequest {
            wr_id: WrId(1),
            operation,
            signalled: true,
        };
        a.post_send(qps.0, &request).expect("room");
    }
    let mut left = operations.len() as i32;
    for _ in 0..10_000 {
        a.progress().expect("memory works");
        b.progress().expect("memory works");
        b.poll_cq(64, &mut |_| {});
        a.poll_cq(64, &mut |completion| {
            assert_eq!(completion.result, Ok(()));
            left -= 1;
        });
        if left == 0 {
            return;
        }
    }
    panic!("{left} operations did not finish");
}

#[test]
fn nothing_is_allocated_per_packet() {
    let (wire_a, wire_b) = memory_wire::pair();
    let mut a = Device::new(wire_a, memory_wire::random(1));
    let mut b = Device::new(wire_b, memory_wire::random(2));
    let open = |device: &mut Dev| {
        let pd = device.create_pd();
        let memory = Memory::new(1 << 16);
        let region = device.register(pd, Arc::clone(&memory), Access::ALL);
        let qp = device.create_qp(pd, &QpOptions::default()).expect("room");
        (device.init(qp), region)
    };
    let (qp_a, own) = open(&mut a);
    let (qp_b, theirs) = open(&mut b);
    let (address_a, address_b) = (a.address(&qp_a).expect("there"), b.address(&qp_b).expect("there"));
    let qp_a = a.ready_to_receive(qp_a, &address_b).expect("a path");
    let qp_b = b.ready_to_receive(qp_b, &address_a).expect("a path");
    let (qp_a, qp_b) = (a.ready_to_send(qp_a), b.ready_to_send(qp_b));
    for _ in 0..10 {
        round(&mut a, &mut b, (&qp_a, &qp_b), &own, &theirs);
    }
    let info = allocation_counter::measure(|| {
        for _ in 0..100 {
            round(&mut a, &mut b, (&qp_a, &qp_b), &own, &theirs);
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
}
