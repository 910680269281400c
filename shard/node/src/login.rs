//! Who is at the other end of a connection: SASL PLAIN with the password of a role, and the permissions asked for each
//! statement.
//!
//! What roles there are every shard knows by itself ([`Node::install_access`]). A password is compared on the control
//! thread's side, because a bcrypt hash takes as long as thousands of requests.
//!
//! Never: a connection that runs a statement before it has logged in, where that is asked for (`authenticator`).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ceto_cql::Prepared;
use ceto_cql::access::{AccessControl, Performer};
use ceto_native::{ErrorMessage, ErrorReason};

use crate::answer::{cql_error, overloaded};
use crate::connection::ConnectionState;
use crate::control::ControlRequest;
use crate::node::Node;
use crate::system::access_rows::{StoredAccess, TABLES};
use crate::system::definitions::SYSTEM_AUTH;

/// What AUTHENTICATE names: drivers choose their side by it.
pub(crate) const AUTHENTICATOR: &str = "org.apache.cassandra.auth.PasswordAuthenticator";

/// Name and password of a token: an identity to act as, which is not looked at, then both, each after a zero.
fn credentials(token: Option<&Bytes>) -> Result<(&str, &str), ErrorMessage> {
    let refusal = |message: &str| bad_credentials(message.to_owned());
    let token = token.ok_or_else(|| refusal("Password must not be null"))?;
    let mut parts = token.rsplitn(3, |byte| *byte == 0);
    let password = parts.next().unwrap_or_default();
    let name = parts
        .next()
        .ok_or_else(|| refusal("Authentication ID must not be null"))?;
    if password.is_empty() {
        return Err(refusal("Password must not be null"));
    }
    if name.is_empty() {
        return Err(refusal("Authentication ID must not be null"));
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| refusal("Credentials must be UTF-8 text"));
    Ok((text(name)?, text(password)?))
}

fn bad_credentials(message: String) -> ErrorMessage {
    ErrorMessage {
        message,
        reason: ErrorReason::BadCredentials,
    }
}

/// Answers an AUTH_RESPONSE: the role that has logged in.
pub(crate) async fn log_in(node: &Rc<Node>, token: Option<Bytes>) -> Result<Arc<str>, ErrorMessage> {
    let outcome = try_log_in(node, token).await;
    match &outcome {
        Ok(_) => node.metrics.logins.increment(),
        Err(_) => node.metrics.logins_refused.increment(),
    }
    outcome
}

async fn try_log_in(node: &Rc<Node>, token: Option<Bytes>) -> Result<Arc<str>, ErrorMessage> {
    let (name, password) = credentials(token.as_ref())?;
    let hash = {
        let access = node.access();
        let role = access.roles.get(name);
        role.and_then(|role| role.salted_hash.clone())
    };
    let (slot, answer) = node.logins.open();
    let request = ControlRequest::ComparePassword {
        password: password.into(),
        hash,
        from: node.shard(),
        slot,
    };
    let too_many = || overloaded("Too many logins are waiting; try again later");
    if node.ask_control(request).is_err() {
        node.logins.cancel(slot);
        return Err(too_many());
    }
    if !answer.await.ok_or_else(too_many)? {
        return Err(bad_credentials(format!(
            "Provided username {name} and/or password are incorrect"
        )));
    }
    // The role may have changed meanwhile.
    let access = node.access();
    let datacenter = &*node.options.datacenter;
    match access.roles.get_key_value(name) {
        Some((_, role)) if !role.can_login => {
            Err(bad_credentials(format!("{name} is not permitted to log in")))
        }
        Some((_, role))
            if role
                .datacenters
                .as_ref()
                .is_some_and(|names| !names.contains(datacenter)) =>
        {
            Err(ErrorMessage {
                message: format!("You do not have access to this datacenter ({datacenter})"),
                reason: ErrorReason::Unauthorized,
            })
        }
        Some((name, _)) => Ok(name.clone()),
        None => Err(bad_credentials(format!(
            "Provided username {name} and/or password are incorrect"
        ))),
    }
}

/// Refuses a statement for which the client's role lacks a permission.
pub(crate) fn check_permissions(
    connection: &ConnectionState,
    statement: &Prepared,
) -> Result<(), ErrorMessage> {
    if !connection.node().options.access.authorizes {
        return Ok(());
    }
    let performer = connection.performer();
    if performer.is_superuser() {
        return Ok(());
    }
    for (permission, resource) in statement.required_permissions() {
        performer.check(permission, &resource).map_err(cql_error)?;
    }
    Ok(())
}

impl Node {
    /// Roles and what is granted to them.
    pub fn access(&self) -> Arc<AccessControl> {
        self.access.borrow().clone()
    }

    /// Takes new roles and permissions; they hold for the next statement of every connection.
    pub fn install_access(&self, access: Arc<AccessControl>) {
        *self.access.borrow_mut() = access;
    }

    /// What this shard has stored in `system_auth`.
    pub async fn stored_access(self: &Rc<Self>) -> Result<StoredAccess, String> {
        let schema = self.schema();
        let mut stored = StoredAccess::default();
        for name in TABLES {
            let table = schema.table(SYSTEM_AUTH, name).expect("a table of system_auth");
            stored.0.insert(name, self.read_whole_table(table.id).await?);
        }
        Ok(stored)
    }

    /// The control thread's answer to a comparison that this shard has asked for; None when too many wait.
    pub fn password_compared(&self, slot: u32, is_right: Option<bool>) {
        self.logins.answer(slot, is_right);
    }

    /// What a role may do now.
    pub(crate) fn performer(&self, role: Option<Arc<str>>) -> Rc<Performer> {
        Rc::new(Performer::new(self.access(), self.options.access, role))
    }

    /// `performer` was made of what holds now.
    pub(crate) fn is_up_to_date(&self, performer: &Performer) -> bool {
        Arc::ptr_eq(performer.access(), &self.access.borrow())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_hold_name_and_password() {
        let token = |bytes: &'static [u8]| Bytes::from_static(bytes);
        assert_eq!(
            credentials(Some(&token(b"\0ada\0secret"))).unwrap(),
            ("ada", "secret")
        );
        assert_eq!(
            credentials(Some(&token(b"somebody\0ada\0secret"))).unwrap(),
            ("ada", "secret")
        );
        let refused = [
            (None, "Password must not be null"),
            (Some(token(b"")), "Authentication ID must not be null"),
            (Some(token(b"ada")), "Authentication ID must not be null"),
            (Some(token(b"\0ada\0")), "Password must not be null"),
            (Some(token(b"\0\0secret")), "Authentication ID must not be null"),
            (Some(token(b"\0ada\0\xFF")), "Credentials must be UTF-8 text"),
        ];
        for (token, text) in refused {
            let error = credentials(token.as_ref()).unwrap_err();
            assert_eq!(
                (error.reason, &*error.message),
                (ErrorReason::BadCredentials, text)
            );
        }
    }
}
