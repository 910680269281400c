//! WebAssembly.
//!
//! A body is one module, as text (WAT) or as base64 of its binary form. It exports the function under its CQL name:
//! `CREATE FUNCTION plus(a int, b int) RETURNS NULL ON NULL INPUT RETURNS int LANGUAGE wasm AS '(module (func (export "plus")
//! (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'`.
//!
//! How values are passed is as ScyllaDB documents it, so that modules which were made for it run here, if they import
//! nothing:
//!
//! | CQL | RETURNS NULL ON NULL INPUT | CALLED ON NULL INPUT |
//! |---|---|---|
//! | boolean, tinyint, smallint, int | `i32` | in memory |
//! | bigint | `i64` | in memory |
//! | float | `f32` | in memory |
//! | double | `f64` | in memory |
//! | every other type | in memory | in memory |
//!
//! A number that comes back is cut to its type's bits, and a boolean is true when it is not 0. What is passed in memory are the
//! wire bytes of the type (numbers are big-endian there), in the exported memory `memory`, and an `i64` that says where:
//!
//! ```text
//! 63                  32 31                   0
//! +---------------------+---------------------+
//! | size, -1: null      | address             |     the same for arguments and for the result
//! +---------------------+---------------------+
//! ```
//!
//! Who makes room for it, the module says: the exported global `_scylla_abi` is the address of a 32-bit number in its memory.
//!
//! | version | arguments | result |
//! |---|---|---|
//! | 1 | in pages that the host adds to the memory, and uses again for the next call | stays where it is |
//! | 2 | in what the export `_scylla_malloc` returns; they belong to the function, which frees them | freed by the export `_scylla_free` |
//!
//! A function with nothing in memory needs neither `_scylla_abi` nor a memory. An instance is kept between calls, with what it
//! has in its memory and globals, until it has become large or a call has failed: nothing that a call must not know
//! about another belongs there.
//!
//! Nothing can be imported, so a body reaches nothing but its own memory; a module made for WASI has to be built without
//! it. Each instruction takes fuel, the clock is looked at now and then, and every limit is one of [`crate::limits`]. A module has
//! no start function, and arithmetic in none of its constants; its memory, if it has one, is exported as `memory`.
//!
//! The interpreter is `wasmi`. A module is validated once, when the function is created; what a shard runs is its own, engine and all,
//! because an engine that shards share would have locks. Never: a lock that another shard can hold.

mod body;
mod instance;
mod meter;
mod native;
#[cfg(test)]
mod tests;

pub(crate) use body::WasmBody;
pub(crate) use meter::Meter;
