//! What a body may use. The limits hold for one call, and for what is kept between calls.

use std::time::Duration;

/// Steps of one call of a Lua function: instructions of its virtual machine, and the steps of string matching.
/// Measured: 5 to 10 ms.
pub const LUA_STEPS_MAX: u64 = 1_000_000;

/// Lua looks at its limits after so many instructions. One instruction handles [`LUA_MEMORY_MAX`] bytes at most.
pub const LUA_STEPS_BETWEEN_CHECKS: u32 = 32;

/// Bytes that the state of one Lua function may have, its arguments and result included.
pub const LUA_MEMORY_MAX: usize = 4 << 20;

/// Bytes of a Lua state that is kept for the next call; larger ones are made anew.
pub const LUA_MEMORY_KEPT_MAX: usize = 256 << 10;

/// Fuel of one call of a WebAssembly function: about one for each instruction, and one for each 8 bytes that bulk
/// instructions write. Simple instructions take 10 to 15 ms; others are stopped by [`TIME_MAX`].
pub const WASM_FUEL_MAX: u64 = 10_000_000;

/// The clock is looked at after so much fuel. A call of a function is the most that one instruction does: it clears
/// [`WASM_STACK_MAX`] bytes.
pub const WASM_FUEL_BETWEEN_CHECKS: u64 = 20_000;

/// Bytes of the memory of one WebAssembly function.
pub const WASM_MEMORY_MAX: usize = 16 << 20;

/// Bytes that an instance's memory may begin with, and may have to be kept for the next call; larger ones are made anew.
pub const WASM_MEMORY_KEPT_MAX: usize = 2 << 20;

/// Bytes of the stack of values and calls that a WebAssembly function may use, beside what it has in its memory.
pub const WASM_STACK_MAX: usize = 64 << 10;

/// Calls of a WebAssembly function that are in one another.
pub const WASM_CALLS_MAX: usize = 4 << 10;

/// Entries of each table of a WebAssembly module.
pub const WASM_TABLE_MAX: usize = 16 << 10;

/// Bytes of a body, as text.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Bytes of a Lua body: a shard compiles it when it first calls it.
pub const LUA_BODY_BYTES_MAX: usize = 64 << 10;

/// States and instances that a shard keeps; the least recently used go.
pub const KEPT_FUNCTIONS_MAX: usize = 64;

/// Wall time of one call, whatever it does: what steps cannot bound. A shard that does not get a processor in time can
/// make an innocent call fail, so it is long beside what the steps take.
pub const TIME_MAX: Duration = Duration::from_millis(100);
