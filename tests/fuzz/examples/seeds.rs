//! Writes the fuzz targets' seeds from real logs, snapshots and images: `cargo run --example seeds`.
#![forbid(unsafe_code)]

use std::{fs, io, path::Path};

use dataplane_quorum::majorities;
use dataplane_waist::{Log, Slot, Snapshot, StateMachine, Tail, Term};
use dataplane_wal::{Storage, Wal, testing::Disk};
use dataplane_wire::{internet::Addresses, quorum::request::Command};
use rdma::{
    MemoryKey, PathMtu, QpAddress, Registered,
    handshake::{Offer, VERSION},
};
use tests_fuzz::{
    replicas::{config, store},
    segments::{MENDED, options, seed},
};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(folder.join(target))?;
        fs::write(folder.join(target).join(name), bytes)
    };
    let logs = [
        ("small", &b"asasas"[..]),
        ("overwritten", b"aaasoasaos"),
        ("state", b"vsavsAsvas"),
        ("installed", b"aaasisaasas"),
        ("dropped", b"aAasdsaasis"),
        ("rolled", b"AAAAAAsAAAAAAsAAAAAAsisAAAs"),
    ];
    for (name, steps) in logs {
        let mut bytes = seed(steps);
        write("wal_recovery", name, &bytes)?;
        bytes[0] |= MENDED;
        write("wal_recovery", &format!("{name}-mended"), &bytes)?;
    }
    write("wal_snapshot", "real", &snapshot_file()?)?;
    let mut image = Vec::new();
    let mut store = store();
    store.save(&mut image);
    write("kv_image", "empty", &image)?;
    for (key, value) in [("a", "1"), ("b", ""), ("bb", "a longer value")] {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        store.apply(&Command::Put { key, value }, &mut |_| {});
    }
    image.clear();
    store.save(&mut image);
    write("kv_image", "three", &image)?;
    write("quorum_recovery", "real", &replica(&image))?;
    let mut conversation = Vec::new();
    for (index, vector) in rdma::wire::vectors::VECTORS.iter().enumerate() {
        write("rdma_packet", &format!("vector-{index}"), vector.datagram)?;
        let (ours, len) = (tests_fuzz::packets::OURS, vector.datagram.len() as u8);
        conversation.extend([len, ours, index as u8]);
        conversation.extend(vector.datagram);
    }
    write("rdma_endpoint", "vectors", &conversation)?;
    rdma_words(&write)
}

/// What stands around RDMA's packets: an IP header, a handshake, a ring in shared memory.
fn rdma_words(write: &impl Fn(&str, &str, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let vector = &rdma::wire::vectors::VECTORS[0];
    let Addresses::V4 { src, dst } = vector.envelope.addresses else {
        unreachable!("the first vector is IPv4's")
    };
    let udp_bytes = (8 + vector.datagram.len()) as u16;
    let mut packet = vec![0, 0, 0x45, 0];
    packet.extend((20 + udp_bytes).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend([src.octets(), dst.octets()].as_flattened());
    let sum: u32 = packet[2..]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = !((sum >> 16) + (sum & 0xffff)) as u16;
    packet[12..14].copy_from_slice(&folded.to_be_bytes());
    let (src_port, dst_port) = (vector.envelope.src_port, vector.envelope.dst_port);
    for word in [src_port, dst_port, udp_bytes, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(vector.datagram);
    rdma::roce::frame::unpack_ipv4(&packet[2..]).expect("a seed that is understood");
    write("rdma_envelope", "vector-0", &packet)?;

    let offer = Offer {
        qp: QpAddress {
            ip: src.into(),
            qp: vector.packet.bth.dest_qp,
            start_psn: vector.packet.bth.psn,
            path_mtu: PathMtu::B1024,
        },
        responder_reads_max: 16,
        region: Registered {
            address: 0x7000,
            key: MemoryKey(0x1234_5678),
            len_bytes: 1 << 20,
        },
    };
    write("rdma_offer", "real", &offer.emit())?;
    let hello = [&b"DPLABRDM"[..], &VERSION.to_be_bytes(), &[7; 32]].concat();
    for (name, role) in [("server", 0), ("client", 1)] {
        let words = [&[role][..], &hello, &offer.emit(), &[0; 64]].concat();
        write("rdma_handshake", name, &words)?;
    }

    // The ring's first packet, which is in its second place; as fuzz_targets/rdma_shm.rs takes them apart.
    let len = vector.datagram.len();
    let stamp = 1 << 16 | len as u64;
    let head = [&[65, 8 + len as u8][..], &stamp.to_ne_bytes(), vector.datagram].concat();
    write("rdma_shm", "one", &head)
}

fn snapshot_file() -> io::Result<Vec<u8>> {
    let mut disk = Disk::new(1);
    let mut wal = Wal::open(Box::new(disk.clone()), options())?;
    wal.append(Slot(0), Term(1), b"entry")?;
    wal.install(&Snapshot {
        end: Slot(1),
        last_term: Term(1),
        tail: Tail::Keep,
        bytes: (&b"a snapshot"[..]).into(),
    })?;
    wal.sync()?;
    wal.wait()?;
    let files = disk.list()?;
    let file = files
        .iter()
        .find_map(|(name, _)| name.starts_with("snapshot-").then(|| disk.file(name))?);
    Ok([vec![1], file.ok_or(io::ErrorKind::NotFound)?].concat())
}

/// State, an entry, and a snapshot with two sessions, as fuzz_targets/quorum_recovery.rs takes them apart.
fn replica(image: &[u8]) -> Vec<u8> {
    let entry = b"no entry";
    let mut bytes = vec![7, entry.len() as u8];
    bytes.extend_from_slice(&1u32.to_be_bytes());
    bytes.extend_from_slice(&2u32.to_be_bytes());
    bytes.extend([5u64, 0, 0].iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend_from_slice(entry);
    bytes.extend_from_slice(&majorities(0b111).encode());
    let limits = config().limits;
    let put = |bytes: &mut Vec<u8>, words: &[u64]| bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    // Two sessions: the first has two answers ("done", and "mismatch" with a value), the second none.
    put(
        &mut bytes,
        &[limits.sessions_max as u64, limits.session_replies as u64, 2],
    );
    put(&mut bytes, &[4, 6, 2, 1]);
    bytes.push(0);
    put(&mut bytes, &[2]);
    bytes.push(2);
    put(&mut bytes, &[3]);
    bytes.extend_from_slice(b"was");
    put(&mut bytes, &[9, 3, 0]);
    bytes.extend_from_slice(image);
    bytes
}
