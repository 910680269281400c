//! One shard's storage engine: commitlog, memtable, sstable, compaction, recovery.
