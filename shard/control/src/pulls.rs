//! Copying: what this node will own, table after table and part after part, from those who own it now.
//!
//! [`plan`] says what is copied from whom and is all that a dry run needs; [`Pulls`] has one plan at a time carried out by the
//! shards ([`Node::pull`]). What was copied may be copied again: it is merged.
//!
//! Never: two plans at a time, a table of this node alone, a part that is called done and is not on disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ceto_cluster::replication::Strategy;
use ceto_cluster::replication::moves::{Gain, NoSource, Sources, copies, gains};
use ceto_internode::HostId;
use ceto_model::Schema;
use ceto_node::stream::{Pull, PullProgress};
use ceto_node::system::definitions::{SYSTEM_AUTH, SYSTEM_KEYSPACES};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use crate::cluster::ClusterView;
use crate::cluster::members::Members;
use crate::cluster::moves::{Data, Gained, Later};
use crate::joined::rings;
use crate::shards::Shards;

#[allow(unused_imports)] // named in the docs
use ceto_node::Node;

/// How long a node that leaves waits for its hints to be delivered.
const HINTS_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at them.
const HINTS_POLL: Duration = Duration::from_millis(100);

/// Parts of a keyspace that a node gets from another.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct KeyspaceGain {
    /// The keyspace.
    pub(crate) keyspace: Arc<str>,
    /// What from whom.
    pub(crate) gain: Gain,
}

/// The keyspaces whose rows are replicated, each with its strategy. What control threads keep alike is not among them.
fn replicated(schema: &Schema) -> impl Iterator<Item = (Arc<str>, Strategy)> {
    let keyspaces = schema
        .keyspaces()
        .filter(|keyspace| !keyspace.is_virtual && *keyspace.name != *SYSTEM_AUTH);
    keyspaces.filter_map(|keyspace| {
        let strategy = Strategy::from_options(&keyspace.replication).ok()?;
        (strategy != Strategy::Local).then(|| (keyspace.name.clone(), strategy))
    })
}

/// What `host` has to copy for the change that the members are in; nothing when nobody comes or goes.
///
/// # Errors
/// When nobody who may give a part is up.
pub(crate) fn plan(
    schema: &Schema,
    members: &Members,
    host: Uuid,
    is_up: impl Fn(Uuid) -> bool,
) -> Result<Vec<KeyspaceGain>, String> {
    let (present, other) = rings(members)?;
    let (Some(future), Some(moving)) = (other, members.moving()) else {
        return Ok(Vec::new());
    };
    // Who replaces a dead node, and who takes over from one that may be dead, has nobody to insist on.
    let sources = match moving.host == host && moving.replaces.is_none() {
        true => Sources::Losers,
        false => Sources::Any,
    };
    let mut plan = Vec::new();
    for (keyspace, strategy) in replicated(schema) {
        let gained = gains(HostId(host), &strategy, (&present, &future), sources, |own| {
            is_up(own.0)
        });
        let gained = gained.map_err(|error| explain(&keyspace, &error, members, sources))?;
        plan.extend(gained.into_iter().map(|gain| KeyspaceGain {
            keyspace: keyspace.clone(),
            gain,
        }));
    }
    Ok(plan)
}

/// What `host` has to copy to have all that it owns, of one keyspace or all, from nodes that `may_give`.
///
/// # Errors
/// When nobody who may give a part is there.
pub(crate) fn plan_rebuild(
    schema: &Schema,
    members: &Members,
    host: Uuid,
    only: Option<&str>,
    may_give: impl Fn(Uuid) -> bool,
) -> Result<Vec<KeyspaceGain>, String> {
    let (present, _) = rings(members)?;
    let mut plan = Vec::new();
    for (keyspace, strategy) in replicated(schema).filter(|(name, _)| only.is_none_or(|only| *only == **name))
    {
        let copied = copies(HostId(host), &strategy, &present, |own| may_give(own.0));
        let copied = copied.map_err(|error| explain(&keyspace, &error, members, Sources::Any))?;
        plan.extend(copied.into_iter().map(|gain| KeyspaceGain {
            keyspace: keyspace.clone(),
            gain,
        }));
    }
    Ok(plan)
}

fn explain(keyspace: &str, error: &NoSource, members: &Members, sources: Sources) -> String {
    let address = |host: &HostId| match members.nodes.get(&host.0) {
        Some(member) => member.internode.ip().to_string(),
        None => host.to_string(),
    };
    let down: Vec<String> = error.down.iter().map(address).collect();
    let (after, up_to) = (error.part.after.0, error.part.up_to.0);
    let cure = match sources {
        Sources::Losers => "a node required to move the data consistently is down: start it",
        Sources::Any => "start one of them",
    };
    format!(
        "tokens ({after}, {up_to}] of keyspace {keyspace} are on {}, and none of these may be asked or is up; {cure}",
        down.join(", ")
    )
}

/// One plan that is carried out.
struct Running {
    session: Uuid,
    started: Instant,
    state: Mutex<Gained>,
    /// The pull under way and its source.
    current: Mutex<Option<(Uuid, Arc<PullProgress>)>>,
    is_stopped: AtomicBool,
}

impl Running {
    fn gained(&self) -> Gained {
        let mut gained = self.state.lock().expect("nobody panics with the lock").clone();
        let current = self.current.lock().expect("nobody panics with the lock");
        if let Some((from, progress)) = &*current {
            gained.parts_done += progress.parts_done() as u64;
            *gained.received.entry(*from).or_default() += progress.bytes();
        }
        gained
    }

    fn with_state(&self, change: impl FnOnce(&mut Gained)) {
        change(&mut self.state.lock().expect("nobody panics with the lock"));
    }

    fn set_current(&self, current: Option<(Uuid, Arc<PullProgress>)>) {
        *self.current.lock().expect("nobody panics with the lock") = current;
    }

    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        if let Some((_, progress)) = &*self.current.lock().expect("nobody panics with the lock") {
            progress.stop();
        }
    }
}

/// What this node copies, one plan at a time.
#[derive(Clone)]
pub struct Pulls {
    shards: Shards,
    own: Uuid,
    is_serving: Arc<AtomicBool>,
    running: Arc<Mutex<Option<Arc<Running>>>>,
}

impl Pulls {
    pub(crate) fn new(shards: Shards, own: Uuid, is_serving: Arc<AtomicBool>) -> Pulls {
        Pulls {
            shards,
            own,
            is_serving,
            running: Arc::default(),
        }
    }

    /// How far the present plan is, or the last one, and how many seconds it runs.
    pub(crate) fn gained(&self) -> Option<(Gained, f64)> {
        let running = self.running.lock().expect("nobody panics with the lock").clone();
        running.map(|running| (running.gained(), running.started.elapsed().as_secs_f64()))
    }

    /// The session's plan: the present one, or a new one, and then what went before it is stopped.
    fn session(&self, session: Uuid) -> (Arc<Running>, bool) {
        let mut running = self.running.lock().expect("nobody panics with the lock");
        if let Some(known) = running.as_ref().filter(|known| known.session == session) {
            return (known.clone(), false);
        }
        let new = Arc::new(Running {
            session,
            started: Instant::now(),
            state: Mutex::default(),
            current: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        if let Some(old) = running.replace(new.clone()) {
            old.stop();
        }
        (new, true)
    }

    /// Has everything of `plan` copied.
    async fn carry_out(
        &self,
        running: &Running,
        schema: &Schema,
        plan: Vec<KeyspaceGain>,
    ) -> Result<(), String> {
        let mut pulls = Vec::new();
        for KeyspaceGain { keyspace, gain } in &plan {
            let tables = schema
                .tables()
                .filter(|table| table.keyspace == *keyspace && !table.is_virtual);
            pulls.extend(tables.map(|table| Pull {
                table: table.id,
                from: gain.from,
                parts: gain.parts.clone(),
            }));
        }
        let parts: usize = pulls.iter().map(|pull| pull.parts.len()).sum();
        running.with_state(|state| state.parts = parts as u64);
        for pull in pulls {
            let (from, table, parts) = (pull.from.0, pull.table, pull.parts.len());
            let progress = Arc::new(PullProgress::default());
            running.set_current(Some((from, progress.clone())));
            let shown = progress.clone();
            let pulled = self
                .shards
                .on(0, move |node| {
                    Box::pin(async move { node.pull(pull, progress).await })
                })
                .await
                .map_err(|gone| gone.to_string())?;
            running.set_current(None);
            running.with_state(|state| {
                *state.received.entry(from).or_default() += shown.bytes();
                state.parts_done += if pulled.is_ok() { parts } else { shown.parts_done() } as u64;
            });
            if running.is_stopped.load(Ordering::Acquire) {
                return Err("it was stopped".to_owned());
            }
            if let Err(error) = pulled {
                // A table that was dropped meanwhile has nothing to give.
                let schema = self.schema().await?;
                if schema.table_by_id(table).is_some() {
                    return Err(error.to_string());
                }
            }
        }
        Ok(())
    }

    async fn schema(&self) -> Result<Arc<Schema>, String> {
        let schema = self
            .shards
            .on(0, |node| Box::pin(async move { node.schema() }))
            .await;
        schema.map_err(|gone| gone.to_string())
    }

    /// Carries out what the view asks of this node.
    async fn take_over(
        &self,
        running: &Running,
        mut view: watch::Receiver<ClusterView>,
    ) -> Result<(), String> {
        let now = view.borrow_and_update().clone();
        let schema = self.schema().await?;
        let plan = plan(&schema, &now.members, self.own, |host| now.is_alive(host))?;
        let goes_on = async {
            let still = |view: &ClusterView| view.members.moving().is_some();
            while view.changed().await.is_ok() && still(&view.borrow_and_update()) {}
            running.stop();
            "nobody joins or leaves any more".to_owned()
        };
        tokio::select! {
            outcome = self.carry_out(running, &schema, plan) => outcome,
            reason = goes_on => Err(reason),
        }
    }

    /// Copies all that this node owns, from nodes that `may_give`.
    pub(crate) async fn rebuild(&self, plan: Vec<KeyspaceGain>) -> Result<(), String> {
        let busy = self.gained().is_some_and(|(gained, _)| gained.outcome.is_none());
        if busy {
            return Err(
                "Node is still rebuilding, joining or taking over; check nodetool netstats".to_owned(),
            );
        }
        let (running, _) = self.session(Uuid::new_v4());
        let schema = self.schema().await?;
        let outcome = self.carry_out(&running, &schema, plan).await;
        running.with_state(|state| state.outcome = Some(outcome.clone()));
        outcome
    }
}

impl Data for Pulls {
    fn holds_any(&self) -> Later<bool> {
        let shards = self.shards.clone();
        Box::pin(async move {
            let figures = shards.on_all(|node| Box::pin(async move { node.table_figures() }));
            let Ok(figures) = figures.await else { return true };
            let tables = figures.iter().flatten();
            let mut of_clients = tables.filter(|table| !SYSTEM_KEYSPACES.contains(&&*table.keyspace));
            of_clients.any(|table| table.memtable_bytes + table.disk_bytes > 0)
        })
    }

    fn gain(&self, session: Uuid, view: watch::Receiver<ClusterView>) -> Later<Gained> {
        let (running, is_new) = self.session(session);
        if is_new {
            let (own, running) = (self.clone(), running.clone());
            tokio::spawn(async move {
                let outcome = own.take_over(&running, view).await;
                let gained = running.gained();
                let bytes: u64 = gained.received.values().sum();
                info!(bytes, parts = gained.parts_done, ?outcome, "copying has ended");
                running.with_state(|state| state.outcome = Some(outcome));
            });
        }
        Box::pin(async move { running.gained() })
    }

    fn withdraw(&self) -> Later<()> {
        let (shards, is_serving) = (self.shards.clone(), self.is_serving.clone());
        Box::pin(async move {
            is_serving.store(false, Ordering::Release);
            let stopped = shards.on_all(|node| Box::pin(async move { node.stop_serving().await }));
            // A node that ends serves nobody either.
            let _ = stopped.await;
            let until = Instant::now() + HINTS_PATIENCE;
            loop {
                let kept = shards
                    .on_all(|node| Box::pin(async move { node.pending_hints() }))
                    .await;
                let kept: Vec<_> = kept.unwrap_or_default().into_iter().flatten().collect();
                if kept.is_empty() {
                    return;
                }
                if Instant::now() >= until {
                    for hints in kept {
                        warn!(host = %hints.host, bytes = hints.bytes, "hints for a node are dropped; repair it when it is back");
                    }
                    return;
                }
                tokio::time::sleep(HINTS_POLL).await;
            }
        })
    }
}

/// Shares of the ring by source and keyspace, for people.
pub(crate) fn by_source(plan: &[KeyspaceGain]) -> BTreeMap<(Uuid, Arc<str>), f64> {
    let mut shares = BTreeMap::new();
    for KeyspaceGain { keyspace, gain } in plan {
        let share = ceto_cluster::replication::moves::share(&gain.parts);
        *shares.entry((gain.from.0, keyspace.clone())).or_default() += share;
    }
    shares
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::net::{IpAddr, SocketAddr};

    use ceto_model::Keyspace;
    use ceto_model::schema::ReplicationOptions;
    use ceto_node::system::definitions::system_schema;

    use super::*;
    use crate::cluster::members::{Member, MemberChange, MemberState};

    fn member(number: u8, state: MemberState) -> Member {
        Member {
            host: Uuid::from_u128(u128::from(number)),
            internode: SocketAddr::from(([127, 0, 0, number], 7000)),
            rpc: IpAddr::from([127, 0, 0, number]),
            native_port: 9042,
            shards: 1,
            datacenter: "datacenter1".to_owned(),
            rack: "rack1".to_owned(),
            tokens: vec![i64::from(number) * 1000],
            release_version: "5.0.0".to_owned(),
            state,
            replaces: None,
        }
    }

    fn replicated(schema: Schema, name: &str, replicas: &str) -> Schema {
        let mut keyspace = Keyspace::clone(schema.keyspace(name).unwrap());
        let class = "org.apache.cassandra.locator.SimpleStrategy";
        let options = [("class", class), ("replication_factor", replicas)];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        keyspace.replication = ReplicationOptions(options.into_iter().collect());
        schema.with_keyspace(keyspace, Uuid::nil())
    }

    #[test]
    fn what_is_replicated_is_copied_from_who_loses_it() {
        let schema = replicated(
            replicated(system_schema(), "system_traces", "2"),
            "system_distributed",
            "3",
        );
        let mut members = Members::default();
        for number in [1, 2, 3, 5] {
            let member = member(number, MemberState::Normal);
            members = members.after(&MemberChange::Put(member)).unwrap();
        }
        let own = member(4, MemberState::Joining);
        assert_eq!(
            plan(&schema, &members, own.host, |_| true),
            Ok(Vec::new()),
            "nobody comes or goes"
        );
        let members = members.after(&MemberChange::Put(own.clone())).unwrap();
        let planned = plan(&schema, &members, own.host, |_| true).unwrap();
        let keyspaces: BTreeSet<&str> = planned.iter().map(|gain| &*gain.keyspace).collect();
        assert_eq!(
            keyspaces.into_iter().collect::<Vec<_>>(),
            ["system_distributed", "system_traces"]
        );
        // Two replicas of (3000, 4000]: 5 and 1. The one that is not needed any more is 1, and only that one will do.
        let down = Uuid::from_u128(1);
        let refused = plan(&schema, &members, own.host, |host| host != down).unwrap_err();
        assert!(
            refused.contains("are on 127.0.0.1,") && refused.contains("start it"),
            "{refused}"
        );
        let others = plan(&schema, &members, Uuid::from_u128(2), |_| true);
        assert_eq!(others, Ok(Vec::new()), "who was there gains nothing");
        // To have all of it again, it takes what is up.
        let all = plan_rebuild(
            &schema,
            &members,
            Uuid::from_u128(2),
            Some("system_distributed"),
            |host| host != down,
        )
        .unwrap();
        let share: f64 = by_source(&all).values().sum();
        assert!(share > 0.0 && all.iter().all(|gain| gain.gain.from.0 != down));
    }
}
