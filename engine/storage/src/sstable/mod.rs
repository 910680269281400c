//! SSTables: immutable tables on disk. This folder's module docs are the description of the format, version `a` (1).
//!
//! Each is a set of files, `ceto-a-<shard>-<generation>-<component>`, in the folder of its table:
//!
//! | component     | holds                                                                     | described in |
//! |---------------|---------------------------------------------------------------------------|--------------|
//! | Data.db       | partitions in blocks, each compressed and checksummed on its own          | `block`, `row` |
//! | Index.db      | where blocks lie; row indexes of large partitions                         | `index`      |
//! | Filter.db     | blocked bloom filter; not there when `bloom_filter_fp_chance` is 1        | `filter`     |
//! | Dictionary.db | what Zstandard's blocks are compressed with, where they are               | `dictionary` |
//! | Statistics.db | counts, ranges, provenance, names and types of columns (a flatbuffer)     | `statistics` |
//! | Digest.xxh3   | sizes and checksums of the files above                                    | `digest`     |
//! | TOC.txt       | the list of files; written last                                           | `digest`     |
//!
//! ```text
//!   Index.db                                        Data.db
//!   +----------------------------+                  +-----------------------------------+
//!   | head                       |                  | head                              |
//!   | partition page  token ------------------------> block: partition partition ...    |
//!   |                 token ------------------------> block: partition partition ...    |
//!   |                 token -+   |                  |                                   |
//!   | row page <-------------+ ---------------------> block: beginning of a large one   |
//!   |          position ----------------------------> block: more of it                 |
//!   |          position ----------------------------> block: more of it, and its end    |
//!   | top: token -> page ...     |                  | block: partition ...              |
//!   | footer                     |                  +-----------------------------------+
//!   +----------------------------+
//! ```
//!
//! In all of them: integers of fixed size are little-endian; `varint` is LEB128 (seven bits a byte, least significant
//! first, at most ten bytes), `signed` a varint of the zigzag encoding (`n << 1 ^ n >> 63`), `bytes` a varint and so
//! many bytes, xxh3 the 64-bit XXH3 of a seed of 0 unless another is said, crc32 that of zlib. Partition keys are as
//! Cassandra serialises them; clustering keys and bounds are in the order-preserving encoding of the model's
//! `comparable`; values are those of the native protocol. Every binary file begins with the same `head`.
//!
//! Versions: a release reads the versions of all releases before it (fixtures of each are in `tools/sstable/fixtures`)
//! and writes its own. Files of a version that it does not know are an error that says so; damage is another.
//!
//! Invariants:
//! - Never changed once its TOC is there; without TOC it is nothing and is removed at the next start.
//! - A partition smaller than a block lies whole in one block: one read. Finding it costs one read of Index at most.
//! - No byte is used before a checksum over it was compared; a mismatch names file and offset, fails the read, and
//!   nothing else. (A damaged filter is done without.)
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
mod items;
mod link;
pub mod offline;
mod parse;
mod partition_limits;
mod plain;
mod reader;
mod row;
mod serialization_header;
mod statistics;
mod table;
mod writer;

pub(crate) use block_cache::BlockCache;
pub use compression::{Codec, Compression, Training};
pub(crate) use compression::{Compressor, decompress};
pub use descriptor::{Component, Descriptor, Generation};
pub(crate) use dictionary::Dictionary;
pub(crate) use head::unknown_version;
pub use partition_limits::{LoggedAbove, PartitionLimits};
pub(crate) use plain::{EncodedPartition, encode_row, is_replaced_by, only_row};
pub(crate) use reader::SstableReader;
pub use serialization_header::{HeaderColumn, SerializationHeader};
pub use statistics::{Origin, Statistics};
pub(crate) use table::{Sstable, remove_files};
pub(crate) use writer::{SstableWriter, WriterOptions, write_toc};
