//! Embeds the browser client: `web/` as it is served, compressed, named by its content. Names the
//! commit in a release build.
//!
//! Writes `assets.rs`, the table that `src/http/assets.rs` includes. Scripts and styles are served
//! without their comments and indentation, which are a third of what a phone would load; nothing
//! else of them changes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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
            let bytes = if name.ends_with(".js") || name.ends_with(".css") {
                without_comments(std::str::from_utf8(&bytes)?).into_bytes()
            } else {
                bytes
            };
            files.insert(format!("{prefix}{name}"), bytes);
        }
    }
    Ok(())
}

/// A script or style without the lines that are comments, and without indentation.
///
/// It knows lines alone: a comment behind code stays, and tests of `web/` see to it that no text
/// in a script spans lines, and that what is left compiles to the same.
fn without_comments(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut is_in_comment = false;
    for line in text.lines().map(str::trim) {
        let begins = !is_in_comment && line.starts_with("/*");
        // A cast: its comment ends before the code that it is for.
        let is_code = begins && line.find("*/").is_some_and(|at| at + 2 < line.len());
        if is_in_comment || begins && !is_code {
            is_in_comment = !line.ends_with("*/");
        } else if !line.is_empty() && !line.starts_with("//") {
            left.push_str(line);
            left.push('\n');
        }
    }
    left
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
        let gzip = if compressed.len() < bytes.len() {
            format!("Some(include_bytes!({:?}))", self.file(&compressed)?)
        } else {
            "None".to_owned()
        };
        let digest = format!("{:032x}", digest(bytes));
        Ok(format!(
            "Content {{ digest: {digest:?}, plain: include_bytes!({plain:?}), gzip: {gzip} }}"
        ))
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
