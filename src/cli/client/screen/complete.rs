//! Tab completion of names and file paths.

use std::path::MAIN_SEPARATOR;

use super::super::transfer::home;

/// Names of a folder that are read for one completion, at most.
const NAMES_MAX: usize = 10_000;

/// The common prefix of these, in the spelling of the first.
pub(super) fn common_beginning(names: &[String]) -> Option<String> {
    let (first, rest) = names.split_first()?;
    let mut common = first.as_str();
    for name in rest {
        let alike = common.chars().zip(name.chars());
        let alike = alike.take_while(|(a, b)| a.to_lowercase().eq(b.to_lowercase())).count();
        let bytes = common.char_indices().nth(alike).map_or(common.len(), |(at, _)| at);
        common = common.get(..bytes).unwrap_or_default();
    }
    Some(common.to_owned())
}

/// Completes the path that `/send` is typed with, in quotes where it has spaces; `None` when
/// nothing fits.
pub(super) fn path(typed: &str) -> Option<String> {
    let (typed, is_quoted) = match typed.strip_prefix('"') {
        Some(rest) => (rest, true),
        None => (typed, false),
    };
    if typed.contains('"') || (!is_quoted && typed.contains(char::is_whitespace)) {
        return None;
    }
    let (folder, beginning) = match typed.rfind(MAIN_SEPARATOR) {
        Some(at) => typed.split_at(at + 1),
        None => ("", typed),
    };
    let names = names(folder, beginning);
    let completed = format!("{folder}{}", common_beginning(&names)?);
    let is_file = names.len() == 1 && !completed.ends_with(MAIN_SEPARATOR);
    Some(match (is_quoted || completed.contains(char::is_whitespace), is_file) {
        (true, true) => format!("\"{completed}\" "),
        (true, false) => format!("\"{completed}"),
        (false, true) => format!("{completed} "),
        (false, false) => completed,
    })
}

/// The names in a folder that begin so; those of folders end in a slash.
fn names(folder: &str, beginning: &str) -> Vec<String> {
    let folder = if folder.is_empty() { home(".") } else { home(folder) };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .take(NAMES_MAX)
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_hidden = name.starts_with('.') && !beginning.starts_with('.');
            let fits = name.starts_with(beginning) && !is_hidden && !name.contains('"');
            let slash = if entry.path().is_dir() { "/" } else { "" };
            fits.then(|| format!("{name}{slash}"))
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_completed_as_far_as_they_are_sure() {
        let base = std::env::temp_dir().join(format!("vestnik-complete-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(base.join("folder")).unwrap();
        for name in ["photo-1.jpg", "photo-2.jpg", "two words", ".hidden"] {
            std::fs::write(base.join(name), "x").unwrap();
        }
        let base = base.to_str().unwrap();
        for (typed, completed) in [
            ("ph", Some("photo-")),
            ("photo-2", Some("photo-2.jpg ")),
            ("fo", Some("folder/")),
            (".h", Some(".hidden ")),
            ("x", None),
        ] {
            let completed = completed.map(|completed| format!("{base}/{completed}"));
            assert_eq!(path(&format!("{base}/{typed}")), completed, "{typed}");
        }
        assert_eq!(path(&format!("{base}/two")), Some(format!("\"{base}/two words\" ")));
        assert_eq!(path(&format!("\"{base}/two w")), Some(format!("\"{base}/two words\" ")));
        assert_eq!(path(&format!("{base}/photo-2.jpg look")), None);
        std::fs::remove_dir_all(base).unwrap();
    }
}
