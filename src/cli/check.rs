//! `vestnik check`: damage in the data file.

use vestnik::auth::password;
use vestnik::names::Name;
use vestnik::store::check::Rules;
use vestnik::store::{Database, Store};

use super::failure::Failure;
use super::{Context, Outcome};

const RULES: Rules = Rules {
    is_name: |name, key| {
        Name::parse_stored(name).is_ok_and(|parsed| parsed.text() == name && parsed.key() == key)
    },
    is_password: |stored| password::rounds(stored).is_some(),
};

pub(super) fn run(context: &mut Context<'_>) -> Outcome {
    let data = context.data.display();
    let database = Database::open_reader(&context.data).map_err(Failure::Failed)?;
    let mut wrong = database.integrity().map_err(|e| Failure::Failed(format!("{data}: {e}")))?;
    let is_current = database.is_current().map_err(|e| Failure::Failed(format!("{data}: {e}")))?;
    if !is_current && wrong.is_empty() {
        writeln!(
            context.out,
            "{data}: nothing is wrong with its structure; its rows were not checked, since an \
             older vestnik made it: the next server brings it to this version"
        )?;
        return Ok(());
    }
    let report = Store::new(&database).and_then(|mut store| store.check(RULES));
    let report = match report {
        Ok(report) => report,
        // A file so damaged that its rows cannot be read: what SQLite found tells more.
        Err(_) if !wrong.is_empty() => Default::default(),
        Err(error) => return Err(Failure::Failed(format!("{data}: {error}"))),
    };
    wrong.extend(report.wrong);
    for line in &wrong {
        // Whoever reads only the first line is not to think that this is all well.
        let _ = writeln!(context.out, "{}", line.replace(char::is_control, " "));
    }
    if !wrong.is_empty() {
        let words = format!(
            "{data}: {} things are wrong: keep a copy of the file, and restore a backup",
            wrong.len()
        );
        return Err(Failure::Failed(words));
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
            "imports go on, or were ended before they were whole; the next one takes those away";
        writeln!(context.out, "{} {words}", report.unfinished)?;
    }
    Ok(())
}
