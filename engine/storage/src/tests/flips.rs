//! The damage campaign: whichever byte of whichever file of a data folder is flipped, and wherever a file is cut, each answer
//! is the right one or an error that names the file.
//!
//! A test takes a sample of the places of each file; with `CETO_EXHAUSTIVE` set, all of them.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_env::memory::{Latency, MemoryDisk, MemoryEnv};
use ceto_env::{Env, TaskQueue};
use ceto_model::read::{IndexSearch, IndexTerms};
use ceto_model::schema::{IndexDefinition, IndexTarget};
use ceto_model::*;
use uuid::Uuid;

use crate::testing::*;
use crate::{Codec, Compression, Database, Error, Result, SnapshotNote, StorageOptions, offline, reshard};

const INDEX: TableId = TableId(Uuid::from_u128(0x2222_0001));
/// Rows of the partition that has a row index.
const ROWS: u16 = 120;

/// Places of a file that are to be damaged, at most `sample` of them unless all are wanted.
fn places(size: usize, sample: u64, dice: &mut Dice) -> Vec<usize> {
    if std::env::var_os("CETO_EXHAUSTIVE").is_some() || size as u64 <= sample {
        return (0..size).collect();
    }
    // Heads and ends hold what everything else hangs on.
    let edges = [0, 7].into_iter().chain(
        [1, 8, 17, 40]
            .into_iter()
            .filter_map(|back| size.checked_sub(back)),
    );
    let random = (0..sample).map(|_| dice.below(size as u64) as usize);
    random.chain(edges).collect()
}

fn schema_with(compressor: &str, is_indexed: bool) -> Arc<Schema> {
    schema_of(&[table_named(TABLE, "t", |builder| {
        let options: &[(&str, &str)] = match compressor {
            "" => &[("enabled", "false")],
            _ => &[
                ("class", compressor),
                ("chunk_length_in_kb", "1"),
                ("training_max_dictionary_size", "4KiB"),
            ],
        };
        let options = options.iter();
        builder.options.compression = options.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        builder.options.gc_grace_seconds = 1_000_000;
        if is_indexed {
            builder.indexes = vec![IndexDefinition {
                name: "by_v".into(),
                id: INDEX,
                column: "v".into(),
                target: IndexTarget::Simple,
                options: Default::default(),
            }];
        }
    })])
}

fn large_options() -> StorageOptions {
    StorageOptions {
        automatic_compaction: false,
        memtable_space: 8 << 20,
        commitlog_segment_size: 1 << 20,
        commitlog_total_space: 16 << 20,
        ..options(0, 1)
    }
}

async fn open_as(env: &Rc<MemoryEnv>, options: StorageOptions, schema: &Arc<Schema>) -> Result<Rc<Database>> {
    reshard(env.clone(), &options).await?;
    let database = Database::open(env.clone(), options, schema.clone()).await?;
    database.finish_recovery(schema.clone()).await?;
    Ok(database)
}

/// A partition with a row index, a static row and range tombstones; some small ones with everything.
async fn fill(database: &Database, seed: u64) {
    let mut dice = Dice::new(seed);
    for row in 0..ROWS {
        let mut value = format!("a value of row {row}, ").into_bytes();
        value.extend((0..80).map(|_| dice.below(40) as u8));
        database.write(row_write(1, row, 10, &value)).await.unwrap();
    }
    let mut write = Mutation::new(TABLE, key(1));
    for first in [10, 40, 90] {
        write.partition.delete_range(RangeTombstone {
            slice: slice(first, first + 7),
            deletion: deletion(20),
        });
    }
    let cell = Cell::live(Timestamp(5), Bytes::from_static(b"static"));
    write
        .partition
        .static_row
        .merge_column(ColumnId(2), ColumnData::Cell(cell));
    write.partition.normalize();
    database.write(write).await.unwrap();
    let shape = Shape {
        partitions: 12,
        rows: 20,
        value_size: 30,
        timestamps: 100,
        deletions: true,
    };
    for _ in 0..80 {
        let mut write = random_write(&mut dice, shape);
        // They must not delete the large one.
        if write.key == key(1) {
            write.key = key(77);
        }
        database.write(write).await.unwrap();
    }
}

/// Ranges and slices, forwards and backwards, of what is there and what is not; with an index, a search.
fn questions(is_indexed: bool) -> Vec<ReadCommand> {
    let mut questions = vec![read_all()];
    for partition in [1, 2, 5, 11, 77, 1000] {
        questions.push(read_of(ReadTarget::Partition(key(partition))));
    }
    for (first, last) in [(0, 3), (8, 20), (60, 61), (85, 118), (300, 400)] {
        questions.push(ReadCommand {
            slices: std::iter::once(slice(first, last)).collect(),
            ..read_of(ReadTarget::Partition(key(1)))
        });
    }
    let backwards: Vec<ReadCommand> = questions
        .iter()
        .map(|question| ReadCommand {
            reversed: true,
            ..question.clone()
        })
        .collect();
    questions.extend(backwards);
    if is_indexed {
        let (first, last) = (Position::before_all(), Position::after_all());
        questions.push(ReadCommand {
            index: Some(Box::new(IndexSearch {
                index: INDEX,
                terms: IndexTerms::Between(first, last),
            })),
            ..read_all()
        });
    }
    questions
}

/// An index that is not built is done without: whoever asks tests the rows.
fn tested(question: &ReadCommand, mut answer: read::ReadResult) -> read::ReadResult {
    if question.index.is_some() {
        for part in &mut answer.partitions {
            let rows = std::mem::take(&mut part.partition.rows);
            let has_value = |row: &Row| {
                let value = row.column(ColumnId(3));
                matches!(value, Some(ColumnData::Cell(cell)) if cell.is_live(NOW))
            };
            part.partition.rows = rows.into_iter().filter(|(_, row)| has_value(row)).collect();
            part.partition.static_row = Row::default();
        }
        answer.partitions.retain(|part| !part.partition.rows.is_empty());
    }
    answer
}

type Answers = Vec<Result<read::ReadResult>>;

struct World {
    disk: Rc<MemoryDisk>,
    schema: Arc<Schema>,
    options: StorageOptions,
    is_indexed: bool,
}

impl World {
    /// A start, and its answer to each question; afterwards a verification.
    fn ask(&self) -> Result<(Answers, Result<()>)> {
        let env = MemoryEnv::new(self.disk.clone(), 1);
        let asked = env.block_on(async {
            let database = open_as(&env, self.options.clone(), &self.schema).await?;
            let mut answers = Vec::new();
            for question in questions(self.is_indexed) {
                let answer = database.read(&question).await;
                answers.push(answer.map(|answer| tested(&question, answer)));
            }
            let verified = database.verify(TABLE).await;
            Ok((answers, verified))
        });
        env.kill();
        asked.expect("nothing stands still")
    }

    fn saved(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.disk.files().into_iter();
        files
            .map(|file| (file.clone(), self.disk.content(&file).unwrap()))
            .collect()
    }

    fn restore(&self, saved: &[(PathBuf, Vec<u8>)]) {
        self.disk.restart();
        for file in self.disk.files() {
            if !saved.iter().any(|(path, _)| *path == file) {
                self.disk.delete(&file);
            }
        }
        for (file, content) in saved {
            if self.disk.content(file).as_ref() != Some(content) {
                self.disk.set_content(file, content.clone());
            }
        }
    }

    /// Asks with `file` as `damaged`; true when somebody noticed.
    fn check(&self, file: &Path, damaged: Option<Vec<u8>>, intact: &Answers, context: &str) -> bool {
        match damaged {
            Some(content) => self.disk.set_content(file, content),
            None => self.disk.delete(file),
        }
        let names = |error: &Error| {
            let text = error.to_string();
            assert!(
                text.contains(&*file.to_string_lossy()),
                "{context}: the error is {text}"
            );
        };
        let (answers, verified) = match self.ask() {
            Err(error) => {
                names(&error);
                return true;
            }
            Ok(asked) => asked,
        };
        let mut is_noticed = false;
        for (number, (answer, intact)) in answers.iter().zip(intact).enumerate() {
            match answer {
                Ok(answer) => {
                    let intact = intact.as_ref().expect("intact files answer");
                    assert_same(answer, intact, &format!("{context}, question {number}"));
                }
                Err(error) => {
                    names(error);
                    is_noticed = true;
                }
            }
        }
        if let Err(error) = &verified {
            names(error);
        }
        is_noticed || verified.is_err()
    }
}

/// A world with one sstable in each of its tables, and the answers that it gives.
fn world(compressor: &str, seed: u64, is_indexed: bool) -> (World, Answers) {
    let (disk, env) = machine(seed);
    let world = World {
        disk,
        schema: schema_with(compressor, is_indexed),
        options: large_options(),
        is_indexed,
    };
    env.block_on(async {
        let database = open_as(&env, large_options(), &world.schema).await.unwrap();
        fill(&database, seed).await;
        database.drain().await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
    })
    .unwrap();
    env.kill();
    let (answers, verified) = world.ask().unwrap();
    verified.unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|answer| answer.resume.is_none()))
    );
    (world, answers)
}

/// Damages the files of one table in every way; how often somebody noticed, and how often that was not needed.
fn campaign(world: &World, intact: &Answers, folder: &str, sample: u64) -> (u32, u32) {
    let (mut noticed, mut harmless) = (0, 0);
    let saved = world.saved();
    let mut dice = Dice::new(3);
    for (file, content) in &saved {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let is_of_folder = file.parent().unwrap().to_string_lossy().contains(folder);
        if !is_of_folder || !name.starts_with("ceto-a-") {
            continue;
        }
        let mut ways: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        // Without its table of contents an sstable does not count: that is what a crash in the middle of a flush leaves.
        if !name.ends_with("TOC.txt") {
            ways.push(("taken away".to_owned(), None));
        }
        for at in places(content.len(), sample, &mut dice) {
            let mut damaged = content.clone();
            damaged[at] ^= 1 << dice.below(8);
            ways.push((format!("byte {at}"), Some(damaged)));
        }
        for length in places(content.len(), sample / 3, &mut dice) {
            ways.push((format!("cut to {length}"), Some(content[..length].to_vec())));
        }
        for (way, damaged) in ways {
            let context = format!("{name}, {way}");
            let is_noticed = world.check(file, damaged, intact, &context);
            // A filter that is not there is done without.
            let may_pass = name.ends_with("Filter.db") && way == "taken away";
            assert!(is_noticed || may_pass, "{context}: nobody noticed");
            if is_noticed {
                noticed += 1;
            } else {
                harmless += 1;
            }
            world.restore(&saved);
        }
    }
    let (answers, verified) = world.ask().unwrap();
    assert!(verified.is_ok() && answers.iter().all(Result::is_ok));
    (noticed, harmless)
}

#[test]
fn damage_in_sstables_of_every_compressor_is_noticed_or_harmless() {
    for (seed, compressor) in [
        "",
        "LZ4Compressor",
        "ZstdCompressor",
        "SnappyCompressor",
        "DeflateCompressor",
        "ZstdDictionaryCompressor",
    ]
    .into_iter()
    .enumerate()
    {
        let (world, intact) = world(compressor, seed as u64, false);
        let (noticed, _) = campaign(&world, &intact, "/t-", 12);
        assert!(noticed > 60, "{compressor}: {noticed}");
    }
}

#[test]
fn damage_in_the_sstables_of_an_index_is_noticed_or_harmless() {
    let (world, intact) = world("LZ4Compressor", 9, true);
    let found = intact.last().unwrap().as_ref().unwrap().partitions.len();
    assert!(found > 0, "the search finds something");
    let index = world
        .disk
        .files()
        .iter()
        .filter(|file| file.to_string_lossy().contains("by_v"))
        .count();
    assert!(index > 5, "{index} files of the index");
    let (noticed, _) = campaign(&world, &intact, "by_v", 20);
    assert!(noticed > 60, "{noticed}");
}

/// What reads a snapshot finds the damaged note `file`: a schema by any byte, a manifest where its meaning changed.
fn check_notes(world: &World, file: &Path, context: &str) {
    let env = MemoryEnv::new(world.disk.clone(), 9);
    let noted = env.block_on(offline::verify_notes(&*env.disk(), file.parent().unwrap()));
    env.kill();
    match noted.expect("nothing stands still") {
        Ok(()) => assert!(file.ends_with("manifest.json"), "{context}: nobody noticed"),
        Err(error) => assert!(
            error.to_string().contains(&*file.to_string_lossy()),
            "{context}: {error}"
        ),
    }
}

/// Everything else that a data folder holds: records, notes, a transaction, the index's mark, the layout, a snapshot.
#[test]
fn damage_in_records_is_noticed_or_harmless() {
    let (world, _) = world("LZ4Compressor", 4, true);
    // A truncation, a snapshot, and two sstables that a compaction is just replacing by one when the machine stops.
    let env = MemoryEnv::new(world.disk.clone(), 5);
    env.block_on(async {
        let database = open_as(&env, large_options(), &world.schema).await.unwrap();
        database.truncate(TABLE, Timestamp(1)).await.unwrap();
        fill(&database, 6).await;
        database.flush(None).await.unwrap();
        fill(&database, 7).await;
        database.flush(None).await.unwrap();
        let part = database
            .link_snapshot(&[TABLE], "tag", true)
            .await
            .unwrap()
            .remove(0);
        let note = SnapshotNote {
            created_at: 1_700_000_000_000,
            expires_at: Some(1_700_000_060_000),
            schema: "CREATE TABLE ks.t ...".to_owned(),
            token_ranges: vec![(5, -5)],
        };
        database
            .finish_snapshot(TABLE, "tag", part.files, &note)
            .await
            .unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        world.disk.set_latency(Some(Latency::SOLID_STATE));
        let (disk, clock) = (world.disk.clone(), env.clone());
        let watcher = async move {
            while files_ending(&disk, DATA, ".txn").is_empty() {
                clock.tasks().sleep(Duration::from_micros(5)).await;
            }
            disk.crash();
        };
        env.tasks().spawn(TaskQueue::Maintenance, Box::pin(watcher));
        database.compact(TABLE).await.unwrap();
    });
    env.kill();
    world.disk.set_latency(None);
    world.disk.restart();
    let saved = world.saved();
    let (intact, verified) = world.ask().unwrap();
    verified.unwrap();
    world.restore(&saved);
    let snapshots = |world: &World| {
        let env = MemoryEnv::new(world.disk.clone(), 8);
        let shown = env.block_on(async {
            let database = open_as(&env, large_options(), &world.schema).await.unwrap();
            database.snapshots().await.unwrap()
        });
        env.kill();
        shown.expect("nothing stands still")
    };
    let shown = snapshots(&world);
    assert_eq!(shown.len(), 1);
    world.restore(&saved);
    let mut dice = Dice::new(5);
    for (end, must_be_noticed) in [
        (".txn", true),
        ("ceto-truncated-0", true),
        ("ceto-built-0", false),
        ("layout", false),
        ("manifest.json", false),
        ("schema.cql", false),
    ] {
        let files: Vec<_> = saved
            .iter()
            .filter(|(file, _)| file.to_string_lossy().ends_with(end))
            .collect();
        assert!(!files.is_empty(), "{end}");
        for (file, content) in files {
            let mut ways: Vec<(String, Vec<u8>)> = Vec::new();
            for at in places(content.len(), 60, &mut dice) {
                let mut damaged = content.clone();
                damaged[at] ^= 1 << dice.below(8);
                ways.push((format!("byte {at}"), damaged));
            }
            for length in places(content.len(), 20, &mut dice) {
                ways.push((format!("cut to {length}"), content[..length].to_vec()));
            }
            for (way, damaged) in ways {
                let context = format!("{}, {way}", file.display());
                let is_noticed = world.check(file, Some(damaged.clone()), &intact, &context);
                assert!(is_noticed || !must_be_noticed, "{context}: nobody noticed");
                world.restore(&saved);
                let is_note = end == "manifest.json" || end == "schema.cql";
                if is_note {
                    world.disk.set_content(file, damaged.clone());
                    check_notes(&world, file, &context);
                    world.restore(&saved);
                }
                if end == "manifest.json" {
                    world.disk.set_content(file, damaged);
                    let found = snapshots(&world);
                    // The same, or of an unknown time: above all it does not expire.
                    let is_unknown = found[0].created_at.is_none() && found[0].expires_at.is_none();
                    assert!(
                        found == shown || found.len() == 1 && is_unknown,
                        "{context}: {found:?}"
                    );
                    world.restore(&saved);
                }
            }
        }
    }
}

/// Batch mode: each write is synced before the next, whose entry says so. Of the last one nobody can tell whether it was
/// synced; the header's fields are all known otherwise.
#[test]
fn damage_in_segments_of_the_log_is_noticed_or_harmless() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let world = {
            let (disk, _) = machine(6);
            World {
                disk,
                schema: schema_with("LZ4Compressor", false),
                options: StorageOptions {
                    commitlog_segment_size: 8 << 10,
                    commitlog_compression: Compression {
                        codec,
                        ..Compression::default()
                    },
                    ..options(0, 1)
                },
                is_indexed: false,
            }
        };
        const WRITES: u64 = 9;
        let env = MemoryEnv::new(world.disk.clone(), 6);
        env.block_on(async {
            let database = open_as(&env, world.options.clone(), &world.schema).await.unwrap();
            for number in 0..WRITES {
                let value = b"some value ".repeat(12);
                database.write(row_write(number, 1, 1, &value)).await.unwrap();
            }
        })
        .unwrap();
        env.kill();
        let saved = world.saved();
        let is_used = |content: &[u8]| content.iter().skip(60).any(|byte| *byte != 0);
        let mut segments = saved
            .iter()
            .filter(|(file, content)| file.extension().is_some_and(|end| end == "log") && is_used(content));
        let (file, content) = segments.next().unwrap();
        assert!(segments.next().is_none());
        let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let find = |at: usize, damaged: Vec<u8>| {
            world.disk.set_content(file, damaged);
            let env = MemoryEnv::new(world.disk.clone(), 7);
            let found = env.block_on(async {
                let database = open_as(&env, world.options.clone(), &world.schema).await?;
                let result = database.read(&read_all()).await?;
                Ok::<usize, Error>(result.partitions.len())
            });
            env.kill();
            world.restore(&saved);
            match found.expect("nothing stands still") {
                Ok(found) => Some(found as u64),
                Err(Error::Corrupt(corruption)) => {
                    assert_eq!(corruption.file, *file, "byte {at}");
                    let offset = corruption.offset as usize;
                    assert!(offset <= at && at < offset + 300, "byte {at}: {corruption:?}");
                    None
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        };
        let (mut noticed, mut torn, mut harmless) = (0, 0, 0);
        let mut dice = Dice::new(7);
        for at in places(content.len(), 400, &mut dice) {
            let mut damaged = content.clone();
            damaged[at] ^= 1 << dice.below(8);
            match find(at, damaged) {
                None => noticed += 1,
                Some(WRITES) => harmless += 1,
                Some(found) => {
                    assert_eq!(found, WRITES - 1, "{codec:?}, byte {at}");
                    assert!(
                        at >= end * 3 / 4,
                        "{codec:?}, byte {at} of {end}: a synced write is gone"
                    );
                    torn += 1;
                }
            }
        }
        println!("{codec:?}: {noticed} noticed, {torn} of the last entry, {harmless} harmless");
        assert!(noticed > 10, "{codec:?}: {noticed} noticed");
    }
}
