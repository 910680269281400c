//! Calls on one shard: which machine runs which function, and what is kept of it.
//!
//! Making a machine takes tens of microseconds, a call one, so machines are kept: [`KEPT_FUNCTIONS_MAX`] of them, the least
//! recently used goes. A machine in which anything went wrong is thrown away.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;

use crate::error::FunctionError;
use crate::language::Machine;
use crate::limits::KEPT_FUNCTIONS_MAX;
use crate::lua::LuaState;
use crate::programs::Programs;
use crate::wasm::Meter;

struct Kept {
    definition: Arc<FunctionDefinition>,
    machine: Box<dyn Machine>,
    last_used: u64,
}

/// What a [`Runner`] has done and has.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RunnerFigures {
    /// Calls.
    pub calls: u64,
    /// Calls that ended with an error.
    pub failures: u64,
    /// Machines made.
    pub made: u64,
    /// Machines kept now.
    pub kept: usize,
    /// Bodies compiled for all shards.
    pub programs: usize,
}

/// See the module.
pub struct Runner {
    programs: RefCell<Arc<Programs>>,
    kept: RefCell<Vec<Kept>>,
    turn: Cell<u64>,
    calls: Cell<u64>,
    failures: Cell<u64>,
    made: Cell<u64>,
    time: Duration,
    now: Rc<dyn Fn() -> Instant>,
}

impl Runner {
    /// Without programs. `time`: wall time of one call by the clock `now`.
    pub fn new(time: Duration, now: Rc<dyn Fn() -> Instant>) -> Runner {
        Runner {
            programs: RefCell::default(),
            kept: RefCell::default(),
            turn: Cell::new(0),
            calls: Cell::new(0),
            failures: Cell::new(0),
            made: Cell::new(0),
            time,
            now,
        }
    }

    /// Takes the programs of a new schema.
    pub fn install(&self, programs: Arc<Programs>) {
        *self.programs.borrow_mut() = programs;
    }

    /// Calls a function with wire bytes of its argument types; None is null. What comes back are wire bytes of its
    /// return type.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn run(
        &self,
        definition: &Arc<FunctionDefinition>,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, FunctionError> {
        self.calls.set(self.calls.get() + 1);
        let result = self.run_on_machine(definition, arguments);
        if result.is_err() {
            self.failures.set(self.failures.get() + 1);
        }
        result
    }

    fn run_on_machine(
        &self,
        definition: &Arc<FunctionDefinition>,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, FunctionError> {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        let mut machine = match self.take(definition) {
            Some(machine) => machine,
            None => self.make(definition)?,
        };
        let result = machine.call(definition, arguments)?;
        if machine.can_be_kept(definition) {
            self.keep(Kept {
                definition: definition.clone(),
                machine,
                last_used: turn,
            });
        }
        Ok(result)
    }

    fn take(&self, definition: &Arc<FunctionDefinition>) -> Option<Box<dyn Machine>> {
        let mut kept = self.kept.borrow_mut();
        let is_of = |kept: &Kept| Arc::ptr_eq(&kept.definition, definition);
        let position = kept.iter().position(is_of)?;
        Some(kept.swap_remove(position).machine)
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT_FUNCTIONS_MAX {
            let oldest = kept.iter().enumerate().min_by_key(|(_, kept)| kept.last_used);
            if let Some(oldest) = oldest.map(|(index, _)| index) {
                kept.swap_remove(oldest);
            }
        }
        kept.push(new);
    }

    fn make(&self, definition: &FunctionDefinition) -> Result<Box<dyn Machine>, FunctionError> {
        self.made.set(self.made.get() + 1);
        if &*definition.language == "lua" {
            let state = LuaState::new(definition, self.time, self.now.clone())?;
            return Ok(Box::new(state));
        }
        let programs = self.programs.borrow();
        let body = programs.body(&definition.body).ok_or_else(|| {
            FunctionError::Body("its body could not be compiled; the log of the node says why".to_owned())
        })?;
        let meter = Meter::new(self.time, self.now.clone());
        Ok(Box::new(body.machine(definition, meter)?))
    }

    /// For metrics.
    pub fn figures(&self) -> RunnerFigures {
        RunnerFigures {
            calls: self.calls.get(),
            failures: self.failures.get(),
            made: self.made.get(),
            kept: self.kept.borrow().len(),
            programs: self.programs.borrow().count(),
        }
    }
}
