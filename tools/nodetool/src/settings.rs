//! Verbs that show and change settings while the node runs: guardrails and timeouts.

use clap::Args;

use crate::api::{Done, GuardrailList, SettingList};
use crate::client::Client;
use crate::run::fetch;

/// `getguardrailsconfig`
#[derive(Args, Debug)]
pub(crate) struct GetGuardrailsArguments {
    /// Only those of a category
    #[arg(short, long, value_parser = ["values", "thresholds", "flags", "others"])]
    pub(crate) category: Option<String>,
    /// Write thresholds as the two keys of the configuration that they are
    #[arg(long)]
    pub(crate) expand: bool,
    /// Only this one
    #[arg(value_name = "GUARDRAIL")]
    pub(crate) name: Option<String>,
}

/// `setguardrailsconfig`
#[derive(Args, Debug)]
pub(crate) struct SetGuardrailsArguments {
    /// A guardrail and its value: true or false for a flag; for a threshold that which fails, then that which warns (-1 or
    /// null for none); names, also with commas, for values ([] or null for none)
    #[arg(value_name = "GUARDRAIL VALUE", allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// Rows of name and value in two columns.
fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| format!("{name:width$} {value}\n");
    rows.iter().map(line).collect()
}

/// A value as nodetool writes it.
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) => {
            let values: Vec<String> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}

/// Prints what guardrails are.
pub(crate) fn get_guardrails(client: &Client, arguments: &GetGuardrailsArguments) -> Result<String, String> {
    if arguments.name.is_some() && arguments.category.is_some() {
        return Err("Do not specify additional arguments when --category/-c is set.".to_owned());
    }
    let mut list: GuardrailList = fetch(client.get("/v1/guardrails", &[]))?;
    list.guardrails.sort_by(|a, b| a.name.cmp(&b.name));
    let mut groups: Vec<(&str, Vec<(String, String)>)> = ["flags", "thresholds", "values"]
        .into_iter()
        .map(|category| (category, Vec::new()))
        .collect();
    for guardrail in &list.guardrails {
        let keys = guardrail.keys.iter();
        let wanted: Vec<_> = match &arguments.name {
            Some(name) if *name != guardrail.name => keys.filter(|key| key.name == *name).collect(),
            _ => keys.collect(),
        };
        let mut rows: Vec<(String, String)> = wanted
            .iter()
            .map(|key| (key.name.clone(), shown(&key.value)))
            .collect();
        if let ([first, second], false) = (&rows[..], arguments.expand) {
            let both = format!("[{}, {}]", first.1, second.1);
            rows = vec![(guardrail.name.clone(), both)];
        }
        if let Some((_, group)) = groups
            .iter_mut()
            .find(|(category, _)| *category == guardrail.category)
        {
            group.extend(rows);
        }
    }
    let rows: Vec<(String, String)> = groups
        .into_iter()
        .filter(|(category, _)| {
            arguments
                .category
                .as_ref()
                .is_none_or(|wanted| wanted == category)
        })
        .flat_map(|(_, rows)| rows)
        .collect();
    match (&arguments.name, &rows[..]) {
        (Some(name), []) => Err(format!("Guardrail {name} not found.")),
        (Some(_), [(_, value)]) => Ok(format!("{value}\n")),
        _ => Ok(table(&rows)),
    }
}

/// Changes a guardrail.
pub(crate) fn set_guardrail(client: &Client, arguments: &SetGuardrailsArguments) -> Result<String, String> {
    let Some((name, values)) = arguments.words.split_first() else {
        return Err("No arguments.".to_owned());
    };
    let list: GuardrailList = fetch(client.get("/v1/guardrails", &[]))?;
    let Some(guardrail) = list.guardrails.iter().find(|guardrail| guardrail.name == *name) else {
        return Err(format!("Guardrail {name} not found."));
    };
    let is_list = guardrail.category == "values";
    let values: Vec<String> = match is_list && values.len() > 1 {
        true => vec![values.join(",")],
        false => values.to_vec(),
    };
    if values.len() != guardrail.keys.len() {
        return Err(format!(
            "{name} is expecting {} argument values. Getting {} instead.",
            guardrail.keys.len(),
            values.len()
        ));
    }
    if guardrail.category == "flags" && !["true", "false"].contains(&values[0].as_str()) {
        return Err("Use 'true' or 'false' values for booleans".to_owned());
    }
    // A threshold's keys come as its values do: that which fails first.
    let texts = values
        .iter()
        .map(|value| match (value.as_str(), &guardrail.keys[0].value) {
            ("null", serde_json::Value::Number(_)) => "-1",
            (value, _) => value,
        });
    let keys = guardrail.keys.iter().map(|key| key.name.as_str());
    let changes: Vec<(&str, &str)> = keys.zip(texts).collect();
    let changed = fetch(client.post::<Done>("/v1/settings", &changes));
    changed.map(|_| String::new()).map_err(|reason| {
        format!(
            "Error occured when setting the config for setter {name} with arguments [{}]: {reason}",
            values.join(", ")
        )
    })
}

/// Types of requests that `gettimeout` and `settimeout` know, and their keys.
const TIMEOUTS: [(&str, &str); 5] = [
    ("read", "read_request_timeout"),
    ("range", "range_request_timeout"),
    ("write", "write_request_timeout"),
    ("counterwrite", "counter_write_request_timeout"),
    ("truncate", "truncate_request_timeout"),
];

/// The key of a type of requests.
fn timeout_key(kind: &str) -> Result<&'static str, String> {
    match TIMEOUTS.iter().find(|(name, _)| *name == kind) {
        Some((_, key)) => Ok(key),
        None => {
            let names: Vec<&str> = TIMEOUTS.iter().map(|(name, _)| *name).collect();
            Err(format!(
                "there is no timeout of type {kind} here; there are {}",
                names.join(", ")
            ))
        }
    }
}

/// Prints a timeout in milliseconds.
pub(crate) fn get_timeout(client: &Client, kind: &str) -> Result<String, String> {
    let key = timeout_key(kind)?;
    let value = setting(client, key)?;
    let millis = match value.strip_suffix("ms") {
        Some(millis) => millis.to_owned(),
        None => format!("{}000", value.trim_end_matches('s')),
    };
    Ok(format!("Current timeout for type {kind}: {millis} ms\n"))
}

/// Sets a timeout.
pub(crate) fn set_timeout(client: &Client, kind: &str, millis: u64) -> Result<String, String> {
    set(client, timeout_key(kind)?, &format!("{millis}ms"))
}

/// Prints the part of requests that are traced.
pub(crate) fn get_trace_probability(client: &Client) -> Result<String, String> {
    let value = setting(client, "trace_probability")?;
    Ok(format!("Current trace probability: {value}\n"))
}

/// Traces a part of requests.
pub(crate) fn set_trace_probability(client: &Client, probability: f64) -> Result<String, String> {
    if !(0.0..=1.0).contains(&probability) {
        return Err("Trace probability must be between 0 and 1".to_owned());
    }
    set(client, "trace_probability", &format!("{probability:?}"))
}

/// Bytes of a megabit.
const MEGABIT: u64 = 125_000;
const MEBIBYTE: u64 = 1 << 20;
const STREAM_THROUGHPUT: &str = "stream_throughput_outbound";

/// Prints what may be streamed to other nodes.
pub(crate) fn get_stream_throughput(
    client: &Client,
    in_mib: bool,
    is_precise: bool,
) -> Result<String, String> {
    let value = setting(client, STREAM_THROUGHPUT)?;
    let bytes =
        bytes_per_second(&value).ok_or_else(|| format!("{STREAM_THROUGHPUT}: '{value}' is not a rate"))?;
    let shown = match bytes {
        0 => "unlimited".to_owned(),
        _ if in_mib => format!("{:?} MiB/s", bytes as f64 / MEBIBYTE as f64),
        _ if is_precise => format!("{:?} Mb/s", bytes as f64 / MEGABIT as f64),
        _ if bytes.is_multiple_of(MEGABIT) => format!("{} Mb/s", bytes / MEGABIT),
        _ => {
            return Err(
                "Use the -d flag to quiet this error and get the exact throughput in megabits/s".to_owned(),
            );
        }
    };
    Ok(format!("Current stream throughput: {shown}\n"))
}

/// Sets what may be streamed to other nodes.
pub(crate) fn set_stream_throughput(
    client: &Client,
    in_mib: bool,
    throughput: u64,
) -> Result<String, String> {
    let bytes = throughput.saturating_mul(if in_mib { MEBIBYTE } else { MEGABIT });
    set(client, STREAM_THROUGHPUT, &format!("{bytes}B/s"))
}

/// Of a rate as the node shows it: `24MiB/s`.
fn bytes_per_second(rate: &str) -> Option<u64> {
    let size = rate.strip_suffix("/s")?;
    let digits = size.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = size.split_at(digits);
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => MEBIBYTE,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// What nodetool calls the level of all parts that have none of their own.
const ROOT: &str = "ROOT";

/// The levels by part, that of all others first.
fn log_levels(client: &Client) -> Result<Vec<(String, String)>, String> {
    let shown = setting(client, "log_levels")?;
    let directives = shown.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut levels: Vec<(String, String)> = directives
        .map(|directive| match directive.split_once('=') {
            Some((component, level)) => (component.to_owned(), level.to_owned()),
            None => (ROOT.to_owned(), directive.to_owned()),
        })
        .collect();
    if !levels.iter().any(|(component, _)| component == ROOT) {
        levels.insert(0, (ROOT.to_owned(), "info".to_owned()));
    }
    Ok(levels)
}

/// Prints the levels of logs.
pub(crate) fn get_log_levels(client: &Client) -> Result<String, String> {
    let mut text = format!("\n{:<50}{:>10}\n", "Logger Name", "Log Level");
    for (component, level) in log_levels(client)? {
        text.push_str(&format!("{component:<50}{:>10}\n", level.to_uppercase()));
    }
    Ok(text)
}

/// Sets the level of a part; without a level it has that of all others, without a part all have the default.
pub(crate) fn set_log_level(
    client: &Client,
    component: Option<&str>,
    level: Option<&str>,
) -> Result<String, String> {
    let Some(component) = component else {
        return set(client, "log_levels", "\"\"");
    };
    let is_root = component.eq_ignore_ascii_case(ROOT);
    let level = match (level.map(str::to_lowercase), is_root) {
        (Some(level), _) if level == "all" => Some("trace".to_owned()),
        (None, true) => Some("info".to_owned()),
        (level, _) => level,
    };
    let mut levels = log_levels(client)?;
    let is_same = |own: &str| own == component || is_root && own == ROOT;
    levels.retain(|(own, _)| !is_same(own));
    if let Some(level) = level {
        let name = if is_root { ROOT } else { component };
        levels.push((name.to_owned(), level));
    }
    let directives: Vec<String> = levels
        .into_iter()
        .map(|(component, level)| match component == ROOT {
            true => level,
            false => format!("{component}={level}"),
        })
        .collect();
    set(client, "log_levels", &format!("\"{}\"", directives.join(",")))
}

/// A status as nodetool prints it.
pub(crate) fn running(is_running: bool) -> String {
    if is_running { "running\n" } else { "not running\n" }.to_owned()
}

/// The value of a key.
pub(crate) fn setting(client: &Client, key: &str) -> Result<String, String> {
    let list: SettingList = fetch(client.get("/v1/settings", &[]))?;
    let found = list.settings.into_iter().find(|setting| setting.name == key);
    found
        .map(|setting| setting.value)
        .ok_or_else(|| format!("the node does not tell {key}"))
}

/// Changes one key.
pub(crate) fn set(client: &Client, key: &str, value: &str) -> Result<String, String> {
    fetch(client.post::<Done>("/v1/settings", &[(key, value)])).map(|_| String::new())
}
