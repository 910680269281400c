//! What happens by the clock: flushes of old memtables, relief of the commitlog, compactions.

use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;

use crate::database::Database;
use crate::table::TableStore;

/// Time between looks.
const TICK: Duration = Duration::from_secs(1);

impl Database {
    /// Starts the task that looks after the shard once a second, for as long as the database lives.
    pub(crate) fn start_ticking(&self) {
        let (env, this) = (self.env.clone(), self.this.clone());
        let task = async move {
            loop {
                env.tasks().sleep(TICK).await;
                match this.upgrade() {
                    Some(database) if !database.is_closed.get() => database.tick(),
                    _ => return,
                }
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    fn tick(&self) {
        let tables: Vec<Rc<TableStore>> = self.tables.borrow().values().cloned().collect();
        let now = self.env.clock().now();
        for table in &tables {
            let period = u64::from(table.definition().options.memtable_flush_period_in_ms);
            let first_write = table.active().first_write();
            let is_old = |first| now.saturating_duration_since(first) >= Duration::from_millis(period);
            if period > 0 && first_write.is_some_and(is_old) {
                self.start_flush(table);
            }
            self.compact_when_due(table);
        }
        self.relieve_commitlog();
    }
}
