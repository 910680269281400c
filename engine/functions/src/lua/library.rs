//! What a body finds: the harmless part of Lua's library, and counted functions in the place of the rest.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Lua, Result, Table};

use super::pattern;
use super::state::Meter;

/// Functions that stay.
const BASIC: [&str; 11] = [
    "assert", "error", "ipairs", "next", "pairs", "rawequal", "rawlen", "select", "tonumber", "tostring",
    "type",
];

/// Libraries that stay.
const LIBRARIES: [&str; 4] = ["math", "string", "table", "utf8"];

/// Functions of the libraries that go: not the same each time, or nothing a function needs. What does without bound in
/// one instruction is replaced below.
const REMOVED: [(&str, &str); 5] = [
    ("math", "random"),
    ("math", "randomseed"),
    ("string", "dump"),
    ("string", "pack"),
    ("string", "unpack"),
];

/// Makes the table of what every call finds. Nothing else can be reached from it.
pub(super) fn install(lua: &Lua, meter: &Rc<Meter>) -> Result<Table> {
    let globals = lua.globals();
    for (library, name) in REMOVED {
        globals.raw_get::<Table>(library)?.raw_set(name, mlua::Nil)?;
    }
    let string: Table = globals.raw_get("string")?;
    pattern::install(lua, &string, meter)?;
    lua.load(include_str!("prelude.lua"))
        .set_name("=library")
        .set_mode(ChunkMode::Text)
        .exec()?;
    let library = lua.create_table()?;
    for name in BASIC.into_iter().chain(LIBRARIES) {
        library.raw_set(name, globals.raw_get::<mlua::Value>(name)?)?;
    }
    Ok(library)
}
