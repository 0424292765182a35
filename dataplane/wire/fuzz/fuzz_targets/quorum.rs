//! Any bytes through the decoders of quorum requests and replies; what they understand, the encoders write again.
#![no_main]

use dataplane_wire::quorum::{
    reply::{self, EntriesWriter, Outcome},
    request,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    if let Ok(parsed) = request::parse(payload) {
        let mut again = vec![0xaa; parsed.len_bytes()];
        request::emit(&parsed, &mut again);
        assert_eq!(again, payload);
    }
    if let Ok(parsed) = reply::parse(payload) {
        let mut again = vec![0xaa; parsed.len_bytes()];
        reply::emit(&parsed, &mut again);
        assert_eq!(again, payload);
        if let Outcome::Entries(entries) = parsed.outcome {
            let mut buffer = vec![0xaa; payload.len()];
            let mut writer = EntriesWriter::new(&mut buffer);
            for (key, value) in entries.iter() {
                writer.push(key, value).expect("entries fit where they were");
            }
            assert_eq!(writer.finish(entries.more()), entries);
        }
    }
});
