//! Every flipped bit is noticed or does no harm; a scrub saves what is readable and nothing else.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::{DecoratedKey, Deletion};

use super::super::{Codec, Compression, SstableWriter, Training, WriterOptions, write_toc};
use super::*;
use crate::Generation;
use crate::memtable::{Memtable, MemtableReader};
use crate::sstable::SerializationHeader;
use crate::testing::*;

const DIR: &str = "/tables/ks/t";

/// Writes random content as an sstable.
async fn written(
    env: &Rc<MemoryEnv>,
    seed: u64,
    writes: u64,
    shape: Shape,
    compression: Compression,
) -> Descriptor {
    let mut dice = Dice::new(seed);
    let memtable = Rc::new(Memtable::new());
    for _ in 0..writes {
        memtable.apply(random_write(&mut dice, shape), None);
    }
    env.disk().create_dir_all(DIR.as_ref()).await.unwrap();
    let descriptor = Descriptor {
        dir: DIR.into(),
        shard: 0,
        generation: Generation(5),
    };
    let options = WriterOptions {
        compression,
        bloom_filter_fp_chance: 0.1,
        expected_partitions: shape.partitions,
        header: Some(Rc::new(SerializationHeader::of(&table_named(TABLE, "t", |_| {})))),
        ..WriterOptions::new(TABLE)
    };
    let disk = env.disk();
    let mut writer = SstableWriter::create(disk.clone(), descriptor.clone(), options)
        .await
        .unwrap();
    let (target, slices) = (ReadTarget::Range(PartitionRange::full()), [Slice::full()]);
    let scan = Scan {
        target: &target,
        slices: &slices,
        first_partition_slices: None,
        reversed: false,
    };
    let mut reader = MemtableReader::new(memtable, scan);
    while let Step::Fragment(fragment) = reader.step().unwrap() {
        writer.push(fragment).unwrap();
    }
    writer.finish().await.unwrap().unwrap();
    write_toc(&*disk, &descriptor).await.unwrap();
    descriptor
}

async fn content(env: &Rc<MemoryEnv>, descriptor: &Descriptor) -> Result<Vec<Fragment>> {
    let files = SstableFiles::open(env.clone(), descriptor.clone()).await?;
    let mut fragments = Vec::new();
    files
        .visit_all(|fragment| {
            fragments.push(fragment);
            Visit::Go
        })
        .await?;
    Ok(fragments)
}

fn files(disk: &MemoryDisk, descriptor: &Descriptor) -> Vec<PathBuf> {
    let exists = |path: &PathBuf| disk.content(path).is_some();
    let paths = Component::ALL.map(|component| descriptor.path(component));
    paths.into_iter().filter(exists).collect()
}

fn names(error: &Error, file: &Path) -> bool {
    matches!(error, Error::Corrupt(corruption) if corruption.file == file)
}

/// Flips one bit, and checks that it is found, named, and changes no answer.
async fn check_flip(
    world: (&Rc<MemoryDisk>, &Rc<MemoryEnv>),
    descriptor: &Descriptor,
    file: &Path,
    bit: usize,
    intact: &[Fragment],
) {
    let (disk, env) = world;
    disk.flip(file, bit / 8, 1 << (bit % 8));
    let context = format!("bit {bit} of {}", file.display());
    let faults = verify(env.clone(), descriptor).await;
    assert!(
        faults.iter().any(|fault| names(fault, file)),
        "{context}: {faults:?}"
    );
    match content(env, descriptor).await {
        Ok(fragments) => assert!(fragments == intact, "{context}: another answer"),
        Err(error) => assert!(names(&error, file), "{context}: {error}"),
    }
    disk.flip(file, bit / 8, 1 << (bit % 8));
}

fn compression(codec: Codec) -> Compression {
    Compression {
        codec,
        chunk_length: 512,
        training: Training {
            dictionary_size_max: 8 << 10,
            sample_size_max: 128 << 10,
        },
        ..Compression::default()
    }
}

#[test]
fn every_flipped_bit_of_a_small_table_is_noticed_or_harmless() {
    let (disk, env) = machine(1);
    env.block_on(async {
        let shape = Shape {
            partitions: 3,
            rows: 20,
            value_size: 20,
            timestamps: 100,
            deletions: true,
        };
        let descriptor = written(&env, 11, 30, shape, compression(Codec::Lz4)).await;
        let intact = content(&env, &descriptor).await.unwrap();
        assert!(verify(env.clone(), &descriptor).await.is_empty());
        let mut bits = 0;
        for file in files(&disk, &descriptor) {
            let size = disk.content(&file).unwrap().len();
            for bit in 0..size * 8 {
                check_flip((&disk, &env), &descriptor, &file, bit, &intact).await;
                bits += 1;
            }
        }
        assert!(bits > 10_000, "only {bits} bits");
    })
    .unwrap();
}

#[test]
fn flipped_bits_of_every_codec_are_noticed_or_harmless() {
    for (seed, codec) in Codec::ALL.into_iter().enumerate() {
        let (disk, env) = machine(seed as u64);
        let mut dice = Dice::new(seed as u64);
        env.block_on(async {
            let shape = Shape {
                partitions: 12,
                rows: 300,
                value_size: 120,
                timestamps: 1000,
                // They would leave too little to learn from.
                deletions: codec != Codec::ZstdDictionary,
            };
            let descriptor = written(&env, seed as u64, 900, shape, compression(codec)).await;
            let intact = content(&env, &descriptor).await.unwrap();
            let all = files(&disk, &descriptor);
            let has_dictionary = all.contains(&descriptor.path(Component::Dictionary));
            assert_eq!(has_dictionary, codec == Codec::ZstdDictionary);
            for file in all {
                let size = disk.content(&file).unwrap().len() as u64;
                for _ in 0..25 {
                    let bit = dice.below(size * 8) as usize;
                    check_flip((&disk, &env), &descriptor, &file, bit, &intact).await;
                }
            }
        })
        .unwrap();
    }
}

/// Bytes of one part of a file, changed at some places.
fn changed(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + dice.below(3) {
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] = match dice.below(4) {
            0 => 0xff,
            1 => 0,
            2 => bytes[at].wrapping_add(1),
            _ => dice.next() as u8,
        };
    }
    bytes
}

/// Reads all of it and parts of it, in both directions: whatever comes, no panic and no end without end.
async fn read_about(sstable: &Rc<Sstable>, dice: &mut Dice) {
    for round in 0..6 {
        let target = match round % 3 {
            0 => ReadTarget::Range(PartitionRange::full()),
            _ => ReadTarget::Partition(key(dice.below(6))),
        };
        let first = dice.below(300) as u16;
        let slices = match round {
            0 | 1 => vec![Slice::full()],
            _ => vec![slice(first, first + 3), slice(first + 50, first + 90)],
        };
        for reversed in [false, true] {
            let bytes = Cell::new(0);
            let scan = Scan {
                target: &target,
                slices: &slices,
                first_partition_slices: None,
                reversed,
            };
            let mut reader = SstableReader::new(sstable.clone(), scan, false, &bytes);
            for steps in 0.. {
                assert!(steps < 100_000, "no end");
                match reader.step() {
                    Ok(Step::Fragment(_)) => {}
                    Ok(Step::Load) => {
                        if reader.load().await.is_err() {
                            break;
                        }
                    }
                    Ok(Step::End) | Err(_) => break,
                }
            }
        }
    }
}

#[test]
fn hostile_content_with_right_checksums_panics_nowhere() {
    use super::super::block::write_block;
    use super::super::compression::Compressor;
    use super::super::table::PartitionPages;

    let (disk, env) = machine(8);
    let mut dice = Dice::new(8);
    env.block_on(async {
        let plain = compression(Codec::None);
        let shape = Shape {
            value_size: 500,
            ..shape()
        };
        let descriptor = written(&env, 8, 1500, shape, plain).await;
        let (data, index) = (
            descriptor.path(Component::Data),
            descriptor.path(Component::Index),
        );
        let (intact, intact_index) = (disk.content(&data).unwrap(), disk.content(&index).unwrap());
        let mut blocks = Vec::new();
        let dyn_env: Rc<dyn Env> = env.clone();
        let mut walk = walk::open_data(&dyn_env, &descriptor).await.unwrap();
        while let Some(walk::Walked::Block { offset, block }) = walk.next().await {
            blocks.push((offset, block));
        }
        assert!(blocks.len() > 10, "{} blocks", blocks.len());
        let open = async || Sstable::open(env.clone(), descriptor.clone(), Rc::new(BlockCache::new(0))).await;
        for _ in 0..1500 {
            let (offset, block) = &blocks[dice.below(blocks.len() as u64) as usize];
            let raw = changed(&block.raw, &mut dice);
            let previous_length = match dice.one_in(4) {
                true => dice.next() as u32,
                false => block.previous_length,
            };
            let mut bytes = Vec::new();
            let mut compressor = Compressor::new(plain, None);
            write_block(
                &mut compressor,
                (block.kind, &raw),
                previous_length,
                *offset,
                &mut bytes,
            );
            assert_eq!(bytes.len(), block.length as usize);
            let mut file = intact.clone();
            file[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(&bytes);
            disk.set_content(&data, file);
            read_about(&open().await.unwrap(), &mut dice).await;
        }
        disk.set_content(&data, intact);
        let pages = PartitionPages::open(env.disk().open(&index).await.unwrap())
            .await
            .unwrap();
        let mut places = pages.index.pages().to_vec();
        for place in pages.index.pages() {
            let content = pages.page(*place).await.unwrap();
            let page = super::super::index::IndexPage::new(content, place.offset, &index).unwrap();
            places.extend((0..page.len()).filter_map(|slot| page.get(slot)?.root));
        }
        for _ in 0..1500 {
            let place = places[dice.below(places.len() as u64) as usize];
            let (start, end) = (place.offset as usize, place.end() as usize);
            let mut file = intact_index.clone();
            let content = changed(&intact_index[start + 8..end], &mut dice);
            let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(&content, place.offset);
            file[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
            file[start + 8..end].copy_from_slice(&content);
            disk.set_content(&index, file);
            if let Ok(sstable) = open().await {
                read_about(&sstable, &mut dice).await;
            }
        }
    })
    .unwrap();
}

/// A partition's items: where each lies, the row if it is one, and the range deletion that holds from there on.
type Items = Vec<(Vec<u8>, Option<Fragment>, Option<Deletion>)>;

fn partitions(fragments: &[Fragment]) -> Vec<(DecoratedKey, Items)> {
    let mut all: Vec<(DecoratedKey, Items)> = Vec::new();
    let mut open = None;
    for fragment in fragments {
        match fragment {
            Fragment::PartitionStart(key, _) => all.push((key.clone(), Vec::new())),
            Fragment::Row(key, _) => {
                all.last_mut()
                    .unwrap()
                    .1
                    .push((key.0.to_vec(), Some(fragment.clone()), open));
            }
            Fragment::DeletionChange(position, deletion) => {
                open = *deletion;
                all.last_mut().unwrap().1.push((position.0.to_vec(), None, open));
            }
            _ => {}
        }
    }
    all
}

/// `found` has rows of `whole` only, and no row under another range deletion than there, or under one where there is none.
fn assert_part(found: &[Fragment], whole: &[Fragment], context: &str) -> (usize, usize) {
    let whole = partitions(whole);
    let (mut rows, mut all) = (0, 0);
    for (key, items) in partitions(found) {
        let (_, own) = whole
            .iter()
            .find(|(other, _)| *other == key)
            .unwrap_or_else(|| panic!("{context}: a partition of its own"));
        for (place, row, open) in &items {
            let Some(row) = row else { continue };
            rows += 1;
            let (_, other, was_open) = own.iter().find(|(other, ..)| other == place).unwrap();
            assert_eq!(other.as_ref(), Some(row), "{context}");
            assert!(
                open.is_none() || open == was_open,
                "{context}: deletion of {key:?}"
            );
        }
        // Nor does one cover a place between rows that none covered.
        for (place, row, was_open) in own {
            if row.is_some() {
                let before = items.iter().rfind(|(other, ..)| other <= place);
                let open = before.and_then(|(.., open)| *open);
                assert!(
                    open.is_none() || open == *was_open,
                    "{context}: deletion of {key:?}"
                );
            }
        }
    }
    for (_, items) in &whole {
        all += items.iter().filter(|(_, row, _)| row.is_some()).count();
    }
    (rows, all)
}

fn shape() -> Shape {
    Shape {
        partitions: 6,
        rows: 400,
        value_size: 100,
        timestamps: 1000,
        deletions: true,
    }
}

#[test]
fn a_scrub_saves_everything_but_damaged_blocks() {
    for seed in 0..30 {
        let (disk, env) = machine(seed);
        let mut dice = Dice::new(seed);
        env.block_on(async {
            let descriptor = written(&env, seed, 800, shape(), compression(Codec::Lz4)).await;
            let whole = content(&env, &descriptor).await.unwrap();
            let data = descriptor.path(Component::Data);
            let size = disk.content(&data).unwrap().len() as u64;
            let damages = 1 + dice.below(3);
            for _ in 0..damages {
                disk.flip(&data, (16 + dice.below(size - 16)) as usize, 1 << dice.below(8));
            }
            if seed % 3 == 1 {
                // Without the index.
                disk.flip(&descriptor.path(Component::Index), 20, 1);
            }
            let scrubbed = scrub(env.clone(), &descriptor, TABLE).await.unwrap();
            assert!(!scrubbed.is_whole());
            assert!(scrubbed.lost.iter().any(|loss| loss.file == data));
            let output = scrubbed.output.unwrap();
            assert_eq!(output.generation, Generation(6));
            assert!(verify(env.clone(), &output).await.is_empty());
            let saved = content(&env, &output).await.unwrap();
            let (rows, all) = assert_part(&saved, &whole, &format!("seed {seed}"));
            assert_eq!(rows as u64, scrubbed.rows);
            assert!(rows < all);
            if seed % 3 != 1 {
                // A block has 512 bytes; rows have 50 on average.
                assert!(rows + 60 * damages as usize > all, "seed {seed}: {rows} of {all}");
            }
            // The old files are kept, and count no more.
            assert_eq!(find(&*env.disk(), DIR.as_ref()).await.unwrap(), [output]);
            let kept = Descriptor {
                dir: scrubbed.kept_in,
                ..descriptor.clone()
            };
            assert_eq!(
                disk.content(&kept.path(Component::Data)).unwrap().len() as u64,
                size
            );
        })
        .unwrap();
    }
}

#[test]
fn a_scrub_needs_neither_index_nor_filter_nor_statistics() {
    for lost in [
        Component::Index,
        Component::Filter,
        Component::Statistics,
        Component::Digest,
        Component::Toc,
    ] {
        let (disk, env) = machine(3);
        env.block_on(async {
            let descriptor = written(&env, 3, 800, shape(), compression(Codec::Zstd)).await;
            let whole = content(&env, &descriptor).await.unwrap();
            disk.delete(&descriptor.path(lost));
            let scrubbed = scrub(env.clone(), &descriptor, TABLE).await.unwrap();
            assert_eq!(scrubbed.is_whole(), lost != Component::Statistics, "{lost:?}");
            let saved = content(&env, &scrubbed.output.unwrap()).await.unwrap();
            assert!(saved == whole, "{lost:?}");
        })
        .unwrap();
    }
}

#[test]
fn a_scrub_of_cut_data_saves_the_front() {
    let (disk, env) = machine(4);
    env.block_on(async {
        let descriptor = written(&env, 4, 800, shape(), compression(Codec::None)).await;
        let whole = content(&env, &descriptor).await.unwrap();
        let data = descriptor.path(Component::Data);
        let bytes = disk.content(&data).unwrap();
        disk.set_content(&data, bytes[..bytes.len() / 2].to_vec());
        let scrubbed = scrub(env.clone(), &descriptor, TABLE).await.unwrap();
        let saved = content(&env, &scrubbed.output.unwrap()).await.unwrap();
        let (rows, all) = assert_part(&saved, &whole, "cut");
        assert!(rows * 3 > all && rows * 3 < all * 2, "{rows} of {all}");
        // A file without a single intact block gives none.
        let descriptor = written(&env, 5, 10, shape(), compression(Codec::None)).await;
        disk.set_content(&data, vec![7; 5000]);
        let scrubbed = scrub(env.clone(), &descriptor, TABLE).await.unwrap();
        assert_eq!((scrubbed.output, scrubbed.partitions), (None, 0));
        // The number came again; both tables' files are kept.
        assert_eq!(scrubbed.kept_in, Path::new(DIR).join("pre-scrub-2"));
    })
    .unwrap();
}

#[test]
fn files_of_another_version_are_told() {
    let (disk, env) = machine(5);
    env.block_on(async {
        let descriptor = written(&env, 6, 50, shape(), compression(Codec::Lz4)).await;
        let path = descriptor.path(Component::Data);
        let mut bytes = disk.content(&path).unwrap();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.set_content(&path, bytes);
        let error = SstableFiles::open(env.clone(), descriptor.clone())
            .await
            .err()
            .unwrap();
        assert!(matches!(error, Error::Layout(_)), "{error}");
        assert!(error.to_string().contains("version 9"), "{error}");
        disk.set_content(Path::new("/tables/ks/t/ceto-c-0-7-Data.db"), vec![1]);
        let error = find(&*env.disk(), DIR.as_ref()).await.unwrap_err();
        assert!(error.to_string().contains("version c"), "{error}");
    })
    .unwrap();
}

#[test]
fn a_lookup_costs_one_read_of_the_index_at_most() {
    let (_, env) = machine(6);
    env.block_on(async {
        let shape = Shape {
            partitions: 3000,
            rows: 2,
            value_size: 100,
            timestamps: 9,
            deletions: false,
        };
        let descriptor = written(&env, 6, 6000, shape, compression(Codec::Lz4)).await;
        // Pages in memory; pages read through a cache that holds none of them; through one that has them all.
        for (capacity, first, again) in [(4 << 20, 1, 0), (0, 2, 2), (40 << 10, 2, 2)] {
            let cache = Rc::new(super::super::BlockCache::new(capacity));
            let sstable = Sstable::open(env.clone(), descriptor.clone(), cache)
                .await
                .unwrap();
            assert!(sstable.index.pages().len() > 30);
            assert_eq!(sstable.index.resident().is_empty(), capacity < 4 << 20);
            for number in (0..3000).step_by(7) {
                let key = key(number);
                let found = sstable.may_contain(&key);
                for most in [first, again] {
                    let (target, slices, bytes) =
                        (ReadTarget::Partition(key.clone()), [Slice::full()], Cell::new(0));
                    let scan = Scan {
                        target: &target,
                        slices: &slices,
                        first_partition_slices: None,
                        reversed: false,
                    };
                    let mut reader = SstableReader::new(sstable.clone(), scan, true, &bytes);
                    let (mut loads, mut fragments) = (0, 0);
                    loop {
                        match reader.step().unwrap() {
                            Step::End => break,
                            Step::Load => {
                                loads += 1;
                                reader.load().await.unwrap();
                            }
                            Step::Fragment(_) => fragments += 1,
                        }
                    }
                    assert!(
                        loads <= most,
                        "{loads} reads of at most {most}, partition {number}"
                    );
                    assert!(fragments == 0 || found);
                }
            }
        }
    })
    .unwrap();
}

#[test]
fn clustering_bounds_tell_which_slices_matter() {
    let bound = |row: u16| ceto_model::Position(clustering(row).0);
    let statistics = crate::Statistics {
        clustering_bounds: Some((bound(10), bound(19))),
        ..crate::Statistics::default()
    };
    assert!(statistics.may_matter_to(&[slice(1, 10)]));
    assert!(statistics.may_matter_to(&[slice(1, 2), slice(19, 30)]));
    assert!(!statistics.may_matter_to(&[slice(1, 9), slice(20, 30)]));
    let with_static = crate::Statistics {
        static_rows: 1,
        ..statistics
    };
    assert!(with_static.may_matter_to(&[slice(1, 9)]));
}
