//! When what expires dies, and what happens where that second is later than a cell can say.

use ceto_model::timestamp::{Expiry, Ttl};
use ceto_model::{Table, UnixSeconds};

use super::PlanContext;
use crate::CqlError;

/// The last second that an expiring cell may die at, 2106-02-07T06:28:14Z: Cassandra 5 keeps it in 32 bits without sign.
const LAST: i64 = 0xffff_fffe;

/// `expiration_date_overflow_policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExpirationOverflow {
    /// The write is refused.
    #[default]
    Reject,
    /// It dies at the last second there is, and the client is warned.
    Cap,
    /// The same without a warning.
    CapNoWarn,
}

/// The expiry of a write with `ttl`; `is_default`: it is the table's.
pub(super) fn expiry(
    context: &PlanContext<'_>,
    table: &Table,
    ttl: Ttl,
    is_default: bool,
) -> Result<Expiry, CqlError> {
    let expiry = Expiry::after(context.now_seconds, ttl);
    if expiry.expires_at.0 <= LAST {
        return Ok(expiry);
    }
    let text = format!(
        "Request on table {}.{} with {}ttl of {} seconds exceeds maximum supported expiration date of \
         2106-02-07T06:28:14+00:00",
        table.keyspace,
        table.name,
        if is_default { "default " } else { "" },
        ttl.0
    );
    match context.expiration_overflow {
        ExpirationOverflow::Reject => {
            return Err(CqlError::Invalid(format!(
                "{text}. In order to avoid this use a lower TTL or change the expiration date overflow policy \
                 (expiration_date_overflow_policy)"
            )));
        }
        ExpirationOverflow::Cap => context.warn(format!(
            "{text} and will have its expiration capped to that date. In order to avoid this use a lower TTL"
        )),
        ExpirationOverflow::CapNoWarn => {}
    }
    Ok(Expiry {
        expires_at: UnixSeconds(LAST),
        ttl,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ceto_model::TableId;
    use ceto_model::schema::TableBuilder;
    use uuid::Uuid;

    use super::*;
    use crate::plan::RandomSource;

    struct Zero;

    impl RandomSource for Zero {
        fn next_u64(&self) -> u64 {
            0
        }
    }

    #[test]
    fn an_expiry_past_the_last_second_is_refused_or_capped() {
        let mut builder = TableBuilder::new(TableId(Uuid::nil()), "ks", "t");
        builder.add_column(
            "k",
            ceto_model::ColumnKind::PartitionKey,
            ceto_model::CqlType::Int,
        );
        let table = builder.build();
        let at = |now: i64, policy| {
            let mut context = PlanContext::new(now * 1_000_000, &Zero);
            context.expiration_overflow = policy;
            let expiry = expiry(&context, &table, Ttl(100), true);
            (expiry.map(|expiry| expiry.expires_at.0), context.take_warnings())
        };
        assert_eq!(at(LAST - 100, ExpirationOverflow::Reject), (Ok(LAST), Vec::new()));
        let (refused, _) = at(LAST - 99, ExpirationOverflow::Reject);
        let text = format!("{:?}", refused.unwrap_err());
        assert!(
            text.contains("Request on table ks.t with default ttl of 100 seconds exceeds"),
            "{text}"
        );
        let (capped, warnings) = at(LAST - 99, ExpirationOverflow::Cap);
        assert_eq!((capped, warnings.len()), (Ok(LAST), 1));
        assert_eq!(
            at(LAST + 7, ExpirationOverflow::CapNoWarn),
            (Ok(LAST), Vec::new())
        );
    }
}
