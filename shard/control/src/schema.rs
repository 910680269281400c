//! The one path of changes of the schema and of roles.
//!
//! Changes come from any shard, are taken one at a time, validated against what is present, written as mutations on the
//! `system_schema` and `system_auth` tables (those of one keyspace, or of one role, as one write, all or none), synced, and
//! only then installed on all shards: a client that has its answer finds the new schema on every shard, and after every
//! restart. The log that will order changes between nodes takes this module's place in front of
//! [`SchemaService::change`]; what follows stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ceto_model::schema::FunctionDefinition;
use ceto_model::{DecoratedKey, Keyspace, Mutation, Schema, Timestamp, UnixSeconds};
use ceto_node::control::{ControlRequest, SchemaOutcome, StorageFailure};
use ceto_node::cql::{AccessChange, AccessControl, CqlError, Performer, Role, SchemaChange};
use ceto_node::options::NodeOptions;
use ceto_node::system::access_rows;
use ceto_node::system::schema_rows::{self, StoredSchema};
use ceto_node::user_functions::{Compiler, FunctionError, Programs};
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::passwords::Passwords;
use crate::settings::{NotChanged, SettingsService};
use crate::shards::Shards;

#[allow(clippy::disallowed_methods)] // the control thread is outside of the simulator
fn now_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// Name and password of the role that a new cluster has.
const DEFAULT_SUPERUSER: &str = "cassandra";

/// Orders changes of the schema and of roles.
pub struct SchemaService {
    schema: Arc<Schema>,
    access: Arc<AccessControl>,
    options: Arc<NodeOptions>,
    passwords: Passwords,
    shards: Shards,
    /// What is compiled of the schema's functions.
    programs: Arc<Programs>,
    /// Timestamp of the last change: they strictly grow.
    last: i64,
}

impl SchemaService {
    /// Starts from what the shards have recovered and already serve.
    pub fn new(
        schema: Arc<Schema>,
        access: Arc<AccessControl>,
        options: Arc<NodeOptions>,
        shards: Shards,
        compiler: Option<Arc<dyn Compiler>>,
    ) -> SchemaService {
        SchemaService {
            schema,
            access,
            options,
            passwords: Passwords::new(),
            shards,
            programs: Arc::new(Programs::new(compiler)),
            last: 0,
        }
    }

    /// Serves requests until the node ends; storage failures go on to `failures`.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<ControlRequest>,
        failures: mpsc::Sender<StorageFailure>,
        settings: SettingsService,
    ) {
        while let Some(request) = requests.recv().await {
            let (outcome, from, slot) = match request {
                ControlRequest::ChangeSchema {
                    change,
                    role,
                    from,
                    slot,
                } => (self.change(&change, role.as_ref()).await, from, slot),
                ControlRequest::ChangeAccess {
                    change,
                    role,
                    from,
                    slot,
                } => {
                    let outcome = self.change_access(*change, role).await;
                    (outcome.map(|()| None), from, slot)
                }
                ControlRequest::ChangeSettings { changes, from, slot } => {
                    let outcome = settings.change(&changes).await;
                    let outcome = outcome.map_err(|error| match error {
                        NotChanged::Refused(text) => CqlError::Invalid(text),
                        NotChanged::Gone(gone) => CqlError::Invalid(gone.to_string()),
                    });
                    (outcome.map(|()| None), from, slot)
                }
                ControlRequest::ComparePassword {
                    password,
                    hash,
                    from,
                    slot,
                } => {
                    let (comparison, shards) = (self.passwords.compare(password, hash), self.shards.clone());
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
                    continue;
                }
                ControlRequest::StorageFailed(failure) => {
                    // One failure is enough; when the queue is full there have been others.
                    let _ = failures.try_send(failure);
                    continue;
                }
                // Nothing runs here yet that talks to other nodes.
                ControlRequest::PeerMessage { .. } => continue,
            };
            let told = self.shards.on(from, move |node| {
                Box::pin(async move { node.schema_changed(slot, outcome) })
            });
            if told.await.is_err() {
                return;
            }
        }
    }

    /// Validates, stores and installs one change; `role` asks for it.
    pub async fn change(&mut self, change: &SchemaChange, role: Option<&Arc<str>>) -> SchemaOutcome {
        self.last = now_micros().max(self.last + 1);
        let Some(mut next) = change.apply(&self.schema, self.last)? else {
            return Ok(None);
        };
        let programs = self.compile_functions(&next).await?;
        self.snapshot_before_drop(&next).await?;
        let mutations = self.mutations(&next);
        self.store(mutations).await?;
        next.version = schema_rows::version(&next);
        let event = change.event(&self.schema);
        let created = change.created(&self.schema);
        self.schema = Arc::new(next);
        info!(change = ?event.change, keyspace = %event.keyspace, target = ?event.target, version = %self.schema.version, "schema changed");
        if let Some(programs) = programs {
            self.programs = programs;
        }
        let (schema, programs) = (self.schema.clone(), self.programs.clone());
        let installed = self
            .shards
            .on_all(move |node| {
                let (schema, programs) = (schema.clone(), programs.clone());
                Box::pin(async move {
                    node.install_programs(programs);
                    node.install_schema(schema).await
                })
            })
            .await;
        installed.map_err(|gone| CqlError::Invalid(gone.to_string()))?;
        let creator = role.filter(|_| self.options.access.authorizes);
        let access = self.access.after_schema_change(&self.schema, created, creator);
        if let Some(access) = access {
            self.install_access(access).await?;
        }
        let announced = event.clone();
        let notified = self.shards.on_all(move |node| {
            let event = announced.clone();
            Box::pin(async move { node.notify_schema_change(&event) })
        });
        notified
            .await
            .map_err(|gone| CqlError::Invalid(gone.to_string()))?;
        Ok(Some(event))
    }

    /// What is compiled of the functions of `next`; None when no function is another than before. Beside this thread, for
    /// it can take seconds.
    ///
    /// # Errors
    /// `Invalid`, when the body of a function that is new does not compile.
    async fn compile_functions(&self, next: &Schema) -> Result<Option<Arc<Programs>>, CqlError> {
        let is_new = |function: &Arc<FunctionDefinition>| {
            let before = self.schema.keyspace(&function.keyspace);
            let before = before.and_then(|keyspace| {
                keyspace
                    .functions
                    .function(&function.name, &function.argument_types)
            });
            before != Some(function)
        };
        let (functions, before) = (functions_of(next), functions_of(&self.schema));
        let new: Vec<_> = functions
            .iter()
            .filter(|function| is_new(function))
            .cloned()
            .collect();
        if new.is_empty() && functions.len() == before.len() {
            return Ok(None);
        }
        let programs = self.programs.clone();
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

    /// Compiles the functions of the stored schema and makes them known to every shard. One that does not compile (any
    /// more) is logged, and its calls fail.
    pub async fn install_programs(&mut self) -> Result<(), CqlError> {
        let (programs, functions) = (self.programs.clone(), functions_of(&self.schema));
        let compiled = tokio::task::spawn_blocking(move || {
            programs.compile(functions.iter().map(|function| &**function), |function, failure| {
                error!(keyspace = %function.keyspace, function = %function.name, %failure, "a stored function does not compile; calls of it fail");
            })
        });
        let compiled = compiled
            .await
            .map_err(|error| CqlError::Invalid(error.to_string()))?;
        self.programs = Arc::new(compiled);
        let programs = self.programs.clone();
        let installed = self.shards.on_all(move |node| {
            let programs = programs.clone();
            Box::pin(async move { node.install_programs(programs) })
        });
        let installed = installed.await;
        installed.map_err(|gone| CqlError::Invalid(gone.to_string()))?;
        Ok(())
    }

    /// Validates, stores and installs one change of roles or of what is granted to them; `role` asks for it.
    async fn change_access(&mut self, change: AccessChange, role: Option<Arc<str>>) -> Result<(), CqlError> {
        self.last = now_micros().max(self.last + 1);
        let performer = Performer::new(self.access.clone(), self.options.access, role);
        let datacenter = &*self.options.datacenter;
        let mut change = change;
        if let Some(password) = change.password().map(str::to_owned) {
            change.check(&performer, &self.schema, datacenter)?;
            let hash = self.passwords.hash(&password).await;
            let hash = hash
                .map_err(|error| CqlError::Invalid(format!("The password could not be hashed: {error}")))?;
            change = change.with_hash(&hash);
        }
        match change.apply(&performer, &self.schema, datacenter)? {
            Some(next) => self.install_access(next).await,
            None => Ok(()),
        }
    }

    /// Stores and installs what holds for roles from now on.
    async fn install_access(&mut self, next: AccessControl) -> Result<(), CqlError> {
        let (timestamp, now) = (Timestamp(self.last), UnixSeconds(self.last / 1_000_000));
        let mutations = access_rows::difference(&self.access, &next, &self.schema, timestamp, now);
        self.store(mutations).await?;
        self.access = Arc::new(next);
        let access = self.access.clone();
        let installed = self.shards.on_all(move |node| {
            let access = access.clone();
            Box::pin(async move { node.install_access(access) })
        });
        let installed = installed.await;
        installed.map_err(|gone| CqlError::Invalid(gone.to_string()))?;
        Ok(())
    }

    /// Makes the roles known to every shard, and the first role where clients have to log in and there is none.
    pub async fn install_first_access(&mut self) -> Result<(), CqlError> {
        self.last = now_micros().max(self.last + 1);
        // A crash between a DROP and what it ends: a table of the same name must not find its permissions.
        let pruned = self.access.after_schema_change(&self.schema, Vec::new(), None);
        let mut access = pruned.unwrap_or_else(|| (*self.access).clone());
        if self.options.access.requires_login && access.roles.is_empty() {
            let hash = self.passwords.hash(DEFAULT_SUPERUSER).await;
            let hash = hash.map_err(CqlError::Invalid)?;
            let role = Role {
                can_login: true,
                is_superuser: true,
                salted_hash: Some(hash.into()),
                ..Role::default()
            };
            access.roles.insert(DEFAULT_SUPERUSER.into(), role);
            info!(
                role = DEFAULT_SUPERUSER,
                "the first superuser was made; change its password"
            );
        }
        self.install_access(access).await
    }

    /// Writes the rows that describe the system keyspaces themselves, where `stored` lacks them or has older ones.
    pub async fn describe_system_keyspaces(
        &mut self,
        stored: &StoredSchema,
        system: &Schema,
    ) -> Result<(), String> {
        let described = stored.system_keyspaces(system);
        self.last = now_micros().max(self.last + 1);
        let (timestamp, now) = (Timestamp(self.last), UnixSeconds(self.last / 1_000_000));
        let keyspaces = system.keyspaces().filter(|keyspace| !keyspace.is_virtual);
        let stale = keyspaces.filter(|keyspace| !described.contains(&*keyspace.name));
        let mutations: Vec<Mutation> = stale
            .flat_map(|keyspace| schema_rows::difference(None, Some(keyspace), system, timestamp, now))
            .collect();
        self.store(mutations).await.map_err(|error| format!("{error:?}"))
    }

    /// Snapshots of the tables that are not in `next`, where `auto_snapshot` wants them.
    async fn snapshot_before_drop(&self, next: &Schema) -> Result<(), CqlError> {
        let dropped = self.schema.tables().filter(|table| !table.is_virtual);
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

    /// The difference between the present schema and `next`, as mutations on the `system_schema` tables.
    fn mutations(&self, next: &Schema) -> Vec<Mutation> {
        let (timestamp, now) = (Timestamp(self.last), UnixSeconds(self.last / 1_000_000));
        let present = |schema: &Schema, name: &str| schema.keyspace(name).cloned();
        let mut names: Vec<Arc<str>> = self
            .schema
            .keyspaces()
            .chain(next.keyspaces())
            .map(|ks| ks.name.clone())
            .collect();
        names.sort();
        names.dedup();
        let changed = names.iter().filter_map(|name| {
            let (old, new) = (present(&self.schema, name), present(next, name));
            let same = match (&old, &new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
                _ => false,
            };
            (!same).then_some((old, new))
        });
        let difference = |(old, new): (Option<Arc<Keyspace>>, Option<Arc<Keyspace>>)| {
            schema_rows::difference(old.as_deref(), new.as_deref(), &self.schema, timestamp, now)
        };
        changed.flat_map(difference).collect()
    }

    /// Applies mutations on the shards that own them, and syncs their commitlogs. All of one keyspace are on one shard, for
    /// every table of `system_schema` has its name as partition key: after a crash they are all there or none.
    async fn store(&self, mutations: Vec<Mutation>) -> Result<(), CqlError> {
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
            return Err(CqlError::Invalid(format!(
                "The schema change could not be stored: {failure}"
            )));
        }
        Ok(())
    }
}

/// All user-defined functions.
fn functions_of(schema: &Schema) -> Vec<Arc<FunctionDefinition>> {
    let keyspaces = schema.keyspaces();
    keyspaces
        .flat_map(|keyspace| keyspace.functions.functions())
        .cloned()
        .collect()
}
