//! The tests that docs/security.md names for each measure exist.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pairs of a file and a test in it, as the page names them: `` `file: test` ``.
fn named(page: &str) -> Vec<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|words| words.split_once(": ")).collect()
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let tests = named(&page);
    assert!(tests.len() > 20, "{tests:?}");
    for (file, test) in tests {
        let code = fs::read_to_string(root.join(file)).unwrap_or_default();
        let begins = format!("#[test]\nfn {test}()");
        let flat: String = code.lines().map(|line| format!("{}\n", line.trim())).collect();
        assert!(flat.contains(&begins), "there is no test {test} in {file}");
    }
}

#[test]
fn files_that_the_page_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    for folder in ["scripts/", "packaging/", "src/", "tests/"] {
        for words in page.split('`').skip(1).step_by(2).filter(|words| words.starts_with(folder)) {
            // A test may follow, or the options of a script.
            let file = words.split([':', ' ', '\n']).next().unwrap();
            assert!(root.join(file).exists(), "there is no {file}");
        }
    }
}

fn code_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|folder| code_below(folder))).collect()
}

/// The compiler denies `unsafe`; what is let through is what the page names, and nothing besides.
#[test]
fn there_is_one_unsafe_call() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(cargo.contains("unsafe_code = \"deny\""));
    let let_through = |file: &PathBuf| {
        let code = fs::read_to_string(file).unwrap();
        code.matches("allow(unsafe_code").count() + code.matches("expect(unsafe_code").count()
    };
    let found: Vec<_> = code_below(&root.join("src"))
        .into_iter()
        .filter(|file| let_through(file) > 0)
        .map(|file| (file.strip_prefix(root).unwrap().to_owned(), let_through(&file)))
        .collect();
    assert_eq!(found, [(PathBuf::from("src/store/error.rs"), 1)]);
    let error = fs::read_to_string(root.join("src/store/error.rs")).unwrap();
    assert_eq!(error.matches("unsafe {").count(), 1);
}

/// systemd's own rating of the unit, where systemd is there to be asked.
#[test]
fn the_unit_is_as_strict_as_the_page_says() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/vestnik.service");
    let asked = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true"])
        .arg(&unit)
        .output();
    let Ok(asked) = asked else {
        return eprintln!("systemd-analyze is not installed: nothing is tested");
    };
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    let Some((_, rating)) = said.split_once("exposure level for vestnik.service: ") else {
        return eprintln!("this systemd-analyze cannot rate a file: nothing is tested");
    };
    let rating: f64 = rating.split_whitespace().next().unwrap().parse().unwrap();
    assert!(rating <= 1.1, "{said}");
}
