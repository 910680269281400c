//! Hints: writes that a replica has missed, on this node's disk until the replica has them.
//!
//! ```text
//! a write that a replica missed --> queue of the target --> file of the target --> delivery --> the replica
//!                                   (while a file is made)                          (in order)
//! ```
//!
//! Each shard keeps its own, in a file at a time for each target ([`segment`]). When the target is up its files are read
//! from the oldest on and delivered ([`delivery`]); a file goes when all of it has been taken. What was stored survives the
//! death of the process, and power loss after a few seconds.
//!
//! Bounds, each with a count in `ceto_hints_dropped_total`: `max_hint_window` for how long a node may be down before no
//! more are kept for it, `max_hints_size_per_host`, and [`QUEUED_MAX`] bytes that wait for a file. Beyond them a replica
//! gets what it missed by read repair and repair; the client's write does not fail for it.
//!
//! Never: a hint delivered after `gc_grace_seconds` of its table, when the deletion that it could undo may be forgotten; one
//! that is older than a truncation; one of a table that is gone.

mod delivery;
mod segment;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_cluster::coordinator::Actions;
use ceto_env::{DiskError, Segment, TaskQueue};
use ceto_internode::{HostId, RequestId};
use ceto_model::{Mutation, TableId};
use rustc_hash::FxHashMap;
use tracing::{info, warn};

use crate::metrics::{Counter, Samples};
use crate::node::Node;
use crate::topology::Topology;
use segment::{FileName, HEADER, entry, header};

/// Bytes of a file; a larger hint gets a file of its own.
const FILE_SIZE: u64 = 4 << 20;
/// Bytes of hints of one shard that wait for a file.
const QUEUED_MAX: usize = 16 << 20;

/// What an operator says of hints.
#[derive(Clone, Debug)]
pub struct HintOptions {
    /// `hinted_handoff_enabled`.
    pub enabled: bool,
    /// `max_hint_window`: a node that is down for longer gets no more hints.
    pub window: Duration,
    /// `max_hints_size_per_host`, bytes of all shards.
    pub size_per_host_max: u64,
    /// `hinted_handoff_throttle`: bytes that one shard delivers in a second; as fast as they are taken when absent.
    pub throttle: Option<u64>,
    /// `hinted_handoff_disabled_datacenters`.
    pub disabled_datacenters: Vec<String>,
}

impl Default for HintOptions {
    fn default() -> Self {
        HintOptions {
            enabled: true,
            window: Duration::from_secs(3 * 3600),
            size_per_host_max: 4 << 30,
            throttle: None,
            disabled_datacenters: Vec::new(),
        }
    }
}

/// The hints of one target.
#[derive(Default)]
struct Target {
    /// The file that is written, and its end.
    open: Option<(FileName, Rc<dyn Segment>, u64)>,
    /// Files that are full, or of an earlier life; delivered in their order.
    full: BTreeSet<FileName>,
    /// What waits for a file.
    queue: VecDeque<(Option<RequestId>, Vec<u8>)>,
    makes_file: bool,
    is_delivering: bool,
    /// Bytes of all its files and of the queue.
    bytes: u64,
    /// No delivery before.
    rests_until: Option<Instant>,
    pause: Duration,
    /// The open file has something that is not synced.
    is_dirty: bool,
}

/// The hints that one shard keeps.
#[derive(Default)]
pub(crate) struct HintStore {
    targets: RefCell<FxHashMap<HostId, Target>>,
    queued: Cell<usize>,
    next_number: Cell<u64>,
    /// The task of [`delivery`] runs.
    is_running: Cell<bool>,
    is_paused: Cell<bool>,
    /// [`Node::enable_hints`] was told so; else the configuration holds.
    is_enabled: Cell<Option<bool>>,
    /// Since when peers are down.
    down_since: RefCell<FxHashMap<HostId, Instant>>,
    /// Tables with the moment of their last truncation in this life, in microseconds: what is older is not delivered.
    truncated: RefCell<FxHashMap<TableId, i64>>,
    stored: Counter,
    delivered: Counter,
    failed: Counter,
    outdated: Counter,
    dropped: [Counter; 4],
}

/// Why a hint is not kept.
#[derive(Clone, Copy)]
enum Dropped {
    Off,
    Window,
    Size,
    Disk,
}

const REASONS: [(Dropped, &str); 4] = [
    (Dropped::Off, "disabled"),
    (Dropped::Window, "window"),
    (Dropped::Size, "size"),
    (Dropped::Disk, "disk"),
];

impl HintStore {
    fn drop_one(&self, why: Dropped) {
        self.dropped[why as usize].increment();
    }

    /// Adds everything to `samples`.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        for (name, help, counter) in [
            (
                "ceto_hints_stored_total",
                "Hints kept for replicas that missed a write.",
                &self.stored,
            ),
            (
                "ceto_hints_delivered_total",
                "Hints that their replica has taken.",
                &self.delivered,
            ),
            (
                "ceto_hints_failed_total",
                "Deliveries of hints that failed; they are tried again.",
                &self.failed,
            ),
            (
                "ceto_hints_outdated_total",
                "Hints that were not delivered because their table is gone, was truncated, or has forgotten deletions by now.",
                &self.outdated,
            ),
        ] {
            samples.counter(name, help, &[], counter.get());
        }
        for (why, name) in REASONS {
            samples.counter(
                "ceto_hints_dropped_total",
                "Mutations that a replica missed and that no hint keeps.",
                &[("reason", name)],
                self.dropped[why as usize].get(),
            );
        }
        let targets = self.targets.borrow();
        let bytes: u64 = targets.values().map(|target| target.bytes).sum();
        let files: usize = targets
            .values()
            .map(|target| target.full.len() + usize::from(target.open.is_some()))
            .sum();
        for (name, help, value) in [
            (
                "ceto_hints_bytes",
                "Bytes of hints that wait for their replicas.",
                bytes as f64,
            ),
            ("ceto_hints_files", "Files of hints.", files as f64),
            (
                "ceto_hints_queued_bytes",
                "Bytes of hints that wait for a file.",
                self.queued.get() as f64,
            ),
        ] {
            samples.gauge(name, help, &[], value);
        }
    }
}

/// What waits for one target on one shard, for operators.
#[derive(Clone, Debug)]
pub struct PendingHints {
    /// Whom they are for.
    pub host: HostId,
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

impl Node {
    fn hints_folder(&self) -> PathBuf {
        self.options.data_directory.join("hints")
    }

    fn hint_path(&self, name: &FileName) -> PathBuf {
        self.hints_folder().join(name.text())
    }

    /// Finds the hints of earlier lives. Called once, before the node talks to others.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub async fn open_hints(self: &Rc<Self>) -> Result<(), String> {
        let folder = self.hints_folder();
        let text = |error: DiskError| error.to_string();
        let disk = self.env.disk();
        disk.create_dir_all(&folder).await.map_err(text)?;
        let mut next = 0;
        for found in disk.list_dir(&folder).await.map_err(text)? {
            let Some(name) = FileName::parse(&found.name) else {
                continue;
            };
            // After a change of the number of shards somebody has to take those of shards that are gone.
            if name.shard % self.shard_count() != self.shard() {
                continue;
            }
            next = next.max(name.number + 1);
            let mut targets = self.hints.targets.borrow_mut();
            let target = targets.entry(name.host).or_default();
            target.full.insert(name);
            target.bytes += found.size;
        }
        self.hints.next_number.set(next);
        if next > 0 {
            self.run_deliveries();
        }
        Ok(())
    }

    /// Keeps a mutation for a replica that has missed it; nobody waits for that.
    pub(crate) fn keep_hint(self: &Rc<Self>, replica: HostId, mutation: &Mutation) {
        let mut actions = Actions::new();
        self.store_hint(replica, None, mutation, &mut actions);
        self.perform(&mut actions);
    }

    /// Keeps a mutation for a replica that has missed it, and tells the coordinator of `request`.
    pub(crate) fn store_hint(
        self: &Rc<Self>,
        replica: HostId,
        request: Option<RequestId>,
        mutation: &Mutation,
        actions: &mut Actions,
    ) {
        if let Err(why) = self.may_hint(replica) {
            return self.hints.drop_one(why);
        }
        let bytes = entry(self.env.clock().unix_micros(), mutation);
        let size = bytes.len();
        let max = self.options.hints.size_per_host_max / u64::from(self.shard_count());
        let mut targets = self.hints.targets.borrow_mut();
        let target = targets.entry(replica).or_default();
        if target.bytes + size as u64 > max || self.hints.queued.get() + size > QUEUED_MAX {
            return self.hints.drop_one(Dropped::Size);
        }
        target.bytes += size as u64;
        if target.queue.is_empty() && target.write(&bytes) {
            drop(targets);
            return self.hint_stored(request, actions);
        }
        self.hints.queued.set(self.hints.queued.get() + size);
        target.queue.push_back((request, bytes));
        if !std::mem::replace(&mut target.makes_file, true) {
            let node = self.clone();
            let task = async move { node.make_hint_files(replica).await };
            self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
        }
        drop(targets);
        self.run_deliveries();
    }

    fn may_hint(&self, replica: HostId) -> Result<(), Dropped> {
        let options = &self.options.hints;
        let topology = self.topology.borrow();
        let peer = topology.peer(replica).ok_or(Dropped::Off)?;
        let is_off = options
            .disabled_datacenters
            .iter()
            .any(|own| **own == *peer.datacenter);
        if !self.keeps_hints() || is_off {
            return Err(Dropped::Off);
        }
        let down = self.hints.down_since.borrow().get(&replica).copied();
        let now = self.env.clock().now();
        match down {
            Some(since) if now.saturating_duration_since(since) > options.window => Err(Dropped::Window),
            _ => Ok(()),
        }
    }

    fn hint_stored(&self, request: Option<RequestId>, actions: &mut Actions) {
        self.hints.stored.increment();
        if let Some(request) = request {
            let now = self.env.clock().now();
            self.pump.hint_stored(now, request, actions);
        }
    }

    /// Makes files until nothing waits for one.
    async fn make_hint_files(self: Rc<Self>, replica: HostId) {
        loop {
            let size = {
                let mut targets = self.hints.targets.borrow_mut();
                let Some(target) = targets.get_mut(&replica) else {
                    return;
                };
                let Some((_, first)) = target.queue.front() else {
                    target.makes_file = false;
                    return;
                };
                FILE_SIZE.max((HEADER + first.len()) as u64)
            };
            let number = self.hints.next_number.get();
            self.hints.next_number.set(number + 1);
            let name = FileName {
                host: replica,
                shard: self.shard(),
                number,
            };
            let made = self.env.disk().create_segment(&self.hint_path(&name), size).await;
            let mut actions = Actions::new();
            match made {
                Ok(file) => self.fill_hint_file(name, file, &mut actions),
                Err(error) => {
                    warn!(%error, host = %replica, "hints cannot be kept");
                    self.drop_queued(replica, Dropped::Disk);
                }
            }
            self.perform(&mut actions);
        }
    }

    fn fill_hint_file(&self, name: FileName, file: Rc<dyn Segment>, actions: &mut Actions) {
        file.write(0, &header());
        let mut stored = Vec::new();
        {
            let mut targets = self.hints.targets.borrow_mut();
            let target = targets.entry(name.host).or_default();
            target.seal();
            target.open = Some((name, file, HEADER as u64));
            while let Some((request, bytes)) = target.queue.pop_front() {
                if !target.write(&bytes) {
                    target.queue.push_front((request, bytes));
                    break;
                }
                self.hints.queued.set(self.hints.queued.get() - bytes.len());
                stored.push(request);
            }
        }
        for request in stored {
            self.hint_stored(request, actions);
        }
    }

    fn drop_queued(&self, replica: HostId, why: Dropped) {
        let mut targets = self.hints.targets.borrow_mut();
        let Some(target) = targets.get_mut(&replica) else {
            return;
        };
        for (_, bytes) in target.queue.drain(..) {
            self.hints.queued.set(self.hints.queued.get() - bytes.len());
            target.bytes = target.bytes.saturating_sub(bytes.len() as u64);
            self.hints.drop_one(why);
        }
    }

    /// Notes who went down or came back, and forgets the hints of nodes that have left.
    pub(crate) fn update_hints(self: &Rc<Self>, old: &Topology, new: &Topology) {
        let now = self.env.clock().now();
        {
            let mut down = self.hints.down_since.borrow_mut();
            down.retain(|host, _| new.peer(*host).is_some_and(|peer| !peer.is_alive));
            for peer in new.peers.iter().filter(|peer| !peer.is_alive) {
                down.entry(peer.host).or_insert(now);
            }
        }
        for gone in old.peers.iter().filter(|old| new.peer(old.host).is_none()) {
            self.forget_hints(gone.host);
        }
        let mut targets = self.hints.targets.borrow_mut();
        for target in targets.values_mut() {
            target.rests_until = None;
        }
    }

    /// What is older than this moment is not delivered to the table any more.
    pub(crate) fn hints_truncated(&self, table: TableId, at_micros: i64) {
        self.hints.truncated.borrow_mut().insert(table, at_micros);
    }

    /// Removes all hints that this shard keeps for a node.
    pub fn forget_hints(self: &Rc<Self>, host: HostId) {
        self.drop_queued(host, Dropped::Off);
        let Some(mut target) = self.hints.targets.borrow_mut().remove(&host) else {
            return;
        };
        target.seal();
        if target.full.is_empty() {
            return;
        }
        info!(%host, files = target.full.len(), "hints are removed");
        let node = self.clone();
        let task = async move {
            for name in &target.full {
                if let Err(error) = node.env.disk().remove_file(&node.hint_path(name)).await {
                    warn!(%error, "a file of hints stays");
                }
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    /// Keeps hints on this shard from now on, or none; those that are kept are delivered all the same.
    pub fn enable_hints(&self, is_enabled: bool) {
        self.hints.is_enabled.set(Some(is_enabled));
    }

    /// Hints are kept, unless the configuration or [`Node::enable_hints`] forbids it.
    pub fn keeps_hints(&self) -> bool {
        self.hints.is_enabled.get().unwrap_or(self.options.hints.enabled)
    }

    /// Data centers whose nodes get none.
    pub fn datacenters_without_hints(&self) -> Vec<String> {
        self.options.hints.disabled_datacenters.clone()
    }

    /// [`Node::pause_hints`] holds.
    pub fn hints_are_paused(&self) -> bool {
        self.hints.is_paused.get()
    }

    /// Delivers no hints of this shard, or goes on.
    pub fn pause_hints(&self, is_paused: bool) {
        self.hints.is_paused.set(is_paused);
    }

    /// What this shard keeps, and for whom.
    pub fn pending_hints(&self) -> Vec<PendingHints> {
        let targets = self.hints.targets.borrow();
        let mut pending: Vec<PendingHints> = targets
            .iter()
            .filter(|(_, target)| target.bytes > 0)
            .map(|(host, target)| PendingHints {
                host: *host,
                files: target.full.len() + usize::from(target.open.is_some()),
                bytes: target.bytes,
            })
            .collect();
        pending.sort_by_key(|pending| pending.host);
        pending
    }
}

impl Target {
    /// Writes an entry to the open file; false when it does not fit.
    fn write(&mut self, bytes: &[u8]) -> bool {
        let Some((_, file, end)) = &mut self.open else {
            return false;
        };
        if *end + bytes.len() as u64 > file.size() {
            return false;
        }
        // The length last: a torn entry has none.
        file.write(*end + 4, &bytes[4..]);
        file.write(*end, &bytes[..4]);
        *end += bytes.len() as u64;
        self.is_dirty = true;
        true
    }

    /// Nothing more is written to the open file.
    fn seal(&mut self) {
        if let Some((name, ..)) = self.open.take() {
            self.full.insert(name);
            self.is_dirty = false;
        }
    }
}
