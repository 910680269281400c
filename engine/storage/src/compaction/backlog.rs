//! How much of the processor compaction gets.
//!
//! The controller follows the idea that ScyllaDB has published ("Keeping compaction under control", 2018): compaction's
//! backlog is the number of bytes that it would have to write now to have nothing left to do, as each strategy reckons
//! it. New data makes it grow, compaction makes it shrink. The more backlog there is, measured in the memory for
//! memtables (what can be flushed at once), the more shares its task queue gets: little work is done slowly beside
//! requests, and a flood of writes meets a compaction that keeps up, which is where the two come into balance.

use crate::database::Database;
use crate::table::TableStore;

use super::strategy::Candidate;

/// Shares by backlog, the backlog in multiples of the memory for memtables; linear in between.
const SHARES: [(f64, f64); 4] = [(0.0, 50.0), (1.5, 100.0), (10.0, 400.0), (30.0, 1000.0)];

/// Shares for a backlog in multiples of the memory for memtables.
pub(crate) fn shares_for(backlog: f64) -> u32 {
    let (mut low, mut shares) = SHARES[0];
    for (high, more) in &SHARES[1..] {
        if backlog < *high {
            let part = (backlog - low).max(0.0) / (high - low);
            return (shares + (more - shares) * part) as u32;
        }
        (low, shares) = (*high, *more);
    }
    shares as u32
}

impl Database {
    /// Looks at the backlog; returns the shares that compaction should have.
    pub(crate) fn control_compaction(&self) -> u32 {
        let now = self.env.clock().unix_seconds();
        let tables = self.tables.borrow();
        let backlog: f64 = tables.values().map(|table| backlog_of(table, now)).sum();
        self.compactions.backlog.set(backlog);
        let shares = shares_for(backlog / self.options.memtable_space.max(1) as f64);
        self.compactions.shares.set(shares);
        shares
    }
}

/// Bytes that a table's strategy has to write until it wants nothing more.
pub(crate) fn backlog_of(table: &TableStore, now: i64) -> f64 {
    if !table.compacts_by_itself() {
        return 0.0;
    }
    let compacting = table.compacting();
    let moment = table.moment(now);
    let view = table.view();
    let candidates: Vec<Candidate<'_>> = view.sstables.iter().map(Candidate::of).collect();
    compacting.backlog(&candidates, &moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_with_the_backlog() {
        assert_eq!(shares_for(0.0), 50);
        assert_eq!(shares_for(0.75), 75);
        assert_eq!(shares_for(1.5), 100);
        assert_eq!(shares_for(20.0), 700);
        assert_eq!(shares_for(1e9), 1000);
        let mut last = 0;
        for step in 0..400 {
            let shares = shares_for(f64::from(step) / 10.0);
            assert!(shares >= last);
            last = shares;
        }
    }
}
