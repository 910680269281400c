//! A node's storage: the databases of all shards over one environment.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ceto_cluster::Random;
use ceto_env::{Env, LocalFuture};
use ceto_model::Schema;
use ceto_storage::{CommitlogSync, Database, Error, StorageOptions, reshard};

use super::workload::key;

/// Where the files are.
pub const DATA: &str = "/ceto";

/// Options of all shards in a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When writes are synced.
    pub sync: CommitlogSync,
    segment_size: u32,
    segments: u64,
    memtable_space: usize,
    block_cache: usize,
    waiting_writes: usize,
    throughput: u64,
}

impl Settings {
    /// Of `seed`.
    pub fn new(seed: u64) -> Settings {
        let mut random = Random::salted(seed, "storage settings");
        let sync = match random.below(4) {
            0 => CommitlogSync::Batch,
            1 => CommitlogSync::Group {
                window: Duration::from_millis(random.between(1..=20)),
            },
            _ => CommitlogSync::Periodic {
                period: Duration::from_millis(random.between(100..=10_000)),
            },
        };
        Settings {
            sync,
            segment_size: 1024 * random.between(20..=48) as u32,
            segments: random.between(3..=8),
            memtable_space: 1024 * random.between(24..=96) as usize,
            block_cache: 1024 * random.between(8..=128) as usize,
            waiting_writes: random.between(4..=64) as usize,
            throughput: if random.chance(1, 3) { 200_000 } else { 0 },
        }
    }

    /// Writes are acknowledged after they are synced.
    pub fn is_durable(&self) -> bool {
        !matches!(self.sync, CommitlogSync::Periodic { .. })
    }

    fn options(&self, shard: u16, shards: u16) -> StorageOptions {
        StorageOptions {
            commitlog_segment_size: self.segment_size,
            commitlog_total_space: self.segments * u64::from(self.segment_size),
            commitlog_sync: self.sync,
            memtable_space: self.memtable_space,
            compaction_throughput: self.throughput,
            block_cache_size: self.block_cache,
            waiting_writes_max: self.waiting_writes,
            ..StorageOptions::new(DATA, shard, shards)
        }
    }

    /// What of a shard's figures exceeds its named maximum; `is_quiet` when it has had the time to do all it wants to.
    pub fn exceeded(&self, database: &Database, is_quiet: bool) -> Option<String> {
        let stats = database.stats();
        let options = self.options(0, 1);
        // A write that found room may be as large as half a segment, and takes some times that in memory.
        let memory_max = stats.memtable_bytes_max + 8 * u64::from(self.segment_size);
        // A start makes a segment beside those that it finds.
        let first_segment = if is_quiet { 0 } else { u64::from(self.segment_size) };
        let log_max = first_segment
            + options
                .commitlog_total_space
                .max(3 * u64::from(self.segment_size));
        let figures = [
            ("memtable_space", stats.memtable_bytes, memory_max),
            (
                "waiting_writes_max",
                stats.waiting_writes,
                self.waiting_writes as u64,
            ),
            (
                "concurrent_compactions",
                stats.running_compactions.len() as u64,
                // Those that were asked for come on top: one of each client.
                (options.concurrent_compactions + super::load::CLIENTS) as u64,
            ),
            (
                "block_cache_size",
                stats.block_cache_bytes,
                stats.block_cache_bytes_max,
            ),
            ("commitlog_total_space", stats.commitlog.disk_bytes, log_max),
        ];
        let over = figures.iter().find(|(_, value, max)| value > max)?;
        Some(format!("{}: {} of {}", over.0, over.1, over.2))
    }
}

/// The shards that run.
pub struct Shards {
    /// By number.
    pub databases: Vec<Rc<Database>>,
}

impl Shards {
    /// Starts a node with so many shards: moves files to that number, opens every shard, finishes recovery.
    ///
    /// # Errors
    /// Of the first shard that fails.
    pub async fn start(
        env: Rc<dyn Env>,
        settings: &Settings,
        schema: Arc<Schema>,
        count: u16,
    ) -> Result<Shards, Error> {
        reshard(env.clone(), &settings.options(0, count)).await?;
        let opened: RefCell<Vec<Option<Rc<Database>>>> = RefCell::new(vec![None; usize::from(count)]);
        let opens = (0..count).map(|shard| -> LocalFuture<'_, Result<(), Error>> {
            let (env, options, schema) = (env.clone(), settings.options(shard, count), schema.clone());
            let opened = &opened;
            Box::pin(async move {
                // As a node does it: first what it knows by itself, then all.
                let database = Database::open(env, options, Arc::new(Schema::default())).await?;
                database.finish_recovery(schema).await?;
                opened.borrow_mut()[usize::from(shard)] = Some(database);
                Ok(())
            })
        });
        join_all(opens.collect()).await?;
        let databases = opened.into_inner().into_iter().flatten().collect();
        Ok(Shards { databases })
    }

    /// Number.
    pub fn count(&self) -> u16 {
        self.databases.len() as u16
    }

    /// The shard that owns a partition.
    pub fn of(&self, partition: u8) -> (u16, Rc<Database>) {
        let shard = key(partition).token.shard(self.count());
        (shard, self.databases[usize::from(shard)].clone())
    }
}

/// Runs all at once; the first error wins, after all are done.
pub async fn join_all(futures: Vec<LocalFuture<'_, Result<(), Error>>>) -> Result<(), Error> {
    let mut running: Vec<Option<LocalFuture<'_, Result<(), Error>>>> =
        futures.into_iter().map(Some).collect();
    let mut failure = None;
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for slot in &mut running {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(context) {
                std::task::Poll::Pending => is_pending = true,
                std::task::Poll::Ready(result) => {
                    *slot = None;
                    failure = failure.take().or(result.err());
                }
            }
        }
        if is_pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    failure.map_or(Ok(()), Err)
}

/// What `future` gives, unless it takes longer than `limit` of virtual time.
pub async fn within<T>(env: &dyn Env, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut late = env.tasks().sleep(limit);
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(value));
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}
