//! Values as JSON: what INSERT JSON, fromJson, SELECT JSON and toJson do.
//!
//! JSON is read into a small tree of its own that keeps numbers as text, so that a decimal or varint loses no digit.
//! Error texts and forms are Cassandra's: names with capital letters have quotes inside the quotes, keys of maps are
//! strings whatever their type, a NaN is null, and strings are accepted where a number or a collection is wanted.

mod read;
mod tree;
mod write;

#[cfg(test)]
mod tests;

pub use read::{from_json, from_json_text, json_columns};
pub use tree::{JSON_DEPTH_MAX, Json, JsonError, parse_json};
pub use write::{json_name, put_json_string, to_json};
