//! Names of all metrics of this crate: `feedlog_<stage>_<what>_<unit>`, never labelled by feed or user.

/// Time from handing a batch to the engine until it is durable.
pub const APPEND_COMMIT_SECONDS: &str = "feedlog_append_commit_seconds";
/// Groups in one commit.
pub const APPEND_BATCH_GROUPS: &str = "feedlog_append_batch_groups";
/// Bytes of one commit, roughly.
pub const APPEND_BATCH_BYTES: &str = "feedlog_append_batch_bytes";
/// Entries that became durable.
pub const APPEND_ENTRIES_TOTAL: &str = "feedlog_append_entries_total";
/// Commands answered, by `outcome`: done, duplicate, denied, rejected, retry, unknown.
pub const DECIDE_COMMANDS_TOTAL: &str = "feedlog_decide_commands_total";
/// Commands that found their mailbox full.
pub const DECIDE_WAITED_TOTAL: &str = "feedlog_decide_waited_total";
/// Attachments now.
pub const PUSH_ATTACHMENTS: &str = "feedlog_push_attachments";
/// Times a slow attachment fell back to the log.
pub const PUSH_FALLBACKS_TOTAL: &str = "feedlog_push_fallbacks_total";
/// How many commits a trailing projection is behind, by `projection`.
pub const PROJECTION_LAG_COMMITS: &str = "feedlog_projection_lag_commits";
/// Messages that were expired.
pub const PROJECTION_EXPIRED_TOTAL: &str = "feedlog_projection_expired_total";
/// Time of one read, by `what`.
pub const READ_SECONDS: &str = "feedlog_read_seconds";
/// Calls of the outbox, by `endpoint` and `outcome`: delivered, retried, dead.
pub const OUTBOX_CALLS_TOTAL: &str = "feedlog_outbox_calls_total";
/// How many commits an endpoint of the outbox is behind, by `endpoint`.
pub const OUTBOX_LAG_COMMITS: &str = "feedlog_outbox_lag_commits";

/// Handles of the counters of the hot path, looked up once. A recorder must be installed before the store is opened.
#[derive(Clone)]
pub(crate) struct Counters {
    pub(crate) entries: metrics::Counter,
    pub(crate) waited: metrics::Counter,
    pub(crate) done: metrics::Counter,
    pub(crate) duplicate: metrics::Counter,
    pub(crate) denied: metrics::Counter,
    pub(crate) rejected: metrics::Counter,
    pub(crate) retry: metrics::Counter,
    pub(crate) unknown: metrics::Counter,
}

impl Counters {
    pub(crate) fn new() -> Self {
        let outcome = |outcome: &'static str| metrics::counter!(DECIDE_COMMANDS_TOTAL, "outcome" => outcome);
        Self {
            entries: metrics::counter!(APPEND_ENTRIES_TOTAL),
            waited: metrics::counter!(DECIDE_WAITED_TOTAL),
            done: outcome("done"),
            duplicate: outcome("duplicate"),
            denied: outcome("denied"),
            rejected: outcome("rejected"),
            retry: outcome("retry"),
            unknown: outcome("unknown"),
        }
    }
}
