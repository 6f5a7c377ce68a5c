//! The text of a load message: it contains the time when it was due, and a check against damage.
//!
//! ```text
//!   0                    16        24                 payload bytes
//!   +--------------------+---------+------------------+
//!   | time, 16 hex       | tag of  | filler, the same |
//!   | digits (ns)        | the time| in every message |
//!   +--------------------+---------+------------------+
//! ```

/// Hex digits of the time.
const TIME_BYTES: usize = 16;

/// Shortest payload, in bytes: the time and its tag.
pub(super) const PAYLOAD_BYTES_MIN: usize = TIME_BYTES + 8;

/// The text common to all messages of a run.
pub(super) struct Payload {
    text: Vec<u8>,
}

impl Payload {
    /// A payload of `bytes`, at least [`PAYLOAD_BYTES_MIN`].
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.max(PAYLOAD_BYTES_MIN);
        let text = b"vestnik ".iter().copied().cycle().take(bytes).collect();
        let mut payload = Self { text };
        stamp(&mut payload.text, 0);
        payload
    }

    /// The text, stamped with time 0.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether this is an undamaged text of this run. Compares only, without a search.
    pub(super) fn is_intact(&self, text: &[u8]) -> bool {
        let Some((head, filler)) = text.split_first_chunk::<PAYLOAD_BYTES_MIN>() else {
            return false;
        };
        text.len() == self.text.len()
            && head[TIME_BYTES..] == tag(head)
            && *filler == self.text[PAYLOAD_BYTES_MIN..]
    }
}

/// Stamps a text with a time, in nanoseconds.
pub(super) fn stamp(text: &mut [u8], time_ns: u64) {
    let Some(head) = text.first_chunk_mut::<PAYLOAD_BYTES_MIN>() else { return };
    for (place, digit) in head.iter_mut().zip(0..TIME_BYTES) {
        let nibble = time_ns >> (4 * (TIME_BYTES - 1 - digit)) & 15;
        *place = b"0123456789abcdef"[nibble as usize];
    }
    let tag = tag(head);
    head[TIME_BYTES..].copy_from_slice(&tag);
}

/// Whether a text begins with a time, as those of load runs do.
pub(super) fn is_stamped(text: &[u8]) -> bool {
    text.first_chunk::<TIME_BYTES>()
        .is_some_and(|time| time.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

/// The time of an undamaged text, in nanoseconds.
pub(super) fn time_ns(text: &[u8]) -> u64 {
    text.iter().take(TIME_BYTES).fold(0, |time, &digit| {
        let nibble = if digit > b'9' { digit - b'a' + 10 } else { digit.wrapping_sub(b'0') };
        time << 4 | u64::from(nibble & 15)
    })
}

/// Eight letters that depend on every digit of the time.
fn tag(head: &[u8; PAYLOAD_BYTES_MIN]) -> [u8; 8] {
    let (halves, _) = head.as_chunks::<8>();
    let mut mixed = u64::from_le_bytes(halves[0]) ^ u64::from_le_bytes(halves[1]).rotate_left(29);
    for _ in 0..2 {
        mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 31;
    }
    let letters = (mixed & 0x0f0f_0f0f_0f0f_0f0f) + 0x6161_6161_6161_6161;
    letters.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_carries_its_time_and_shows_any_harm() {
        let payload = Payload::new(40);
        let mut text = payload.text().to_vec();
        for time in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            stamp(&mut text, time);
            assert_eq!(time_ns(&text), time);
            assert!(is_stamped(&text));
            assert!(payload.is_intact(&text));
            assert!(std::str::from_utf8(&text).is_ok() && !text.contains(&0));
            for place in 0..text.len() {
                let mut harmed = text.clone();
                harmed[place] ^= 1;
                assert!(!payload.is_intact(&harmed), "harm at {place} is seen");
            }
        }
        assert!(!payload.is_intact(&text[..39]));
        assert!(!payload.is_intact(b""));
        assert!(!is_stamped(b"m1 tea and more tea") && !is_stamped(b"00"));
    }
}
