//! The workload file: any bytes are read or refused with one to twenty problems, each with its place.

#![no_main]

use std::collections::HashSet;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nagi_local::file::WorkloadFile;

fuzz_target!(|bytes: &[u8]| {
    match WorkloadFile::parse(bytes, Path::new("/srv")) {
        Ok(file) => {
            let mut seen = HashSet::new();
            assert!(file.workloads.iter().all(|workload| seen.insert(workload.id.clone())));
        }
        Err(problems) => {
            assert!((1..=20).contains(&problems.len()));
            assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
        }
    }
});
