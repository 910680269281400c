//! Verbs that Cassandra's nodetool has and this one has not, and why.

/// Reasons, and the verbs that they are the reason for.
const ABSENT: [(&str, &[&str]); 7] = [
    (
        "nothing is repaired, tokens do not move, and the rest is set in ceto.yaml",
        &[
            "abortbootstrap",
            "bootstrap",
            "checktokenmetadata",
            "disablegossip",
            "disablehintsfordc",
            "enablegossip",
            "enablehintsfordc",
            "forcecompact",
            "getbatchlogreplaythrottle",
            "gethintedhandoffthrottlekb",
            "getinterdcstreamthroughput",
            "getmaxhintwindow",
            "getseeds",
            "join",
            "mkcms",
            "move",
            "recompress_sstables",
            "reloadseeds",
            "repair",
            "repair_admin",
            "replaybatchlog",
            "resetlocalschema",
            "reloadlocalschema",
            "setbatchlogreplaythrottle",
            "sethintedhandoffthrottlekb",
            "setinterdcstreamthroughput",
            "setmaxhintwindow",
        ],
    ),
    (
        "there is no Java virtual machine, thread pool or JMX",
        &[
            "gcstats",
            "tpstats",
            "sjk",
            "getconcurrency",
            "setconcurrency",
            "disableoldprotocolversions",
        ],
    ),
    (
        "caches follow memory_limit by themselves; there are no key and counter caches",
        &[
            "invalidatecountercache",
            "invalidatekeycache",
            "invalidaterowcache",
            "setcachecapacity",
            "setcachekeystosave",
            "invalidatejmxpermissionscache",
        ],
    ),
    (
        "roles and permissions are not cached: a change holds when it is answered",
        &[
            "getauthcacheconfig",
            "invalidatecredentialscache",
            "invalidatecidrpermissionscache",
            "invalidatenetworkpermissionscache",
            "invalidatepermissionscache",
            "invalidaterolescache",
            "setauthcacheconfig",
            "reloadssl",
        ],
    ),
    (
        "there is neither an audit log nor a full query log",
        &[
            "disableauditlog",
            "disablefullquerylog",
            "enableauditlog",
            "enablefullquerylog",
            "getauditlog",
            "getfullquerylog",
            "resetfullquerylog",
        ],
    ),
    (
        "it is an option of the table: ALTER TABLE .. WITH compaction = {..}",
        &["getcompactionthreshold", "setcompactionthreshold"],
    ),
    (
        "figures of latencies, tables and compactions are metrics (http://..:9180/metrics) and those of tablestats",
        &[
            "proxyhistograms",
            "tablehistograms",
            "toppartitions",
            "profileload",
            "viewmetrics",
        ],
    ),
];

/// Cassandra's nodetool has the verb.
pub(crate) fn is_known(words: &[String]) -> bool {
    let verb = words.first().map_or("", String::as_str);
    ABSENT.iter().any(|(_, verbs)| verbs.contains(&verb))
}

/// Why a verb that is not known is not there.
pub(crate) fn refusal(words: &[String]) -> String {
    let verb = words.first().map_or("", String::as_str);
    match ABSENT.iter().find(|(_, verbs)| verbs.contains(&verb)) {
        Some((reason, _)) => format!("{verb} is not supported: {reason}"),
        None => format!("there is no command '{verb}'; see 'ceto nodetool help'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_of_nodetool_is_refused_with_a_reason() {
        let words = |verb: &str| [verb.to_owned()];
        assert_eq!(
            refusal(&words("tpstats")),
            "tpstats is not supported: there is no Java virtual machine, thread pool or JMX"
        );
        assert!(refusal(&words("compcat")).starts_with("there is no command 'compcat'"));
    }
}
