//! SSTables: immutable tables on disk.
//!
//! | file       | holds                                                               | described in |
//! |------------|---------------------------------------------------------------------|--------------|
//! | Data       | partitions in blocks, each compressed and checksummed               | `block`      |
//! | Index      | where blocks lie; row indexes of large partitions                   | `index`      |
//! | Filter     | blocked bloom filter; none when `bloom_filter_fp_chance` is 1        | `filter`     |
//! | Dictionary | what Zstandard's blocks are compressed with, where they are          | `dictionary` |
//! | Statistics | counts, ranges, provenance (a flatbuffer)                           | `statistics` |
//! | Digest     | sizes and checksums of the files above                              | `digest`     |
//! | TOC        | the list of files; written last                                     | `digest`     |
//!
//! Invariants:
//! - Never changed once its TOC is there; without TOC it is nothing and is removed at the next start.
//! - A partition smaller than a block lies whole in one block: one read.
//! - No byte is used before a checksum over it was compared; a mismatch names file and offset, fails the read, and
//!   nothing else.
//! - Files are removed only when no reader has them open.

mod block;
mod block_cache;
mod collector;
mod compression;
mod descriptor;
mod dictionary;
mod digest;
mod filter;
mod flat;
mod head;
mod index;
mod parse;
mod reader;
mod row;
mod serialization_header;
mod statistics;
mod table;
mod writer;

pub(crate) use block_cache::BlockCache;
pub use compression::{Codec, Compression, Training};
pub use descriptor::{Component, Descriptor, Generation};
pub(crate) use dictionary::Dictionary;
pub(crate) use head::unknown_version;
pub(crate) use reader::SstableReader;
pub use serialization_header::{HeaderColumn, SerializationHeader};
pub use statistics::{Origin, Statistics};
pub(crate) use table::{Sstable, remove_files};
pub(crate) use writer::{SstableWriter, WriterOptions, write_toc};
