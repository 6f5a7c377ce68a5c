//! When a certificate ends.
//!
//! Owns the walk through its DER to the one field that is needed (RFC 5280, section 4.1). Must not
//! check anything else of a certificate: rustls does that. No crate for X.509 is worth its weight
//! for one date.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version, which a certificate of version 1 leaves out.
const VERSION: u8 = 0xA0;

/// Time since the Unix epoch at which a certificate in DER ends; `None` when it cannot be read.
pub fn not_after(certificate: &[u8]) -> Option<Duration> {
    let (tag, certificate, _) = element(certificate)?;
    let (inner_tag, mut fields, _) = element(certificate)?;
    if tag != SEQUENCE || inner_tag != SEQUENCE {
        return None;
    }
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (tag, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (kind, text, _) = element(rest)?;
    if tag == SEQUENCE { time(kind, text) } else { None }
}

/// The tag and content of the first element, and what follows it. Lengths of up to four bytes.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`; two digits of a year are 1950 to 2049.
fn time(kind: u8, text: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let date = DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    let seconds = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::super::self_signed::{SELF_SIGNED_DAYS, self_signed};
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for year in [2026_u64, 2048, 2060] {
            let now = Duration::from_secs((year - 1970) * 31_556_952);
            let made = self_signed(&["chat.lan".to_owned()], now).unwrap();
            let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
            let days = (not_after(&der).unwrap() - now).as_secs() / 86_400;
            assert!((SELF_SIGNED_DAYS - 2..=SELF_SIGNED_DAYS).contains(&days), "{year}: {days}");
            // Cut anywhere, it is no certificate, and nothing panics.
            for end in 0..der.len() {
                let _ = not_after(&der[..end]);
            }
        }
        assert_eq!(not_after(b"\x30\x84\xff\xff\xff\xff"), None);
        assert_eq!(not_after(&[0x30, 0x80, 0, 0]), None);
    }
}
