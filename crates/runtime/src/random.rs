//! Random bits for ids.

use std::cell::RefCell;

/// Bytes of one id, and of as many as are kept.
const ID_BYTES: usize = 16;
const KEPT_BYTES: usize = 64 * ID_BYTES;

thread_local! {
    static BITS: RefCell<Bits> = const { RefCell::new(Bits { bytes: [0; KEPT_BYTES], used: KEPT_BYTES }) };
}

/// Random bits for 64 ids of a thread: one system call gets them all. They are no secret.
struct Bits {
    bytes: [u8; KEPT_BYTES],
    used: usize,
}

/// 128 bits that nobody had before; zero when the operating system gives none. For ids, not for secrets.
pub fn random_bits() -> u128 {
    BITS.with_borrow_mut(Bits::take)
}

// === impl Bits ===

impl Bits {
    fn take(&mut self) -> u128 {
        if self.used >= KEPT_BYTES {
            let mut bytes = [0; KEPT_BYTES];
            if getrandom::fill(&mut bytes).is_err() {
                return 0;
            }
            (self.bytes, self.used) = (bytes, 0);
        }
        let bits = self.bytes.get(self.used..).and_then(<[u8]>::first_chunk);
        self.used += ID_BYTES;
        bits.map_or(0, |bits| u128::from_be_bytes(*bits))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{ID_BYTES, KEPT_BYTES, random_bits};

    #[test]
    fn no_bits_come_twice() {
        let many = 3 * KEPT_BYTES / ID_BYTES;
        let mut seen: HashSet<u128> = (0..many).map(|_| random_bits()).collect();
        let elsewhere: Vec<u128> = std::thread::scope(|scope| {
            let other = scope.spawn(|| (0..many).map(|_| random_bits()).collect());
            other.join().unwrap()
        });
        seen.extend(elsewhere);
        assert_eq!(seen.len(), 2 * many);
    }
}
