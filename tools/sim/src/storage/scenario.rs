//! The lives of a node, from the empty disk to the last check.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ceto_cluster::Random;
use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_storage::Error;

use super::faults::{Nemesis, Trouble};
use super::indexes::{Indexes, index_id};
use super::load::Shared;
use super::node::{DATA, Settings, Shards, within};
use super::oracle::{End, Oracle};
use super::pairs::{PAIR_TABLES, Pairs};
use super::sabotage::{Sabotage, SabotagedEnv};
use super::workload::{Read, TABLES, TableShape, Workload, schema};
use crate::oracle::Violation;

/// How a run is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Lives of the node at most.
    pub lives: u64,
    /// Longest life under load, in virtual time.
    pub load: Duration,
    /// The engine broken on purpose.
    pub sabotage: Sabotage,
    /// The only kind of trouble, often; None: what the seed picks.
    pub trouble: Option<Trouble>,
    /// Writes of two tables that are one; None: in a third of the runs.
    pub pairs: Option<bool>,
    /// Tables have indexes; None: in half of the runs.
    pub indexes: Option<bool>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            lives: 6,
            load: Duration::from_secs(40),
            sabotage: Sabotage::None,
            trouble: None,
            pairs: None,
            indexes: None,
        }
    }
}

/// How a run went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What decided everything.
    pub seed: u64,
    /// Hash over all that happened.
    pub trace: u64,
    /// Task turns.
    pub turns: u64,
    /// Operations that did what was asked.
    pub succeeded: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Disk operations that were made to fail.
    pub disk_failures: u64,
    /// What must not have happened.
    pub violations: Vec<Violation>,
}

/// Time for a node to start, on the virtual clock.
const START_MAX: Duration = Duration::from_secs(3600);
/// Time in which everything that was under way ends.
const QUIET: Duration = Duration::from_secs(30);
/// Largest number of shards.
const SHARDS_MAX: u64 = 3;

/// Runs `seed` as planned.
pub fn run(seed: u64, plan: Plan) -> Outcome {
    let disk = MemoryDisk::new(seed);
    let mut random = Random::salted(seed, "storage scenario");
    let mut shapes: Vec<TableShape> = (0..TABLES).map(|_| TableShape::draw(&mut random)).collect();
    let mut pairs = Pairs::default();
    let mut others = Random::salted(seed, "storage pairs");
    let has_pairs = others.chance(1, 3);
    if plan.pairs.unwrap_or(has_pairs) {
        pairs = Pairs::new(seed, plan.sabotage == Sabotage::SplitsPairs);
        shapes.extend(PAIR_TABLES.map(|_| TableShape::draw(&mut others)));
    }
    let mut indexes = Indexes::default();
    let has_indexes = Random::salted(seed, "storage indexes").chance(1, 2);
    if plan.indexes.unwrap_or(has_indexes) {
        indexes = Indexes::new(seed, TABLES);
        for table in indexes.tables() {
            shapes[usize::from(*table)].is_indexed = true;
        }
    }
    let env = MemoryEnv::new(disk.clone(), random.next());
    let mut run = Run {
        shards: random.between(1..=SHARDS_MAX) as u16,
        schema: schema(&shapes),
        tables: shapes.len() as u8,
        pairs,
        indexes,
        settings: Settings::new(seed),
        oracle: Oracle::default(),
        workload: Workload::new(seed),
        nemesis: Nemesis::new(seed, plan.trouble),
        outcome: Outcome {
            seed,
            trace: 0,
            turns: 0,
            succeeded: 0,
            failed: 0,
            disk_failures: 0,
            violations: Vec::new(),
        },
        plan,
        random,
        disk,
        env,
    };
    let lives = run.random.between(2..=plan.lives.max(2));
    for _ in 0..lives {
        run.life(false);
        if !run.outcome.violations.is_empty() {
            break;
        }
    }
    if run.outcome.violations.is_empty() {
        run.life(true);
    }
    run.outcome.disk_failures = run.disk.failed_operations();
    run.outcome
}

struct Run {
    plan: Plan,
    disk: Rc<MemoryDisk>,
    env: Rc<MemoryEnv>,
    random: Random,
    shards: u16,
    schema: std::sync::Arc<ceto_model::Schema>,
    /// Those of pairs too.
    tables: u8,
    pairs: Pairs,
    indexes: Indexes,
    settings: Settings,
    oracle: Oracle,
    workload: Workload,
    nemesis: Nemesis,
    outcome: Outcome,
}

impl Run {
    fn sabotaged(&self) -> Rc<dyn Env> {
        SabotagedEnv::around(self.env.clone(), self.plan.sabotage)
    }

    /// What the tasks of a life share.
    fn share(&mut self) -> Rc<Shared> {
        Rc::new(Shared {
            env: self.env.clone(),
            oracle: RefCell::new(std::mem::take(&mut self.oracle)),
            workload: RefCell::new(std::mem::replace(&mut self.workload, Workload::new(0))),
            pairs: RefCell::new(std::mem::take(&mut self.pairs)),
            indexes: RefCell::new(std::mem::take(&mut self.indexes)),
            nemesis: RefCell::new(std::mem::replace(&mut self.nemesis, Nemesis::new(0, None))),
            settings: self.settings.clone(),
            violations: RefCell::default(),
            succeeded: Cell::default(),
            failed: Cell::default(),
            shards: RefCell::default(),
            may_be_full: Cell::new(false),
            is_ending: Cell::new(false),
        })
    }

    fn unshare(&mut self, shared: &Shared) {
        self.oracle = std::mem::take(&mut *shared.oracle.borrow_mut());
        self.workload = std::mem::replace(&mut *shared.workload.borrow_mut(), Workload::new(0));
        self.nemesis = std::mem::replace(&mut *shared.nemesis.borrow_mut(), Nemesis::new(0, None));
        self.pairs = std::mem::take(&mut *shared.pairs.borrow_mut());
        self.indexes = std::mem::take(&mut *shared.indexes.borrow_mut());
        self.outcome.succeeded += shared.succeeded.get();
        self.outcome.failed += shared.failed.get();
        self.outcome
            .violations
            .append(&mut shared.violations.borrow_mut());
    }

    fn violation(&mut self, checker: u8, text: String) {
        self.outcome.violations.push(Violation::new(checker, text));
    }

    /// The process ends here; the next one starts on the same machine.
    fn next_process(&mut self, end: End) {
        tracing::info!("at {:?}: the process ends: {end:?}", self.env.elapsed());
        self.env.kill();
        let mix = self.outcome.trace ^ self.env.trace();
        self.outcome.trace = mix.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        self.outcome.turns += self.env.turns();
        match end {
            End::PowerLost => self.disk.restart_after_power_loss(),
            End::Drained | End::Killed => self.disk.restart(),
        }
        self.env = self.env.reboot(self.random.next());
    }

    /// From a start to an end.
    fn life(&mut self, is_last: bool) {
        if self.random.chance(1, 3) {
            self.shards = self.random.between(1..=SHARDS_MAX) as u16;
        }
        self.nemesis.mend(&self.disk);
        for _ in 0..self.random.below(3) {
            if self.random.chance(1, 2) {
                self.interrupted_start();
            }
        }
        tracing::info!("at {:?}: {} shards start", self.env.elapsed(), self.shards);
        let shared = self.share();
        let started = {
            let start = Shards::start(self.sabotaged(), &self.settings, self.schema.clone(), self.shards);
            self.env.block_on(within(&*self.env, START_MAX, start)).flatten()
        };
        match started {
            Some(Ok(shards)) => *shared.shards.borrow_mut() = Some(Rc::new(shards)),
            other => {
                let error = other.and_then(Result::err);
                self.unshare(&shared);
                let text = error.map_or("a start stands still".to_owned(), |e| {
                    format!("a start failed: {e}")
                });
                return self.violation(7, text);
            }
        }
        self.env.block_on(async {
            for table in 0..TABLES {
                shared.read_and_check(&Read::whole(table), true).await;
            }
            shared.check_pairs().await;
            shared.check_indexes().await;
        });
        let end = if !shared.violations.borrow().is_empty() {
            End::Killed
        } else if is_last {
            self.last_life(&shared);
            End::Drained
        } else {
            self.load(&shared)
        };
        shared.shards.borrow_mut().take();
        shared.oracle.borrow_mut().end_life(end);
        self.unshare(&shared);
        self.next_process(end);
    }

    /// A start that is cut off: by the death of the process, or by a power loss.
    fn interrupted_start(&mut self) {
        let shards = self.random.between(1..=SHARDS_MAX) as u16;
        let is_power = self.random.chance(1, 2);
        self.disk.crash_after(self.random.below(300));
        let start = Shards::start(self.sabotaged(), &self.settings, self.schema.clone(), shards);
        let outcome = self.env.block_on(start);
        if let Some(Err(error)) = outcome {
            self.violation(7, format!("a start failed: {error}"));
        }
        // What the life before it wrote and did not sync is in the kernel still, or lost now.
        let end = if is_power { End::PowerLost } else { End::Killed };
        self.oracle.end_life(end);
        self.next_process(end);
    }

    /// Load until the end that the seed wants.
    fn load(&mut self, shared: &Rc<Shared>) -> End {
        shared.nemesis.borrow_mut().begin(&self.disk);
        let failed_before = self.disk.failed_operations();
        shared.spawn_load();
        let time = self.random.below(self.plan.load.as_micros() as u64);
        let kind = self.random.below(5);
        if kind < 2 {
            // In the middle of a disk operation.
            self.disk.crash_after(time / 5_000 * self.random.below(8));
        }
        let disk = self.disk.clone();
        let is_over = self.env.block_on(async {
            let load = within(&*self.env, Duration::from_micros(time), shared.turn_space(&disk));
            load.await;
        });
        let mut end = match kind {
            0 | 2 => End::Killed,
            1 | 3 => End::PowerLost,
            _ if is_over.is_some() => self.drain(shared),
            _ => End::Killed,
        };
        // After a failed sync the kernel may forget what it could not write.
        let has_failed = self.disk.failed_operations() > failed_before;
        if end == End::Killed && has_failed {
            end = End::PowerLost;
        }
        shared.nemesis.borrow().mend(&self.disk);
        end
    }

    /// All is mended, the node shuts down in order; what ran meanwhile was cut off.
    fn drain(&mut self, shared: &Rc<Shared>) -> End {
        shared.nemesis.borrow().mend(&self.disk);
        shared.is_ending.set(true);
        let drained = self.env.block_on(async {
            self.env.tasks().sleep(QUIET).await;
            shared.check_resumed().await;
            let shards = shared.shards.borrow().clone().expect("the load has just run");
            let mut is_drained = true;
            for database in &shards.databases {
                let result = within(&*self.env, START_MAX, database.drain()).await;
                match result {
                    Some(Ok(())) => {}
                    Some(Err(error)) if shared.nemesis.borrow().may_fail() => {
                        is_drained = false;
                        let _: Error = error;
                    }
                    Some(Err(error)) => shared.violation(0, format!("a drain failed: {error}")),
                    None => shared.violation(6, "a drain stands still".to_owned()),
                }
            }
            is_drained
        });
        // What was not drained dies with the process.
        match drained {
            Some(true) => End::Drained,
            _ => End::Killed,
        }
    }

    /// Nothing goes wrong any more: all is flushed, ages, is compacted, and is still there.
    fn last_life(&mut self, shared: &Rc<Shared>) {
        self.disk.set_latency(None);
        let done = self.env.block_on(async {
            let shards = shared.shards.borrow().clone().expect("just started");
            for _ in 0..50 {
                shared.write().await;
            }
            for database in &shards.databases {
                for round in 0..2 {
                    if let Err(error) = database.flush(None).await {
                        shared.violation(0, format!("a flush of a whole node failed: {error}"));
                    }
                    for table in 0..self.tables {
                        if let Err(error) = database.compact(super::workload::table_id(table)).await {
                            shared.violation(0, format!("a compaction of a whole node failed: {error}"));
                        }
                    }
                    if round == 0 {
                        // Past gc grace.
                        self.env.tasks().sleep(Duration::from_secs(90)).await;
                    }
                }
            }
            self.check_all(shared).await;
            for database in &shards.databases {
                for table in 0..self.tables {
                    if let Err(error) = database.verify(super::workload::table_id(table)).await {
                        shared.violation(0, format!("a whole node does not verify: {error}"));
                    }
                }
                shared.watch(true);
                if let Err(error) = database.drain().await {
                    shared.violation(0, format!("a whole node does not drain: {error}"));
                }
            }
            self.env.tasks().sleep(QUIET).await;
            self.check_files(shared, &shards);
        });
        if done.is_none() {
            shared.violation(6, "a whole node stands still".to_owned());
        }
    }

    async fn check_all(&self, shared: &Shared) {
        for table in 0..TABLES {
            for reversed in [false, true] {
                let read = Read {
                    reversed,
                    ..Read::whole(table)
                };
                shared.read_and_check(&read, false).await;
            }
        }
        shared.check_pairs().await;
        shared.check_built();
        shared.check_indexes().await;
    }

    /// Nothing is left over: every file of a table belongs to a live sstable or is a record.
    fn check_files(&self, shared: &Shared, shards: &Shards) {
        let mut live = Vec::new();
        for database in &shards.databases {
            let tables = (0..self.tables).map(super::workload::table_id);
            let indexed = shared.indexes.borrow().tables().to_vec();
            for table in tables.chain(indexed.into_iter().map(index_id)) {
                let sstables = database.sstables(table);
                live.extend(
                    sstables
                        .into_iter()
                        .map(|(descriptor, _)| (descriptor.dir.clone(), descriptor.prefix())),
                );
            }
        }
        let tables = std::path::Path::new(DATA).join("data");
        for file in self.disk.files().iter().filter(|file| file.starts_with(&tables)) {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let is_live = live
                .iter()
                .any(|(dir, prefix)| file.starts_with(dir) && name.starts_with(&format!("{prefix}-")));
            let is_record = ["ceto-truncated-", "ceto-built-"];
            if !is_live && !is_record.iter().any(|record| name.starts_with(record)) {
                shared.violation(8, format!("{} is left over", file.display()));
            }
        }
    }
}
