//! Settings that change while the node runs: the one way of a change, whoever asks for it.
//!
//! Changes are taken one at a time, judged by the rules of `ceto.yaml` as a whole, and are on every shard before they are
//! answered. They are not stored: after a restart the file holds again.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use ceto_node::guardrails::table::Category;
use ceto_node::settings::Settings;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::info;

use crate::admin::{Admin, Answer, Failure};
use crate::shards::{ShardGone, Shards};

/// Makes the settings that follow from changes, by key, of the present ones; refuses with one line and leaves them.
pub type Reconfigure = Box<dyn FnMut(&[(String, String)]) -> Result<Settings, String> + Send>;

/// Orders changes of settings.
#[derive(Clone)]
pub struct SettingsService {
    reconfigure: Arc<Mutex<Reconfigure>>,
    shards: Shards,
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum NotChanged {
    /// The change is wrong.
    Refused(String),
    Gone(ShardGone),
}

impl SettingsService {
    /// Changes go through `reconfigure` to `shards`.
    pub fn new(reconfigure: Reconfigure, shards: Shards) -> SettingsService {
        SettingsService {
            reconfigure: Arc::new(Mutex::new(reconfigure)),
            shards,
        }
    }

    /// Makes all of `changes` or none.
    pub(crate) async fn change(&self, changes: &[(String, String)]) -> Result<(), NotChanged> {
        let mut reconfigure = self.reconfigure.lock().await;
        let settings = Arc::new(reconfigure(changes).map_err(NotChanged::Refused)?);
        info!(?changes, "settings changed, until the next start");
        let installed = self.shards.on_all(move |node| {
            let settings = settings.clone();
            Box::pin(async move { node.install_settings(&settings) })
        });
        // Still locked, so that no shard sees two changes in another order than the others.
        installed.await.map_err(NotChanged::Gone)?;
        Ok(())
    }
}

impl From<NotChanged> for Failure {
    fn from(error: NotChanged) -> Self {
        match error {
            NotChanged::Refused(text) => Failure(StatusCode::BAD_REQUEST, text),
            NotChanged::Gone(gone) => gone.into(),
        }
    }
}

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/settings", get(settings).post(change))
        .route("/v1/guardrails", get(guardrails))
}

async fn settings(State(admin): State<Admin>) -> Answer {
    let shown = admin
        .shards()
        .on(0, |node| Box::pin(async move { node.settings().shown.clone() }))
        .await?;
    let document = |setting: &ceto_node::settings::Setting| {
        json!({
            "name": setting.name,
            "value": setting.value,
            "type": setting.kind,
            "source": setting.source,
        })
    };
    let documents: Vec<Value> = shown.iter().map(document).collect();
    Ok(Json(json!({ "settings": documents })))
}

/// The query string has the changes.
async fn change(State(admin): State<Admin>, Query(changes): Query<Vec<(String, String)>>) -> Answer {
    admin.settings.change(&changes).await?;
    Ok(Json(json!({})))
}

async fn guardrails(State(admin): State<Admin>) -> Answer {
    let shown = admin
        .shards()
        .on(0, |node| {
            Box::pin(async move { node.settings().guardrails.shown() })
        })
        .await?;
    let documents: Vec<Value> = shown
        .into_iter()
        .map(|guardrail| {
            let category = match guardrail.category {
                Category::Flag => "flags",
                Category::Threshold => "thresholds",
                Category::Values => "values",
            };
            let keys: Vec<Value> = guardrail
                .keys
                .into_iter()
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect();
            json!({ "name": guardrail.name, "category": category, "keys": keys })
        })
        .collect();
    Ok(Json(json!({ "guardrails": documents })))
}
