//! Any bytes as the image of a store: refused, and the store is as it was; or loaded, and then saved as the same bytes.
#![no_main]

use dataplane_waist::StateMachine;
use dataplane_wire::quorum::request::Command;
use libfuzzer_sys::fuzz_target;
use tests_fuzz::replicas::store;

fuzz_target!(|bytes: &[u8]| {
    let mut store = store();
    store.apply(
        &Command::Put {
            key: b"key",
            value: b"value",
        },
        &mut |_| {},
    );
    let mut before = Vec::new();
    store.save(&mut before);
    let loaded = store.load(bytes);
    let mut after = Vec::new();
    store.save(&mut after);
    match loaded {
        Ok(()) => {
            assert_eq!(after, bytes, "equal states give equal bytes");
            assert!(store.used_bytes() <= 4096);
        }
        Err(_) => assert_eq!(after, before, "what is refused changes nothing"),
    }
});
