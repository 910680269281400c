//! Passwords and their bcrypt hashes, away from every event loop: one takes some fifty milliseconds of a processor.
//!
//! Bound: one hash at a time. Those that wait are at most one for each connection, and the clients' connect timeouts
//! end them; more at a time would take processors from shards.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::error;

/// Hashes take 2 to the power of this rounds, as Cassandra's.
const COST: u32 = 10;

/// Makes and compares hashes, one after the other.
#[derive(Clone)]
pub(crate) struct Passwords {
    turn: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new() -> Passwords {
        Passwords {
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The hash of a password, with a salt of its own.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, String> {
        let password = password.to_owned();
        let parts = self
            .run(move || bcrypt::hash_with_result(password, COST))
            .await
            .map_err(|error| error.to_string())?;
        // The version that Cassandra's bcrypt knows, too.
        parts
            .map(|parts| parts.format_for_version(bcrypt::Version::TwoA))
            .map_err(|error| error.to_string())
    }

    /// Whether `hash` is of `password`; false for what is no hash.
    pub(crate) async fn is_right(&self, password: Box<str>, hash: Arc<str>) -> bool {
        match self.run(move || bcrypt::verify(&*password, &hash)).await {
            Ok(outcome) => outcome.unwrap_or(false),
            Err(failure) => {
                error!(%failure, "a password was not compared");
                false
            }
        }
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, tokio::task::JoinError> {
        let turn = self.turn.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        drop(turn);
        done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_hash_is_of_its_password_only() {
        let passwords = Passwords::new();
        let hash: Arc<str> = passwords.hash("secret").await.unwrap().into();
        assert!(hash.starts_with("$2a$10$"));
        assert!(passwords.is_right("secret".into(), hash.clone()).await);
        assert!(!passwords.is_right("Secret".into(), hash.clone()).await);
        assert!(!passwords.is_right("secret".into(), "no hash".into()).await);
        assert_ne!(*hash, *passwords.hash("secret").await.unwrap());
        // Of the test vectors that jBCrypt, which Cassandra uses, publishes.
        let of_jbcrypt = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";
        assert!(passwords.is_right("a".into(), of_jbcrypt.into()).await);
    }
}
