//! Stopping writes to a table with views for a moment: a truncation of base and views must not have half of a write on
//! each of its sides.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Env;
use ceto_model::TableId;
use rustc_hash::FxHashMap;

/// Time between looks at a gate that is closed, or passed by writes.
const LOOK: Duration = Duration::from_millis(1);

/// The gates of one shard, one for each table.
#[derive(Clone, Default)]
pub(super) struct Gates(Rc<RefCell<FxHashMap<TableId, Gate>>>);

#[derive(Default)]
struct Gate {
    inside: usize,
    closed: usize,
    /// How often it was closed and everybody had left.
    truncations: u64,
}

/// A write that is inside.
pub(super) struct Inside {
    gates: Gates,
    table: TableId,
    truncations: u64,
}

impl Gates {
    /// Waits until the gate is open, and goes in.
    pub(super) async fn enter(&self, env: &Rc<dyn Env>, table: TableId) -> Inside {
        loop {
            {
                let mut gates = self.0.borrow_mut();
                let gate = gates.entry(table).or_default();
                if gate.closed == 0 {
                    gate.inside += 1;
                    return Inside {
                        gates: self.clone(),
                        table,
                        truncations: gate.truncations,
                    };
                }
            }
            env.tasks().sleep(LOOK).await;
        }
    }

    /// Lets nobody in any more, and waits until everybody is out; those who still try to write to views are told to give
    /// up.
    pub(super) async fn close(&self, env: &Rc<dyn Env>, table: TableId) {
        {
            let mut gates = self.0.borrow_mut();
            let gate = gates.entry(table).or_default();
            gate.closed += 1;
            gate.truncations += 1;
        }
        while self.0.borrow().get(&table).is_some_and(|gate| gate.inside > 0) {
            env.tasks().sleep(LOOK).await;
        }
    }

    /// Ends one [`Gates::close`].
    pub(super) fn open(&self, table: TableId) {
        if let Some(gate) = self.0.borrow_mut().get_mut(&table) {
            gate.closed = gate.closed.saturating_sub(1);
        }
    }
}

impl Inside {
    /// A truncation waits for this write, and will void it.
    pub(super) fn is_void(&self) -> bool {
        let gates = self.gates.0.borrow();
        gates
            .get(&self.table)
            .is_none_or(|gate| gate.truncations != self.truncations)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(gate) = self.gates.0.borrow_mut().get_mut(&self.table) {
            gate.inside = gate.inside.saturating_sub(1);
        }
    }
}
