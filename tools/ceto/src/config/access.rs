//! Who may log in and what is asked for: classes by the names that cassandra.yaml gives them.

use ceto_node::options::AccessRules;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `authenticator` and `authorizer`: a class, alone or as the `class_name` of a map, with or without its package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum AccessClass {
    Name(String),
    Map { class_name: String },
}

/// Package of Cassandra's classes.
const PACKAGE: &str = "org.apache.cassandra.auth.";

impl AccessClass {
    /// A class by its name.
    pub(crate) fn named(name: &str) -> AccessClass {
        AccessClass::Name(name.to_owned())
    }

    fn name(&self) -> &str {
        let (Self::Name(name) | Self::Map { class_name: name }) = self;
        name.strip_prefix(PACKAGE).unwrap_or(name)
    }

    /// True for `strict`, false for `open`; nothing else is known.
    fn is_strict(&self, key: &str, open: &str, strict: &str) -> Result<bool, ConfigError> {
        match self.name() {
            name if name == strict => Ok(true),
            name if name == open => Ok(false),
            name => Err(ConfigError(format!(
                "{key}: there is no class '{name}'; there are {open} and {strict}"
            ))),
        }
    }
}

/// Both keys together.
pub(super) fn access_rules(
    authenticator: &AccessClass,
    authorizer: &AccessClass,
) -> Result<AccessRules, ConfigError> {
    let rules = AccessRules {
        requires_login: authenticator.is_strict(
            "authenticator",
            "AllowAllAuthenticator",
            "PasswordAuthenticator",
        )?,
        authorizes: authorizer.is_strict("authorizer", "AllowAllAuthorizer", "CassandraAuthorizer")?,
    };
    if rules.authorizes && !rules.requires_login {
        return Err(ConfigError(
            "authorizer: AllowAllAuthenticator can't be used with CassandraAuthorizer; set authenticator to \
             PasswordAuthenticator"
                .to_owned(),
        ));
    }
    Ok(rules)
}
