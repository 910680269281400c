//! Consistency levels: how many replicas each waits for, and where each may be used. Texts are Cassandra's.

use ceto_model::Consistency;

use crate::replication::Strategy;

/// More than half.
pub fn quorum(replicas: u32) -> u32 {
    replicas / 2 + 1
}

/// Replicas that must answer, for a coordinator in `datacenter`.
pub fn block_for(consistency: Consistency, strategy: &Strategy, datacenter: &str) -> u32 {
    match consistency {
        Consistency::Any | Consistency::One | Consistency::LocalOne => 1,
        Consistency::Two => 2,
        Consistency::Three => 3,
        Consistency::Quorum | Consistency::Serial => quorum(strategy.replication_factor()),
        Consistency::All => strategy.replication_factor(),
        Consistency::LocalQuorum | Consistency::LocalSerial => {
            quorum(strategy.local_replication_factor(datacenter))
        }
        Consistency::EachQuorum => match strategy {
            Strategy::NetworkTopology { datacenters } => datacenters
                .iter()
                .fold(0, |sum, (_, replicas)| sum + quorum(*replicas)),
            _ => quorum(strategy.replication_factor()),
        },
    }
}

/// Refuses levels that a SELECT cannot have.
///
/// # Errors
/// With the text of an Invalid error.
pub fn validate_for_read(consistency: Consistency) -> Result<(), String> {
    match consistency {
        Consistency::Any => Err("ANY ConsistencyLevel is only supported for writes".to_owned()),
        _ => Ok(()),
    }
}

/// Refuses levels that an INSERT, UPDATE, DELETE or BATCH without conditions cannot have.
///
/// # Errors
/// With the text of an Invalid error.
pub fn validate_for_write(consistency: Consistency) -> Result<(), String> {
    if consistency.is_serial() {
        return Err("You must use conditional updates for serializable writes".to_owned());
    }
    Ok(())
}

/// Refuses levels that a write to the counter table `table` cannot have.
///
/// # Errors
/// With the text of an Invalid error.
pub fn validate_for_counter_write(consistency: Consistency, table: &str) -> Result<(), String> {
    if consistency == Consistency::Any {
        return Err(format!(
            "Consistency level ANY is not yet supported for counter table {table}"
        ));
    }
    if consistency.is_serial() {
        return Err("Counter operations are inherently non-serializable".to_owned());
    }
    Ok(())
}

/// Refuses serial consistencies that are not serial.
///
/// # Errors
/// With the text of an Invalid error.
pub fn validate_serial(serial_consistency: Consistency) -> Result<(), String> {
    if serial_consistency.is_serial() {
        return Ok(());
    }
    Err("Invalid consistency for conditional update. Must be one of SERIAL or LOCAL_SERIAL".to_owned())
}

/// Refuses levels at which a conditional update cannot commit.
///
/// # Errors
/// With the text of an Invalid error.
pub fn validate_for_conditional_commit(consistency: Consistency, strategy: &Strategy) -> Result<(), String> {
    if consistency.is_serial() {
        return Err(format!(
            "{consistency} is not supported as conditional update commit consistency. Use ANY if you mean \"make \
             sure it is accepted but I don't care how many replicas commit it for non-SERIAL reads\""
        ));
    }
    if consistency == Consistency::EachQuorum && !matches!(strategy, Strategy::NetworkTopology { .. }) {
        return Err(format!(
            "consistency level {consistency} not compatible with replication strategy ({})",
            strategy.class_name()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_for_counts_as_cassandra_does() {
        let strategy = Strategy::NetworkTopology {
            datacenters: vec![("east".to_owned(), 3), ("west".to_owned(), 2)],
        };
        let required = Consistency::LEVELS.map(|level| block_for(level, &strategy, "east"));
        // ANY ONE TWO THREE QUORUM ALL LOCAL_QUORUM EACH_QUORUM SERIAL LOCAL_SERIAL LOCAL_ONE
        assert_eq!(required, [1, 1, 2, 3, 3, 5, 2, 4, 3, 2, 1]);
        for (replicas, expected) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            let simple = Strategy::Simple {
                replication_factor: replicas,
            };
            assert_eq!(block_for(Consistency::LocalQuorum, &simple, "anywhere"), expected);
            assert_eq!(block_for(Consistency::EachQuorum, &simple, "anywhere"), expected);
        }
        assert_eq!(block_for(Consistency::All, &Strategy::Local, "east"), 1);
    }

    #[test]
    fn levels_are_refused_where_they_make_no_sense() {
        let allowed = |check: &dyn Fn(Consistency) -> Result<(), String>| {
            Consistency::LEVELS
                .into_iter()
                .filter(|level| check(*level).is_err())
                .collect::<Vec<_>>()
        };
        use Consistency::*;
        assert_eq!(allowed(&validate_for_read), [Any]);
        assert_eq!(allowed(&validate_for_write), [Serial, LocalSerial]);
        assert_eq!(
            allowed(&|level| validate_for_counter_write(level, "t")),
            [Any, Serial, LocalSerial]
        );
        assert_eq!(allowed(&validate_serial).len(), 9);
        let simple = Strategy::Simple {
            replication_factor: 3,
        };
        assert_eq!(
            allowed(&|level| validate_for_conditional_commit(level, &simple)),
            [EachQuorum, Serial, LocalSerial]
        );
        let error = validate_for_conditional_commit(EachQuorum, &simple).expect_err("refused");
        assert_eq!(
            error,
            "consistency level EACH_QUORUM not compatible with replication strategy \
             (org.apache.cassandra.locator.SimpleStrategy)"
        );
    }
}
