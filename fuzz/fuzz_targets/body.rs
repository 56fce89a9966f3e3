//! Bodies of the REST API: any bytes are read or refused, and what is accepted keeps its limits.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nagi_api::Json;
use nagi_api::body::is_blank;
use nagi_api::scale::{ToWake, ToZero, Up};
use nagi_core::quantity::Replicas;

const CEILING: Replicas = Replicas(100);

fuzz_target!(|bytes: &[u8]| {
    let read = Json::read(bytes);
    if is_blank(bytes) {
        assert!(read.is_err());
    }
    let Ok(body) = read else { return };
    // What is accepted here is JSON for everybody else, too.
    let plain: serde_json::Value = serde_json::from_slice(bytes).expect("an accepted body is JSON");
    assert!(plain.is_object());

    let now: Timestamp = "2030-01-31T07:00:00Z".parse().expect("an instant");
    if let Ok(order) = ToZero::read(&body, now) {
        assert!((1..=500).contains(&order.reason.as_str().trim().chars().count()));
        assert!(!order.reason.as_str().contains('\0'));
        assert!(order.wake_at.is_none_or(|at| at > now));
    }
    if let Ok(order) = Up::read(&body, CEILING) {
        assert!((1..=100).contains(&order.replicas.replicas().0));
        assert_eq!(plain["replicas"].as_u64(), Some(order.replicas.replicas().0.into()));
    }
    if let Ok(order) = ToWake::read(&body, CEILING) {
        assert!(order.replicas.is_none_or(|count| (1..=100).contains(&count.replicas().0)));
    }
});
