//! What is compiled once for all shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceto_model::schema::FunctionDefinition;

use crate::error::FunctionError;
use crate::limits::BODY_BYTES_MAX;
use crate::lua::LuaState;
use crate::wasm::WasmBody;

/// The WebAssembly modules of all functions of a schema, by their text. A value: a change of the schema makes the next
/// one, which shares what stays.
#[derive(Clone, Default)]
pub struct Programs {
    bodies: BTreeMap<Arc<str>, WasmBody>,
}

impl Programs {
    /// The programs of `functions`: those that are here already, and others compiled now, which can take long. A body
    /// that does not compile is left out and handed to `failed`.
    #[must_use]
    pub fn compile<'f>(
        &self,
        functions: impl Iterator<Item = &'f FunctionDefinition>,
        mut failed: impl FnMut(&FunctionDefinition, FunctionError),
    ) -> Programs {
        let mut next = Programs::default();
        for function in functions.filter(|function| &*function.language != "lua") {
            match self.body_of(&next, function) {
                Ok(body) => {
                    next.bodies.insert(function.body.clone(), body);
                }
                Err(error) => failed(function, error),
            }
        }
        next
    }

    fn body_of(&self, next: &Programs, function: &FunctionDefinition) -> Result<WasmBody, FunctionError> {
        if &*function.language != "wasm" {
            return Err(FunctionError::Body(format!(
                "nothing here runs the language {}",
                function.language
            )));
        }
        let text = &function.body;
        let body = match self.bodies.get(text).or(next.bodies.get(text)) {
            Some(body) => body.clone(),
            None => WasmBody::compile(text)?,
        };
        body.check(function)?;
        Ok(body)
    }

    /// Checks what takes no long: the size of a body, and all of Lua.
    ///
    /// # Errors
    /// The body is too large, or no text of its language.
    pub fn check(function: &FunctionDefinition) -> Result<(), FunctionError> {
        if function.body.len() > BODY_BYTES_MAX {
            return Err(FunctionError::Body(format!(
                "a body may have {BODY_BYTES_MAX} bytes, this one has {}",
                function.body.len()
            )));
        }
        match &*function.language {
            // It only compiles, so its clock may stand still.
            "lua" => {
                let epoch = stopped_clock();
                LuaState::new(function, Duration::MAX, std::rc::Rc::new(move || epoch)).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// How many compiled bodies there are.
    pub fn count(&self) -> usize {
        self.bodies.len()
    }

    pub(crate) fn body(&self, text: &str) -> Option<&WasmBody> {
        self.bodies.get(text)
    }
}

#[allow(clippy::disallowed_methods)] // any instant does
fn stopped_clock() -> Instant {
    Instant::now()
}
