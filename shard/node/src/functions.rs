//! User-defined functions on one shard: who runs them, and how long they may keep the shard from all else.
//!
//! One call is bounded by `ceto-functions`. What one statement evaluates in one piece (a batch, the rows of one read)
//! is bounded here: when its calls have taken [`STANDSTILL_MAX`] together, the statement fails. So that a SELECT of many
//! rows never gets there, its reads are kept short (see `select`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_cql::FunctionRunner;
use ceto_functions::{Programs, Runner};
use ceto_model::schema::FunctionDefinition;
use tracing::warn;

use crate::metrics::Samples;
use crate::node::Node;
use crate::options::FunctionOptions;

/// Time that all calls of what is evaluated in one piece may take.
pub(crate) const STANDSTILL_MAX: Duration = Duration::from_millis(500);

/// Time between log lines about slow functions.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// What Cassandra says.
pub(crate) const DISABLED: &str = "User-defined functions are disabled in cassandra.yaml - set \
                                   user_defined_functions_enabled=true to enable";

/// The functions of one shard.
pub(crate) struct Functions {
    runner: Runner,
    options: FunctionOptions,
    slow: Cell<u64>,
    logged: Cell<Option<Instant>>,
}

impl Functions {
    pub(crate) fn new(options: FunctionOptions, now: Rc<dyn Fn() -> Instant>) -> Functions {
        Functions {
            runner: Runner::new(options.fail_timeout, now),
            options,
            slow: Cell::new(0),
            logged: Cell::new(None),
        }
    }

    pub(crate) fn add_to(&self, samples: &mut Samples) {
        let figures = self.runner.figures();
        samples.counter(
            "ceto_function_calls_total",
            "Calls of user-defined functions.",
            &[],
            figures.calls,
        );
        samples.counter(
            "ceto_function_failures_total",
            "Calls of user-defined functions that failed.",
            &[],
            figures.failures,
        );
        samples.counter(
            "ceto_function_slow_calls_total",
            "Calls of user-defined functions that took longer than user_defined_functions_warn_timeout.",
            &[],
            self.slow.get(),
        );
        samples.counter(
            "ceto_function_machines_made_total",
            "Machines made to run a user-defined function.",
            &[],
            figures.made,
        );
        samples.gauge(
            "ceto_function_machines",
            "Machines kept to run user-defined functions.",
            &[],
            figures.kept as f64,
        );
        samples.gauge(
            "ceto_function_programs",
            "WebAssembly modules of user-defined functions.",
            &[],
            figures.programs as f64,
        );
    }

    fn note_slow(&self, definition: &FunctionDefinition, took: Duration, now: Instant) {
        self.slow.set(self.slow.get() + 1);
        let is_due = |last: Instant| now.saturating_duration_since(last) >= LOG_PERIOD;
        if self.logged.get().is_none_or(is_due) {
            self.logged.set(Some(now));
            warn!(
                keyspace = %definition.keyspace,
                function = %definition.name,
                took_ms = took.as_millis() as u64,
                "a user-defined function is slow; its shard does nothing else meanwhile"
            );
        }
    }
}

/// Runs the functions of what is evaluated in one piece.
pub(crate) struct Calls<'a> {
    node: &'a Node,
    spent: Cell<Duration>,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(node: &'a Node) -> Calls<'a> {
        Calls {
            node,
            spent: Cell::new(Duration::ZERO),
        }
    }
}

impl FunctionRunner for Calls<'_> {
    fn run(
        &self,
        function: &Arc<FunctionDefinition>,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, String> {
        let functions = &self.node.functions;
        if !functions.options.enabled {
            return Err(DISABLED.to_owned());
        }
        let spent = self.spent.get();
        if spent > STANDSTILL_MAX {
            return Err(format!(
                "the functions of one statement ran for more than {} ms and were stopped",
                STANDSTILL_MAX.as_millis()
            ));
        }
        let clock = self.node.env.clock();
        let started = clock.read();
        let result = functions.runner.run(function, arguments);
        let ended = clock.read();
        let took = ended.saturating_duration_since(started);
        self.spent.set(spent + took);
        if took > functions.options.warn_timeout {
            functions.note_slow(function, took, ended);
        }
        result.map_err(|error| error.to_string())
    }
}

impl Node {
    /// Takes what is compiled of the functions of the schema.
    pub fn install_programs(&self, programs: Arc<Programs>) {
        self.functions.runner.install(programs);
    }
}
