//! Base64 (RFC 4648), for bytes in text.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes, with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    debug_assert_eq!(text.len(), bytes.len().div_ceil(3) * 4, "four digits for three bytes");
    text
}

/// Encodes bytes in the URL-safe alphabet (base64url), without padding.
pub fn encode_url(bytes: &[u8]) -> String {
    let mut text = encode(bytes);
    text.truncate(text.trim_end_matches('=').len());
    debug_assert_eq!(text.len(), (bytes.len() * 4).div_ceil(3), "only the padding is cut off");
    text.replace('+', "-").replace('/', "_")
}

/// The value of each digit; 64: not a digit.
const VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let mut value = 0;
    while value < 64 {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Decodes a text of [`encode`]; `None` if it is invalid.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let is_padded = text.len().is_multiple_of(4) && text.len() - digits.len() <= 2;
    if is_padded { decode_digits(digits.bytes()) } else { None }
}

/// Decodes a text of [`encode_url`], with or without padding; `None` if it is invalid.
pub fn decode_url(text: &str) -> Option<Vec<u8>> {
    decode_digits(text.trim_end_matches('=').bytes().map(|letter| match letter {
        b'-' => b'+',
        b'_' => b'/',
        // Not a digit of this alphabet.
        b'+' | b'/' => b'=',
        other => other,
    }))
}

fn decode_digits(digits: impl ExactSizeIterator<Item = u8>) -> Option<Vec<u8>> {
    let bytes_max = digits.len() * 3 / 4;
    let mut bytes = Vec::with_capacity(bytes_max);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let value = VALUES.get(usize::from(digit)).copied().filter(|value| *value < 64)?;
        debug_assert!(count < 8, "whole bytes are taken out at once");
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    debug_assert_eq!(bytes.len(), bytes_max, "six bits for each digit");
    // The bits left over are fewer than a digit, and must be zero.
    (count < 6 && bits & ((1 << count) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(encode(&[0xff, 0xfe, 0xfd]), "//79");
        for wrong in ["Zg", "Zg=", "Zg===", "Zh==", "====", "Zm9v====", "Zm-v", "Zm9 "] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn text_for_urls_comes_back() {
        for bytes in [&[][..], &[0], &[0xff, 0xfe], &[0xfb, 0xef, 0xbe], &[1, 2, 3, 4]] {
            assert_eq!(decode_url(&encode_url(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(encode_url(&[0xfb, 0xff]), "-_8");
        for wrong in ["A", "AB", "A-", "+/8", "A B", "AAAAA", "-_9"] {
            assert_eq!(decode_url(wrong), None, "{wrong}");
        }
    }
}
