//! `viewbuildstatus`.

use crate::api::ViewBuild;
use crate::arguments::ViewBuildStatusArguments;
use crate::client::Client;
use crate::run::fetch;

/// Says whether a view is built; an error when it is not yet.
pub(crate) fn build_status(client: &Client, arguments: &ViewBuildStatusArguments) -> Result<String, String> {
    let (keyspace, view) = match (&arguments.view, arguments.keyspace.split_once('.')) {
        (Some(view), _) => (arguments.keyspace.as_str(), view.as_str()),
        (None, Some(pair)) => pair,
        (None, None) => return Err("viewbuildstatus requires keyspace and view name arguments".to_owned()),
    };
    let query = [("keyspace", keyspace), ("view", view)];
    let build: ViewBuild = fetch(client.get("/v1/views/build", &query))?;
    if build.status == "SUCCESS" {
        return Ok(format!("{keyspace}.{view} has finished building\n"));
    }
    let width = build.host.len().max("Host".len());
    Err(format!(
        "{keyspace}.{view} has not finished building; node status is below.\n\n{:width$} Info\n{:width$} {}",
        "Host", build.host, build.status
    ))
}
