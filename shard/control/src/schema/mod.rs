//! The one path of changes of the schema and of roles.
//!
//! Changes come from any shard, are taken one at a time, validated against what is present, and planned: mutations on the
//! `system_schema` and `system_auth` tables. The plan is ordered by group 0 ([`crate::cluster::group`]) and applied by
//! every node ([`tables`]). When another node's change came first, the plan is made anew; the client does not notice.
//!
//! Never: an answer to a client before all shards of this node have the change.

mod tables;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ceto_model::schema::FunctionDefinition;
use ceto_model::{Keyspace, Mutation, Schema, Timestamp, UnixSeconds};
use ceto_node::control::{ControlRequest, SchemaOutcome, StorageFailure};
use ceto_node::cql::{
    AccessChange, AccessControl, CqlError, Performer, Role, SchemaChange, SchemaChangeEvent,
};
use ceto_node::options::NodeOptions;
use ceto_node::system::access_rows;
use ceto_node::system::schema_rows;
use ceto_node::user_functions::{FunctionError, Programs};
use tokio::sync::mpsc;
use tracing::info;
use uuid::Uuid;

use self::tables::{Planned, State, functions_of};
use crate::cluster::group::{
    COMMAND_BYTES_MAX, Change, Command, MutationBytes, Outcome, Position, TableWrites,
};
use crate::cluster::peers::PeerMessage;
use crate::cluster::{Cluster, Inbox};
use crate::passwords::Passwords;
use crate::settings::{NotChanged, SettingsService};
use crate::shards::Shards;

pub use self::tables::SystemTables;
pub(crate) use self::tables::{stored_access, stored_schema};

/// How long an answer waits for the other nodes to have the change, too.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Changes that may wait for the one that is made; more are refused.
const CHANGES_MAX: usize = 1024;

#[allow(clippy::disallowed_methods)] // the control thread is outside of the simulator
pub(crate) fn now_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// Name and password of the role that a new cluster has.
const DEFAULT_SUPERUSER: &str = "cassandra";

/// A change that waits for its turn.
enum Wanted {
    Schema(Box<SchemaChange>, Option<Arc<str>>),
    Access(Box<AccessChange>, Option<Arc<str>>),
}

/// Who waits for it.
#[derive(Clone, Copy)]
struct Asker {
    from: u16,
    slot: u32,
}

/// Orders changes of the schema and of roles.
#[derive(Clone)]
pub struct SchemaService {
    tables: Arc<SystemTables>,
    cluster: Arc<Cluster>,
    options: Arc<NodeOptions>,
    passwords: Passwords,
    shards: Shards,
}

/// What takes the shards' requests.
pub struct Requests {
    /// From the shards.
    pub requests: mpsc::Receiver<ControlRequest>,
    /// Storage failures go on to here.
    pub failures: mpsc::Sender<StorageFailure>,
    /// Changes settings.
    pub settings: SettingsService,
    /// What other nodes send.
    pub inbox: Inbox,
    /// Compares passwords.
    pub(crate) passwords: Passwords,
}

impl Requests {
    /// Serves requests until the node ends. Nothing in here waits for a change: changes need what other nodes send.
    pub async fn run(mut self, service: SchemaService) {
        let (door, changes) = mpsc::channel(CHANGES_MAX);
        let shards = service.shards.clone();
        tokio::spawn(service.run(changes));
        while let Some(request) = self.requests.recv().await {
            match request {
                ControlRequest::ChangeSchema {
                    change,
                    role,
                    from,
                    slot,
                } => want(&door, Wanted::Schema(change, role), Asker { from, slot }, &shards),
                ControlRequest::ChangeAccess {
                    change,
                    role,
                    from,
                    slot,
                } => want(&door, Wanted::Access(change, role), Asker { from, slot }, &shards),
                ControlRequest::ChangeSettings { changes, from, slot } => {
                    let (settings, shards) = (self.settings.clone(), shards.clone());
                    tokio::spawn(async move {
                        let outcome = settings.change(&changes).await;
                        let outcome = outcome.map_err(|error| match error {
                            NotChanged::Refused(text) => CqlError::Invalid(text),
                            NotChanged::Gone(gone) => CqlError::Invalid(gone.to_string()),
                        });
                        tell(&shards, Asker { from, slot }, outcome.map(|()| None)).await;
                    });
                }
                ControlRequest::ComparePassword {
                    password,
                    hash,
                    from,
                    slot,
                } => {
                    let (comparison, shards) = (self.passwords.compare(password, hash), shards.clone());
                    tokio::spawn(async move {
                        let is_right = match comparison {
                            Some(comparison) => Some(comparison.await),
                            None => None,
                        };
                        let told = shards.on(from, move |node| {
                            Box::pin(async move { node.password_compared(slot, is_right) })
                        });
                        // Without the shard there is no client that waits.
                        let _ = told.await;
                    });
                }
                ControlRequest::StorageFailed(failure) => {
                    // One failure is enough; when the queue is full there have been others.
                    let _ = self.failures.try_send(failure);
                }
                ControlRequest::PeerMessage {
                    from,
                    from_address,
                    body,
                } => self.inbox.receive(PeerMessage {
                    from: from.0,
                    address: from_address,
                    body,
                }),
            }
        }
    }
}

fn want(door: &mpsc::Sender<(Wanted, Asker)>, wanted: Wanted, asker: Asker, shards: &Shards) {
    if door.try_send((wanted, asker)).is_err() {
        let shards = shards.clone();
        tokio::spawn(async move {
            let text =
                format!("{CHANGES_MAX} changes of the schema or of roles wait already; try again later");
            tell(&shards, asker, Err(CqlError::Invalid(text))).await;
        });
    }
}

async fn tell(shards: &Shards, asker: Asker, outcome: SchemaOutcome) {
    let Asker { from, slot } = asker;
    let told = shards.on(from, move |node| {
        Box::pin(async move { node.schema_changed(slot, outcome) })
    });
    // Without the shard there is no client that waits.
    let _ = told.await;
}

/// A change, planned.
struct Plan {
    mutations: Vec<Mutation>,
    next: State,
    event: Option<SchemaChangeEvent>,
}

impl SchemaService {
    /// Plans against what `tables` hold, and has `cluster` order it.
    pub(crate) fn new(
        tables: Arc<SystemTables>,
        cluster: Arc<Cluster>,
        options: Arc<NodeOptions>,
        passwords: Passwords,
        shards: Shards,
    ) -> SchemaService {
        SchemaService {
            tables,
            cluster,
            options,
            passwords,
            shards,
        }
    }

    async fn run(self, mut changes: mpsc::Receiver<(Wanted, Asker)>) {
        while let Some((wanted, asker)) = changes.recv().await {
            let outcome = match wanted {
                Wanted::Schema(change, role) => self.change(&change, role.as_ref()).await,
                Wanted::Access(change, role) => self.change_access(*change, role).await.map(|()| None),
            };
            tell(&self.shards, asker, outcome).await;
        }
    }

    /// Has one change of the schema happen; `role` asks for it.
    pub async fn change(&self, change: &SchemaChange, role: Option<&Arc<str>>) -> SchemaOutcome {
        let mut is_current = false;
        loop {
            // The position first: a state that is newer than it is a conflict, an older one would be none.
            let position = self.cluster.group.position();
            let state = self.tables.state();
            let timestamp = now_micros().max(position.timestamp + 1);
            let next = match change.apply(&state.schema, timestamp) {
                Ok(Some(next)) => next,
                // It may be this node that does not know better yet.
                _ if !is_current => {
                    self.catch_up().await?;
                    is_current = true;
                    continue;
                }
                outcome => return outcome.map(|_| None),
            };
            let plan = self.plan(change, role, &state, next, timestamp).await?;
            let event = plan.event.clone();
            if self.propose(plan, position.tables, timestamp).await? {
                return Ok(event);
            }
        }
    }

    async fn plan(
        &self,
        change: &SchemaChange,
        role: Option<&Arc<str>>,
        state: &State,
        mut next: Schema,
        timestamp: i64,
    ) -> Result<Plan, CqlError> {
        let programs = compile_functions(state, &next).await?;
        self.tables.snapshot_before_drop(&next).await?;
        let mut mutations = mutations(&state.schema, &next, timestamp);
        next.version = schema_rows::version(&next);
        let event = change.event(&state.schema);
        let created = change.created(&state.schema);
        let renamed = change.renamed(&state.schema, &next);
        let schema = Arc::new(next);
        let creator = role.filter(|_| self.options.access.authorizes);
        let mut access = state.access.clone();
        if let Some(changed) = access.after_schema_change(&schema, &renamed, created, creator) {
            mutations.extend(access_mutations(state, &changed, timestamp));
            access = Arc::new(changed);
        }
        Ok(Plan {
            mutations,
            next: State {
                schema,
                access,
                programs: programs.unwrap_or_else(|| state.programs.clone()),
            },
            event: Some(event),
        })
    }

    /// Has a plan ordered and applied; false when another change came first.
    async fn propose(&self, plan: Plan, planned_against: u64, timestamp: i64) -> Result<bool, CqlError> {
        let mutations = MutationBytes::encode(&plan.mutations);
        if mutations.0.len() > COMMAND_BYTES_MAX {
            let text = format!(
                "The change takes {} bytes, and at most {COMMAND_BYTES_MAX} can be ordered at once; change less at a time",
                mutations.0.len()
            );
            return Err(CqlError::Invalid(text));
        }
        let command = Command {
            id: Uuid::new_v4(),
            planned_against,
            change: Change::Tables(TableWrites {
                mutations,
                timestamp,
                event: plan.event.as_ref().map(Into::into),
            }),
        };
        let version = plan.next.schema.version;
        self.tables.expect(Planned {
            command: command.id,
            next: plan.next,
            has_snapshots: true,
        });
        let outcome = self.cluster.group.propose(command).await;
        match outcome.map_err(|error| CqlError::Invalid(error.to_string()))? {
            Outcome::Applied => {
                if plan.event.is_some() {
                    self.cluster.agreement(version, AGREEMENT_TIMEOUT).await;
                }
                Ok(true)
            }
            Outcome::Conflict => Ok(false),
            Outcome::Refused(text) => Err(CqlError::Invalid(text)),
        }
    }

    /// Waits until this node has applied all that was decided before.
    async fn catch_up(&self) -> Result<(), CqlError> {
        let caught_up = self.cluster.group.catch_up().await;
        caught_up.map_err(|error| CqlError::Invalid(error.to_string()))
    }

    /// Has one change of roles, or of what is granted to them, happen; `role` asks for it.
    async fn change_access(&self, change: AccessChange, role: Option<Arc<str>>) -> Result<(), CqlError> {
        let datacenter = self.options.datacenter.clone();
        let mut change = change;
        if let Some(password) = change.password().map(str::to_owned) {
            let state = self.tables.state();
            let performer = Performer::new(state.access.clone(), self.options.access, role.clone());
            change.check(&performer, &state.schema, &datacenter)?;
            let hash = self.passwords.hash(&password).await;
            let hash = hash
                .map_err(|error| CqlError::Invalid(format!("The password could not be hashed: {error}")))?;
            change = change.with_hash(&hash);
        }
        let mut is_current = false;
        loop {
            let position = self.cluster.group.position();
            let state = self.tables.state();
            let performer = Performer::new(state.access.clone(), self.options.access, role.clone());
            match change.clone().apply(&performer, &state.schema, &datacenter) {
                Ok(Some(access)) => {
                    if self.propose_access(&state, access, position).await? {
                        return Ok(());
                    }
                }
                _ if !is_current => {
                    self.catch_up().await?;
                    is_current = true;
                }
                outcome => return outcome.map(|_| ()),
            }
        }
    }

    async fn propose_access(
        &self,
        state: &State,
        access: AccessControl,
        position: Position,
    ) -> Result<bool, CqlError> {
        let timestamp = now_micros().max(position.timestamp + 1);
        let plan = Plan {
            mutations: access_mutations(state, &access, timestamp),
            next: State {
                access: Arc::new(access),
                ..state.clone()
            },
            event: None,
        };
        self.propose(plan, position.tables, timestamp).await
    }

    /// What has to be in the tables of a new cluster, or of one that had no log yet: what its first node had already, and
    /// the first role where clients have to log in and there is none.
    ///
    /// # Errors
    /// When that could not be ordered.
    pub async fn put_first_things(&self) -> Result<(), CqlError> {
        loop {
            let position = self.cluster.group.position();
            let state = self.tables.state();
            let is_first = position.tables == 0 && self.cluster.group.members().nodes.len() == 1;
            let timestamp = now_micros().max(position.timestamp + 1);
            if is_first && !self.tables.is_empty() {
                let plan = Plan {
                    mutations: self.tables.all(timestamp),
                    next: state,
                    event: None,
                };
                self.propose(plan, position.tables, timestamp).await?;
                continue;
            }
            // A role without a table, a permission without a role: nobody's.
            let pruned = state
                .access
                .after_schema_change(&state.schema, &[], Vec::new(), None);
            let is_pruned = pruned.is_some();
            let mut access = pruned.unwrap_or_else(|| (*state.access).clone());
            let needs_role = self.options.access.requires_login && access.roles.is_empty();
            if needs_role {
                let hash = self.passwords.hash(DEFAULT_SUPERUSER).await;
                let role = Role {
                    can_login: true,
                    is_superuser: true,
                    salted_hash: Some(hash.map_err(CqlError::Invalid)?.into()),
                    ..Role::default()
                };
                access.roles.insert(DEFAULT_SUPERUSER.into(), role);
            }
            if !needs_role && !is_pruned {
                return Ok(());
            }
            if self.propose_access(&state, access, position).await? && needs_role {
                info!(
                    role = DEFAULT_SUPERUSER,
                    "the first superuser was made; change its password"
                );
            }
        }
    }
}

fn access_mutations(state: &State, next: &AccessControl, timestamp: i64) -> Vec<Mutation> {
    let (timestamp, now) = (Timestamp(timestamp), UnixSeconds(timestamp / 1_000_000));
    access_rows::difference(&state.access, next, &state.schema, timestamp, now)
}

/// What is compiled of the functions of `next`; None when no function is another than before. Beside this thread, for
/// it can take seconds.
///
/// # Errors
/// `Invalid`, when the body of a function that is new does not compile.
async fn compile_functions(state: &State, next: &Schema) -> Result<Option<Arc<Programs>>, CqlError> {
    let is_new = |function: &Arc<FunctionDefinition>| {
        let before = state.schema.keyspace(&function.keyspace);
        let before = before.and_then(|keyspace| {
            keyspace
                .functions
                .function(&function.name, &function.argument_types)
        });
        before != Some(function)
    };
    let (functions, before) = (functions_of(next), functions_of(&state.schema));
    let new: Vec<_> = functions
        .iter()
        .filter(|function| is_new(function))
        .cloned()
        .collect();
    if new.is_empty() && functions.len() == before.len() {
        return Ok(None);
    }
    let programs = state.programs.clone();
    let compiled = tokio::task::spawn_blocking(move || {
        let refused = |function: &FunctionDefinition, error: FunctionError| {
            CqlError::Invalid(format!(
                "Could not compile function '{}.{}' from {} source: {error}",
                function.keyspace, function.name, function.language
            ))
        };
        let mut failure = None;
        for function in &new {
            Programs::check(function).map_err(|error| refused(function, error))?;
        }
        let next = programs.compile(functions.iter().map(|function| &**function), |function, error| {
            if new.iter().any(|new| **new == *function) {
                failure = Some(refused(function, error));
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(next),
        }
    });
    let compiled = compiled
        .await
        .map_err(|error| CqlError::Invalid(error.to_string()))?;
    compiled.map(|programs| Some(Arc::new(programs)))
}

/// The difference between the present schema and `next`, as mutations on the `system_schema` tables.
fn mutations(before: &Schema, next: &Schema, timestamp: i64) -> Vec<Mutation> {
    let (timestamp, now) = (Timestamp(timestamp), UnixSeconds(timestamp / 1_000_000));
    let present = |schema: &Schema, name: &str| schema.keyspace(name).cloned();
    let mut names: Vec<Arc<str>> = before
        .keyspaces()
        .chain(next.keyspaces())
        .map(|ks| ks.name.clone())
        .collect();
    names.sort();
    names.dedup();
    let changed = names.iter().filter_map(|name| {
        let (old, new) = (present(before, name), present(next, name));
        let same = match (&old, &new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            _ => false,
        };
        (!same).then_some((old, new))
    });
    let difference = |(old, new): (Option<Arc<Keyspace>>, Option<Arc<Keyspace>>)| {
        schema_rows::difference(old.as_deref(), new.as_deref(), before, timestamp, now)
    };
    changed.flat_map(difference).collect()
}
