//! The tables of `system_schema` and `system_auth`, and what this node makes of them: group 0's state machine.
//!
//! What is written here is synced before anything is installed, and installed on every shard before it is announced: a
//! client that has its answer finds the new schema on every shard, and after every restart.
//!
//! Who proposed a change knows what comes of it; everybody else reads the tables again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ceto_model::schema::FunctionDefinition;
use ceto_model::{DecoratedKey, Keyspace, Mutation, Schema, Timestamp, UnixSeconds};
use ceto_node::cql::{AccessControl, CqlError, SchemaChangeEvent};
use ceto_node::system::access_rows::{self, StoredAccess};
use ceto_node::system::definitions::{SYSTEM_KEYSPACES, system_schema};
use ceto_node::system::schema_rows::{self, StoredSchema};
use ceto_node::user_functions::Programs;
use tokio::sync::watch;
use tracing::{error, info};
use uuid::Uuid;

use super::now_micros;
use crate::cluster::group::{MutationBytes, Step, TableWrites, Tables};
use crate::shards::{ShardGone, Shards};

/// What holds on this node.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) schema: Arc<Schema>,
    pub(crate) access: Arc<AccessControl>,
    /// What is compiled of the schema's functions.
    pub(crate) programs: Arc<Programs>,
}

/// What comes of a command that this node proposes.
pub(crate) struct Planned {
    pub(crate) command: Uuid,
    pub(crate) next: State,
    /// Snapshots of the tables that go were taken.
    pub(crate) has_snapshots: bool,
}

/// The system tables of this node.
pub struct SystemTables {
    shards: Shards,
    state: Mutex<State>,
    planned: Mutex<Option<Planned>>,
    version: watch::Sender<Uuid>,
}

fn gone(gone: ShardGone) -> String {
    gone.to_string()
}

/// The schema that the shards have stored.
///
/// # Errors
/// When it cannot be read, or makes no schema.
pub(crate) async fn stored_schema(shards: &Shards) -> Result<StoredSchema, String> {
    let mut stored = StoredSchema::default();
    let parts = shards.on_all(|node| Box::pin(async move { node.stored_schema().await }));
    for part in parts.await.map_err(gone)? {
        for (table, partitions) in part?.0 {
            stored.0.entry(table).or_default().extend(partitions);
        }
    }
    Ok(stored)
}

/// What the shards have stored in `system_auth`.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn stored_access(shards: &Shards, schema: &Schema) -> Result<AccessControl, String> {
    let mut stored = StoredAccess::default();
    let parts = shards.on_all(|node| Box::pin(async move { node.stored_access().await }));
    for part in parts.await.map_err(gone)? {
        for (table, partitions) in part?.0 {
            stored.0.entry(table).or_default().extend(partitions);
        }
    }
    Ok(stored.build(schema))
}

fn keyspaces_of_clients(schema: &Schema) -> impl Iterator<Item = &Arc<Keyspace>> {
    let keyspaces = schema.keyspaces();
    keyspaces.filter(|keyspace| !SYSTEM_KEYSPACES.contains(&&*keyspace.name))
}

/// All user-defined functions.
pub(crate) fn functions_of(schema: &Schema) -> Vec<Arc<FunctionDefinition>> {
    let keyspaces = schema.keyspaces();
    keyspaces
        .flat_map(|keyspace| keyspace.functions.functions())
        .cloned()
        .collect()
}

impl SystemTables {
    /// Starts from what the shards have recovered and already serve.
    pub fn new(schema: Arc<Schema>, access: Arc<AccessControl>, shards: Shards) -> SystemTables {
        SystemTables {
            version: watch::channel(schema.version).0,
            state: Mutex::new(State {
                schema,
                access,
                programs: Arc::default(),
            }),
            planned: Mutex::default(),
            shards,
        }
    }

    /// What holds now.
    pub(crate) fn state(&self) -> State {
        self.state.lock().expect("nobody panics with the lock").clone()
    }

    /// The version of the schema that all shards have, now and later.
    pub fn version(&self) -> watch::Receiver<Uuid> {
        self.version.subscribe()
    }

    /// Notes what comes of a command that is about to be proposed, in the place of the last one.
    pub(crate) fn expect(&self, planned: Planned) {
        *self.planned.lock().expect("nobody panics with the lock") = Some(planned);
    }

    /// Installs what was recovered: compiles the functions of the stored schema and makes them and the roles known to every
    /// shard. A function that does not compile (any more) is logged, and its calls fail.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn install_recovered(&self) -> Result<(), String> {
        let state = self.state();
        let programs = self.compile(&state.programs, &state.schema).await?;
        let next = State { programs, ..state };
        self.install_programs(&next.programs).await?;
        self.install_access(&next.access).await?;
        *self.state.lock().expect("nobody panics with the lock") = next;
        Ok(())
    }

    async fn compile(&self, programs: &Arc<Programs>, schema: &Schema) -> Result<Arc<Programs>, String> {
        let (programs, functions) = (programs.clone(), functions_of(schema));
        let compiled = tokio::task::spawn_blocking(move || {
            programs.compile(functions.iter().map(|function| &**function), |function, failure| {
                error!(keyspace = %function.keyspace, function = %function.name, %failure, "a stored function does not compile; calls of it fail");
            })
        });
        compiled.await.map(Arc::new).map_err(|error| error.to_string())
    }

    async fn install_programs(&self, programs: &Arc<Programs>) -> Result<(), String> {
        let programs = programs.clone();
        let installed = self.shards.on_all(move |node| {
            let programs = programs.clone();
            Box::pin(async move { node.install_programs(programs) })
        });
        installed.await.map(|_| ()).map_err(gone)
    }

    async fn install_access(&self, access: &Arc<AccessControl>) -> Result<(), String> {
        let access = access.clone();
        let installed = self.shards.on_all(move |node| {
            let access = access.clone();
            Box::pin(async move { node.install_access(access) })
        });
        installed.await.map(|_| ()).map_err(gone)
    }

    /// What is new of `next` goes to all shards.
    async fn install(&self, next: State) -> Result<(), String> {
        let before = self.state();
        if !Arc::ptr_eq(&before.schema, &next.schema) && before.schema.version != next.schema.version {
            let (schema, programs) = (next.schema.clone(), next.programs.clone());
            let installed = self.shards.on_all(move |node| {
                let (schema, programs) = (schema.clone(), programs.clone());
                Box::pin(async move {
                    node.install_programs(programs);
                    node.install_schema(schema).await
                })
            });
            installed.await.map_err(gone)?;
        }
        if !Arc::ptr_eq(&before.access, &next.access) {
            self.install_access(&next.access).await?;
        }
        let version = next.schema.version;
        *self.state.lock().expect("nobody panics with the lock") = next;
        self.version.send_replace(version);
        Ok(())
    }

    async fn announce(&self, event: &SchemaChangeEvent) -> Result<(), String> {
        let state = self.state();
        info!(change = ?event.change, keyspace = %event.keyspace, target = ?event.target, version = %state.schema.version, "schema changed");
        let event = event.clone();
        let notified = self.shards.on_all(move |node| {
            let event = event.clone();
            Box::pin(async move { node.notify_schema_change(&event) })
        });
        notified.await.map(|_| ()).map_err(gone)
    }

    /// What the tables hold now, as a state.
    async fn read(&self) -> Result<State, String> {
        let before = self.state();
        let stored = stored_schema(&self.shards).await?;
        let schema = stored
            .build(&system_schema())
            .map_err(|error| error.to_string())?;
        let access = stored_access(&self.shards, &schema).await?;
        let programs = match functions_of(&schema) == functions_of(&before.schema) {
            true => before.programs.clone(),
            false => self.compile(&before.programs, &schema).await?,
        };
        Ok(State {
            schema: Arc::new(schema),
            access: Arc::new(access),
            programs,
        })
    }

    /// Writes the rows that describe the system keyspaces themselves, where `stored` lacks them or has older ones: each
    /// node's own matter, for they are part of its program.
    ///
    /// # Errors
    /// When they cannot be stored.
    pub async fn describe_system_keyspaces(
        &self,
        stored: &StoredSchema,
        system: &Schema,
    ) -> Result<(), String> {
        let described = stored.system_keyspaces(system);
        let now_micros = now_micros();
        let (timestamp, now) = (Timestamp(now_micros), UnixSeconds(now_micros / 1_000_000));
        let keyspaces = system.keyspaces().filter(|keyspace| !keyspace.is_virtual);
        let stale = keyspaces.filter(|keyspace| !described.contains(&*keyspace.name));
        let mutations: Vec<Mutation> = stale
            .flat_map(|keyspace| schema_rows::difference(None, Some(keyspace), system, timestamp, now))
            .collect();
        self.store(mutations).await
    }

    /// Snapshots of the tables of this node that are not in `next`, where `auto_snapshot` wants them.
    ///
    /// # Errors
    /// The first that fails.
    pub(crate) async fn snapshot_before_drop(&self, next: &Schema) -> Result<(), CqlError> {
        let schema = self.state().schema;
        let dropped = schema.tables().filter(|table| !table.is_virtual);
        for table in dropped.filter(|table| next.table_by_id(table.id).is_none()) {
            let id = table.id;
            let taken = self
                .shards
                .on(0, move |node| {
                    Box::pin(async move { node.snapshot_before_drop(id).await })
                })
                .await;
            let failure = match taken {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure,
                Err(gone) => gone.to_string(),
            };
            let text = format!("The snapshot before the drop failed, nothing was dropped: {failure}");
            return Err(CqlError::Invalid(text));
        }
        Ok(())
    }

    /// Applies mutations on the shards that own them, and syncs their commitlogs. All of one keyspace are on one shard, for
    /// every table of `system_schema` has its name as partition key: after a crash they are all there or none.
    async fn store(&self, mutations: Vec<Mutation>) -> Result<(), String> {
        let mut of_keyspaces: BTreeMap<DecoratedKey, Vec<Mutation>> = BTreeMap::new();
        for mutation in mutations {
            of_keyspaces
                .entry(mutation.key.clone())
                .or_default()
                .push(mutation);
        }
        for (key, mutations) in of_keyspaces {
            let shard = key.token.shard(self.shards.count());
            let stored = self
                .shards
                .on(shard, move |node| {
                    Box::pin(async move { node.apply_durably(mutations).await })
                })
                .await;
            let failure = match stored {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure.to_string(),
                Err(gone) => gone.to_string(),
            };
            error!(%failure, "a schema change could not be stored");
            return Err(format!("The schema change could not be stored: {failure}"));
        }
        Ok(())
    }

    /// The keyspaces of clients and the roles as mutations with `timestamp`.
    pub(crate) fn all(&self, timestamp: i64) -> Vec<Mutation> {
        let state = self.state();
        let (timestamp, now) = (Timestamp(timestamp), UnixSeconds(timestamp / 1_000_000));
        let nobody = AccessControl::default();
        let keyspaces = keyspaces_of_clients(&state.schema).flat_map(|keyspace| {
            schema_rows::difference(None, Some(keyspace), &state.schema, timestamp, now)
        });
        let mut mutations: Vec<Mutation> = keyspaces.collect();
        mutations.extend(access_rows::difference(
            &nobody,
            &state.access,
            &state.schema,
            timestamp,
            now,
        ));
        mutations
    }

    /// Whether there is something of clients in the tables.
    pub(crate) fn is_empty(&self) -> bool {
        self.all(0).is_empty()
    }
}

impl Tables for SystemTables {
    fn apply(&self, id: Uuid, writes: TableWrites) -> Step<'_, ()> {
        Box::pin(async move {
            let planned = {
                let mut planned = self.planned.lock().expect("nobody panics with the lock");
                planned.take_if(|planned| planned.command == id)
            };
            self.store(writes.mutations.decode()?).await?;
            let (next, has_snapshots) = match planned {
                Some(planned) => (planned.next, planned.has_snapshots),
                None => (self.read().await?, false),
            };
            if !has_snapshots {
                // The drop was decided by all; here it can only be reported.
                if let Err(failure) = self.snapshot_before_drop(&next.schema).await {
                    error!(?failure, "a table is dropped without a snapshot");
                }
            }
            self.install(next).await?;
            match writes.event {
                Some(event) => self.announce(&event.into()).await,
                None => Ok(()),
            }
        })
    }

    fn contents(&self, timestamp: i64) -> Step<'_, MutationBytes> {
        Box::pin(async move { Ok(MutationBytes::encode(&self.all(timestamp))) })
    }

    fn replace(&self, contents: MutationBytes, timestamp: i64) -> Step<'_, ()> {
        Box::pin(async move {
            // What is here and not among the contents ends one step before them.
            let state = self.state();
            let (before, now) = (Timestamp(timestamp - 1), UnixSeconds(timestamp / 1_000_000));
            let mut mutations: Vec<Mutation> = keyspaces_of_clients(&state.schema)
                .flat_map(|keyspace| {
                    schema_rows::difference(Some(keyspace), None, &state.schema, before, now)
                })
                .collect();
            let nobody = AccessControl::default();
            mutations.extend(access_rows::difference(
                &state.access,
                &nobody,
                &state.schema,
                before,
                now,
            ));
            mutations.extend(contents.decode()?);
            self.store(mutations).await?;
            self.install(self.read().await?).await
        })
    }
}
