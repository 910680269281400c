//! One suite for all sources: memtable, sstable, cache, and merges of them yield the same stream.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ceto_env::Env;
use ceto_env::memory::MemoryEnv;
use ceto_model::key::PartitionRange;
use ceto_model::read::ColumnSelection;
use ceto_model::{
    ColumnId, DecoratedKey, Partition, ReadCommand, ReadResult, ReadTarget, RingPosition, Slice, Token,
};

use super::{Answer, Flow, Fragment, FragmentSource, Merge, Scan, Step, changes_of};
use crate::cache::{CacheReader, DiskSide, RestScan, RowCache, TableCache};
use crate::memtable::{Memtable, MemtableReader};
use crate::sstable::{
    BlockCache, Codec, Compression, Descriptor, Generation, Sstable, SstableReader, SstableWriter, Training,
    WriterOptions, write_toc,
};
use crate::testing::*;

type Model = BTreeMap<DecoratedKey, Partition>;

/// What a scan of `model` must yield.
fn expected(model: &Model, scan: Scan<'_>) -> Vec<Fragment> {
    let mut stream = Vec::new();
    for (key, partition) in model {
        let is_target = match scan.target {
            ReadTarget::Partition(wanted) => wanted == key,
            ReadTarget::Range(range) => range.contains(key),
        };
        if !is_target {
            continue;
        }
        stream.push(Fragment::PartitionStart(key.clone(), partition.deletion));
        if !partition.static_row.is_empty() {
            stream.push(Fragment::StaticRow(partition.static_row.clone()));
        }
        let mut content: Vec<Fragment> = super::slices_of(&scan, key)
            .iter()
            .flat_map(|s| in_slice(partition, s))
            .collect();
        if scan.reversed {
            content = reversed(content);
        }
        stream.extend(content);
        stream.push(Fragment::PartitionEnd);
    }
    stream
}

fn in_slice(partition: &Partition, slice: &Slice) -> Vec<Fragment> {
    let rows = partition.rows.iter().filter(|(key, _)| slice.contains(key));
    let rows = rows.map(|(key, row)| (key.0.clone(), Fragment::Row(key.clone(), row.clone())));
    let changes = changes_of(partition.range_tombstones.within(slice));
    let changes = changes.map(|(position, d)| (position.0.clone(), Fragment::DeletionChange(position, d)));
    let all: BTreeMap<_, _> = rows.chain(changes).collect();
    all.into_values().collect()
}

fn reversed(content: Vec<Fragment>) -> Vec<Fragment> {
    let mut before = None;
    let mut out: Vec<Fragment> = content
        .into_iter()
        .map(|fragment| match fragment {
            Fragment::DeletionChange(position, deletion) => {
                Fragment::DeletionChange(position, std::mem::replace(&mut before, deletion))
            }
            other => other,
        })
        .collect();
    out.reverse();
    out
}

/// Everything a source yields; skips the partitions whose number is in `skip`, some way into them.
async fn drain(mut source: Box<dyn FragmentSource + '_>, dice: &mut Dice, skips: bool) -> Vec<Fragment> {
    let mut stream = Vec::new();
    loop {
        match source.step().unwrap() {
            Step::End => return stream,
            Step::Load => source.load().await.unwrap(),
            Step::Fragment(fragment) => {
                let may_skip = fragment != Fragment::PartitionEnd;
                stream.push(fragment);
                if skips && may_skip && dice.one_in(10) {
                    source.skip_partition();
                    stream.push(Fragment::PartitionEnd);
                }
            }
        }
    }
}

/// `stream` is `expected` but for partitions that were cut short.
fn assert_prefixes(stream: &[Fragment], expected: &[Fragment], context: &str) {
    let split = |fragments: &[Fragment]| -> Vec<Vec<Fragment>> {
        fragments
            .split_inclusive(|fragment| *fragment == Fragment::PartitionEnd)
            .map(<[Fragment]>::to_vec)
            .collect()
    };
    let (found, expected) = (split(stream), split(expected));
    assert_eq!(found.len(), expected.len(), "{context}: partitions");
    for (found, expected) in found.iter().zip(&expected) {
        let length = found.len() - 1;
        assert_eq!(found[..length], expected[..length], "{context}");
    }
}

fn assert_stream(found: &[Fragment], expected: &[Fragment], context: &str) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "{context}: fragment {at}");
    }
    assert_eq!(found.len(), expected.len(), "{context}: length");
}

struct World {
    env: Rc<MemoryEnv>,
    generation: Cell<u64>,
    cache: Rc<BlockCache>,
}

impl World {
    async fn sstable(&self, memtable: &Rc<Memtable>, compression: Compression) -> Option<Rc<Sstable>> {
        let generation = self.generation.get();
        self.generation.set(generation + 1);
        let descriptor = Descriptor {
            dir: "/tables".into(),
            shard: 0,
            generation: Generation(generation),
        };
        let options = WriterOptions {
            compression,
            bloom_filter_fp_chance: 0.1,
            expected_partitions: 10,
            ..WriterOptions::new(TABLE)
        };
        let disk = self.env.disk();
        let mut writer = SstableWriter::create(disk.clone(), descriptor, options)
            .await
            .unwrap();
        let (target, slices) = (ReadTarget::Range(PartitionRange::full()), [Slice::full()]);
        let scan = Scan {
            target: &target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let mut reader = MemtableReader::new(memtable.clone(), scan);
        while let Step::Fragment(fragment) = reader.step().unwrap() {
            writer.push(fragment).unwrap();
        }
        let descriptor = writer.finish().await.unwrap()?;
        write_toc(&*disk, &descriptor).await.unwrap();
        Some(
            Sstable::open(self.env.clone(), descriptor, self.cache.clone())
                .await
                .unwrap(),
        )
    }
}

fn random_slices(dice: &mut Dice, rows: u16) -> Vec<Slice> {
    if dice.one_in(3) {
        return vec![Slice::full()];
    }
    let mut bounds: Vec<u16> = (0..2 * dice.below(5))
        .map(|_| dice.below(rows.into()) as u16)
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds
        .chunks_exact(2)
        .map(|pair| slice(pair[0], pair[1]))
        .collect()
}

fn random_target(dice: &mut Dice, partitions: u64) -> ReadTarget {
    let some_key = key(dice.below(partitions + 2));
    match dice.below(5) {
        0 => ReadTarget::Range(PartitionRange::full()),
        1 => ReadTarget::Range(PartitionRange {
            start: RingPosition::AfterKey(some_key),
            end: RingPosition::AfterToken(Token::MAX),
        }),
        2 => ReadTarget::Range(PartitionRange {
            start: RingPosition::BeforeKey(some_key),
            end: RingPosition::BeforeKey(key(dice.below(partitions))),
        }),
        _ => ReadTarget::Partition(some_key),
    }
}

async fn check_world(seed: u64, env: Rc<MemoryEnv>) {
    let mut dice = Dice::new(seed);
    let shape = Shape {
        partitions: 1 + dice.below(8),
        rows: 20 + dice.below(400) as u16,
        value_size: dice.below(200),
        timestamps: 30,
        deletions: true,
    };
    env.disk().create_dir_all("/tables".as_ref()).await.unwrap();
    let world = World {
        cache: Rc::new(BlockCache::new(if seed.is_multiple_of(2) { 1 << 16 } else { 0 })),
        generation: Cell::new(1),
        env,
    };
    let mut model = Model::new();
    let whole = Rc::new(Memtable::new());
    let parts: Vec<Rc<Memtable>> = (0..4).map(|_| Rc::new(Memtable::new())).collect();
    for _ in 0..dice.below(1200) {
        let write = random_write(&mut dice, shape);
        model
            .entry(write.key.clone())
            .or_default()
            .merge(write.partition.clone());
        parts[dice.below(4) as usize].apply(write.clone(), None);
        whole.apply(write, None);
    }
    // Tiny blocks, so that partitions span many of them and row indexes get several levels.
    let compression = Compression {
        codec: Codec::ALL[seed as usize / 2 % Codec::ALL.len()],
        chunk_length: 64 << dice.below(8),
        level: 1,
        training: Training {
            dictionary_size_max: 4 << 10,
            sample_size_max: 40 << 10,
        },
        ..Compression::default()
    };
    let sstable = world.sstable(&whole, compression).await;
    let mut part_tables = Vec::new();
    for part in &parts[..2] {
        part_tables.extend(world.sstable(part, compression).await);
    }
    // From one that holds a few rows to one that holds all; filled by the rounds themselves.
    let row_cache = RowCache::new(1000 << dice.below(12));
    let table = table_named(TABLE, "t", |builder| {
        let caching = &mut builder.options.caching;
        caching.insert(
            "rows_per_partition".into(),
            ["ALL", "NONE", "30"][seed as usize % 3].into(),
        );
    });
    let cache = TableCache::new(row_cache.clone(), &table);
    let part_cache = TableCache::new(row_cache.clone(), &table);
    for round in 0..40 {
        let (target, slices) = (
            random_target(&mut dice, shape.partitions),
            random_slices(&mut dice, shape.rows),
        );
        let first = random_slices(&mut dice, shape.rows);
        let scan = Scan {
            target: &target,
            slices: &slices,
            first_partition_slices: dice.one_in(3).then_some(&first[..]),
            reversed: dice.one_in(2),
        };
        let disk_bytes = Cell::new(0);
        let expected = expected(&model, scan);
        let memtable =
            || -> Box<dyn FragmentSource + '_> { Box::new(MemtableReader::new(whole.clone(), scan)) };
        let on_disk = |sstable: &Rc<Sstable>| -> Box<dyn FragmentSource + '_> {
            Box::new(SstableReader::new(sstable.clone(), scan, true, &disk_bytes))
        };
        let rests: [RestScan; 6] = Default::default();
        let cached =
            |cache: &Rc<TableCache>, sstables: &[Rc<Sstable>], rest: usize| -> Box<dyn FragmentSource + '_> {
                let disk = DiskSide {
                    sstables: sstables.to_vec(),
                    caches_blocks: true,
                    fills: round % 4 != 3,
                    disk_bytes: &disk_bytes,
                    rest: &rests[rest],
                };
                Box::new(CacheReader::new(cache.clone(), scan, Some(disk)))
            };
        let merge_cached = |rest: usize| -> Box<dyn FragmentSource + '_> {
            let memtables = parts[2..].iter().map(|part| -> Box<dyn FragmentSource + '_> {
                Box::new(MemtableReader::new(part.clone(), scan))
            });
            let on_disk = std::iter::once(cached(&part_cache, &part_tables, rest));
            Box::new(Merge::new(memtables.chain(on_disk).collect(), scan.reversed))
        };
        let merge = || -> Box<dyn FragmentSource + '_> {
            let memtables = parts[2..].iter().map(|part| -> Box<dyn FragmentSource + '_> {
                Box::new(MemtableReader::new(part.clone(), scan))
            });
            Box::new(Merge::new(
                memtables.chain(part_tables.iter().map(on_disk)).collect(),
                scan.reversed,
            ))
        };
        let context = |what: &str| format!("{what}, seed {seed}, round {round}");
        assert_stream(
            &drain(memtable(), &mut dice, false).await,
            &expected,
            &context("memtable"),
        );
        assert_prefixes(
            &drain(memtable(), &mut dice, true).await,
            &expected,
            &context("memtable, skipping"),
        );
        if let Some(sstable) = &sstable {
            assert_stream(
                &drain(on_disk(sstable), &mut dice, false).await,
                &expected,
                &context("sstable"),
            );
            assert_prefixes(
                &drain(on_disk(sstable), &mut dice, true).await,
                &expected,
                &context("sstable, skipping"),
            );
        }
        assert_stream(
            &drain(merge(), &mut dice, false).await,
            &expected,
            &context("merge"),
        );
        assert_prefixes(
            &drain(merge(), &mut dice, true).await,
            &expected,
            &context("merge, skipping"),
        );
        // Twice each: what the first brings in, the second finds.
        for rest in 0..2 {
            let on_disk = sstable.as_slice();
            assert_prefixes(
                &drain(cached(&cache, on_disk, rest), &mut dice, true).await,
                &expected,
                &context("cache, skipping"),
            );
            assert_stream(
                &drain(cached(&cache, on_disk, 2 + rest), &mut dice, false).await,
                &expected,
                &context("cache"),
            );
            assert_stream(
                &drain(merge_cached(4 + rest), &mut dice, false).await,
                &expected,
                &context("merge with cache"),
            );
        }
        assert!(
            row_cache.memory() <= row_cache.capacity(),
            "seed {seed}, round {round}"
        );
    }
}

#[test]
fn every_source_yields_the_same_stream() {
    for seed in 0..60 {
        let (_, env) = machine(seed);
        assert!(
            env.block_on(check_world(seed, env.clone())).is_some(),
            "seed {seed} stands still"
        );
        env.kill();
    }
}

/// What a reader answers that takes partitions whole where it can (`runs`), or fragment by fragment.
async fn answered(
    mut source: Box<dyn FragmentSource + '_>,
    command: &ReadCommand,
    runs: bool,
) -> (ReadResult, usize) {
    let table = table_named(TABLE, "t", |_| {});
    let (mut answer, mut handed, mut is_between) = (Answer::new(command, &table), 0, true);
    loop {
        if runs
            && is_between
            && let Some(flow) = source.run(None, &mut answer).unwrap()
        {
            handed += 1;
            match flow {
                Flow::Continue | Flow::NextPartition => continue,
                Flow::Stop => break,
            }
        }
        match source.step().unwrap() {
            Step::End => break,
            Step::Load => source.load().await.unwrap(),
            Step::Fragment(fragment) => {
                is_between = fragment == Fragment::PartitionEnd;
                match answer.push(fragment) {
                    Flow::Continue => {}
                    Flow::NextPartition => {
                        source.skip_partition();
                        is_between = true;
                    }
                    Flow::Stop => break,
                }
            }
        }
    }
    (answer.finish(), handed)
}

async fn check_runs(seed: u64, env: Rc<MemoryEnv>) -> usize {
    let mut dice = Dice::new(seed);
    env.disk().create_dir_all("/tables".as_ref()).await.unwrap();
    let world = World {
        cache: Rc::new(BlockCache::new(if seed.is_multiple_of(2) { 1 << 12 } else { 0 })),
        generation: Cell::new(1),
        env,
    };
    let partitions = 1 + dice.below(200);
    let shape = Shape {
        partitions,
        rows: 3,
        value_size: 60,
        timestamps: 30,
        deletions: true,
    };
    // From partitions of one source each to some that all have; and from plain ones only to many that are not.
    let sources = 1 + dice.below(5) as usize;
    let parts: Vec<Rc<Memtable>> = (0..=sources).map(|_| Rc::new(Memtable::new())).collect();
    let (shared, oddities) = (dice.below(3), dice.below(3));
    for number in 0..partitions {
        let first = dice.below(sources as u64 + 1) as usize;
        let write = row_write(number, 1, 5, b"a value of some length");
        parts[first].apply(write, None);
        if dice.below(10) < shared {
            let write = row_write(number, dice.below(3) as u16, 7, b"another");
            parts[dice.below(sources as u64 + 1) as usize].apply(write, None);
        }
    }
    for _ in 0..oddities * partitions / 10 {
        let write = random_write(&mut dice, shape);
        parts[dice.below(sources as u64 + 1) as usize].apply(write, None);
    }
    let compression = Compression {
        chunk_length: 128 << dice.below(6),
        ..Compression::default()
    };
    let mut tables = Vec::new();
    for part in &parts[1..] {
        tables.extend(world.sstable(part, compression).await);
    }
    let table = table_named(TABLE, "t", |_| {});
    let cache = TableCache::new(RowCache::new(1 << 20), &table);
    let mut handed = 0;
    for round in 0..20 {
        let target = match random_target(&mut dice, partitions) {
            ReadTarget::Partition(_) => ReadTarget::Range(PartitionRange::full()),
            range => range,
        };
        let mut command = read_of(target);
        command.keep_tombstones = dice.one_in(4);
        command.reversed = dice.one_in(6);
        let some = |dice: &mut Dice| {
            if dice.one_in(3) {
                1 + dice.below(partitions)
            } else {
                u64::MAX
            }
        };
        command.limits.rows = some(&mut dice);
        command.limits.partitions = some(&mut dice);
        command.limits.bytes = some(&mut dice).saturating_mul(100);
        command.limits.rows_per_partition = if dice.one_in(4) { 1 } else { u64::MAX };
        if dice.one_in(4) {
            command.columns = ColumnSelection::Only(vec![ColumnId(4)]);
        }
        let scan = Scan {
            target: &command.target,
            slices: &command.slices,
            first_partition_slices: None,
            reversed: command.reversed,
        };
        let disk_bytes = Cell::new(0);
        let rests: [RestScan; 2] = Default::default();
        let source = |rest: usize| -> Box<dyn FragmentSource + '_> {
            let memtable: Box<dyn FragmentSource + '_> =
                Box::new(MemtableReader::new(parts[0].clone(), scan));
            let disk = DiskSide {
                sstables: tables.clone(),
                caches_blocks: false,
                fills: false,
                disk_bytes: &disk_bytes,
                rest: &rests[rest],
            };
            let cached: Box<dyn FragmentSource + '_> =
                Box::new(CacheReader::new(cache.clone(), scan, Some(disk)));
            Box::new(Merge::new(vec![memtable, cached], scan.reversed))
        };
        let (expected, _) = answered(source(0), &command, false).await;
        let (found, runs) = answered(source(1), &command, true).await;
        assert_eq!(found, expected, "seed {seed}, round {round}");
        handed += runs;
    }
    handed
}

#[test]
fn partitions_taken_whole_answer_as_their_fragments_do() {
    let mut handed = 0;
    for seed in 0..60 {
        let (_, env) = machine(seed);
        handed += env
            .block_on(check_runs(seed, env.clone()))
            .expect("it does not stand still");
        env.kill();
    }
    // Blocks are small and many reads stop early; but most reads take most partitions so.
    assert!(handed > 5000, "{handed} runs");
}
