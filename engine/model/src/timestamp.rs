//! Write timestamps, expiry and deletion times.
//!
//! Two clocks, never mixed: a [`Timestamp`] orders writes (microseconds, may be chosen by the client); [`UnixSeconds`]
//! decides when an expiring cell dies and when a tombstone may be purged.

use std::fmt;

/// Microseconds since the Unix epoch; the larger one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Older than every write (Cassandra's `NO_TIMESTAMP`); no client may use it.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
}

/// Seconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnixSeconds(pub i64);

/// Time to live in seconds, 1 to [`Ttl::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ttl(pub u32);

impl Ttl {
    /// 20 years, Cassandra's `Attributes.MAX_TTL`.
    pub const MAX: Ttl = Ttl(20 * 365 * 24 * 3600);
}

/// When an expiring cell or row dies, and what TTL it was written with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Expiry {
    /// First second at which it is no longer there.
    pub expires_at: UnixSeconds,
    /// As written.
    pub ttl: Ttl,
}

impl Expiry {
    /// The expiry of a write at `now` with `ttl`.
    pub fn after(now: UnixSeconds, ttl: Ttl) -> Self {
        Self {
            expires_at: UnixSeconds(now.0.saturating_add(i64::from(ttl.0))),
            ttl,
        }
    }

    /// Dead at `now`.
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires_at <= now
    }

    /// The moment that counts for gc grace once it has expired: when it was written.
    pub fn deleted_at(&self) -> UnixSeconds {
        UnixSeconds(self.expires_at.0 - i64::from(self.ttl.0))
    }
}

/// A tombstone over everything written at or before `timestamp` in its scope (partition, range, row, collection).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Deletion {
    /// Shadows writes with this timestamp or an older one.
    pub timestamp: Timestamp,
    /// When it was made; it may be purged `gc_grace_seconds` later.
    pub deleted_at: UnixSeconds,
}

impl Deletion {
    /// A write at `timestamp` is gone.
    pub fn shadows(&self, timestamp: Timestamp) -> bool {
        timestamp <= self.timestamp
    }

    /// The stronger of two (commutative, associative, idempotent).
    pub fn strongest(a: Option<Deletion>, b: Option<Deletion>) -> Option<Deletion> {
        a.max(b)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
