//! `vestnik version`: what this binary is and what is built into it.

use serde_json::json;
use vestnik::store::Database;
use vestnik::wire::Version;

use super::output::{self, Format};
use super::{Context, Outcome};

/// The commit that the binary was built from; a build sets the variable.
const COMMIT: &str = match option_env!("VESTNIK_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let sqlite = Database::sqlite_version();
    let newest = Version::negotiate(1, u8::MAX).map_or(0, |version| version.numbers().1);
    let mut spoken = vec!["0.1".to_owned()];
    spoken.extend((0..=newest).map(|minor| format!("1.{minor}")));
    if arguments.format.json {
        let value = json!({
            "version": version, "commit": COMMIT, "sqlite": sqlite, "protocol": spoken,
        });
        return Ok(output::json(context.out, &value)?);
    }
    writeln!(context.out, "vestnik {version}")?;
    writeln!(context.out, "commit   {COMMIT}")?;
    writeln!(context.out, "SQLite   {sqlite}")?;
    writeln!(context.out, "protocol {}", spoken.join(", "))?;
    Ok(())
}
