//! `ceto sstable`: shows, checks and salvages sstables without a node.
//!
//! ```text
//! ceto sstable dump   PATH...    partitions as JSON, one line each, in the shape of Cassandra's sstabledump
//! ceto sstable verify PATH...    every checksum, digest and order; each fault with file and offset
//! ceto sstable scrub  PATH...    new sstables from whatever is readable of damaged ones; says what is lost
//! ceto sstable stats  PATH...    what sstables say about themselves, as sstablemetadata shows it
//! ```
//!
//! A path is a table's folder, or a file of an sstable. Exit status: 0 all is well; 1 something is damaged or lost; 2
//! the command was used wrongly.
//!
//! Invariants:
//! - Never needs a schema, a configuration or a running node; only `scrub` writes, never over a file, and never while
//!   a node has the folder.
//! - Never uses direct I/O: copies on any file system can be read.

mod arguments;
mod dump;
mod files;
mod json;
mod lock;
mod run;
mod stats;

pub use dump::{DumpOptions, dump};
pub use files::FileEnv;
pub use lock::LOCK_FILE;
pub use run::{run, run_with};
