//! Stand-in.
/// How serving ended.
pub enum ServeError {
    /// Exit 1.
    Failed(String),
    /// Exit 3.
    StorageLost(String),
}
/// Serves.
///
/// # Errors
/// Always.
pub fn serve(config: &crate::config::Config) -> Result<(), ServeError> {
    Err(ServeError::Failed(format!("not built in: {config:?}")))
}
