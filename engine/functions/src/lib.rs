//! Bodies of user-defined functions: what runs them, within which limits, and Lua.
//!
//! A body is hostile. It sees its arguments and nothing else: no clock, file, socket, random number or other function, and it is
//! stopped when it takes more steps, memory or time than [`limits`] allow, so that a shard, which does nothing else
//! meanwhile, stands still for milliseconds at most. What went wrong is a [`FunctionError`]; nothing panics.
//!
//! ```text
//! control thread   Programs::compile     text -> checked Lua; other languages as machine code, which can take long
//! each shard       Runner::run           wire bytes -> call -> wire bytes, validated against the return type
//! ```
//!
//! WebAssembly is `engine/wasm`: another crate behind [`Compiler`], because its compiler is larger than all else here
//! together, and only the server needs it.
//!
//! Never: compiles for long on a shard. Never: knows a schema, a statement or who calls.
//!
//! Values go in and out as wire bytes of their types ([`ceto_model::value`]). Read next: [`lua`] for what bodies look like
//! and how values are passed, `runner` for what is kept between calls, `language` for what another language has to do.

mod error;
mod language;
pub mod limits;
pub mod lua;
mod programs;
mod runner;

pub use error::FunctionError;
pub use language::{CompiledBody, Compiler, Machine};
pub use programs::Programs;
pub use runner::{Runner, RunnerFigures};
