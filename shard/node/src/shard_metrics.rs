//! What one shard counts of its requests.

use ceto_native::ErrorCode;

use crate::metrics::{Counter, Histogram, Samples};

/// Kinds of requests that are timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// SELECT, at the coordinator.
    CoordinatorRead,
    /// INSERT, UPDATE, DELETE, BATCH, at the coordinator.
    CoordinatorWrite,
    /// A read of this shard's own data.
    ReplicaRead,
    /// A write to this shard's own data.
    ReplicaWrite,
}

impl Operation {
    const ALL: [(Operation, &'static str, &'static str); 4] = [
        (Self::CoordinatorRead, "coordinator", "read"),
        (Self::CoordinatorWrite, "coordinator", "write"),
        (Self::ReplicaRead, "replica", "read"),
        (Self::ReplicaWrite, "replica", "write"),
    ];
}

/// Counters of one shard.
#[derive(Default)]
pub(crate) struct ShardMetrics {
    /// Connections taken over.
    pub connections_opened: Counter,
    /// Connections gone.
    pub connections_closed: Counter,
    /// Connections refused (`native_transport_max_concurrent_connections`).
    pub connections_refused: Counter,
    /// Times a connection was not read for its bounds.
    pub connections_paused: Counter,
    /// Logins with the right password.
    pub logins: Counter,
    /// Logins refused.
    pub logins_refused: Counter,
    /// Connections cut because they stood still while others waited for the memory that they held.
    pub connections_stalled: Counter,
    /// Bytes of requests.
    pub bytes_received: Counter,
    /// Bytes of answers and events.
    pub bytes_sent: Counter,
    /// Requests answered Overloaded (`native_transport_max_requests_per_shard`).
    pub requests_shed: Counter,
    /// Reads that walked over more tombstones than `tombstone_warn_threshold`.
    pub tombstone_warnings: Counter,
    /// Reads without pages that failed at `tombstone_failure_threshold`.
    pub tombstone_failures: Counter,
    /// Pages that ended early at it.
    pub short_pages: Counter,
    /// QUERY messages.
    pub queries: Counter,
    /// EXECUTE messages.
    pub executes: Counter,
    /// BATCH messages.
    pub batches: Counter,
    /// PREPARE messages.
    pub prepares: Counter,
    /// Prepared statements dropped for room.
    pub prepared_evicted: Counter,
    /// EXECUTE of a statement that is not here.
    pub unprepared: Counter,
    /// Replica work sent to another shard of this node.
    pub replica_hops: Counter,
    /// Writes to this shard's own data.
    pub replica_writes: Counter,
    /// Reads of this shard's own data.
    pub replica_reads: Counter,
    /// Failures of storage that are nobody else's fault: damage, bugs.
    pub replica_faults: Counter,
    /// Rows sent to clients.
    pub rows_returned: Counter,
    /// Events sent to clients.
    pub events_sent: Counter,
    latencies: [Histogram; Operation::ALL.len()],
    errors: [Counter; ErrorCode::ALL.len()],
}

impl ShardMetrics {
    /// The latencies of `operation`.
    pub(crate) fn latency(&self, operation: Operation) -> &Histogram {
        &self.latencies[operation as usize]
    }

    /// Counts an error sent to a client.
    pub(crate) fn count_error(&self, code: ErrorCode) {
        if let Some(at) = ErrorCode::ALL.iter().position(|candidate| *candidate == code) {
            self.errors[at].increment();
        }
    }

    /// Errors sent of one code.
    pub(crate) fn errors(&self, code: ErrorCode) -> u64 {
        let at = ErrorCode::ALL.iter().position(|candidate| *candidate == code);
        at.map_or(0, |at| self.errors[at].get())
    }

    /// Adds everything to `samples`.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        for (operation, place, kind) in Operation::ALL {
            let labels = [("place", place), ("kind", kind)];
            samples.histogram(
                "ceto_request_seconds",
                "Latency of requests.",
                &labels,
                self.latency(operation),
            );
        }
        for code in ErrorCode::ALL {
            let labels = [("code", code.name())];
            samples.counter(
                "ceto_errors_total",
                "Errors sent to clients.",
                &labels,
                self.errors(code),
            );
        }
        for (message, counter) in [
            ("query", &self.queries),
            ("execute", &self.executes),
            ("batch", &self.batches),
            ("prepare", &self.prepares),
        ] {
            samples.counter(
                "ceto_requests_total",
                "Requests of clients.",
                &[("message", message)],
                counter.get(),
            );
        }
        let mut count = |name, help, counter: &Counter| samples.counter(name, help, &[], counter.get());
        count(
            "ceto_connections_opened_total",
            "Client connections taken over.",
            &self.connections_opened,
        );
        count(
            "ceto_connections_closed_total",
            "Client connections gone.",
            &self.connections_closed,
        );
        count(
            "ceto_connections_refused_total",
            "Client connections above the limit.",
            &self.connections_refused,
        );
        count(
            "ceto_connections_paused_total",
            "Times a connection was not read for its bounds.",
            &self.connections_paused,
        );
        count(
            "ceto_logins_total",
            "Logins with the right password.",
            &self.logins,
        );
        count(
            "ceto_logins_refused_total",
            "Logins refused.",
            &self.logins_refused,
        );
        count(
            "ceto_connections_stalled_total",
            "Connections cut because they stood still while others waited for memory that they held.",
            &self.connections_stalled,
        );
        count(
            "ceto_received_bytes_total",
            "Bytes of requests.",
            &self.bytes_received,
        );
        count(
            "ceto_sent_bytes_total",
            "Bytes of answers and events.",
            &self.bytes_sent,
        );
        count(
            "ceto_requests_shed_total",
            "Requests answered Overloaded.",
            &self.requests_shed,
        );
        count(
            "ceto_tombstone_warnings_total",
            "Reads over tombstone_warn_threshold.",
            &self.tombstone_warnings,
        );
        count(
            "ceto_tombstone_failures_total",
            "Reads without pages that failed at tombstone_failure_threshold.",
            &self.tombstone_failures,
        );
        count(
            "ceto_short_pages_total",
            "Pages that ended early at tombstone_failure_threshold.",
            &self.short_pages,
        );
        count(
            "ceto_prepared_evicted_total",
            "Prepared statements dropped for room.",
            &self.prepared_evicted,
        );
        count(
            "ceto_unprepared_total",
            "Executions of statements that were not prepared here.",
            &self.unprepared,
        );
        count(
            "ceto_replica_hops_total",
            "Replica work sent to another shard of this node.",
            &self.replica_hops,
        );
        count(
            "ceto_replica_writes_total",
            "Writes to this shard's own data.",
            &self.replica_writes,
        );
        count(
            "ceto_replica_reads_total",
            "Reads of this shard's own data.",
            &self.replica_reads,
        );
        count(
            "ceto_replica_faults_total",
            "Reads and writes of this shard's data that failed by damage or a bug.",
            &self.replica_faults,
        );
        count(
            "ceto_rows_returned_total",
            "Rows sent to clients.",
            &self.rows_returned,
        );
        count(
            "ceto_events_sent_total",
            "Events sent to clients.",
            &self.events_sent,
        );
    }
}
