//! Our engine: one shard on the server's executor, ring and files.
//!
//! Commands come in through the shard's mailbox and are carried out in its thread. Reads and writes are made as the
//! server makes them: a read is tried without waiting first, a write is acknowledged at once or later.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ceto_env::{Env, LocalFuture, TaskQueue};
use ceto_model::key::KEY_END;
use ceto_model::read::ColumnSelection;
use ceto_model::schema::{ReplicationOptions, TableBuilder};
use ceto_model::{
    Cell as DataCell, CellState, ClusteringKey, ColumnData, ColumnId, ColumnKind, CqlType, DecoratedKey,
    Keyspace, Liveness, Mutation, PartitionKey, PartitionRange, ReadCommand, ReadLimits, ReadResult,
    ReadTarget, RingPosition, Row, Schema, Slice, TableId, Timestamp, Token, UnixSeconds,
};
use ceto_runtime::{RuntimeOptions, start};
use ceto_storage::{Applied, CommitlogSync, Database, StorageOptions};
use uuid::Uuid;

use crate::allocator::allocations;
use crate::cost::{Moment, REMOVAL, disk_bytes};
use crate::protocol::{Answer, Command, Durability, Report, Setup};
use crate::rows::{Dice, Values, check, key};

mod partitions;
mod tail;
mod throughput;

/// The table.
const TABLE: TableId = TableId(Uuid::from_u128(0xbe7c));
/// Its only column that is no key: the second one.
const VALUE: ColumnId = ColumnId(1);
/// How often it is looked whether flushes and compactions are done.
const SETTLE_POLL: Duration = Duration::from_millis(2);

type Outcome<T> = Result<T, String>;

/// Runs the shard, and hands commands to it until there are no more.
pub(crate) fn serve(setup: Setup, answer: impl FnOnce(&mut dyn FnMut(Command) -> Answer)) -> Outcome<()> {
    let options = RuntimeOptions {
        shards: 1,
        pin: setup.core.is_some(),
        ..RuntimeOptions::default()
    };
    type Message = Option<(Command, Sender<Answer>)>;
    let runtime = start::<Message, _>(&options, move |context| {
        let setup = setup.clone();
        let inbox = Rc::new(Inbox::default());
        let receiver = inbox.clone();
        context.receive(Rc::new(move |_, message| receiver.push(message)));
        Box::pin(async move {
            let mut shard = Shard::new(context.env.clone(), setup);
            while let Some((command, reply)) = inbox.next().await {
                let answer = match shard.perform(command).await {
                    Ok(report) => Answer::Done(report),
                    Err(error) => Answer::Failed(error),
                };
                let _ = reply.send(answer);
            }
        })
    });
    let runtime = runtime.map_err(|error| error.to_string())?;
    let control = runtime.control();
    answer(&mut |command| {
        let (reply, replies) = channel();
        let is_sent = control.send(0, Some((command, reply))).is_ok();
        let answer = if is_sent { replies.recv().ok() } else { None };
        answer.unwrap_or_else(|| Answer::Failed("the shard has ended".to_owned()))
    });
    let _ = control.send(0, None);
    runtime.join().map_err(|error| error.to_string())
}

/// Messages for the main task.
struct Inbox<M> {
    messages: RefCell<VecDeque<M>>,
    waker: RefCell<Option<Waker>>,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Inbox {
            messages: RefCell::default(),
            waker: RefCell::default(),
        }
    }
}

impl<M> Inbox<M> {
    fn push(&self, message: M) {
        self.messages.borrow_mut().push_back(message);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn next(&self) -> M {
        poll_fn(|context| match self.messages.borrow_mut().pop_front() {
            Some(message) => Poll::Ready(message),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// Waits for tasks: each sends how it ended.
type Ends = Rc<Inbox<Outcome<()>>>;

/// What runs in the shard.
struct Shard {
    env: Rc<dyn Env>,
    setup: Rc<Setup>,
    database: Option<Rc<Database>>,
    /// Of the next write.
    timestamp: Rc<Cell<i64>>,
}

/// What a task needs to read and write.
#[derive(Clone)]
struct Client {
    env: Rc<dyn Env>,
    setup: Rc<Setup>,
    database: Rc<Database>,
    timestamp: Rc<Cell<i64>>,
}

impl Shard {
    fn new(env: Rc<dyn Env>, setup: Setup) -> Shard {
        Shard {
            env,
            setup: Rc::new(setup),
            database: None,
            timestamp: Rc::new(Cell::new(1_700_000_000_000_000)),
        }
    }

    async fn perform(&mut self, command: Command) -> Outcome<Report> {
        if let Command::Open {
            cache_size,
            durability,
        } = command
        {
            let mut options = StorageOptions::new(&self.setup.folder, 0, 1);
            // One cache of this size in all: rows and blocks.
            options.row_cache_size = (cache_size as f64 * self.setup.row_cache_part) as usize;
            options.block_cache_size = cache_size - options.row_cache_size;
            options.memtable_space = self.setup.memtable_size;
            options.compaction_throughput = self.setup.compaction_throughput;
            if durability == Durability::Device {
                options.commitlog_sync = CommitlogSync::Batch;
            }
            self.database = Some(open(&self.env, &self.setup, options).await?);
            return Ok(Report::default());
        }
        if let Command::Throughput { rows } = command {
            return throughput::measure(&self.env, &self.setup, rows).await;
        }
        let database = self.database.clone().ok_or("the database is not open")?;
        let client = Client {
            env: self.env.clone(),
            setup: self.setup.clone(),
            database,
            timestamp: self.timestamp.clone(),
        };
        let allocated = allocations();
        let before = Moment::now();
        let mut report = match command {
            Command::Load { from, to } => client.load(from..to, before).await?,
            Command::Overwrite { operations, seed } => {
                let rows = random_rows(operations, seed, self.setup.rows);
                client.load(rows, before).await?
            }
            Command::Write {
                operations,
                seed,
                in_flight,
            } => {
                let each = operations / u64::from(in_flight);
                client
                    .at_once(in_flight, |client, number| {
                        Box::pin(client.write(each, seed + u64::from(number)))
                    })
                    .await?;
                Report {
                    operations: each * u64::from(in_flight),
                    ..Report::default()
                }
            }
            Command::Read {
                operations,
                seed,
                in_flight,
            } => {
                let each = operations / u64::from(in_flight);
                client
                    .at_once(in_flight, |client, number| {
                        Box::pin(client.read(each, seed + u64::from(number)))
                    })
                    .await?;
                Report {
                    operations: each * u64::from(in_flight),
                    ..Report::default()
                }
            }
            Command::Scan {
                operations,
                rows,
                seed,
            } => client.scan(operations, rows, seed).await?,
            Command::LoadPartitions { partitions } => partitions::load(&client, partitions, before).await?,
            Command::ScanPartitions {
                operations,
                partitions,
                seed,
            } => partitions::scan(&client, (operations, partitions), seed).await?,
            Command::Tail { rate, seconds, seed } => tail::measure(&client, rate, seconds, seed).await?,
            Command::Close => {
                drop(client);
                let database = self.database.take().ok_or("the database is not open")?;
                database.drain().await.map_err(|error| error.to_string())?;
                Report::default()
            }
            Command::Open { .. } | Command::Throughput { .. } => return Err("done above".to_owned()),
        };
        report.cost = before.cost();
        report.allocations = Some(allocations() - allocated);
        self.env.tasks().sleep(REMOVAL).await;
        (report.log_bytes, report.data_bytes) = disk_bytes(&self.setup.folder)?;
        Ok(report)
    }
}

/// Opens a database with the table.
async fn open(env: &Rc<dyn Env>, setup: &Setup, options: StorageOptions) -> Outcome<Rc<Database>> {
    let schema = schema(setup);
    let database = Database::open(env.clone(), options, schema.clone()).await;
    let database = database.map_err(|error| error.to_string())?;
    let recovered = database.finish_recovery(schema).await;
    recovered.map_err(|error| error.to_string())?;
    Ok(database)
}

fn schema(setup: &Setup) -> Arc<Schema> {
    let mut builder = TableBuilder::new(TABLE, "perf", "storage");
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Blob);
    builder.add_column("v", ColumnKind::Regular, CqlType::Blob);
    set_options(&mut builder, setup);
    let tables = [Arc::new(builder.build()), Arc::new(partitions::table(setup))];
    let keyspace = Keyspace {
        name: "perf".into(),
        durable_writes: true,
        replication: ReplicationOptions(indexmap::IndexMap::new()),
        tables: tables
            .into_iter()
            .map(|table| (table.name.clone(), table))
            .collect(),
        types: Default::default(),
        functions: Default::default(),
        is_virtual: false,
    };
    Arc::new(Schema::default().with_keyspace(keyspace, Uuid::from_u128(1)))
}

fn set_options(builder: &mut TableBuilder, setup: &Setup) {
    let options = &mut builder.options;
    options.compaction = [("class".to_owned(), setup.compaction.clone())].into();
    options.compression = [
        ("class".to_owned(), "LZ4Compressor".to_owned()),
        (
            "chunk_length_in_kb".to_owned(),
            (setup.block_size >> 10).to_string(),
        ),
    ]
    .into();
}

fn random_rows(count: u64, seed: u64, rows: u64) -> impl Iterator<Item = u64> {
    let mut dice = Dice::new(seed);
    (0..count).map(move |_| dice.below(rows))
}

/// The key of a row, as a request brings it.
fn decorated(row: u64) -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::copy_from_slice(&key(row))))
}

impl Client {
    /// An INSERT.
    fn mutation(&self, row: u64, value: &[u8]) -> Mutation {
        let timestamp = Timestamp(self.timestamp.replace(self.timestamp.get() + 1));
        let mut mutation = Mutation::new(TABLE, decorated(row));
        let cell = DataCell::live(timestamp, Bytes::copy_from_slice(value));
        let content = Row {
            liveness: Some(Liveness {
                timestamp,
                expiry: None,
            }),
            deletion: None,
            columns: vec![(VALUE, ColumnData::Cell(cell))],
        };
        let rows = &mut mutation.partition.rows;
        rows.push((ClusteringKey(Bytes::from_static(&[KEY_END])), content));
        mutation
    }

    async fn put(&self, row: u64, value: &[u8]) -> Outcome<()> {
        let applied = self.database.apply(self.mutation(row, value));
        match applied.map_err(|error| error.to_string())? {
            Applied::Done => {}
            Applied::Later(done) => done.await.map_err(|error| error.to_string())?,
        }
        self.give_way().await;
        Ok(())
    }

    async fn give_way(&self) {
        if let Some(turn) = self.env.tasks().yield_if_due() {
            turn.await;
        }
    }

    /// Writes rows, and waits until nothing is left to flush or to compact.
    async fn load(&self, rows: impl Iterator<Item = u64>, since: Moment) -> Outcome<Report> {
        let mut values = Values::new(self.setup.value_size, 1);
        let (mut value, mut operations) = (Vec::new(), 0);
        for row in rows {
            values.fill(row, &mut value);
            self.put(row, &value).await?;
            operations += 1;
        }
        let accepted_seconds = since.cost().seconds;
        self.settle().await?;
        Ok(Report {
            operations,
            accepted_seconds,
            ..Report::default()
        })
    }

    async fn settle(&self) -> Outcome<()> {
        let flushed = self.database.flush(None).await;
        flushed.map_err(|error| error.to_string())?;
        loop {
            let stats = self.database.stats();
            if stats.pending_flushes == 0
                && stats.pending_compactions == 0
                && stats.running_compactions.is_empty()
            {
                return Ok(());
            }
            self.env.tasks().sleep(SETTLE_POLL).await;
        }
    }

    /// Runs some tasks, and waits for all of them.
    async fn at_once(
        &self,
        count: u32,
        task: impl Fn(Client, u32) -> LocalFuture<'static, Outcome<()>>,
    ) -> Outcome<()> {
        let ends = Ends::default();
        for number in 0..count {
            let (work, ends) = (task(self.clone(), number), ends.clone());
            let work = async move { ends.push(work.await) };
            self.env.tasks().spawn(TaskQueue::Statement, Box::pin(work));
        }
        for _ in 0..count {
            ends.next().await?;
        }
        Ok(())
    }

    async fn write(self, operations: u64, seed: u64) -> Outcome<()> {
        let mut values = Values::new(self.setup.value_size, seed);
        let mut value = Vec::new();
        for row in random_rows(operations, seed, self.setup.rows) {
            values.fill(row, &mut value);
            self.put(row, &value).await?;
        }
        Ok(())
    }

    async fn read(self, operations: u64, seed: u64) -> Outcome<()> {
        let mut command = self.command();
        for row in random_rows(operations, seed, self.setup.rows) {
            command.target = ReadTarget::Partition(decorated(row));
            self.read_one(row, &command).await?;
            self.give_way().await;
        }
        Ok(())
    }

    async fn read_one(&self, row: u64, command: &ReadCommand) -> Outcome<()> {
        let result = self.database.read(command).await;
        let result = result.map_err(|error| error.to_string())?;
        match result
            .partitions
            .first()
            .and_then(|answer| answer.partition.rows.first())
        {
            Some((_, content)) => check(row, value_of(content)?, self.setup.value_size),
            None => Err(format!("row {row} is not there")),
        }
    }

    fn command(&self) -> ReadCommand {
        ReadCommand {
            table: TABLE,
            target: ReadTarget::Range(PartitionRange::full()),
            slices: [Slice::full()].into_iter().collect(),
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::Only(vec![VALUE]),
            now: UnixSeconds(1_700_000_000),
            limits: ReadLimits::NONE,
            keep_tombstones: false,
            bypass_cache: false,
            index: None,
        }
    }

    async fn scan(&self, operations: u64, rows: u64, seed: u64) -> Outcome<Report> {
        let mut command = self.command();
        command.limits.rows = rows;
        let (mut dice, mut found) = (Dice::new(seed), 0);
        for _ in 0..operations {
            command.target = ReadTarget::Range(PartitionRange {
                start: RingPosition::BeforeToken(Token(dice.next() as i64)),
                end: RingPosition::AfterToken(Token::MAX),
            });
            let result = self.database.read(&command).await;
            found += self.count_rows(&result.map_err(|error| error.to_string())?)?;
            self.give_way().await;
        }
        Ok(Report {
            operations: found,
            ..Report::default()
        })
    }

    fn count_rows(&self, result: &ReadResult) -> Outcome<u64> {
        let mut found = 0;
        for answer in &result.partitions {
            for (_, row) in &answer.partition.rows {
                if value_of(row)?.len() != self.setup.value_size {
                    return Err("a scanned row has a value of another size".to_owned());
                }
                found += 1;
            }
        }
        Ok(found)
    }
}

fn value_of(row: &Row) -> Outcome<&[u8]> {
    match row.columns.first() {
        Some((
            _,
            ColumnData::Cell(DataCell {
                state: CellState::Live(value),
                ..
            }),
        )) => Ok(value),
        _ => Err("a row without its value".to_owned()),
    }
}
