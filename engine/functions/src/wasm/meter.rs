//! What a call may take: fuel, and time.
//!
//! Fuel counts instructions, and an instruction can be made to take long (a call clears all locals of the callee). So it is given
//! out in portions, and between two of them the clock is looked at.

use std::time::{Duration, Instant};

use wasmi::{Func, ResumableCall, Store, StoreLimits, Val};

use super::instance::failed;
use crate::error::FunctionError;
use crate::language::Now;
use crate::limits::{WASM_FUEL_BETWEEN_CHECKS, WASM_FUEL_MAX};

/// What bounds the calls of one function.
#[derive(Clone)]
pub(crate) struct Meter {
    time: Duration,
    now: Now,
    ends: Option<Instant>,
    /// Fuel that was not given out yet.
    left: u64,
}

impl Meter {
    /// Calls may take `time` by the clock `now`.
    pub(crate) fn new(time: Duration, now: Now) -> Meter {
        Meter {
            time,
            now,
            ends: None,
            left: 0,
        }
    }

    /// A call begins.
    pub(super) fn begin(&mut self, store: &mut Store<StoreLimits>) -> Result<(), FunctionError> {
        self.ends = (self.now)().checked_add(self.time);
        self.left = WASM_FUEL_MAX;
        store.set_fuel(0).map_err(|error| failed(&error))?;
        self.give(store, 1)
    }

    /// Gives out the next portion, of at least `wanted`.
    fn give(&mut self, store: &mut Store<StoreLimits>, wanted: u64) -> Result<(), FunctionError> {
        if self.ends.is_some_and(|ends| (self.now)() > ends) {
            return Err(FunctionError::Time { limit: self.time });
        }
        let rest = store.get_fuel().map_err(|error| failed(&error))?;
        let portion = wanted
            .max(WASM_FUEL_BETWEEN_CHECKS)
            .saturating_sub(rest)
            .min(self.left);
        if rest + portion < wanted {
            return Err(FunctionError::Steps { limit: WASM_FUEL_MAX });
        }
        self.left -= portion;
        store.set_fuel(rest + portion).map_err(|error| failed(&error))
    }

    /// Calls a function of the module, as a part of the call that has begun.
    pub(super) fn run(
        &mut self,
        store: &mut Store<StoreLimits>,
        function: &Func,
        arguments: &[Val],
        results: &mut [Val],
    ) -> Result<(), FunctionError> {
        self.give(store, 1)?;
        let begun = function.call_resumable(&mut *store, arguments, results);
        let mut state = begun.map_err(|error| failed(&error))?;
        loop {
            state = match state {
                ResumableCall::Finished => return Ok(()),
                ResumableCall::HostTrap(trap) => return Err(failed(trap.host_error())),
                ResumableCall::OutOfFuel(stopped) => {
                    self.give(store, stopped.required_fuel())?;
                    let resumed = stopped.resume(&mut *store, results);
                    resumed.map_err(|error| failed(&error))?
                }
            };
        }
    }
}
