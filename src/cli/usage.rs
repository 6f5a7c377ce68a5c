//! Wrong usage in one line: what clap found, in words that name the argument and say what to do.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, Command};

use super::failure::Failure;
use super::file::quoted;
use super::{Outcome, environment, tree};

/// Turns an error of clap into help on standard output, or into one line. `words` are the arguments
/// of the process.
pub(super) fn explain(error: &clap::Error, words: &[String]) -> Outcome {
    let command = command_named(words);
    match error.kind() {
        // In colours, where the terminal has them.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.print()?),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Err(Failure::Usage(format!("a command is missing: see '{command} --help'")))
        }
        ErrorKind::InvalidUtf8 => {
            Err(Failure::Usage(format!("an argument is not UTF-8: see '{command} --help'")))
        }
        _ => {
            let line = one_line(&error.render().to_string());
            let line = match variable_at_fault(error, words) {
                Some((argument, variable)) => {
                    line.replace(&format!("for '{argument}'"), &format!("in {variable}"))
                }
                None => line,
            };
            Err(Failure::Usage(format!("{line}; see '{command} --help'")))
        }
    }
}

/// What is wrong with options of every command that have one value before the command and another
/// one after it: clap takes the last, and the command could act on the wrong data file.
pub(super) fn contradiction(words: impl IntoIterator<Item = OsString>) -> Option<String> {
    let tree = tree();
    let globals: Vec<_> = tree.get_arguments().filter(|one| one.is_global_set()).cloned().collect();
    let found = on_each_level(tree, &globals).try_get_matches_from(words).ok()?;
    globals.iter().find_map(|option| {
        let id = option.get_id().as_str();
        let mut given: Vec<&OsStr> = Vec::new();
        let mut level = Some(&found);
        while let Some(matches) = level {
            if matches.value_source(id) == Some(ValueSource::CommandLine) {
                given.extend(matches.get_raw(id).into_iter().flatten());
            }
            level = matches.subcommand().map(|(_, below)| below);
        }
        let first = given.first()?;
        let other = given.iter().find(|value| *value != first)?;
        let name = option.get_long().unwrap_or(id);
        let show = |value: &OsStr| quoted(&value.to_string_lossy());
        let (first, other) = (show(first), show(other));
        Some(format!("--{name} is given twice, {first} and {other}: give it once"))
    })
}

/// The tree with options of its own at each command, in place of those that all have in common,
/// whose values clap merges.
fn on_each_level(command: Command, globals: &[Arg]) -> Command {
    let command = globals.iter().fold(command, |command, option| {
        let is_there = command.get_arguments().any(|one| one.get_id() == option.get_id());
        match is_there {
            true => command.mut_arg(option.get_id(), |option| option.global(false)),
            false => command.arg(option.clone().global(false)),
        }
    });
    command.mut_subcommands(|below| on_each_level(below, globals))
}

/// The argument that an error is about, and the environment variable that its value came from.
fn variable_at_fault(error: &clap::Error, words: &[String]) -> Option<(String, String)> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let option = argument.split([' ', '=', '[']).next()?;
    let is_given = words.iter().any(|word| {
        word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let variable = environment::variable_of(option)?;
    (!is_given && std::env::var_os(&variable).is_some()).then(|| (argument.clone(), variable))
}

/// The command that these words name, as it is typed, without arguments.
fn command_named(words: &[String]) -> String {
    let root = tree();
    let mut command = &root;
    let mut name = command.get_name().to_owned();
    for word in words {
        if let Some(found) = command.find_subcommand(word) {
            command = found;
            name = format!("{name} {word}");
        }
    }
    name
}

/// The first paragraph as one line, with the tip if there is one.
pub(super) fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line
        .replace("invalid digit found in string", "it must be a whole number")
        .replace("cannot parse integer from empty string", "it must be a whole number")
        .replace("number too large to fit in target type", "the number is too large")
        .replace("number too small to fit in target type", "the number is too small")
        .replace("value was not a boolean", "it must be true or false")
        .replace("unrecognized subcommand", "unknown command")
        .replace("the following required arguments were not provided:", "missing:");
    let line = without_group(&without_range(&line));
    match text.lines().find_map(|line| line.trim().strip_prefix("tip: ")) {
        Some(tip) => format!("{line} ({})", tip.replace("subcommand", "command")),
        None => line,
    }
}

/// A line whose group is written in words: `missing: <--a <N>|--b>` asks for one of both options.
fn without_group(line: &str) -> String {
    let group = line.strip_prefix("missing: <--").and_then(|rest| rest.strip_suffix('>'));
    match group {
        Some(group) => format!("missing: --{}", group.replace('|', " or ")),
        None => line.to_owned(),
    }
}

/// A line whose bounds are written in words: `-1 is not in 0..=7` says that it must be from 0 to 7.
fn without_range(line: &str) -> String {
    let Some((before, after)) = line.split_once(" is not in ") else { return line.to_owned() };
    let (range, rest) = after.split_once([' ', ';']).unwrap_or((after, ""));
    let Some((from, to)) = range.split_once("..") else { return line.to_owned() };
    let before = before.rsplit_once(": ").map_or("", |(before, _)| before);
    let bounds = match to.trim_start_matches('=') {
        "" => format!("at least {from}"),
        to => format!("from {from} to {to}"),
    };
    format!("{before}: it must be a whole number {bounds} {rest}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_usage_becomes_one_line() {
        let said = "error: unexpected argument '--lissen' found\n\n  \
                    tip: a similar argument exists: '--listen'\n\n\
                    Usage: vestnik serve --listen <ADDR:PORT>\n\nFor more information, try";
        assert_eq!(
            one_line(said),
            "unexpected argument '--lissen' found (a similar argument exists: '--listen')"
        );
        let said = "error: the following required arguments were not provided:\n  <NAME>\n\n\
                    Usage: vestnik user add <NAME>\n";
        assert_eq!(one_line(said), "missing: <NAME>");
    }

    #[test]
    fn ranges_are_written_in_words() {
        let said = "error: invalid value '-1' for '<ID>': -1 is not in 0..=7\n\nFor more";
        let line = "invalid value '-1' for '<ID>': it must be a whole number from 0 to 7";
        assert_eq!(one_line(said), line);
        let said = "error: invalid value '0' for '<N>': 0 is not in 1..\n";
        let line = "invalid value '0' for '<N>': it must be a whole number at least 1";
        assert_eq!(one_line(said), line);
    }

    #[test]
    fn a_value_before_the_command_and_another_after_it_contradict() {
        let of = |words: &str| contradiction(words.split(' ').map(OsString::from));
        for words in [
            "v --data a serve --data b",
            "v --data=a user list --data b",
            "v user --data a list --data b",
            "v --data a user --data b list",
            "v --config a serve --config b",
            "v --data a user --data b list --data a",
        ] {
            let found = of(words).unwrap_or_default();
            assert!(found.contains("is given twice"), "{words}: {found}");
        }
        for words in
            ["v --data a serve", "v serve --data a", "v --data a user list --data a", "v --data a"]
        {
            assert_eq!(of(words), None, "{words}");
        }
        // A value that looks like the option is none.
        assert_eq!(of("v --data a chat title hall -- --data"), None);
    }

    #[test]
    fn the_command_is_found_among_its_arguments() {
        let named = |words: &str| {
            let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
            command_named(&words)
        };
        assert_eq!(named("--data x user --what add list"), "vestnik user add");
        assert_eq!(named("--lissen"), "vestnik");
    }
}
