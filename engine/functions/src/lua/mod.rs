//! Lua 5.4.
//!
//! A body is a chunk whose arguments are locals with the names that CREATE FUNCTION gives them; what it returns is the
//! result: `CREATE FUNCTION plus(a int, b int) ... LANGUAGE lua AS 'return a + b'`.
//!
//! | CQL | to Lua | from Lua |
//! |---|---|---|
//! | null | nil | nil; not inside a collection |
//! | ascii, text | string | string or number |
//! | blob | string of its bytes | string |
//! | tinyint, smallint, int, bigint, counter | integer | integer, integral number, string of digits, varint or decimal; cut to the type's bits |
//! | float, double | number | number, string of a number, varint or decimal |
//! | boolean | boolean | boolean |
//! | varint, decimal | a number of any size, with `+ - * / // %`, comparison and `tostring` | the same, integer, number, string |
//! | date | integer: days, 2^31 is 1970-01-01 | integer, literal, table `{year=, month=, day=}` |
//! | time | integer: nanoseconds since midnight | integer, literal |
//! | timestamp | integer: milliseconds since 1970 | integer, literal |
//! | duration | table `{months=, days=, nanoseconds=}` | such a table, literal |
//! | inet, uuid, timeuuid | string | string |
//! | list, vector | sequence | sequence |
//! | set | table whose keys are the elements, values true | the same |
//! | map | table | table |
//! | tuple | sequence, nil for null | table with the keys 1 to n |
//! | user type | table by field name, nil for null | table with no other keys |
//!
//! There are `math` without random numbers, `string` without `dump`, `pack` and `unpack`, `table`, `utf8` and the basic
//! functions; there is neither `os`, `io`, `debug`, `package` nor `coroutine`, nothing that loads code, changes
//! metatables or catches errors: what a body may use cannot be got around by it. Globals last for one call.
//!
//! Limits: a hook counts instructions; what the library would do in one instruction, and could take for ever (matching
//! with patterns, sorting, moving), is made of counted steps here (`pattern`, `prelude.lua`).

mod from_lua;
mod library;
mod number;
mod pattern;
mod state;
#[cfg(test)]
mod tests;
mod to_lua;

pub(crate) use state::LuaState;
