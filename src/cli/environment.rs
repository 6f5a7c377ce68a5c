//! Environment variables: those that are options, and warnings of mistyped ones.

use std::collections::BTreeSet;

use vestnik::config::{self, VARIABLE_PREFIX, nearest};

use super::tree;

/// Variables that are not options: `VESTNIK_BINARY` is the binary's path for scripts and tests.
const OTHERS: [&str; 1] = ["VESTNIK_BINARY"];

/// The variable of an option, `--tls-listen`.
pub(super) fn variable_of(option: &str) -> Option<String> {
    option.strip_prefix("--").map(config::variable_of)
}

/// A warning for each variable that begins with `VESTNIK_` and is not an option: otherwise a
/// mistyped one would be ignored silently.
pub(super) fn unknown_variables() -> Vec<String> {
    let known = known_variables();
    let set = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut unknown: Vec<_> = set
        .filter(|name| name.starts_with(VARIABLE_PREFIX))
        .filter(|name| !known.contains(name) && !OTHERS.contains(&name.as_str()))
        .collect();
    unknown.sort();
    unknown.iter().map(|name| explain(name, &known)).collect()
}

fn explain(name: &str, known: &BTreeSet<String>) -> String {
    match nearest(name, known.iter().cloned()) {
        Some(nearest) => format!("{name} is not an option; did you mean {nearest}?"),
        None => format!("{name} is not an option; see 'vestnik serve --help'"),
    }
}

/// The variables of all options of all commands.
fn known_variables() -> BTreeSet<String> {
    fn collect(command: &clap::Command, known: &mut BTreeSet<String>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        for below in command.get_subcommands() {
            collect(below, known);
        }
    }
    let mut known = BTreeSet::new();
    collect(&tree(), &mut known);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_an_option_is_known() {
        let known = known_variables();
        for option in ["--listen", "--tls-listen", "--data", "--max-connections"] {
            assert!(known.contains(&variable_of(option).unwrap()), "{option}");
        }
    }

    #[test]
    fn a_mistyped_variable_is_explained() {
        let known = known_variables();
        let line = explain("VESTNIK_LISTNE", &known);
        assert_eq!(line, "VESTNIK_LISTNE is not an option; did you mean VESTNIK_LISTEN?");
        let line = explain("VESTNIK_COLOUR_OF_THE_SKY", &known);
        assert!(line.ends_with("is not an option; see 'vestnik serve --help'"), "{line}");
    }
}
