//! What happens by the clock: flushes of old memtables, relief of the commitlog, compactions, processor shares.

use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;

use crate::database::Database;
use crate::table::TableStore;

/// Time between looks.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between looks at tables that nothing happened to.
const FULL_LOOK: u64 = 60;
/// Ticks between looks at the backlog of compactions.
const BACKLOG_LOOK: u64 = 5;
/// Most shares of a queue.
const SHARES_MAX: u32 = 1000;

impl Database {
    /// Starts the task that looks after the shard once a second, for as long as the database lives.
    pub(crate) fn start_ticking(&self) {
        let (env, this) = (self.env.clone(), self.this.clone());
        let task = async move {
            for number in 1.. {
                env.tasks().sleep(TICK).await;
                match this.upgrade() {
                    Some(database) if !database.is_closed.get() => database.tick(number),
                    _ => return,
                }
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    fn tick(&self, number: u64) {
        let tables: Vec<Rc<TableStore>> = self.tables.borrow().values().cloned().collect();
        let now = self.env.clock().now();
        for table in &tables {
            let period = u64::from(table.definition().options.memtable_flush_period_in_ms);
            let first_write = table.active().first_write();
            let is_old = |first| now.saturating_duration_since(first) >= Duration::from_millis(period);
            if period > 0 && first_write.is_some_and(is_old) {
                self.start_flush(table);
            }
            // A table that nothing happened to is looked at seldom: only its tombstones may have come of age.
            if table.has_changed.replace(false) || number.is_multiple_of(FULL_LOOK) {
                self.compact_when_due(table);
            }
        }
        self.measure_sstables();
        self.measure_vectors();
        self.balance();
        self.relieve_commitlog();
        self.share_processor(number);
    }

    /// Gives flushes and compactions as much of the processor as their backlog asks for.
    fn share_processor(&self, number: u64) {
        let tasks = self.env.tasks();
        let full = self.memory.get() as f64 / self.memtable_limit.get().max(1) as f64;
        let flush = TaskQueue::MemtableFlush.initial_shares();
        tasks.set_shares(TaskQueue::MemtableFlush, shares(flush, full));
        if number.is_multiple_of(BACKLOG_LOOK) {
            tasks.set_shares(TaskQueue::Compaction, self.control_compaction());
        }
    }
}

/// From the initial shares for no pressure to all for full pressure.
fn shares(initial: u32, pressure: f64) -> u32 {
    let more = f64::from(SHARES_MAX - initial) * pressure.clamp(0.0, 1.0);
    initial + more as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_with_pressure() {
        assert_eq!(shares(100, 0.0), 100);
        assert_eq!(shares(100, 0.5), 550);
        assert_eq!(shares(200, 7.0), 1000);
    }
}
