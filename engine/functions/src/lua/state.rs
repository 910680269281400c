//! One function's virtual machine, kept between calls by one shard.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;
use ceto_model::value::{Value as CqlValue, canonical};
use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use super::{from_lua, library, to_lua};
use crate::error::FunctionError;
use crate::language::{Machine, Now};
use crate::limits::{
    LUA_BODY_BYTES_MAX, LUA_MEMORY_KEPT_MAX, LUA_MEMORY_MAX, LUA_STEPS_BETWEEN_CHECKS, LUA_STEPS_MAX,
};

/// What a call has left.
pub(crate) struct Meter {
    steps: Cell<u64>,
    ends: Cell<Option<Instant>>,
    time: Duration,
    now: Now,
    /// Why the call was stopped; what Lua makes of it is only text.
    stopped: RefCell<Option<FunctionError>>,
}

impl Meter {
    fn new(time: Duration, now: Now) -> Self {
        Self {
            steps: Cell::new(0),
            ends: Cell::new(None),
            time,
            now,
            stopped: RefCell::new(None),
        }
    }

    fn start(&self) {
        self.steps.set(LUA_STEPS_MAX);
        self.ends.set((self.now)().checked_add(self.time));
        self.stopped.take();
    }

    /// Takes steps.
    pub(crate) fn take(&self, steps: u64) -> mlua::Result<()> {
        let Some(left) = self.steps.get().checked_sub(steps) else {
            self.steps.set(0);
            return Err(self.stop(FunctionError::Steps { limit: LUA_STEPS_MAX }));
        };
        self.steps.set(left);
        Ok(())
    }

    fn check(&self) -> mlua::Result<()> {
        self.take(u64::from(LUA_STEPS_BETWEEN_CHECKS))?;
        if self.ends.get().is_some_and(|ends| (self.now)() > ends) {
            return Err(self.stop(FunctionError::Time { limit: self.time }));
        }
        Ok(())
    }

    fn stop(&self, error: FunctionError) -> mlua::Error {
        let text = error.to_string();
        *self.stopped.borrow_mut() = Some(error);
        mlua::Error::RuntimeError(text)
    }
}

/// See the module.
pub(crate) struct LuaState {
    lua: Lua,
    chunk: Function,
    /// What each call finds: the parent of the globals that it makes itself.
    globals: Table,
    meter: Rc<Meter>,
}

/// Words that cannot be names.
const KEYWORDS: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

fn is_name(text: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(starts)
        && text.chars().all(|c| starts(c) || c.is_ascii_digit())
        && !KEYWORDS.contains(&text)
}

/// The chunk: arguments on the first line, so that errors name the body's lines.
fn source(definition: &FunctionDefinition) -> Result<String, FunctionError> {
    if definition.body.len() > LUA_BODY_BYTES_MAX {
        return Err(FunctionError::Body(format!(
            "a Lua body may have {LUA_BODY_BYTES_MAX} bytes, this one has {}",
            definition.body.len()
        )));
    }
    if let Some(name) = definition.argument_names.iter().find(|name| !is_name(name)) {
        return Err(FunctionError::Body(format!(
            "the argument '{name}' cannot be a local variable in Lua: give it a name of letters, digits and underscores that is no \
             word of Lua"
        )));
    }
    if definition.argument_names.is_empty() {
        return Ok(definition.body.to_string());
    }
    Ok(format!(
        "local {} = ... {}",
        definition.argument_names.join(", "),
        definition.body
    ))
}

impl LuaState {
    /// A machine with the function in it. `time` is the wall time of a call.
    pub(crate) fn new(
        definition: &FunctionDefinition,
        time: Duration,
        now: Now,
    ) -> Result<LuaState, FunctionError> {
        let source = source(definition)?;
        let failed = |error: mlua::Error| FunctionError::Body(text_of(&error));
        let libraries = StdLib::MATH | StdLib::STRING | StdLib::TABLE | StdLib::UTF8;
        let lua = Lua::new_with(libraries, LuaOptions::default()).map_err(failed)?;
        let meter = Rc::new(Meter::new(time, now));
        lua.set_app_data(meter.clone());
        let globals = library::install(&lua, &meter).map_err(failed)?;
        let in_hook = meter.clone();
        let triggers = HookTriggers::new().every_nth_instruction(LUA_STEPS_BETWEEN_CHECKS);
        lua.set_hook(triggers, move |_, _| {
            in_hook.check()?;
            Ok(VmState::Continue)
        })
        .map_err(failed)?;
        lua.set_memory_limit(LUA_MEMORY_MAX).map_err(failed)?;
        let chunk = lua
            .load(source)
            .set_name(format!("={}", definition.name))
            .set_mode(ChunkMode::Text)
            .into_function()
            .map_err(failed)?;
        Ok(LuaState {
            lua,
            chunk,
            globals,
            meter,
        })
    }
}

impl Machine for LuaState {
    fn call(
        &mut self,
        definition: &FunctionDefinition,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, FunctionError> {
        self.meter.start();
        let result = self
            .call_for_value(definition, arguments)
            .map_err(|error| self.cause(&error))?;
        let return_type = &definition.return_type;
        let value = from_lua::convert(&result, return_type).map_err(FunctionError::Result)?;
        let Some(value) = value else {
            return Ok(None);
        };
        let invalid = |error: ceto_model::ValueError| FunctionError::Result(error.to_string());
        let wire = value.to_wire(return_type).map_err(invalid)?;
        let wire = canonical(return_type, &wire).map_err(invalid)?.into_owned();
        Ok(Some(wire.into()))
    }

    fn can_be_kept(&mut self, _definition: &FunctionDefinition) -> bool {
        if self.lua.used_memory() > LUA_MEMORY_KEPT_MAX && self.lua.gc_collect().is_err() {
            return false;
        }
        self.lua.used_memory() <= LUA_MEMORY_KEPT_MAX
    }
}

impl LuaState {
    fn call_for_value(
        &self,
        definition: &FunctionDefinition,
        arguments: &[Option<Bytes>],
    ) -> mlua::Result<Value> {
        let mut values = Vec::with_capacity(arguments.len());
        for (argument, cql_type) in arguments.iter().zip(&definition.argument_types) {
            values.push(match argument {
                None => Value::Nil,
                Some(wire) => {
                    let value = CqlValue::decode(cql_type, wire).map_err(mlua::Error::external)?;
                    to_lua::convert(&self.lua, &value, cql_type)?
                }
            });
        }
        let environment = self.lua.create_table()?;
        let metatable = self.lua.create_table()?;
        metatable.raw_set("__index", &self.globals)?;
        environment.set_metatable(Some(metatable))?;
        self.chunk.set_environment(environment)?;
        let results: MultiValue = self.chunk.call(MultiValue::from_vec(values))?;
        Ok(results.into_iter().next().unwrap_or(Value::Nil))
    }

    fn cause(&self, error: &mlua::Error) -> FunctionError {
        if let Some(stopped) = self.meter.stopped.take() {
            return stopped;
        }
        if is_memory(error) {
            return FunctionError::Memory {
                limit: LUA_MEMORY_MAX,
            };
        }
        FunctionError::Failed(text_of(error))
    }
}

fn is_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } => is_memory(cause),
        _ => false,
    }
}

/// The first line: what follows are Lua's calls.
fn text_of(error: &mlua::Error) -> String {
    let text = match error {
        mlua::Error::CallbackError { cause, .. } => return text_of(cause),
        mlua::Error::RuntimeError(text) | mlua::Error::SyntaxError { message: text, .. } => text.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}
