//! Reads the validity and the common name of an X.509 certificate.
//!
//! Owns the walk through the DER to these fields (RFC 5280, section 4.1). Verifies nothing: rustls
//! does that. A crate for X.509 would be a lot of code for three fields.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
/// Object identifier 2.5.4.3, the common name.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Tag of the version field, `[0]`, which certificates of version 1 do not have.
const VERSION: u8 = 0xA0;

/// The validity of a certificate, as times since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Start of the validity.
    pub not_before: Duration,
    /// End of the validity.
    pub not_after: Duration,
}

/// The validity of a certificate in DER; `None` when it cannot be parsed.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    // Behind the serial number, the signature's algorithm and the issuer.
    let (tag, validity, _) = element(skip(fields(certificate)?, 3)?)?;
    let (begin_kind, begin, rest) = element(validity)?;
    let (end_kind, end, _) = element(rest)?;
    if tag != SEQUENCE {
        return None;
    }
    Some(Validity { not_before: time(begin_kind, begin)?, not_after: time(end_kind, end)? })
}

/// The common name of a certificate in DER, if the subject consists of it alone and it is UTF-8.
pub fn common_name(certificate: &[u8]) -> Option<&str> {
    let (_, subject, _) = element(skip(fields(certificate)?, 4)?)?;
    let (_, set, rest) = element(subject)?;
    let (_, attribute, further) = element(set)?;
    let (tag, kind, value) = element(attribute)?;
    let (value_tag, name, end) = element(value)?;
    let is_alone = rest.is_empty() && further.is_empty() && end.is_empty();
    let is_name = tag == OBJECT_IDENTIFIER && kind == COMMON_NAME && value_tag == UTF8_STRING;
    if is_alone && is_name { str::from_utf8(name).ok() } else { None }
}

/// The fields of a certificate from the serial number on.
fn fields(certificate: &[u8]) -> Option<&[u8]> {
    let (tag, certificate, _) = element(certificate)?;
    let (inner_tag, fields, _) = element(certificate)?;
    if tag != SEQUENCE || inner_tag != SEQUENCE {
        return None;
    }
    if fields.first() == Some(&VERSION) { skip(fields, 1) } else { Some(fields) }
}

/// Skips this number of elements; returns the rest.
fn skip(mut fields: &[u8], count: usize) -> Option<&[u8]> {
    for _ in 0..count {
        fields = element(fields)?.2;
    }
    Some(fields)
}

/// The tag and content of the first element, and the rest. Supports lengths of up to four bytes.
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

/// Parses `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`; a year of two digits is 1950 to 2049.
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
    fn the_fields_of_a_certificate_are_read() {
        for year in [2026_u64, 2048, 2060] {
            let now = Duration::from_secs((year - 1970) * 31_556_952);
            let made = self_signed(&["chat.lan".to_owned()], now).unwrap();
            let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
            let good = validity(&der).unwrap();
            let days = (good.not_after - good.not_before).as_secs() / 86_400;
            assert_eq!(days, SELF_SIGNED_DAYS, "{year}");
            assert_eq!((now - good.not_before).as_secs(), 86_400);
            assert_eq!(common_name(&der), Some("chat.lan"));
            // Truncated anywhere, it is rejected, and nothing panics.
            for end in 0..der.len() {
                let _ = (validity(&der[..end]), common_name(&der[..end]));
            }
        }
        assert_eq!(validity(b"\x30\x84\xff\xff\xff\xff"), None);
        assert_eq!(validity(&[0x30, 0x80, 0, 0]), None);
        assert_eq!(common_name(b"\x30\x00"), None);
    }
}
