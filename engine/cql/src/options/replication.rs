//! `replication = {'class': .., ..}` of keyspaces.

use super::property::Entries;
use crate::CqlError;
use ceto_model::schema::ReplicationOptions;

/// Where replication strategies live that are named without a package.
const PACKAGE: &str = "org.apache.cassandra.locator.";

/// The options in order of appearance, the class first and by its full name.
///
/// # Errors
/// `Config` without a class.
pub(crate) fn replication_options(entries: &Entries) -> Result<ReplicationOptions, CqlError> {
    let Some((_, class)) = entries.iter().find(|(name, _)| &**name == "class") else {
        return Err(CqlError::config("Missing replication strategy class"));
    };
    let class = if class.contains('.') {
        class.to_string()
    } else {
        format!("{PACKAGE}{class}")
    };
    let mut options = ReplicationOptions::default();
    options.0.insert("class".to_owned(), class);
    for (name, value) in entries {
        if &**name != "class" {
            options.0.insert(name.to_string(), value.to_string());
        }
    }
    Ok(options)
}
