//! Any bytes through the decoders of what replicas say to each other; what they understand, the encoders write again.
#![no_main]

use dataplane_wire::{
    checksum::crc32c,
    frame::{self, HEADER_BYTES, Kind, field},
    quorum::{
        ack, append,
        entries::{self, EntriesWriter},
        entry, report, snapshot, vote,
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A fuzzer guesses neither checksums nor lengths: mend them, so that it gets to the messages.
    let mut mended = bytes.to_vec();
    let Some((head, payload)) = mended.split_at_mut_checked(HEADER_BYTES) else {
        return;
    };
    let Ok(payload_len) = u16::try_from(payload.len()) else {
        return;
    };
    head[field::MAGIC].copy_from_slice(&frame::MAGIC);
    head[field::VERSION.start] = frame::VERSION;
    head[field::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
    head[field::PAYLOAD_CRC].copy_from_slice(&crc32c(payload).to_be_bytes());
    let header_crc = crc32c(&head[..field::HEADER_CRC.start]);
    head[field::HEADER_CRC].copy_from_slice(&header_crc.to_be_bytes());
    hold(&mended);
});

/// Parses with `$parse`, and what comes of that must write `$bytes` again.
macro_rules! again {
    ($bytes:expr, $parse:expr) => {
        if let Ok(message) = $parse {
            let mut again = vec![0xaa; HEADER_BYTES + message.payload_bytes()];
            message.emit(&mut again);
            assert_eq!(again, $bytes);
        }
    };
}

fn hold(bytes: &[u8]) {
    let Ok(frame) = frame::parse(bytes) else { return };
    match frame.header.kind {
        Kind::EchoRequest | Kind::EchoReply | Kind::QuorumRequest | Kind::QuorumReply => {}
        Kind::Append => {
            again!(bytes, append::parse(&frame));
            hold_entry(frame.payload);
        }
        Kind::Ack => again!(bytes, ack::parse(&frame)),
        Kind::Entries => {
            again!(bytes, entries::parse(&frame));
            let Ok(parsed) = entries::parse(&frame) else { return };
            let mut buffer = vec![0xaa; frame.payload.len()];
            let mut writer = EntriesWriter::new(&mut buffer);
            for ((slot, term, entry), expect) in parsed.iter().zip(parsed.slot..parsed.end()) {
                assert_eq!(slot, expect);
                writer.push(term, entry).expect("entries fit where they were");
                hold_entry(entry);
            }
            assert_eq!(writer.finish(), parsed.list);
        }
        Kind::Report => again!(bytes, report::parse(&frame)),
        Kind::VoteRequest => again!(bytes, vote::parse_request(&frame)),
        Kind::VoteReply => again!(bytes, vote::parse_reply(&frame)),
        Kind::SnapshotChunk => again!(bytes, snapshot::parse_chunk(&frame)),
        Kind::SnapshotReport => again!(bytes, snapshot::parse_report(&frame)),
    }
}

fn hold_entry(bytes: &[u8]) {
    let Ok(parsed) = entry::parse(bytes) else { return };
    let mut again = vec![0xaa; parsed.len_bytes()];
    entry::emit(&parsed, &mut again);
    assert_eq!(again, bytes);
}
