//! What a language is that is compiled before it runs.

use std::sync::Arc;

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;

use crate::error::FunctionError;

/// Makes machine code of bodies. Shared by all threads, but asked by one that may wait.
pub trait Compiler: Send + Sync {
    /// Name in LANGUAGE.
    fn language(&self) -> &str;

    /// Compiles a body. May take seconds.
    ///
    /// # Errors
    /// The body is no text of the language.
    fn compile(&self, body: &str) -> Result<Arc<dyn CompiledBody>, FunctionError>;
}

/// A compiled body, shared by all shards.
pub trait CompiledBody: Send + Sync {
    /// Has what `function` needs.
    ///
    /// # Errors
    /// What is missing.
    fn check(&self, function: &FunctionDefinition) -> Result<(), FunctionError>;

    /// A machine that runs `function`, on the caller's thread.
    ///
    /// # Errors
    /// As [`CompiledBody::check`], and what goes wrong at its start.
    fn machine(&self, function: &FunctionDefinition) -> Result<Box<dyn Machine>, FunctionError>;
}

/// Runs one function, within [`crate::limits`]. After an error it is not used again.
pub trait Machine {
    /// Calls the function with wire bytes of its argument types; None is null.
    ///
    /// # Errors
    /// See [`FunctionError`].
    fn call(
        &mut self,
        function: &FunctionDefinition,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, FunctionError>;

    /// May be used for the next call: it has not become large.
    fn can_be_kept(&mut self) -> bool;
}
