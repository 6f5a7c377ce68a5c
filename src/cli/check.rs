//! `vestnik check`: damage in the database.

use std::time::Instant;

use serde_json::json;
use vestnik::auth::password;
use vestnik::names::Name;
use vestnik::store::check::{Report, Rules};
use vestnik::store::{Database, RUN_CHECK, Store, header_damage};

use super::failure::Failure;
use super::output::{self, Format};
use super::{Context, Outcome};

const RULES: Rules = Rules {
    is_name: |name, key| {
        Name::parse_stored(name).is_ok_and(|parsed| parsed.text() == name && parsed.key() == key)
    },
    is_password: |stored| password::rounds(stored).is_some(),
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> Outcome {
    let data = context.data.display().to_string();
    // This is that command.
    let failed =
        |error: String| Failure::Failed(format!("{data}: {}", error.replace(RUN_CHECK, "")));
    let unopened = |error: String| Failure::Failed(error.replace(RUN_CHECK, ""));
    let damage = header_damage(&context.data);
    let mut database = Database::open_reader(&context.data).map_err(unopened)?;
    let mut pause = Pause::new();
    let integrity = database.integrity(&mut || pause.take()).map_err(failed)?;
    let mut wrong: Vec<_> = damage.into_iter().chain(integrity.wrong).collect();
    let is_current = database.is_current().map_err(|e| failed(e.to_string()))?;
    let is_structure_only = !is_current && wrong.is_empty();
    let report = if is_structure_only {
        Report::default()
    } else {
        match Store::new(&database).and_then(|mut store| store.check(RULES, &mut || pause.take())) {
            Ok(report) => report,
            // If rows cannot be read at all, SQLite's own findings are more useful.
            Err(_) if !wrong.is_empty() => Report::default(),
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    wrong.extend(report.wrong.iter().cloned());
    let wrong: Vec<_> = wrong.iter().map(|line| line.replace(char::is_control, " ")).collect();
    if arguments.format.json {
        output::json(context.out, &as_json(&wrong, &report, is_structure_only))?;
    } else if is_structure_only {
        writeln!(
            context.out,
            "{data}: nothing is wrong with its structure; its rows were not checked, since an \
             older vestnik made it: the next server brings it to this version"
        )?;
    } else {
        print(&data, &wrong, &report, context)?;
    }
    if wrong.is_empty() {
        return match &integrity.left_out[..] {
            [] => Ok(()),
            tables => Err(failed(format!(
                "the structure of {} was not verified, since so much was written meanwhile: check \
                 a backup, or at a quieter time",
                tables.join(", ")
            ))),
        };
    }
    let count = wrong.len();
    let words = format!("{count} things are wrong: keep a copy of the file, and restore a backup");
    Err(failed(words))
}

/// Between two slices it pauses for as long as the last one took, so that a server can bring the
/// WAL into the database and begin it anew.
struct Pause(Instant);

#[allow(clippy::disallowed_methods, reason = "how long a slice takes, no time of the server")]
impl Pause {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn take(&mut self) {
        std::thread::sleep(self.0.elapsed());
        self.0 = Instant::now();
    }
}

fn as_json(wrong: &[String], report: &Report, is_structure_only: bool) -> serde_json::Value {
    json!({
        "wrong": wrong,
        "rows_checked": !is_structure_only,
        "users": report.users,
        "chats": report.chats,
        "messages": report.messages,
        "unswept_rows": report.unswept,
        "unfinished_imports": report.unfinished,
    })
}

fn print(data: &str, wrong: &[String], report: &Report, context: &mut Context<'_>) -> Outcome {
    for line in wrong {
        // A reader that stops after the first line must still see the exit code.
        let _ = writeln!(context.out, "{line}");
    }
    if !wrong.is_empty() {
        return Ok(());
    }
    writeln!(
        context.out,
        "{data}: nothing is wrong with {} users, {} chats and {} messages",
        report.users, report.chats, report.messages
    )?;
    if report.unswept > 0 {
        writeln!(context.out, "{} rows of removed chats wait to be swept", report.unswept)?;
    }
    if report.unfinished > 0 {
        let words =
            "imports go on, or were ended before they were whole; the next one removes those";
        writeln!(context.out, "{} {words}", report.unfinished)?;
    }
    Ok(())
}
