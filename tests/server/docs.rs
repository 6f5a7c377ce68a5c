//! Documents match the code: tables of the protocol, options, commands, the code map, tests, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use vestnik::limits;
use vestnik::wire::decline::CODES;
use vestnik::wire::purpose::{ToClient, ToServer};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file)
}

/// The text between two headings, the second of which may be the end.
fn section<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let start = page.find(from).unwrap_or_else(|| panic!("no {from:?}"));
    let rest = &page[start + from.len()..];
    rest.find(to).map_or(rest, |end| &rest[..end])
}

/// Byte and name of each row of the tables in a text.
fn purposes(text: &str) -> Vec<(u8, String)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| 0x"));
    let row = |row: &str| {
        let (byte, rest) = row.split_once(" | ").expect("a cell");
        let name = rest.split([' ', '|']).next().expect("a name");
        (u8::from_str_radix(byte, 16).expect("a byte"), name.to_owned())
    };
    rows.map(row).collect()
}

#[test]
fn the_protocol_names_every_purpose() {
    let page = read("docs/protocol.md");
    let old = section(&page, "\n## 4.", "\n## 5.");
    let new = section(&page, "\n## 5.", "\n## 5a.");
    let newest = section(&page, "\n## 5a.", "\n## 6.");
    let both = purposes(section(old, "Both ways:", "\nTo the server"));
    let mut to_server = both.clone();
    let mut to_client = both;
    for part in [old, new, newest] {
        to_server.extend(purposes(section(part, "\nTo the server", "\nTo the client")));
        to_client.extend(purposes(section(part, "\nTo the client", "\nIn detail")));
    }
    to_server.sort();
    to_client.sort();
    let code: Vec<_> =
        ToServer::ALL.iter().map(|purpose| (purpose.byte(), purpose.name().to_owned())).collect();
    assert_eq!(to_server, code);
    let code: Vec<_> =
        ToClient::ALL.iter().map(|purpose| (purpose.byte(), purpose.name().to_owned())).collect();
    assert_eq!(to_client, code);
}

#[test]
fn the_protocol_names_every_reason() {
    let page = read("docs/protocol.md");
    let rows = section(&page, "\n## 6.", "\n## 7.").lines();
    let page: BTreeSet<_> = rows
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| row.split('`').next().expect("a code").to_owned())
        .collect();
    let code: BTreeSet<_> = CODES.iter().map(|code| (*code).to_owned()).collect();
    assert!(code.len() > 25, "{code:?}");
    assert_eq!(page, code);
}

#[test]
fn the_protocol_shows_the_limits() {
    let page = read("docs/protocol.md");
    let page = section(&page, "\n## 7.", "\n## 8.");
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for words in [
        format!("| {} KiB |", limits::BODY_BYTES_MAX / 1024),
        format!("| {} KiB of UTF-8 |", limits::CONTENT_BYTES_MAX / 1024),
        format!("| 1 to {} Unicode scalar values", limits::NAME_CHARS_MAX),
        format!("| {} characters |", limits::TITLE_CHARS_MAX),
        format!(
            "| at least {} characters and at most {max} bytes for a user, 1 to {max} bytes for a chat |",
            limits::USER_PASSWORD_CHARS_MIN,
            max = limits::PASSWORD_BYTES_MAX
        ),
        format!("| {} MiB a day of UTC", limits::USER_TEXT_BYTES_PER_DAY / 1024 / 1024),
        format!("| {} a day | `rate-limited` |", limits::GROUPS_PER_DAY_MAX),
        format!(
            "| a bucket of {}; {} come back every second |",
            limits::CHANGES_BUCKET,
            limits::CHANGES_PER_SECOND
        ),
        format!(
            "a bucket of {}; one comes back every {} s",
            limits::FAILURE_BUCKET,
            limits::FAILURE_REFILL_MS / 1000
        ),
        format!("a bucket of {}; one comes back every second", limits::ADDRESS_FAILURE_BUCKET),
        format!("| {}; one comes back every minute |", limits::REGISTER_BUCKET),
        format!("| {} | closed", limits::UNAUTHORIZED_PER_ADDRESS_MAX),
        format!("| {}, or what", thousands(limits::CONNECTIONS_MAX)),
        format!("| {} | `forbidden` |", thousands(limits::MEMBERSHIPS_MAX)),
        format!("| {} | the one unused", limits::SESSIONS_PER_USER_MAX),
        format!("| {}, whatever", thousands(usize::from(limits::FOUND_CHATS_MAX))),
        format!("| {} | they are not notified", limits::EPHEMERAL_MEMBERS_MAX),
    ] {
        assert!(page.contains(&words), "{words:?} is not in section 7");
    }
}

fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
    let output = command.args(arguments).arg("--help").output().expect("the binary runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The first words of the lines that stand under a heading of a help text.
fn listed(help: &str, heading: &str) -> Vec<String> {
    let lines = section(help, heading, "\n\n").lines();
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

#[test]
fn operations_shows_every_option_of_serve_and_no_other() {
    let page = read("docs/operations.md");
    let page = section(&page, "\n## Options of `serve`", "\n## Commands");
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    let got: BTreeSet<_> = first_cells.flat_map(options).collect();
    let words = help(&["serve"]);
    let lines = words.lines().filter(|line| line.trim_start().starts_with("--"));
    let taken: BTreeSet<_> = lines.flat_map(options).collect();
    assert!(taken.len() > 20, "{taken:?}");
    assert_eq!(got, taken);
}

#[test]
fn the_page_of_the_client_shows_every_option_and_no_other() {
    let page = read("docs/client.md");
    let page = section(&page, "# The client", "\n## Sessions");
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let got: BTreeSet<_> = rows.filter_map(|row| row.split('|').nth(1)).flat_map(options).collect();
    let words = help(&["client"]);
    let words = section(&words, "Options:", "\nExamples:");
    let lines = words.lines().filter(|line| line.trim_start().starts_with("--"));
    let everywhere = ["--data", "--config"];
    let taken: BTreeSet<_> =
        lines.flat_map(options).filter(|option| !everywhere.contains(option)).collect();
    assert!(taken.len() > 10, "{taken:?}");
    assert_eq!(got, taken);
}

/// The options that a text names.
fn options(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    words.filter(|word| word.starts_with("--")).collect()
}

#[test]
fn operations_shows_every_command() {
    let page = read("docs/operations.md");
    let page = section(&page, "\n## Commands", "\n## TLS");
    let commands = listed(&help(&[]), "Commands:");
    assert!(commands.contains(&"user".to_owned()), "{commands:?}");
    for command in commands.iter().filter(|command| *command != "serve") {
        let words = help(&[command]);
        let below = if words.contains("Commands:") { listed(&words, "Commands:") } else { vec![] };
        for name in &below {
            assert!(page.contains(&format!("`{command} {name}")), "{command} {name}");
        }
        assert!(!below.is_empty() || page.contains(&format!("`{command}")), "{command}");
    }
}

#[test]
fn the_map_names_every_part_and_every_dependency() {
    let page = read("ARCHITECTURE.md");
    let lib = read("src/lib.rs");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules {
        let is_named = page.contains(&format!("`src/{module}.rs`"))
            || page.contains(&format!("`src/{module}/`"));
        assert!(is_named, "src/{module} is not on the map");
    }
    let manifest = read("Cargo.toml");
    let dependencies = section(&manifest, "\n[dependencies]", "\n[[bench]]");
    let table = section(&page, "\n## Direct dependencies", "\n## ");
    for line in dependencies.lines().filter(|line| line.contains(" = ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(table.contains(name), "{name} has no reason in ARCHITECTURE.md");
    }
    assert!(page.lines().count() <= 250, "a map is short");
}

#[test]
fn links_and_files_that_the_pages_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/client.md",
        "docs/lan.md",
        "docs/operations.md",
        "docs/performance.md",
        "docs/protocol.md",
        "docs/security.md",
        "docs/testing.md",
        "docs/web.md",
        "clients/python/README.md",
    ] {
        let text = read(page);
        let folder = root.join(page).parent().expect("a folder").to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            assert!(folder.join(file).exists(), "{page}: there is no {link}");
            if !anchor.is_empty() {
                let target = fs::read_to_string(folder.join(file)).expect(file);
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| slug(line) == anchor), "{page}: there is no {link}");
            }
        }
        for words in text.split('`').filter(|words| !words.contains([' ', '\n', '*'])) {
            if ["src/", "crates/", "tests/", "scripts/", "docs/", "packaging/"]
                .iter()
                .any(|top| words.starts_with(top))
            {
                let exists = [root, &root.join("web")].iter().any(|top| top.join(words).exists());
                assert!(exists, "{page}: there is no {words}");
            }
        }
    }
}

/// The anchor of a heading, as GitHub makes it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The names of the files in a folder that end in `ending`, without it.
fn names_in(folder: &str, ending: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let files = files.filter(|entry| entry.path().is_file());
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

#[test]
fn testing_lists_every_mutant_with_its_fault() {
    let page = read("docs/testing.md");
    let table = section(&page, "| mutant | fault | seeds |", "\n\n");
    let mut listed = BTreeSet::new();
    for row in table.lines().skip(2) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let mut next = || cells.next().expect("a cell").to_owned();
        listed.insert((next(), next()));
    }
    let fault = |name: &String| {
        let patch = read(&format!("tests/mutants/{name}.patch"));
        patch.lines().next().expect("a first line").trim().to_owned()
    };
    let names = names_in("tests/mutants", ".patch");
    assert!(names.len() > 50, "{names:?}");
    let there: BTreeSet<_> = names.into_iter().map(|name| (name.clone(), fault(&name))).collect();
    let differing: Vec<_> = listed.symmetric_difference(&there).collect();
    assert!(differing.is_empty(), "the table of mutants and the patches differ: {differing:?}");
}

#[test]
fn every_script_test_and_fuzz_target_is_documented() {
    let testing = read("docs/testing.md");
    let pages = ["docs/performance.md", "docs/security.md"].map(read).concat() + &testing;
    let scripts = [names_in("scripts", ".py"), names_in("scripts", ".sh")];
    assert!(scripts.iter().map(BTreeSet::len).sum::<usize>() > 20);
    for (names, ending) in scripts.iter().zip([".py", ".sh"]) {
        for name in names {
            assert!(pages.contains(&format!("{name}{ending}")), "scripts/{name}{ending}");
        }
    }
    for target in names_in("fuzz/fuzz_targets", ".rs") {
        assert!(testing.contains(&format!("`{target}`")), "the fuzz target {target}");
    }
    let modules = names_in("tests/server", ".rs").into_iter();
    for name in modules.filter(|name| name != "main" && !name.starts_with("api")) {
        assert!(testing.contains(&format!("{name}.rs`")), "tests/server/{name}.rs");
    }
}

/// The functions that "Anatomy of a purpose" names, with the file that each stands in. A file is
/// named once for the functions behind it.
fn anatomy() -> Vec<(String, String)> {
    let page = read("ARCHITECTURE.md");
    let mut file = String::new();
    let mut functions = Vec::new();
    for words in section(&page, "## Anatomy of a purpose", "\n## ").split('`').skip(1).step_by(2) {
        let words = words.split_whitespace().collect::<Vec<_>>();
        match words[..] {
            [path, function] => {
                path.trim_end_matches(':').clone_into(&mut file);
                functions.push((file.clone(), function.to_owned()));
            }
            [path] if path.contains('/') => path.clone_into(&mut file),
            [function] => functions.push((file.clone(), function.to_owned())),
            _ => {}
        }
    }
    functions
}

#[test]
fn the_anatomy_names_functions_that_exist_and_few() {
    let functions = anatomy();
    assert!((15..=25).contains(&functions.len()), "{functions:?}");
    for (file, function) in functions {
        assert!(read(&file).contains(&format!("fn {function}(")), "no {function} in {file}");
    }
}
