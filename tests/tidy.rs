//! House rules that a program can check: words, widths, file headers, imports between modules.
//!
//! It reads the source as text and does not link the server, so it is fast:
//! `cargo test --test tidy`.
#![allow(clippy::unwrap_used, reason = "it reads a tree that is there")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Characters of a line of prose: a comment, or a line of a Markdown page.
const PROSE_WIDTH_MAX: usize = 100;

/// Words that had a meaning of their own in this project, and the standard term for each.
///
/// All are in lower case; a space stands for any white space. A word counts where neither a letter,
/// a digit nor a hyphen stands next to it, and in names of functions and types as a part
/// between underscores.
const WORDS: &[(&str, &str)] = &[
    ("tell", "notify, report, say which"),
    ("tells", "notifies, reports, says which"),
    ("told", "notified; sent"),
    ("whoever", "anyone; the connection that"),
    ("from which on", "above which"),
    ("in good order", "gracefully, cleanly"),
    ("stranger", "unauthenticated peer"),
    ("strangers", "unauthenticated peers"),
    ("courtesy", "ephemeral event"),
    ("courtesies", "ephemeral events"),
    ("farewell", "closing"),
    ("last words", "closing frames"),
    ("patience", "busy timeout"),
    ("put together", "flatten, assemble"),
    ("hang up", "begin closing"),
    ("hangs up", "closes"),
    ("is said", "is set, is passed"),
    ("figures", "metrics; measurements"),
    ("kept out", "banned"),
    ("looked at", "scanned; read"),
    ("beside", "while the server is running; next to"),
    ("so many", "N"),
    ("fulfil", "apply"),
    ("judge", "check"),
    ("judged", "checked"),
    ("judges", "checks"),
    ("recognise", "check"),
    ("refusal", "error; decline"),
];

/// Marks of work that is not finished.
const MARKS: &[&str] = &["TODO", "FIXME", "XXX"];

/// Folders and files of the project whose text is checked.
const ROOTS: &[&str] = &[
    "src",
    "crates",
    "tests",
    "benches",
    "fuzz/src",
    "fuzz/fuzz_targets",
    "scripts",
    "clients",
    "docs",
    "packaging",
    "web",
    "examples",
    "schema.sql",
    "build.rs",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below the roots that ends in one of `endings`, with its content.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for start in ROOTS {
        collect(&root().join(start), endings, &mut found);
    }
    assert!(found.len() > 5, "the tree is not where it was");
    found
}

fn collect(path: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if path.is_dir() {
        if matches!(name, "node_modules" | "target" | "vectors" | "corpus" | "artifacts") {
            return;
        }
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| collect(entry, endings, found));
    } else if endings.iter().any(|ending| name.ends_with(ending))
        && name != "package-lock.json"
        && let Ok(text) = fs::read_to_string(path)
    {
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        found.push((path, text));
    }
}

/// Fails with every complaint at once: one run shows all that there is to mend.
fn assert_none(complaints: &[String]) {
    let shown: Vec<_> = complaints.iter().take(2000).map(String::as_str).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), shown.join("\n"));
}

/// The text in lower case, every other run of characters one space: ` fn tell all ` and the like.
fn flatten(line: &str) -> String {
    let mut flat = String::from(" ");
    for c in line.chars() {
        if c.is_alphanumeric() || c == '\'' || c == '-' {
            flat.extend(c.to_lowercase());
        } else if !flat.ends_with(' ') {
            flat.push(' ');
        }
    }
    flat.push(' ');
    flat.replace("  ", " ")
}

#[test]
fn words_are_the_standard_terms() {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".py", ".sh", ".sql", ".js", ".patch", ".service"]) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let flat = flatten(line);
            for (word, instead) in WORDS {
                if flat.contains(&format!(" {word} ")) {
                    complaints.push(format!("{path}:{}: \"{word}\": {instead}", index + 1));
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn no_work_is_left_for_later() {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".py", ".sh", ".sql", ".js", ".css", ".html"]) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
            if words.any(|word| MARKS.contains(&word)) {
                complaints.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    assert_none(&complaints);
}

/// Whether a line of a file is prose: a comment, or text of a page that is no table, link or code.
fn is_prose(path: &str, line: &str, is_in_code: bool) -> bool {
    let is_indented = line.starts_with("    ");
    let line = line.trim_start();
    if path.ends_with(".md") {
        let is_link = line.contains("](") || line.starts_with('[') || line.starts_with('<');
        return !is_in_code && !is_indented && !line.starts_with('|') && !is_link;
    }
    let marks: &[&str] = match path.rsplit('.').next() {
        Some("rs" | "js") => &["//", "*"],
        Some("sql") => &["--"],
        _ => &["#"],
    };
    // Types of JSDoc stand on one line.
    let is_type = line.starts_with("* @");
    marks.iter().any(|mark| line.starts_with(mark)) && !is_type && !line.contains("://")
}

#[test]
fn prose_is_a_hundred_characters_wide() {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".py", ".sh", ".sql", ".js"]) {
        let mut is_in_code = false;
        for (index, line) in text.lines().enumerate() {
            is_in_code ^= line.trim_start().starts_with("```");
            let width = line.chars().count();
            if width > PROSE_WIDTH_MAX && is_prose(&path, line, is_in_code) {
                complaints.push(format!("{path}:{}: {width} characters", index + 1));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_file_says_what_it_is() {
    let is_headed = |(_, text): &(String, String)| text.starts_with("//!");
    let rust = files(&[".rs"]).into_iter().filter(|file| !is_headed(file));
    // Each line of a sweep's entry is one call: what it is stands in the crate that it calls.
    let complaints: Vec<_> = rust
        .filter(|(path, _)| !path.starts_with("fuzz/fuzz_targets/"))
        .map(|(path, _)| format!("{path}: no //! header"))
        .collect();
    assert_none(&complaints);
}

#[test]
fn no_errors_section_is_empty() {
    let mut complaints = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (index, pair) in lines.windows(2).enumerate() {
            if let [heading, next] = pair
                && *heading == "/// # Errors"
                && next.trim_start_matches('/').trim().is_empty()
                && lines.get(index + 2).is_none_or(|line| line.len() <= 4)
            {
                complaints.push(format!("{path}:{}: an empty section", index + 1));
            }
        }
    }
    assert_none(&complaints);
}

/// The arrows that ARCHITECTURE.md allows: the rows of its table "may use".
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = page.split("| module | may use |").nth(1).expect("the table of arrows");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut allowed = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').collect();
        for module in names(cells[1]) {
            allowed.insert(module, names(cells[2]));
        }
    }
    assert!(allowed.len() > 8, "{allowed:?}");
    allowed
}

/// The modules of this crate that a file names, apart from its unit tests.
fn uses(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let names: Vec<&str> = match after.strip_prefix('{') {
            Some(group) => {
                let group = group.split(';').next().unwrap_or_default();
                group.split(',').collect()
            }
            None => vec![after],
        };
        for name in names {
            let name = name.trim_start();
            let end =
                name.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(name.len());
            // `pub(crate) fn` and macros have no module behind them.
            if end > 0 && !name[end..].starts_with('!') {
                found.insert(name[..end].to_owned());
            }
        }
    }
    found
}

#[test]
fn modules_use_those_below_them() {
    let allowed = allowed();
    let folders = ["src", "crates/purpose/src"].map(|folder| fs::read_dir(root().join(folder)));
    let modules: BTreeSet<String> = folders
        .into_iter()
        .flat_map(|folder| folder.unwrap())
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib" && name != "main")
        .collect();
    let mut complaints = Vec::new();
    for module in &modules {
        if !allowed.contains_key(module) {
            complaints.push(format!("{module}: not in the table of ARCHITECTURE.md"));
        }
    }
    for (path, text) in files(&[".rs"]) {
        let inner = path.strip_prefix("crates/purpose/").unwrap_or(&path);
        let Some(inner) = inner.strip_prefix("src/") else { continue };
        let module = inner.split(['/', '.']).next().unwrap();
        if inner.ends_with("tests.rs")
            || inner.ends_with("races.rs")
            || matches!(module, "lib" | "main")
        {
            continue;
        }
        let Some(may_use) = allowed.get(module) else { continue };
        for used in uses(&text).intersection(&modules) {
            if used != module && !may_use.contains(used) && !may_use.contains("all") {
                complaints.push(format!("{path}: uses {used}, which the picture does not allow"));
            }
        }
    }
    assert_none(&complaints);
}
