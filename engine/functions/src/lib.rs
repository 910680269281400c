//! Bodies of user-defined functions, in Lua and WebAssembly: what runs them, and within which limits.
//!
//! A body is hostile. It sees its arguments and nothing else: no clock, file, socket, random number or other function, and it is
//! stopped when it takes more steps, memory or time than [`limits`] allow, so that a shard, which does nothing else
//! meanwhile, stands still for milliseconds, and for [`limits::TIME_MAX`] at most. What went wrong is a [`FunctionError`]; nothing panics.
//!
//! ```text
//! control thread   Programs::check, compile   text -> checked Lua, a validated WebAssembly module; can take long
//! each shard       Runner::run                wire bytes -> call -> wire bytes, validated against the return type
//! ```
//!
//! A shard makes the code of a body when it first calls it, which the size of a body bounds. Never: knows a schema, a statement or who calls.
//!
//! Values go in and out as wire bytes of their types ([`ceto_model::value`]). Read next: [`lua`] and [`wasm`] for what
//! bodies look like and how values are passed, `runner` for what is kept between calls.

mod error;
mod language;
pub mod limits;
pub mod lua;
mod programs;
mod runner;
pub mod wasm;

pub use error::FunctionError;
pub use programs::Programs;
pub use runner::{Runner, RunnerFigures};
