//! Embeds the browser client: `web/` as it is served, compressed, named by its content. Names the
//! commit in a release build.
//!
//! Writes `assets.rs`, the table that `src/http/assets.rs` includes. Scripts and styles are served
//! without comments and without white space that means nothing, which are two fifths of what a
//! phone would load; nothing else of them changes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use flate2::Compression;
use flate2::write::GzEncoder;

/// What lies in `web/` for development.
const NOT_SERVED: &[&str] =
    &["test", "node_modules", "package.json", "package-lock.json", "tsconfig.json"];

/// Served at the root, since they are asked for by these names.
const AT_ROOT: &[&str] = &["index.html", "manifest.webmanifest", "sw.js"];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    name_commit();
    let web = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("web");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files = BTreeMap::new();
    collect(&web, "", &mut files)?;
    let roots: BTreeMap<String, Vec<u8>> = AT_ROOT
        .iter()
        .filter_map(|name| files.remove(*name).map(|bytes| ((*name).to_owned(), bytes)))
        .collect();

    let prefix = format!("/a/{}", digest_of_all(&files));
    let mut table = Table { out, rows: BTreeMap::new(), count: 0 };
    let mut parts = Vec::new();
    for (name, bytes) in &files {
        let path = format!("{prefix}/{name}");
        table.add(&path, media_type(name), "Immutable", bytes, None)?;
        parts.push(format!("\"{path}\""));
    }
    let parts = format!("[{}]", parts.join(","));
    for (name, bytes) in roots {
        let text = String::from_utf8(bytes)?.replace("%ASSETS%", &prefix);
        let text = text.replace("%PARTS%", &parts);
        let path = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
        let first_run = text.contains("%EMPTY%").then(|| text.replace("%EMPTY%", "1"));
        let text = text.replace("%EMPTY%", "0");
        let first_run = first_run.as_ref().map(String::as_bytes);
        table.add(&path, media_type(&name), "Confirmed", text.as_bytes(), first_run)?;
    }
    table.write()
}

/// Every file below a folder that is served, by its path below `web/`.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Outcome<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    // Files that come and go change the folder, and files that change are named below: not the
    // whole of `web/`, in which a test leaves its packages.
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| format!("{name:?}"))?;
        if name.starts_with('.') || prefix.is_empty() && NOT_SERVED.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else {
            println!("cargo::rerun-if-changed={}", entry.path().display());
            let bytes = fs::read(entry.path())?;
            let bytes = match Path::new(&name).extension().and_then(std::ffi::OsStr::to_str) {
                Some("js") => short_script(std::str::from_utf8(&bytes)?).into_bytes(),
                Some("css") => short_style(std::str::from_utf8(&bytes)?).into_bytes(),
                _ => bytes,
            };
            files.insert(format!("{prefix}{name}"), bytes);
        }
    }
    Ok(())
}

/// A script without its comments, and with white space only where words or statements need it.
///
/// It knows tokens and no grammar: the end of a line stays unless a statement cannot end there. A
/// test of `web/` compares the syntax trees of what is served with those of the sources.
fn short_script(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let (mut at, mut last, mut gap) = (0, "", Gap::None);
    while at < text.len() {
        let token = &text[at..script_token_end(text.as_bytes(), at, last)];
        at += token.len();
        if token.starts_with(char::is_whitespace) || token.starts_with("//") {
            gap = gap.max(if token.contains('\n') { Gap::Line } else { Gap::Space });
        } else if token.starts_with("/*") {
            gap = gap.max(Gap::Space);
        } else {
            if matches!(token, "}" | ")" | "]") && short.ends_with(',')
                || token == "}" && short.ends_with(';')
            {
                short.pop();
            }
            match gap {
                Gap::Line if may_end(last, token) => short.push('\n'),
                Gap::Line | Gap::Space if must_part(last, token) => short.push(' '),
                _ => {}
            }
            short.push_str(token);
            (last, gap) = (token, Gap::None);
        }
    }
    short.push('\n');
    short
}

/// What stands between two tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Line,
}

/// Whether a statement may end between two tokens, on two lines.
fn may_end(last: &str, next: &str) -> bool {
    let goes_on = |token: &str, marks: &str| token.len() == 1 && marks.contains(token);
    !last.is_empty() && !goes_on(last, ";{,([=&|?:.>") && !goes_on(next, "}]),;.?:&|=")
}

/// Whether two tokens would be another one without a space between them.
fn must_part(last: &str, next: &str) -> bool {
    let end = last.bytes().last().unwrap_or_default();
    let begin = next.bytes().next().unwrap_or_default();
    is_word(end) && is_word(begin) || end == begin && matches!(end, b'+' | b'-' | b'/')
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#') || !byte.is_ascii()
}

/// Where the token at `at` ends: white space, a comment, a word, a literal, or one other byte.
fn script_token_end(text: &[u8], at: usize, last: &str) -> usize {
    let rest = &text[at..];
    let run = |fits: &dyn Fn(u8) -> bool| {
        at + rest.iter().position(|&byte| !fits(byte)).unwrap_or(rest.len())
    };
    match rest[0] {
        byte if byte.is_ascii_whitespace() => run(&|byte| byte.is_ascii_whitespace()),
        byte if is_word(byte) => run(&is_word),
        quote @ (b'"' | b'\'') => quoted_end(text, at, quote),
        b'`' => template_end(text, at),
        b'/' if rest.starts_with(b"//") => run(&|byte| byte != b'\n'),
        b'/' if rest.starts_with(b"/*") => at + 2 + find(&rest[2..], b"*/") + 2,
        b'/' if begins_pattern(last) => pattern_end(text, at),
        _ => at + 1,
    }
}

fn find(text: &[u8], wanted: &[u8]) -> usize {
    text.windows(wanted.len()).position(|window| window == wanted).expect("an end")
}

fn quoted_end(text: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while text[end] != quote {
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    end + 1
}

/// The end of a template, which stays as it is, with all that stands in it.
fn template_end(text: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while text[end] != b'`' {
        if text[end..].starts_with(b"${") {
            end += 2;
            let (mut depth, mut last) = (0, "");
            while depth > 0 || text[end] != b'}' {
                let next = script_token_end(text, end, last);
                let token = std::str::from_utf8(&text[end..next]).expect("whole characters");
                depth += i32::from(token == "{") - i32::from(token == "}");
                (end, last) = (next, if token.trim().is_empty() { last } else { token });
            }
        }
        end += if text[end] == b'\\' { 2 } else { 1 };
    }
    end + 1
}

/// Whether a slash behind a token begins a regular expression, and divides nothing.
fn begins_pattern(last: &str) -> bool {
    let is_value = last.bytes().last().is_some_and(|byte| {
        is_word(byte) || matches!(byte, b')' | b']' | b'}' | b'"' | b'\'' | b'`')
    });
    !is_value || matches!(last, "return" | "typeof" | "case" | "in" | "of" | "await" | "else")
}

fn pattern_end(text: &[u8], at: usize) -> usize {
    let (mut end, mut is_in_class) = (at + 1, false);
    while is_in_class || text[end] != b'/' {
        match text[end] {
            b'\\' => end += 1,
            b'[' => is_in_class = true,
            b']' => is_in_class = false,
            _ => {}
        }
        end += 1;
    }
    end + 1
}

/// A style without its comments, and with the white space alone that parts something.
fn short_style(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let (mut at, mut is_gap) = (0, false);
    while at < text.len() {
        let rest = &bytes[at..];
        let end = match rest[0] {
            b'/' if rest.starts_with(b"/*") => at + 2 + find(&rest[2..], b"*/") + 2,
            quote @ (b'"' | b'\'') => quoted_end(bytes, at, quote),
            byte if byte.is_ascii() => at + 1,
            _ => at + text[at..].chars().next().map_or(1, char::len_utf8),
        };
        let token = &text[at..end];
        at = end;
        if token.starts_with("/*") || token.starts_with(char::is_whitespace) {
            is_gap = true;
            continue;
        }
        if token == "}" && short.ends_with(';') {
            short.pop();
        }
        let parts = !short.is_empty() && !short.ends_with(['{', '}', ';', ',', ':']);
        if is_gap && parts && !matches!(token, "{" | "}" | ";" | ",") {
            short.push(' ');
        }
        short.push_str(token);
        is_gap = false;
    }
    short
}

/// The table that is being made.
struct Table {
    out: PathBuf,
    rows: BTreeMap<String, String>,
    count: usize,
}

impl Table {
    fn add(
        &mut self,
        path: &str,
        media_type: &str,
        cache: &str,
        bytes: &[u8],
        first_run: Option<&[u8]>,
    ) -> Outcome<()> {
        let content = self.content(bytes)?;
        let first_run = match first_run {
            Some(bytes) => format!("Some({})", self.content(bytes)?),
            None => "None".to_owned(),
        };
        let row = format!(
            "Asset {{ path: {path:?}, media_type: {media_type:?}, cache: Cache::{cache}, \
             content: {content}, first_run: {first_run} }},\n"
        );
        self.rows.insert(path.to_owned(), row);
        Ok(())
    }

    /// A content, whose bytes go into files of their own.
    fn content(&mut self, bytes: &[u8]) -> Outcome<String> {
        let plain = self.file(bytes)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes)?;
        let compressed = encoder.finish()?;
        let gzip = self.shorter(&compressed, bytes)?;
        let mut compressed = Vec::new();
        brotli::BrotliCompress(&mut &*bytes, &mut compressed, &brotli_params(bytes.len()))?;
        let brotli = self.shorter(&compressed, bytes)?;
        let digest = format!("{:032x}", digest(bytes));
        Ok(format!(
            "Content {{ digest: {digest:?}, plain: include_bytes!({plain:?}), gzip: {gzip}, \
             brotli: {brotli} }}"
        ))
    }

    /// The expression of a compressed content, if it is shorter than the plain one.
    fn shorter(&mut self, compressed: &[u8], plain: &[u8]) -> Outcome<String> {
        Ok(if compressed.len() < plain.len() {
            format!("Some(include_bytes!({:?}))", self.file(compressed)?)
        } else {
            "None".to_owned()
        })
    }

    fn file(&mut self, bytes: &[u8]) -> Outcome<String> {
        let path = self.out.join(format!("asset-{}", self.count));
        self.count += 1;
        fs::write(&path, bytes)?;
        Ok(path.to_str().ok_or("the folder of the build is not UTF-8")?.to_owned())
    }

    fn write(self) -> Outcome<()> {
        let mut text = String::from("&[\n");
        for row in self.rows.values() {
            text.write_str(row)?;
        }
        text.push_str("]\n");
        Ok(fs::write(self.out.join("assets.rs"), text)?)
    }
}

/// The densest that Brotli has: a text is compressed once and sent often.
fn brotli_params(size: usize) -> BrotliEncoderParams {
    BrotliEncoderParams {
        quality: 11,
        size_hint: size,
        mode: BrotliEncoderMode::BROTLI_MODE_TEXT,
        ..BrotliEncoderParams::default()
    }
}

/// FNV-1a over 128 bits. It distinguishes versions of our own files, against no attacker.
fn digest(bytes: &[u8]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// 16 hex digits over the names and contents of all parts.
fn digest_of_all(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut all = Vec::new();
    for (name, bytes) in files {
        all.extend_from_slice(name.as_bytes());
        all.push(0);
        all.extend_from_slice(&digest(bytes).to_be_bytes());
    }
    format!("{:016x}", digest(&all) as u64)
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// Sets `VESTNIK_COMMIT` for `vestnik version`, unless the environment has it. A debug build does
/// without, which would be made anew by each commit.
fn name_commit() {
    println!("cargo::rerun-if-env-changed=VESTNIK_COMMIT");
    if std::env::var_os("VESTNIK_COMMIT").is_some()
        || std::env::var("PROFILE").as_deref() != Ok("release")
    {
        return;
    }
    // Sources that were unpacked from an archive have no repository, and perhaps nobody has git.
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let own = ["rev-parse", "--show-prefix"];
    if git(&own).as_deref() != Some("") {
        return;
    }
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=VESTNIK_COMMIT={commit}");
    }
}
