//! Media types of files by name, and sizes of images by their first bytes.

/// File name extensions and their media types.
const TYPES: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("avif", "image/avif"),
    ("csv", "text/csv"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("log", "text/plain"),
    ("m4a", "audio/mp4"),
    ("md", "text/markdown"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("tar", "application/x-tar"),
    ("txt", "text/plain"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xz", "application/x-xz"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Bytes of a file that [`dimensions`] reads.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// The media type of a file by its name.
pub(super) fn media_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    let found = ending.and_then(|ending| TYPES.iter().find(|(known, _)| *known == ending));
    found.map_or("application/octet-stream", |(_, media_type)| media_type)
}

/// Width and height of a PNG, GIF or JPEG by its first bytes; 0 and 0 for anything else.
pub(super) fn dimensions(head: &[u8]) -> (u16, u16) {
    png(head).or_else(|| gif(head)).or_else(|| jpeg(head)).unwrap_or_default()
}

fn png(head: &[u8]) -> Option<(u16, u16)> {
    let header = head.strip_prefix(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")?;
    let side = |at| {
        let bytes = header.get(at..at + 4)?.try_into().ok()?;
        u16::try_from(u32::from_be_bytes(bytes)).ok()
    };
    Some((side(0)?, side(4)?))
}

fn gif(head: &[u8]) -> Option<(u16, u16)> {
    let header = head.strip_prefix(b"GIF87a").or_else(|| head.strip_prefix(b"GIF89a"))?;
    let side = |at| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    Some((side(0)?, side(2)?))
}

/// Walks the segments of a JPEG up to the first start of frame.
fn jpeg(head: &[u8]) -> Option<(u16, u16)> {
    let mut rest = head.strip_prefix(b"\xff\xd8")?;
    loop {
        let kind = *rest.strip_prefix(b"\xff")?.first()?;
        let word = |at| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        // Three markers in the range of starts of frames are tables.
        if matches!(kind, 0xC0..=0xCF) && !matches!(kind, 0xC4 | 0xC8 | 0xCC) {
            return Some((word(7)?, word(5)?));
        }
        let bytes = usize::from(word(2)?);
        rest = rest.get(2 + bytes.max(2)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_go_by_the_ending() {
        assert_eq!(media_type("a.b.JPG"), "image/jpeg");
        assert_eq!(media_type("notes.txt"), "text/plain");
        for name in ["jpg", "a.", "a.unknown", ""] {
            assert_eq!(media_type(name), "application/octet-stream", "{name}");
        }
        assert!(TYPES.is_sorted());
    }

    #[test]
    fn pictures_say_their_size() {
        let png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x03\x20\x00\x00\x02\x58\x08";
        assert_eq!(dimensions(png), (800, 600));
        assert_eq!(dimensions(b"GIF89a\x20\x03\x58\x02\x00"), (800, 600));
        let jpeg =
            b"\xff\xd8\xff\xe0\x00\x04JF\xff\xc4\x00\x03x\xff\xc2\x00\x11\x08\x02\x58\x03\x20";
        assert_eq!(dimensions(jpeg), (800, 600));
        let huge = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x01\x00\x00\x00\x00\x02\x58";
        for other in
            [&huge[..], b"", b"text", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", &jpeg[..12]]
        {
            assert_eq!(dimensions(other), (0, 0));
        }
    }
}
