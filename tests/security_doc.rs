//! docs/security.md names a test for each measure; this sees to it that they exist.

use std::fs;
use std::path::Path;

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
            let file = words.split(": ").next().unwrap();
            assert!(root.join(file).exists(), "there is no {file}");
        }
    }
}
