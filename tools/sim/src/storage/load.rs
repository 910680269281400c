//! One life of a node under load: clients, an operator, and a watcher of the bounds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ceto_env::{Env, TaskQueue};
use ceto_model::read::ResumePoint;
use ceto_model::{ReadResult, ReadTarget, Timestamp, UnixSeconds};
use ceto_storage::{Database, Error};

use super::faults::{Nemesis, Trouble};
use super::indexes::{INDEXED, Indexes};
use super::node::{Settings, Shards, within};
use super::oracle::Oracle;
use super::pairs::{PAIR_TABLES, Pairs};
use super::workload::{PARTITIONS, Part, Read, TABLES, Workload, found, key, table_id};
use crate::oracle::Violation;

/// Clients that work at the same time.
pub const CLIENTS: usize = 5;
/// A client's patience with a write or read.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An operator's patience with a flush or compaction.
const LONG_TIMEOUT: Duration = Duration::from_secs(300);
/// Time between looks at the bounds.
const WATCH_PERIOD: Duration = Duration::from_millis(50);

/// What all tasks of a run share.
pub struct Shared {
    /// The world.
    pub env: Rc<dyn Env>,
    /// Judges.
    pub oracle: RefCell<Oracle>,
    /// Draws.
    pub workload: RefCell<Workload>,
    /// Breaks.
    pub nemesis: RefCell<Nemesis>,
    /// Writes of two tables.
    pub pairs: RefCell<Pairs>,
    /// Reads by indexes.
    pub indexes: RefCell<Indexes>,
    /// Options.
    pub settings: Settings,
    /// What must not have happened.
    pub violations: RefCell<Vec<Violation>>,
    /// Operations that did what was asked.
    pub succeeded: Cell<u64>,
    /// Operations that were refused, failed or took too long.
    pub failed: Cell<u64>,
    /// The shards, while they are open.
    pub shards: RefCell<Option<Rc<Shards>>>,
    /// Writes may meet a full disk in this life.
    pub may_be_full: Cell<bool>,
    /// The node shuts down: clients end.
    pub is_ending: Cell<bool>,
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Shared {
    /// Something that must not happen did.
    pub fn violation(&self, checker: u8, text: String) {
        let at = self.env.clock().unix_micros() % 1_000_000_000_000;
        self.violations
            .borrow_mut()
            .push(Violation::new(checker, format!("[{at} us] {text}")));
    }

    fn now(&self) -> i64 {
        self.env.clock().unix_seconds()
    }

    /// Counts an operation's end. An error needs a cause.
    fn note(&self, what: &str, result: Option<&Result<(), Error>>) {
        match result {
            Some(Ok(())) => add(&self.succeeded),
            Some(Err(error)) => {
                add(&self.failed);
                let has_cause = match error {
                    Error::DiskFull(_) | Error::SpaceNeeded { .. } => self.may_be_full.get(),
                    Error::Overloaded { .. } | Error::MutationTooLarge { .. } => true,
                    Error::Closed => self.is_ending.get(),
                    _ => self.nemesis.borrow().may_fail(),
                };
                if !has_cause {
                    self.violation(0, format!("{what} failed without a cause: {error}"));
                }
            }
            None => {
                add(&self.failed);
                if !self.may_be_full.get() && !self.nemesis.borrow().may_fail() {
                    self.violation(6, format!("{what} was not answered in time"));
                }
            }
        }
    }

    /// Works until the machine stops it.
    pub fn spawn_load(self: &Rc<Self>) {
        for _ in 0..CLIENTS {
            let this = self.clone();
            let client = async move {
                while !this.is_ending.get() {
                    let think = this.workload.borrow_mut().random().below(150_000);
                    this.env.tasks().sleep(Duration::from_micros(think)).await;
                    this.operate().await;
                }
            };
            self.env.tasks().spawn(TaskQueue::Statement, Box::pin(client));
        }
        if self.pairs.borrow().is_on() {
            let this = self.clone();
            let client = async move {
                while !this.is_ending.get() {
                    let think = this.pairs.borrow_mut().below(300_000);
                    this.env.tasks().sleep(Duration::from_micros(think)).await;
                    this.write_pair().await;
                }
            };
            self.env.tasks().spawn(TaskQueue::Statement, Box::pin(client));
        }
        if !self.indexes.borrow().tables().is_empty() {
            let this = self.clone();
            let client = async move {
                while !this.is_ending.get() {
                    let think = this.indexes.borrow_mut().below(300_000);
                    this.env.tasks().sleep(Duration::from_micros(think)).await;
                    let read = this.indexes.borrow_mut().read();
                    if let Some(read) = read {
                        this.read_and_check(&read, false).await;
                    }
                }
            };
            self.env.tasks().spawn(TaskQueue::Statement, Box::pin(client));
        }
        let this = self.clone();
        let watcher = async move {
            loop {
                this.env.tasks().sleep(WATCH_PERIOD).await;
                this.watch(false);
            }
        };
        self.env.tasks().spawn(TaskQueue::Control, Box::pin(watcher));
    }

    fn shards(&self) -> Rc<Shards> {
        self.shards
            .borrow()
            .clone()
            .expect("the load runs only while shards are open")
    }

    /// Checker 8.
    pub fn watch(&self, is_quiet: bool) {
        for database in &self.shards().databases {
            if let Some(text) = self.settings.exceeded(database, is_quiet) {
                self.violation(8, text);
            }
        }
    }

    async fn operate(&self) {
        let kind = self.workload.borrow_mut().random().below(1000);
        match kind {
            0..=599 => self.write().await,
            600..=949 => self.read().await,
            950..=969 => self.flush().await,
            970..=979 => self.sync().await,
            980..=989 => self.compact().await,
            990..=992 => self.truncate().await,
            _ => self.verify().await,
        }
    }

    /// One write, to its end.
    pub async fn write(&self) {
        let now = self.env.clock().unix_micros();
        let write = self.workload.borrow_mut().write(now);
        let (_, database) = self.shards().of(write.partition);
        let id = self.oracle.borrow_mut().begin(&write);
        let result = within(&*self.env, TIMEOUT, database.write(write.mutation)).await;
        self.note("a write", result.as_ref());
        let mut oracle = self.oracle.borrow_mut();
        match result {
            Some(Ok(())) => oracle.acknowledge(id, self.settings.is_durable()),
            Some(Err(
                Error::DiskFull(_)
                | Error::Overloaded { .. }
                | Error::WriteWaitedTooLong { .. }
                | Error::MutationTooLarge { .. },
            )) => {
                let violation = oracle.refuse(id);
                drop(oracle);
                self.violations.borrow_mut().extend(violation);
            }
            Some(Err(_)) | None => oracle.lose(id),
        }
    }

    /// A write of two tables, now and then with a flush of one of them meanwhile.
    async fn write_pair(&self) {
        let now = self.env.clock().unix_micros();
        let Some(pair) = self.pairs.borrow_mut().begin(now) else {
            return;
        };
        let (_, database) = self.shards().of(pair.partition);
        let flushed = self.pairs.borrow_mut().below(20) as usize;
        if let Some(table) = PAIR_TABLES.get(flushed) {
            let (database, table) = (database.clone(), table_id(*table));
            // Its failure shows elsewhere.
            let flush = async move { drop(database.flush(Some(table)).await) };
            self.env.tasks().spawn(TaskQueue::MemtableFlush, Box::pin(flush));
        }
        let is_split = self.pairs.borrow().is_split;
        let write = async {
            if !is_split {
                return database.write_together(pair.parts).await;
            }
            for part in pair.parts {
                database.write(part).await?;
            }
            database.sync().await
        };
        let result = within(&*self.env, LONG_TIMEOUT, write).await;
        self.note("a write of two tables", result.as_ref());
        if let Some(Ok(())) = result {
            self.pairs.borrow_mut().acknowledge(pair.number);
        }
    }

    /// Compares what both tables have of such writes.
    pub async fn check_pairs(&self) {
        if !self.pairs.borrow().is_on() {
            return;
        }
        for partition in 0..PARTITIONS {
            let mut rows: [Vec<u8>; 2] = Default::default();
            for (rows, table) in rows.iter_mut().zip(PAIR_TABLES) {
                let read = Read {
                    partition: Some(partition),
                    rows: (0, u8::MAX),
                    ..Read::whole(table)
                };
                match self.collect(&read, self.now()).await {
                    Ok(values) => rows.extend(values.iter().filter_map(|(slot, ..)| slot.row)),
                    Err(error) => self.violation(0, format!("a read failed without a cause: {error}")),
                }
            }
            let wrong = self.pairs.borrow().check(partition, [&rows[0], &rows[1]]);
            wrong.into_iter().for_each(|text| self.violation(7, text));
        }
    }

    /// Reads all of what indexes find, while nobody writes.
    pub async fn check_indexes(&self) {
        let tables = self.indexes.borrow().tables().to_vec();
        for table in tables {
            let reads = self.indexes.borrow_mut().whole(table);
            for read in reads {
                self.read_and_check(&read, false).await;
            }
        }
    }

    /// Indexes are built, some time after a start.
    pub fn check_built(&self) {
        for table in self.indexes.borrow().tables() {
            for database in &self.shards().databases {
                let states = database.index_states(table_id(*table)).unwrap_or_default();
                let is_built = !states.is_empty() && states.iter().all(|(_, is_built)| *is_built);
                if !is_built {
                    self.violation(6, format!("an index of table {table} is not built: {states:?}"));
                }
            }
        }
    }

    async fn read(&self) {
        let read = self.workload.borrow_mut().read();
        self.read_and_check(&read, false).await;
    }

    /// One read of all shards that it concerns, judged. False when it failed.
    pub async fn read_and_check(&self, read: &Read, is_start: bool) -> bool {
        let begun = self.oracle.borrow_mut().begin_read(self.now());
        let result = within(&*self.env, TIMEOUT, self.collect(read, begun.now)).await;
        let (outcome, values) = match result {
            Some(Ok(values)) => (Some(Ok(())), values),
            Some(Err(error)) => (Some(Err(error)), Vec::new()),
            None => (None, Vec::new()),
        };
        self.note("a read", outcome.as_ref());
        if !matches!(outcome, Some(Ok(()))) {
            return false;
        }
        let until = self.now();
        let mut oracle = self.oracle.borrow_mut();
        let violations = if is_start {
            oracle.check_start(read.table, begun.now, &values)
        } else {
            oracle.check_read(read, begun, until, &values)
        };
        drop(oracle);
        for violation in violations {
            self.violation(violation.checker, violation.text);
        }
        true
    }

    async fn collect(
        &self,
        read: &Read,
        now: i64,
    ) -> Result<Vec<(super::workload::Slot, i64, bytes::Bytes)>, Error> {
        let shards = self.shards();
        let databases = match read.partition {
            Some(partition) => vec![shards.of(partition).1],
            None => shards.databases.clone(),
        };
        let now = UnixSeconds(now);
        let searches = match read.entries {
            None => vec![None],
            Some(entries) => entries.searches(read.table).into_iter().map(Some).collect(),
        };
        let mut values = Vec::new();
        for (database, search) in databases
            .iter()
            .flat_map(|database| searches.iter().map(move |search| (database, search)))
        {
            let mut command = read.command(now);
            command.index = search.clone().map(Box::new);
            loop {
                let result: ReadResult = match database.try_read(&command) {
                    Some(result) => result?,
                    None => database.read(&command).await?,
                };
                values.extend(found(read.table, &result, now));
                match (&command.target, result.resume) {
                    (_, None) | (ReadTarget::Partition(_), Some(ResumePoint::Ring(_))) => break,
                    (_, Some(resume)) => command = read.next_page(&command, resume),
                }
            }
        }
        if read.entries.is_some() {
            // Of a row that an entry points at nothing else is judged.
            values.retain(|(slot, ..)| slot.part == Part::Column(INDEXED));
        }
        Ok(values)
    }

    fn any_shard(&self) -> (u16, Rc<Database>) {
        let shards = self.shards();
        let shard = self
            .workload
            .borrow_mut()
            .random()
            .below(u64::from(shards.count())) as u16;
        (shard, shards.databases[usize::from(shard)].clone())
    }

    fn any_table(&self) -> u8 {
        self.workload.borrow_mut().random().below(TABLES.into()) as u8
    }

    async fn flush(&self) {
        let (shard, database) = self.any_shard();
        let table = self.any_table();
        let since = self.oracle.borrow_mut().moment();
        let result = within(&*self.env, LONG_TIMEOUT, database.flush(Some(table_id(table)))).await;
        self.note("a flush", result.as_ref());
        if let Some(Ok(())) = result {
            self.make_durable(since, shard, Some(table), false);
        }
    }

    async fn sync(&self) {
        let (shard, database) = self.any_shard();
        let since = self.oracle.borrow_mut().moment();
        let result = within(&*self.env, LONG_TIMEOUT, database.sync()).await;
        self.note("a sync", result.as_ref());
        if let Some(Ok(())) = result {
            self.make_durable(since, shard, None, true);
        }
    }

    /// What a shard had at `since` survives power loss.
    pub fn make_durable(&self, since: u64, shard: u16, table: Option<u8>, own_only: bool) {
        let count = self.shards().count();
        self.oracle
            .borrow_mut()
            .make_durable(since, own_only, |own_table, partition| {
                table.is_none_or(|table| table == own_table) && key(partition).token.shard(count) == shard
            });
    }

    async fn compact(&self) {
        let (_, database) = self.any_shard();
        let table = table_id(self.any_table());
        let result = within(&*self.env, LONG_TIMEOUT, Box::pin(database.compact(table))).await;
        // A truncation meanwhile ends a compaction.
        if let Some(Err(Error::Closed)) = result {
            return;
        }
        self.note("a compaction", result.as_ref());
    }

    async fn verify(&self) {
        let (_, database) = self.any_shard();
        let result = within(
            &*self.env,
            LONG_TIMEOUT,
            database.verify(table_id(self.any_table())),
        )
        .await;
        self.note("a verification", result.as_ref());
    }

    async fn truncate(&self) {
        let table = self.any_table();
        let shards = self.shards();
        let count = shards.count();
        for (shard, database) in (0..).zip(&shards.databases) {
            let covers = |partition: u8| key(partition).token.shard(count) == shard;
            let number = self.oracle.borrow_mut().begin_truncation(table, covers);
            let at = Timestamp(self.env.clock().unix_micros());
            let result = within(&*self.env, LONG_TIMEOUT, database.truncate(table_id(table), at)).await;
            self.note("a truncation", result.as_ref());
            let mut oracle = self.oracle.borrow_mut();
            match result {
                Some(Ok(())) => oracle.end_truncation(table, number),
                Some(Err(Error::DiskFull(_))) if !database.stats().refuses_writes => {
                    oracle.refuse_truncation(table, number);
                }
                // Refused because writes are stopped, or failed in the middle: both leave it open.
                _ => oracle.fail_truncation(table, number),
            }
        }
    }

    /// With the disk mended, and no failure that stopped writes, each shard takes writes again soon.
    pub async fn check_resumed(&self) {
        for partition in 0..PARTITIONS {
            let (_, database) = self.shards().of(partition);
            if !database.stats().refuses_writes {
                continue;
            }
            let now = self.env.clock().unix_micros();
            let write = self.workload.borrow_mut().write(now);
            let (_, database) = self.shards().of(write.partition);
            let id = self.oracle.borrow_mut().begin(&write);
            let result = within(&*self.env, TIMEOUT, database.write(write.mutation)).await;
            let is_full = matches!(&result, Some(Err(Error::DiskFull(_))) | None);
            match result {
                Some(Ok(())) => self
                    .oracle
                    .borrow_mut()
                    .acknowledge(id, self.settings.is_durable()),
                _ => self.oracle.borrow_mut().lose(id),
            }
            if is_full {
                self.violation(6, "writes do not resume though there is space".to_owned());
            }
        }
    }

    /// The disk's space comes and goes while this runs.
    pub async fn turn_space(&self, disk: &ceto_env::memory::MemoryDisk) {
        if !self.nemesis.borrow().has(Trouble::Full) {
            return std::future::pending().await;
        }
        self.may_be_full.set(true);
        loop {
            let pause = self.nemesis.borrow_mut().until_space_turns();
            self.env.tasks().sleep(pause).await;
            self.nemesis.borrow_mut().turn_space(disk);
        }
    }
}
