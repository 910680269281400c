//! From the words of a command line to an exit code.

use std::ffi::OsString;
use std::io::{self, Write};

use crate::api::{ClusterStatus, Done, NodeInfo, TableStatistics, Version};
use crate::arguments::{self, Arguments, OutputFormat, TableStatsArguments, Target, Verb};
use crate::client::{self, Client};
use crate::{
    absent, backup, cluster, compaction, hints, indexes, info, moves, settings, status, tablestats, views,
};

const SUCCESS: u8 = 0;
/// The node could not be reached or refused.
const FAILURE: u8 = 1;
/// The command line is wrong.
const MISUSE: u8 = 2;

/// Runs one command line: `arguments` is what follows the word `nodetool`. Writes its table to standard output, or
/// one line to standard error, and returns the exit code: 0 done, 1 not done, 2 the command line is wrong.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    execute(arguments, &mut io::stdout().lock(), &mut io::stderr().lock())
}

/// [`run`] with the output elsewhere.
pub(crate) fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> u8 {
    let (code, text) = match arguments::parse(arguments) {
        Err(error) if !error.use_stderr() => (SUCCESS, error.to_string()),
        Err(error) => (MISUSE, misuse(&error)),
        Ok(Arguments {
            verb: Verb::Unknown(words),
            ..
        }) if !absent::is_known(&words) => (MISUSE, absent::refusal(&words)),
        Ok(arguments) => match perform(&arguments) {
            Ok(text) => (SUCCESS, text),
            Err(text) => (FAILURE, text),
        },
    };
    let written = if code == SUCCESS {
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    } else {
        writeln!(errors, "nodetool: {text}")
    };
    match written {
        Ok(()) => code,
        // A closed pipe behind the table (`| head`) is the reader's choice.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(_) => FAILURE,
    }
}

/// The first line of the parser's message.
fn misuse(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is required; see 'ceto nodetool help'".to_owned();
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    // "the following arguments were not provided:" goes on in the next line.
    let rest = if first.ends_with(':') {
        lines.next().unwrap_or_default()
    } else {
        ""
    };
    format!(
        "{first}{}{rest}; see 'ceto nodetool help'",
        if rest.is_empty() { "" } else { " " }
    )
}

fn perform(arguments: &Arguments) -> Result<String, String> {
    let client = Client::new(&arguments.connection);
    let mut text = String::new();
    let written = match &arguments.verb {
        Verb::Info { tokens } => {
            let document: NodeInfo = fetch(client.get("/v1/node/info", &[]))?;
            info::print(&mut text, &document, *tokens)
        }
        Verb::Status { keyspace } => {
            let query: Vec<(&str, &str)> = keyspace.iter().map(|name| ("keyspace", name.as_str())).collect();
            let document: ClusterStatus = fetch(client.get("/v1/node/status", &query))?;
            status::print(&mut text, &document)
        }
        Verb::Describecluster => {
            text = cluster::describe(&client)?;
            Ok(())
        }
        Verb::Gossipinfo => {
            text = cluster::gossip(&client)?;
            Ok(())
        }
        Verb::Failuredetector => {
            text = cluster::failure_detector(&client)?;
            Ok(())
        }
        Verb::Ring { keyspace } => {
            text = cluster::ring(&client, keyspace.as_ref())?;
            Ok(())
        }
        Verb::Describering { keyspace } => {
            text = cluster::describe_ring(&client, keyspace)?;
            Ok(())
        }
        Verb::Assassinate { address } => {
            fetch(client.post::<Done>("/v1/cluster/assassinate", &[("address", address)])).map(|_| Ok(()))?
        }
        Verb::Decommission(arguments) => {
            text = moves::decommission(&client, arguments)?;
            Ok(())
        }
        Verb::Abortdecommission { node } => {
            text = moves::abort_decommission(&client, node.as_ref())?;
            Ok(())
        }
        Verb::Removenode(arguments) => {
            text = moves::remove_node(&client, arguments)?;
            Ok(())
        }
        Verb::Rebuild(arguments) => {
            text = moves::rebuild(&client, arguments)?;
            Ok(())
        }
        Verb::Netstats => {
            text = moves::netstats(&client)?;
            Ok(())
        }
        Verb::Version { verbose } => {
            text = version(&fetch(client.get("/v1/node/version", &[]))?, *verbose);
            Ok(())
        }
        Verb::Tablestats(arguments) => {
            text = table_statistics(fetch(client.get("/v1/tables/stats", &[]))?, arguments)?;
            Ok(())
        }
        Verb::Flush(target) => order(&client, "/v1/node/flush", target, &[]).map(|()| Ok(()))?,
        Verb::Snapshot(arguments) => {
            text = backup::snapshot(&client, arguments)?;
            Ok(())
        }
        Verb::Listsnapshots(arguments) => {
            text = backup::list_snapshots(&client, arguments)?;
            Ok(())
        }
        Verb::Clearsnapshot(arguments) => {
            text = backup::clear_snapshot(&client, arguments)?;
            Ok(())
        }
        Verb::Refresh(arguments) => {
            text = backup::refresh(&client, arguments)?;
            Ok(())
        }
        Verb::Import(arguments) => {
            text = backup::import(&client, arguments)?;
            Ok(())
        }
        Verb::Viewbuildstatus(arguments) => {
            text = views::build_status(&client, arguments)?;
            Ok(())
        }
        Verb::RebuildIndex(arguments) => indexes::rebuild(&client, arguments).map(Ok)?,
        Verb::Enablebackup => fetch(client.post::<Done>("/v1/backup/enable", &[])).map(|_| Ok(()))?,
        Verb::Disablebackup => fetch(client.post::<Done>("/v1/backup/disable", &[])).map(|_| Ok(()))?,
        Verb::Statusbackup => {
            text = backup::status(&client)?;
            Ok(())
        }
        Verb::Getguardrailsconfig(arguments) => {
            text = settings::get_guardrails(&client, arguments)?;
            Ok(())
        }
        Verb::Setguardrailsconfig(arguments) => {
            text = settings::set_guardrail(&client, arguments)?;
            Ok(())
        }
        Verb::Gettimeout { kind } => {
            text = settings::get_timeout(&client, kind)?;
            Ok(())
        }
        Verb::Settimeout { kind, millis } => {
            text = settings::set_timeout(&client, kind, *millis)?;
            Ok(())
        }
        Verb::Getendpoints { keyspace, table, key } => {
            text = cluster::endpoints(&client, keyspace, table, key)?;
            Ok(())
        }
        Verb::Statushandoff => {
            text = hints::status(&client)?;
            Ok(())
        }
        Verb::Enablehandoff => hints::enable(&client, true).map(|_| Ok(()))?,
        Verb::Disablehandoff => hints::enable(&client, false).map(|_| Ok(()))?,
        Verb::Pausehandoff => hints::pause(&client, true).map(|_| Ok(()))?,
        Verb::Resumehandoff => hints::pause(&client, false).map(|_| Ok(()))?,
        Verb::Truncatehints { addresses } => hints::truncate(&client, addresses).map(|_| Ok(()))?,
        Verb::Listpendinghints => {
            text = hints::list_pending(&client)?;
            Ok(())
        }
        Verb::Getstreamthroughput { mib, precise } => {
            text = settings::get_stream_throughput(&client, *mib, *precise)?;
            Ok(())
        }
        Verb::Setstreamthroughput { mib, throughput } => {
            text = settings::set_stream_throughput(&client, *mib, *throughput)?;
            Ok(())
        }
        Verb::Gettraceprobability => {
            text = settings::get_trace_probability(&client)?;
            Ok(())
        }
        Verb::Settraceprobability { probability } => {
            text = settings::set_trace_probability(&client, *probability)?;
            Ok(())
        }
        Verb::Getlogginglevels => {
            text = settings::get_log_levels(&client)?;
            Ok(())
        }
        Verb::Setlogginglevel { component, level } => {
            text = settings::set_log_level(&client, component.as_deref(), level.as_deref())?;
            Ok(())
        }
        Verb::Enablebinary => {
            fetch(client.post::<Done>("/v1/node/binary", &[("enabled", "true")])).map(|_| Ok(()))?
        }
        Verb::Disablebinary => {
            fetch(client.post::<Done>("/v1/node/binary", &[("enabled", "false")])).map(|_| Ok(()))?
        }
        Verb::Statusbinary => {
            let status: crate::api::Serving = fetch(client.get("/v1/node/binary", &[]))?;
            text = settings::running(status.running);
            Ok(())
        }
        Verb::Statusgossip => {
            let document: NodeInfo = fetch(client.get("/v1/node/info", &[]))?;
            text = settings::running(document.gossip_active);
            Ok(())
        }
        Verb::Unknown(words) => return Err(absent::refusal(words)),
        Verb::Drain => fetch(client.post::<Done>("/v1/node/drain", &[])).map(|_| Ok(()))?,
        verb => {
            text = compaction::perform(&client, verb)?;
            Ok(())
        }
    };
    written.expect("writing to a string does not fail");
    Ok(text)
}

pub(crate) fn fetch<T>(answer: Result<T, client::Error>) -> Result<T, String> {
    answer.map_err(|error| error.to_string())
}

fn version(version: &Version, verbose: bool) -> String {
    let mut text = format!("ReleaseVersion: {}\n", version.release_version);
    if let (true, Some(own)) = (verbose, &version.ceto_version) {
        text.push_str(&format!("CetoVersion: {own}\n"));
    }
    text
}

fn table_statistics(
    mut statistics: TableStatistics,
    arguments: &TableStatsArguments,
) -> Result<String, String> {
    tablestats::select(&mut statistics, &arguments.names, arguments.ignore)?;
    if arguments.format == Some(OutputFormat::Json) {
        let text = serde_json::to_string_pretty(&statistics).map_err(|error| error.to_string())?;
        return Ok(text + "\n");
    }
    let mut text = String::new();
    tablestats::print(&mut text, &statistics, arguments.human_readable)
        .expect("writing to a string does not fail");
    Ok(text)
}

/// Orders `path` for each table of the target, or once for its keyspace, or once for everything.
pub(crate) fn order(
    client: &Client,
    path: &str,
    target: &Target,
    options: &[(&str, &str)],
) -> Result<(), String> {
    let keyspace: Vec<(&str, &str)> = target
        .keyspace
        .iter()
        .map(|name| ("keyspace", name.as_str()))
        .collect();
    let tables: Vec<Option<&str>> = match &target.tables[..] {
        [] => vec![None],
        tables => tables.iter().map(|table| Some(table.as_str())).collect(),
    };
    for table in tables {
        let table = table.map(|table| ("table", table));
        let query = keyspace.iter().copied().chain(table);
        let query: Vec<(&str, &str)> = query.chain(options.iter().copied()).collect();
        fetch(client.post::<Done>(path, &query))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
