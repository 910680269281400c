//! From the text of a body to a module that is known to be good.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ceto_model::schema::FunctionDefinition;
use wasmi::{CompilationMode, Config, CustomFuelCosts, EnforcedLimits, Engine, Module};

use super::instance::WasmInstance;
use super::meter::Meter;
use crate::error::FunctionError;
use crate::limits::{WASM_CALLS_MAX, WASM_STACK_MAX};

/// What base64 of a module begins with: `\0asm`.
const BASE64_START: &str = "AGFzb";

/// Fuel for what is not instructions. Bulk instructions move this many bytes for one.
const COSTS: CustomFuelCosts = CustomFuelCosts {
    bytes_copied_per_fuel: 8,
    fuel_per_bytes_translated: 7,
    fuel_per_bytes_validated: 2,
};

/// A validated module, shared by all shards.
#[derive(Clone)]
pub(crate) struct WasmBody {
    binary: Arc<[u8]>,
}

impl WasmBody {
    /// Validates a body. Can take long.
    pub(crate) fn compile(text: &str) -> Result<WasmBody, FunctionError> {
        let binary = binary_of(text)?;
        let module = Module::new(&engine(), &binary).map_err(|error| {
            FunctionError::Body(format!(
                "the body is no WebAssembly module: {}",
                first_line(&error)
            ))
        })?;
        if let Some(import) = module.imports().next() {
            return Err(FunctionError::Body(format!(
                "the module imports '{}' of '{}', but there is nothing to import: a function sees its arguments only. Build \
                 it for a target without a system (wasm32-unknown-unknown)",
                import.name(),
                import.module()
            )));
        }
        Ok(WasmBody {
            binary: binary.into(),
        })
    }

    /// Has what `function` needs. Can take long.
    pub(crate) fn check(&self, function: &FunctionDefinition) -> Result<(), FunctionError> {
        let epoch = any_instant();
        let meter = Meter::new(Duration::MAX, Rc::new(move || epoch));
        self.machine(function, meter).map(|_| ())
    }

    /// An instance for the calls of one function on one shard.
    pub(crate) fn machine(
        &self,
        function: &FunctionDefinition,
        meter: Meter,
    ) -> Result<WasmInstance, FunctionError> {
        let module = Module::new(&engine(), &self.binary);
        let module = module.map_err(|error| FunctionError::Body(first_line(&error)))?;
        WasmInstance::new(module, function, meter)
    }
}

/// Nothing runs when an instance is made, so that the clock may stand still.
#[allow(clippy::disallowed_methods)] // any instant does
fn any_instant() -> Instant {
    Instant::now()
}

/// A text is a module in WAT unless it can only be base64.
fn binary_of(text: &str) -> Result<Vec<u8>, FunctionError> {
    let text = text.trim();
    if text.starts_with(BASE64_START) {
        let encoded: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return STANDARD.decode(encoded).map_err(|error| {
            FunctionError::Body(format!("the body is no base64 of a WebAssembly module: {error}"))
        });
    }
    wat::parse_str(text).map_err(|error| {
        FunctionError::Body(format!(
            "the body is neither WebAssembly text nor base64 of a module: {}",
            with_position(&error.to_string())
        ))
    })
}

/// Modules are small enough to make code of all of them at once; a call that stops for fuel in the middle of that could not go on.
/// Constant expressions are evaluated by recursion: without arithmetic they have no depth.
fn engine() -> Engine {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .fuel_cost(COSTS)
        .compilation_mode(CompilationMode::Eager)
        .enforced_limits(EnforcedLimits::strict())
        .allow_start_fn(false)
        .wasm_extended_const(false)
        .ignore_custom_sections(true)
        .wasm_multi_memory(false)
        .set_max_recursion_depth(WASM_CALLS_MAX)
        .set_max_stack_height(WASM_STACK_MAX)
        .set_max_cached_stacks(1);
    Engine::new(&config)
}

fn first_line(error: &wasmi::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The first line of an error of the parser, and its `--> <anon>:line:column`.
fn with_position(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let position = text
        .split_once("<anon>:")
        .and_then(|(_, rest)| rest.lines().next());
    match position.and_then(|position| position.split_once(':')) {
        Some((line, column)) => format!("{first} at line {line}, column {column}"),
        None => first.to_owned(),
    }
}
