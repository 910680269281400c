//! `nodetool info`: one line for each fact, the label in 23 columns.

use std::fmt::{self, Display};

use crate::api::{Cache, NodeInfo};
use crate::format::{file_size, fixed, mean};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// Writes the lines; `all_tokens` writes each token instead of their number.
pub(crate) fn print(out: &mut dyn fmt::Write, info: &NodeInfo, all_tokens: bool) -> fmt::Result {
    line(out, "ID", &info.host_id)?;
    line(out, "Gossip active", &info.gossip_active)?;
    line(out, "Native Transport active", &info.native_transport_active)?;
    line(out, "Load", &file_size(info.load_bytes))?;
    line(out, "Uncompressed load", &file_size(info.uncompressed_load_bytes))?;
    line(out, "Generation No", &info.generation)?;
    line(out, "Uptime (seconds)", &info.uptime_seconds)?;
    let used = info.memory_used_bytes as f64 / MEBIBYTE;
    let limit = info.memory_limit_bytes as f64 / MEBIBYTE;
    line(out, "Heap Memory (MB)", &format_args!("{used:.2} / {limit:.2}"))?;
    line(
        out,
        "Off Heap Memory (MB)",
        &fixed(info.off_heap_bytes as f64 / MEBIBYTE, 2),
    )?;
    line(out, "Data Center", &info.datacenter)?;
    line(out, "Rack", &info.rack)?;
    line(out, "Exceptions", &info.exceptions)?;
    line(out, "Key Cache", &cache(&info.key_cache))?;
    line(out, "Row Cache", &cache(&info.row_cache))?;
    line(out, "Counter Cache", &cache(&info.counter_cache))?;
    line(
        out,
        "Percent Repaired",
        &format_args!("{:?}%", info.percent_repaired),
    )?;
    tokens(out, &info.tokens, all_tokens)?;
    line(out, "Bootstrap state", &info.bootstrap_state)?;
    line(out, "Bootstrap failed", &info.bootstrap_failed)?;
    line(out, "Decommissioning", &info.decommissioning)?;
    line(out, "Decommission failed", &info.decommission_failed)?;
    line(out, "Shards", &info.shards)?;
    info.write_refusals.iter().try_for_each(|refusal| {
        let text = format_args!("by shard {}: {}", refusal.shard, refusal.reason);
        line(out, "Writes refused", &text)
    })
}

fn line(out: &mut dyn fmt::Write, label: &str, value: &dyn Display) -> fmt::Result {
    writeln!(out, "{label:<23}: {value}")
}

fn tokens(out: &mut dyn fmt::Write, tokens: &[String], all: bool) -> fmt::Result {
    match tokens.len() {
        0 => line(out, "Token", &"(node is not joined to the cluster)"),
        count if count > 1 && !all => line(
            out,
            "Token",
            &format_args!("(invoke with -T/--tokens to see all {count} tokens)"),
        ),
        _ => tokens.iter().try_for_each(|token| line(out, "Token", token)),
    }
}

fn cache(cache: &Cache) -> String {
    format!(
        "entries {}, size {}, capacity {}, {} hits, {} requests, {} recent hit rate, {} save period in seconds",
        cache.entries,
        file_size(cache.size_bytes),
        file_size(cache.capacity_bytes),
        cache.hits,
        cache.requests,
        fixed(mean(cache.hits as f64, cache.requests), 3),
        cache.save_period_seconds,
    )
}
