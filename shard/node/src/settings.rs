//! Settings that can change while the node runs: what they are on this shard now, and the way of a change.
//!
//! A change comes by `UPDATE system.config` or the admin API, goes to the control thread, is judged there by the rules that
//! hold for `ceto.yaml`, and is installed on every shard before it is answered. Nothing is stored: the next start reads the
//! file.
//!
//! Never: a setting that one shard has and another has not, but for the moment of the change.

use std::rc::Rc;
use std::sync::Arc;

use ceto_cql::{ExpirationOverflow, WritePlan};
use ceto_model::{CellState, ColumnData, Mutation, Table};
use ceto_native::{ErrorMessage, Response};

use crate::answer::{cql_error, invalid};
use crate::control::ControlRequest;
use crate::execute::{Answer, RequestContext};
use crate::guardrails::Guardrails;
use crate::node::Node;
use crate::options::Limits;
use crate::system::definitions::{CONFIG, SYSTEM};

/// The value of a setting must be a text of at most so many bytes.
const VALUE_MAX: usize = 64 << 10;

/// Settings that can change while the node runs, and all settings as they are shown.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Timeouts, sizes and counts. Those that the node only looks at when it starts do not change.
    pub limits: Limits,
    /// What is forbidden, or warned of.
    pub guardrails: Guardrails,
    /// `expiration_date_overflow_policy`.
    pub expiration_overflow: ExpirationOverflow,
    /// `cql_duplicate_bind_variable_names_refer_to_same_variable`.
    pub merges_bind_variables: bool,
    /// `compaction_throughput`, bytes per second of all shards; 0: no limit.
    pub compaction_throughput: u64,
    /// `stream_throughput_outbound`, bytes per second of all shards; 0: no limit.
    pub stream_throughput: u64,
    /// `incremental_backups`.
    pub incremental_backups: bool,
    /// Requests are traced whose 64 random bits are below: `trace_probability`; 0: none.
    pub traced_below: u64,
    /// All keys.
    pub shown: Vec<Setting>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            guardrails: Guardrails::default(),
            expiration_overflow: ExpirationOverflow::default(),
            merges_bind_variables: false,
            compaction_throughput: 64 << 20,
            stream_throughput: 24 << 20,
            incremental_backups: false,
            traced_below: 0,
            shown: Vec::new(),
        }
    }
}

/// A key of `ceto.yaml` with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The key.
    pub name: String,
    /// As it is written in the file.
    pub value: String,
    /// What kind of value it is: `bool`, `integer`, `text`, `list`.
    pub kind: &'static str,
    /// Where the value comes from: `default`, `yaml`, or `live` after a change.
    pub source: &'static str,
}

/// Changes of settings, by key, in the form of the file.
pub type SettingChanges = Vec<(String, String)>;

/// Carries out `UPDATE system.config SET value = .. WHERE name = ..`.
pub(crate) async fn change(context: &RequestContext, plan: WritePlan) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let schema = node.schema();
    let table = schema.table(SYSTEM, CONFIG).expect("a table of the system");
    let changes: Option<SettingChanges> = plan
        .mutations
        .iter()
        .map(|mutation| read_change(table, mutation))
        .collect();
    let Some(changes) = changes.filter(|changes| !changes.is_empty()) else {
        return Err(invalid(
            "system.config takes UPDATE system.config SET value = '..' WHERE name = '..' only",
        ));
    };
    let (slot, answer) = node.outcomes.open();
    let request = ControlRequest::ChangeSettings {
        changes,
        from: node.shard(),
        slot,
    };
    if node.ask_control(request).is_err() {
        node.outcomes.cancel(slot);
        return Err(crate::answer::overloaded("Too many changes are waiting"));
    }
    answer.await.map_err(cql_error)?;
    Ok(context.message(Response::Void))
}

/// Name and value; None when the mutation does anything else than to give one its value.
fn read_change(table: &Table, mutation: &Mutation) -> Option<(String, String)> {
    let name = mutation.key.key.components(1)?.pop()?;
    let content = &mutation.partition;
    let [(_, row)] = &content.rows[..] else {
        return None;
    };
    let [(column, ColumnData::Cell(cell))] = &row.columns[..] else {
        return None;
    };
    let CellState::Live(value) = &cell.state else {
        return None;
    };
    let is_value = table.column("value").is_some_and(|own| own.id == *column);
    let is_plain = content.deletion.is_none() && row.deletion.is_none() && value.len() <= VALUE_MAX;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    (is_value && is_plain)
        .then(|| Some((text(&name)?, text(value)?)))
        .flatten()
}

impl Node {
    /// What holds now. Who keeps it over a wait goes by what held before.
    pub fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// `trace_probability` chooses the request that begins now.
    pub(crate) fn draws_trace(&self) -> bool {
        let traced_below = self.settings.borrow().traced_below;
        traced_below > 0 && self.env.random() < traced_below
    }

    /// Takes changed settings; they hold for whatever begins now.
    pub fn install_settings(&self, settings: &Arc<Settings>) {
        let before = self.settings.replace(Rc::new((**settings).clone()));
        if before.compaction_throughput != settings.compaction_throughput {
            let all = settings.compaction_throughput;
            let each = all.div_ceil(u64::from(self.shard_count()));
            self.set_compaction_throughput(each);
        }
        if before.incremental_backups != settings.incremental_backups {
            self.set_incremental_backups(settings.incremental_backups);
        }
        if let Ok(database) = self.database() {
            database.set_partition_limits(settings.guardrails.partition_limits());
        }
    }
}
