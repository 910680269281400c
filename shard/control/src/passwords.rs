//! Passwords and their bcrypt hashes, away from every event loop: one takes some fifty milliseconds of a processor.
//!
//! Bounds: one hash at a time, since more would take processors from shards; [`WAITING_MAX`] comparisons that wait, and
//! further ones are refused: clients that have not logged in yet cannot make the node work for ever.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::error;

/// Hashes take 2 to the power of this rounds, as Cassandra's.
const COST: u32 = 10;

/// Comparisons that may wait: some ten seconds of work, which is as long as clients wait for a connection.
const WAITING_MAX: usize = 256;

/// A hash of a password that nobody knows, compared where there is none: the time of a refusal does not tell whether
/// there is such a role.
const NOBODYS_HASH: &str = "$2a$10$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAO";

/// Makes and compares hashes, one after the other.
#[derive(Clone)]
pub(crate) struct Passwords {
    turn: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new() -> Passwords {
        Passwords {
            turn: Arc::new(Semaphore::new(1)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
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

    /// Whether `hash` is of `password`; false for what is no hash, and without one. None when too many wait.
    pub(crate) fn compare(
        &self,
        password: Box<str>,
        hash: Option<Arc<str>>,
    ) -> Option<impl Future<Output = bool> + Send + use<>> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let passwords = self.clone();
        Some(async move {
            let has_hash = hash.is_some();
            let hash = hash.unwrap_or_else(|| NOBODYS_HASH.into());
            let compared = passwords.run(move || bcrypt::verify(&*password, &hash)).await;
            drop(place);
            match compared {
                Ok(outcome) => outcome.unwrap_or(false) && has_hash,
                Err(failure) => {
                    error!(%failure, "a password was not compared");
                    false
                }
            }
        })
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
        let is_right = async |password: &str, hash: &str| {
            let comparison = passwords.compare(password.into(), Some(hash.into()));
            comparison.unwrap().await
        };
        assert!(is_right("secret", &hash).await);
        assert!(!is_right("Secret", &hash).await);
        assert!(!is_right("secret", "no hash").await);
        assert_ne!(*hash, *passwords.hash("secret").await.unwrap());
        // Of the test vectors that jBCrypt, which Cassandra uses, publishes.
        let of_jbcrypt = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";
        assert!(is_right("a", of_jbcrypt).await);
        // What is compared for roles that are not there is a hash, or its refusal would come sooner.
        assert!(!bcrypt::verify("", NOBODYS_HASH).unwrap());
        assert!(!passwords.compare("".into(), None).unwrap().await);
    }

    #[tokio::test]
    async fn comparisons_that_wait_are_bounded() {
        let passwords = Passwords::new();
        let waiting: Vec<_> = std::iter::from_fn(|| passwords.compare("x".into(), Some("no hash".into())))
            .take(WAITING_MAX + 1)
            .collect();
        assert_eq!(waiting.len(), WAITING_MAX);
        drop(waiting);
        assert!(passwords.compare("x".into(), None).is_some());
    }
}
