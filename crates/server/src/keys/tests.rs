//! Keys: files, digests, reload.
