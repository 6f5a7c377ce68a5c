//! The TOML file of options: each key by itself, so that every problem is found at once.

use std::path::Path;

use super::{ConfigError, Options};

impl Options {
    /// Reads the TOML file at `path`.
    ///
    /// # Errors
    /// The first of its problems; see [`Options::read_all`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let (options, problems) = Self::read_all(path);
        problems.into_iter().next().map_or(Ok(options), Err)
    }

    /// Reads the TOML file at `path`: the options that are valid, and what is wrong with the rest.
    pub fn read_all(path: &Path) -> (Self, Vec<ConfigError>) {
        let name = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "the file does not exist".to_owned(),
                    std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                    std::io::ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
                    std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
                    kind => format!("it cannot be read: {kind}"),
                };
                return (Self::default(), vec![ConfigError(format!("{name}: {why}"))]);
            }
        };
        let (options, problems) = Self::parse_all(&text);
        let problems = problems.into_iter().map(|e| ConfigError(format!("{name}: {e}")));
        (options, problems.collect())
    }

    /// Parses the text of a TOML file.
    ///
    /// # Errors
    /// The first of its problems, with the line.
    pub fn parse(toml: &str) -> Result<Self, ConfigError> {
        let (options, problems) = Self::parse_all(toml);
        problems.into_iter().next().map_or(Ok(options), Err)
    }

    fn parse_all(toml: &str) -> (Self, Vec<ConfigError>) {
        let table = match toml.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                let what = error.message().lines().collect::<Vec<_>>().join(" ");
                let line = error.span().and_then(|span| toml.get(..span.start));
                let line = line.map_or(1, |before| before.matches('\n').count() + 1);
                let what = format!("line {line}: this is not TOML: {what}");
                return (Self::default(), vec![ConfigError(what)]);
            }
        };
        let mut options = Self::default();
        let mut problems = Vec::new();
        for (key, value) in table {
            let problem = match Self::keys().any(|known| known == key) {
                true => options.set(&key, &value).err().map(|why| format!("{key}{why}")),
                false => Some(unknown(&key)),
            };
            problems.extend(problem.map(|what| (line_of(toml, &key), what)));
        }
        problems.sort();
        let problems = problems.into_iter();
        let lines = problems.map(|(line, what)| ConfigError(format!("line {line}: {what}")));
        (options, lines.collect())
    }
}

/// The line on which a key stands, counted from 1.
fn line_of(toml: &str, key: &str) -> usize {
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(key)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    };
    toml.lines().position(is_key).map_or(1, |index| index + 1)
}

/// The line for a key that is no option.
fn unknown(key: &str) -> String {
    match nearest(key, Options::keys()) {
        Some(meant) => format!("{key} is not an option; did you mean {meant}?"),
        None => format!("{key} is not an option; see 'vestnik serve --help'"),
    }
}

/// The word that a mistyped one most likely means.
pub fn nearest(word: &str, known: impl Iterator<Item = String>) -> Option<String> {
    /// Letters that may be wrong.
    const WRONG_MAX: usize = 3;
    let found = known.map(|candidate| (distance(word, &candidate), candidate)).min()?;
    (found.0 <= WRONG_MAX.min(word.len() / 2)).then_some(found.1)
}

/// How many characters have to be inserted, removed or replaced to get from one word to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut costs: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.chars().enumerate() {
        let mut diagonal = row;
        let mut left = row + 1;
        if let Some(first) = costs.first_mut() {
            *first = left;
        }
        for (cost, against) in costs.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(letter != *against);
            diagonal = *cost;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cost = left;
        }
    }
    costs.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn problems(toml: &str) -> Vec<String> {
        Options::parse_all(toml).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_is_found_and_names_its_key() {
        let toml = "listen = 7\nauth-timeout = 'soon'\nlissen = 'x'\nmax-connections = -1\n\
                    allow-plaintext = 'yes'\nregistration = 'perhaps'\n[serve]\nlisten = 1\n\
                    [data]\nx = 1\n";
        assert_eq!(
            problems(toml),
            [
                "line 1: listen must be an address, or an array of addresses",
                "line 2: auth-timeout must be a number of seconds, not \"soon\"",
                "line 3: lissen is not an option; did you mean listen?",
                "line 4: max-connections must be a whole number from 0 up, not -1",
                "line 5: allow-plaintext must be true or false, not \"yes\"",
                "line 6: registration must be one of closed, invite, open, not \"perhaps\"",
                "line 7: serve is not an option; see 'vestnik serve --help'",
                "line 9: data must be text in quotes, not a table",
            ]
        );
    }

    #[test]
    fn valid_keys_arrive_among_wrong_ones() {
        let (options, problems) = Options::parse_all("sends-per-second = 9\nsession-days = 'x'");
        assert_eq!(options.sends_per_second, Some(9));
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn text_that_is_not_toml_names_its_line() {
        let [line] = &problems("\ndata = [")[..] else { panic!("one problem") };
        assert!(line.starts_with("line 2: this is not TOML: "), "{line}");
    }

    #[test]
    fn the_distance_counts_changed_letters() {
        for (one, other, expected) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), expected);
            assert_eq!(distance(other, one), expected);
        }
    }
}
