//! The schema of a new database, and the migrations of older ones to it.

use rusqlite::Connection;

use crate::names::{SKELETONS_VERSION, Skeletons};

/// The application id of vestnik's SQLite files: "vest".
pub(super) const APPLICATION_ID: i32 = 0x7665_7374;

/// The version of the tables in `schema.sql`.
pub(super) const SCHEMA_VERSION: i32 = 3;

/// The schema of a new database.
const SCHEMA: &str = include_str!("../../schema.sql");

/// The migrations: index N brings a database of version N + 1 to the next one. Add a new table to
/// `schema.sql` for new databases and to a new migration for old ones; a test compares the results.
///
/// They repeat tables of `schema.sql` on purpose. A migration stays as it was published, since the
/// next ones begin with what it makes: the `file_chunks` of 2 lack the column that 3 adds. And
/// `schema.sql` shows each table whole, with its comments, instead of a table and its alterations.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize - 1] =
    [include_str!("migrations/2.sql"), include_str!("migrations/3.sql")];

/// The mode of `PRAGMA auto_vacuum` in which free pages are returned to the disk on request.
pub(super) const INCREMENTAL: i64 = 2;

/// Migrates the database to this version, completely or not at all.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    if version == 0 {
        // Only an empty database accepts this mode.
        make_incremental(db)?;
    }
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have migrated it meanwhile.
    let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => transaction.execute_batch(SCHEMA)?,
        _ => {
            for step in MIGRATIONS.iter().skip(version as usize - 1) {
                transaction.execute_batch(step)?;
            }
        }
    }
    refresh_skeletons(&transaction)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Has a new database, or a copy, keep what it takes to give free pages back to the disk.
pub(super) fn make_incremental(db: &Connection) -> rusqlite::Result<()> {
    let mode: i64 = db.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    if mode == INCREMENTAL { Ok(()) } else { db.pragma_update(None, "auto_vacuum", INCREMENTAL) }
}

/// Computes the skeletons of all logins again if they are missing or of an older Unicode version.
pub(super) fn refresh_skeletons(db: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT coalesce(max(value), 0) FROM meta WHERE key = 'skeletons_version'";
    let version: i64 = db.query_row(sql, [], |row| row.get(0))?;
    if version >= SKELETONS_VERSION {
        return Ok(());
    }
    let mut users = db.prepare("SELECT user_id, nickname FROM users")?;
    let mut keep = db.prepare("INSERT OR REPLACE INTO skeletons VALUES (?1, ?2, ?3)")?;
    let mut rows = users.query([])?;
    while let Some(row) = rows.next()? {
        let looks = Skeletons::of(&row.get::<_, String>(1)?);
        keep.execute((row.get::<_, i64>(0)?, &looks.stored, &looks.lower))?;
    }
    let sql = "INSERT OR REPLACE INTO meta VALUES ('skeletons_version', ?1)";
    db.execute(sql, [SKELETONS_VERSION]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(db: &Connection) -> Vec<(String, Option<String>)> {
        let mut rows =
            db.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").expect("a schema");
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .expect("rows")
    }

    /// All tables and indexes with their SQL, without comments and whitespace: a migration may
    /// format them differently.
    fn shape(db: &Connection) -> Vec<(String, String)> {
        let bare = |sql: &str| -> String {
            let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
            lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
        };
        let rows = schema(db).into_iter();
        rows.map(|(name, sql)| (name, bare(&sql.unwrap_or_default()))).collect()
    }

    #[test]
    fn migrations_lead_to_the_schema() {
        let fresh = Connection::open_in_memory().expect("memory");
        fresh.execute_batch(SCHEMA).expect("valid SQL");
        let mut old = Connection::open_in_memory().expect("memory");
        old.execute_batch(include_str!("migrations/1.sql")).expect("valid SQL");
        old.pragma_update(None, "user_version", 1).expect("a version");
        migrate(&mut old).expect("valid SQL");
        assert_eq!(shape(&fresh), shape(&old));
    }
}
