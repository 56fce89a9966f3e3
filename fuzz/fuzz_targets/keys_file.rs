//! The file of many keys: any bytes are read or refused with a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nagi_server::keys::SINGLE_KEY_ID;
use nagi_server::keys::file::entries;

fuzz_target!(|bytes: &[u8]| {
    match entries(bytes) {
        Ok(entries) => {
            assert!(entries.windows(2).all(|pair| pair[0].id < pair[1].id), "each id stands once");
            assert!(entries.iter().all(|entry| entry.id.as_str() != SINGLE_KEY_ID));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
});
