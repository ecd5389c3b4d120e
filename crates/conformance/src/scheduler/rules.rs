//! The promises, in the words of `proto/quiesce/v1` and `docs/protocol.md`. A test holds them against these.

/// Names.
pub(crate) const NAMES: &str = "{application} and {instance} are chosen by the client, 1 to 63 characters, ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ for an application";
/// Every violation.
pub(crate) const VIOLATIONS: &str = "INVALID_ARGUMENT adds a `BadRequest` with *every* bad field";
/// What is made.
pub(crate) const CREATE: &str = "`name` and `cluster` are required, output-only fields are ignored.";
/// As stored.
pub(crate) const EXISTS: &str = "Make an application known.";
/// Updates.
pub(crate) const UPDATE: &str =
    "Which fields. Unset: those that are set in `application`. Paths may go into policy (\"policy.grace_period\").";
/// Optimistic locking.
pub(crate) const ETAG: &str = "`name` says which. A set `etag` must match.";
/// Unknown things.
pub(crate) const UNKNOWN: &str = "Servers MUST ignore unknown fields and MUST NOT reject a request because of them, except that a Scheduler MUST reject unknown enum values in requests with INVALID_ARGUMENT.";
/// Policy.
pub(crate) const POLICY: &str = "Used in three places, each overriding the one before it field by field: scheduler default, Application.policy, the policy of one request. Operation.policy shows the outcome with every field set.";
/// Registration.
pub(crate) const REGISTER: &str = "Make an instance known, or bring its registration up to date. Called at every start of the agent and before every dialling in. Registering the same name again replaces the registration.";
/// While stopping.
pub(crate) const STOPPING: &str = "a known instance may register at any time";
/// Going away.
pub(crate) const DEREGISTER: &str = "During an operation it is refused: going away is no proof of having stopped.";
/// States of instances.
pub(crate) const INSTANCE: &str = "What the scheduler knows about the hook and the process behind it.";
/// Tokens of hooks.
pub(crate) const HOOK_TOKEN: &str = "CONNECT_MODE_LISTEN: what the scheduler will send as `authorization: Bearer` on every call of the hook. Stays the same over registrations.";
/// Secrets.
pub(crate) const SECRETS: &str = "They MUST NOT be logged, MUST NOT appear in status messages, error details, metrics, events or List and Get answers, and MUST be compared in constant time.";

/// Pages.
pub(crate) const PAGES: &str = "Larger values than max_page_size are cut down to it; negative ones are refused. A page may have fewer, which says nothing about the end.";
/// The next page.
pub(crate) const PAGE_TOKEN: &str = "next_page_token of the page before; the other fields as for that page.";
/// Filters.
pub(crate) const FILTER: &str = "A subset of AIP-160: restrictions joined by AND, no parentheses, no OR.";
/// Bad ones.
pub(crate) const BAD_FILTER: &str =
    "INVALID_FILTER, INVALID_PAGE_TOKEN and INVALID_RESUME_TOKEN are for a request in which nothing else is wrong";

/// Transitions.
pub(crate) const TRANSITIONS: &str = "Transitions, and nothing else:";
/// The gate.
pub(crate) const GATE: &str =
    "Nothing is removed, and no copy is started elsewhere, before the end of every instance is verified";
/// Deletion.
pub(crate) const DELETE: &str = "Stop the application gracefully and forget it.";
/// Order.
pub(crate) const STOP_ORDER: &str = "How many instances of equal stop_order may be stopped at a time.";
/// One at a time.
pub(crate) const ONE: &str = "At most one operation per application is open (not done).";
/// What is refused.
pub(crate) const INSTANCES_MISSING: &str = "When set and fewer are registered, an operation is refused with INSTANCES_MISSING: an instance nobody told the scheduler about would go on running.";
/// Idempotency.
pub(crate) const SAME: &str =
    "with the same content returns what the first one led to, in its present state, and has no further effect";
/// Its conflict.
pub(crate) const OTHER: &str = "with other content is refused with ALREADY_EXISTS / REQUEST_ID_CONFLICT.";
/// What uses an id up.
pub(crate) const USED_UP: &str =
    "An id is used up by a request that was accepted; refused requests and dry runs use up nothing.";
/// Dry run.
pub(crate) const DRY_RUN: &str = "Nothing is stored, nothing is stopped, no request_id is used. The response has the operation as it would begin, without a name, and `plan`.";
/// The record.
pub(crate) const RECORD: &str = "Authenticated identity of whoever asked, as the scheduler saw it.";

/// Timers.
pub(crate) const ACCEPT: &str = "No answer within accept_timeout.";
/// Silence.
pub(crate) const SILENCE: &str = "No report within heartbeat_timeout.";
/// Grace.
pub(crate) const GRACE: &str =
    "How long one attempt may take from the moment the hook accepts it until the application has ended.";
/// Backoff.
pub(crate) const BACKOFF: &str =
    "min(initial_backoff * multiplier^(n-2), max_backoff), times a random factor between 0.8 and 1.2.";
/// Names of attempts.
pub(crate) const SHUTDOWN_ID: &str = "Names this shutdown: one attempt on one instance for one operation.";
/// Reconnecting.
pub(crate) const RECONNECT: &str = "not over: reconnect, GetShutdown if there is one, then Shutdown with the same id; heartbeat_timeout limits how long";
/// Rejections.
pub(crate) const REJECTED: &str = "anything else - HOOK_REJECTED, attempt failed";
/// No result.
pub(crate) const NO_RESULT: &str = "OK without a result - PROTOCOL_ERROR, attempt failed";
/// Tokens with results.
pub(crate) const TOKEN: &str = "A result without the right token does not count.";
/// Rules that are broken.
pub(crate) const BROKEN: &str =
    "The hook broke the rules of ShutdownHook (phase went back, stream ended without result, wrong token).";
/// As the result says.
pub(crate) const RESULT: &str = "OK after a result - attempt over, as the result says";
/// Giving up.
pub(crate) const GIVE_UP: &str =
    "Stop nothing by force. The operation rests in STATE_DEGRADED until someone retries, forces or abandons it.";
/// Force.
pub(crate) const FORCE: &str = "Ask the hooks to kill (SIGKILL), verify within kill_timeout, go on when verified.";
/// Without proof.
pub(crate) const UNVERIFIED: &str = "With FAILURE_STRATEGY_FORCE: whether to go on when the end of an instance could not be verified (agent gone, no KILL capability).";
/// Claims.
pub(crate) const CLAIM: &str = "Does not count as verified.";
/// Unclean ends.
pub(crate) const UNCLEAN: &str = "Whether an application that ended with a non-zero status or by a signal other than the one it was sent stops the operation in STATE_DEGRADED";
/// The whole.
pub(crate) const OVERALL: &str =
    "Limit for the whole operation over all attempts, not counting the time in STATE_DEGRADED.";
/// Those that have ended.
pub(crate) const STAY: &str = "Instances that have stopped stay stopped, the others are attempted anew";

/// Starts at the target.
pub(crate) const STARTING: &str = "MIGRATE: the target is being started with a new epoch.";
/// Asked again.
pub(crate) const START_JOIN: &str =
    "a repeated call with the epoch of the last start joins it, or returns its final report.";
/// The way back.
pub(crate) const ROLLING_BACK: &str =
    "The target is stopped and verified, then the held source is started again with a higher epoch.";
/// Its end.
pub(crate) const ROLLED_BACK: &str = "Final. The source runs again, under a higher epoch.";
/// The way back, asked for.
pub(crate) const TAKEN_BACK: &str = "A migration that has STOPPED everything, or is STARTING its target, goes ROLLING_BACK: the target is stopped and verified, the held source starts again.";
/// The way back, once more.
pub(crate) const BACK_AGAIN: &str = "One that was degraded while ROLLING_BACK goes on rolling back.";
/// Nobody to start it.
pub(crate) const NO_STANDBY: &str = "placement agents: no standby on the target";
/// Deleted for good.
pub(crate) const RETIRED: &str = "DISPOSITION_RETIRED: the application has been deleted; mark the hold as deleted so that no restart policy brings it back";

/// Permission to start.
pub(crate) const ADMIT: &str = "Granted only when the application belongs on the cluster of the instance, no operation is open, and no other copy of this instance may be alive.";
/// Its name.
pub(crate) const START_ID: &str = "The same id gets the same epoch again.";
/// Its number.
pub(crate) const EPOCH: &str =
    "Permission to run is an epoch: a number the scheduler raises for every start of an application.";
/// Its end.
pub(crate) const REPORT_END: &str = "Frees the permission to run, so that a replacement may be admitted.";
/// Forgetting.
pub(crate) const FORGET: &str =
    "While its hook answers that a copy runs it is refused as well. Forgetting an unknown instance is OK.";

/// The caller's part.
pub(crate) const CONFIRM: &str =
    "an operation rests in STATE_STOPPED until ConfirmOperation says that the caller has done its part";
/// Places.
pub(crate) const CLUSTER: &str = "Make a cluster known, with labels. Not required: naming a cluster in an application or instance makes it known as well.";

/// Signs of life.
pub(crate) const NO_PINGS: &str =
    "nobody: gRPC servers close connections that ping too often. Liveness is GetHookInfo, and reports";

/// Extensions.
pub(crate) const WISH: &str = "Not an increment, so repeating it asks for nothing new. The scheduler grants up to grace_period + max_extension and tells the hook by UpdateDeadline.";
/// The answer.
pub(crate) const EXTEND: &str =
    "Ask for more time beside the Shutdown stream. The same as ShutdownStatus.wanted_grace_period, but with an answer.";
/// By people.
pub(crate) const EXTEND_OPERATION: &str = "A value that is not larger than the present one changes nothing.";

/// Completion.
pub(crate) const COMPLETE: &str =
    "Counts exactly like a final report in the stream; the first of the two wins, a repetition is OK.";
/// Its token.
pub(crate) const COMPLETION_TOKEN: &str =
    "CompleteShutdown and ExtendDeadline are authorized by the completion token alone";

/// Cancelling.
pub(crate) const CANCEL: &str = "Before the point of no return it becomes CANCELLED, by way of CANCELLING if hooks have to be asked, and no instance has been told to stop.";
/// Too late.
pub(crate) const TOO_LATE: &str = "CANCELLING -> CANCELLED | STOPPING (it came too late) | DEGRADED";
/// In between.
pub(crate) const IN_BETWEEN: &str = "In between, while instances are being stopped, it is too late.";
/// Out of DEGRADED.
pub(crate) const CLOSED: &str = "Out of DEGRADED it becomes CANCELLED if no instance was told to stop, ROLLED_BACK (by way of ROLLING_BACK) if held instances can be started again, else ABANDONED. Repeating the call is OK.";
/// Retrying.
pub(crate) const RETRY: &str = "Start a new round of a DEGRADED operation.";
/// With force.
pub(crate) const RETRY_FORCE: &str = "With `force` the round goes to FORCING straight away.";
/// A deletion with force.
pub(crate) const FORCED: &str =
    "instances that cannot be reached are given up as unverified, and an operation that is DEGRADED is superseded.";

/// Snapshots first.
pub(crate) const W1: &str = "W1 Without resume_token the stream begins with one TYPE_SNAPSHOT for each open matching operation (with include_done: for each), then one TYPE_BOOKMARK, then events.";
/// One operation.
pub(crate) const WATCH: &str = "Follow one operation to its end. The first event is a TYPE_SNAPSHOT with all instances (not when resuming); the event that makes the operation done is the last, then the call ends with OK. If it is done already, the snapshot is the only event.";
/// Resuming.
pub(crate) const W2: &str = "W2 With the resume_token of an earlier event, from any stream with the same filter, it goes on behind that event: nothing missing, nothing twice.";
/// Revisions.
pub(crate) const W3: &str = "W3 Revisions rise strictly within a stream, snapshots aside.";
/// What is merged.
pub(crate) const W4: &str = "W4 State changes, timeouts, extensions, failed attempts and ended instances are all delivered. Only TYPE_PROGRESS may be merged: of several reports of one instance the last is kept.";
/// Bookmarks.
pub(crate) const W5: &str = "W5 A TYPE_BOOKMARK comes after bookmark_interval (default 30s) without an event.";
/// Metadata.
pub(crate) const W7: &str = "W7 Initial metadata is sent at once, before the first event.";
/// Ends.
pub(crate) const W8: &str = "W8 The server may end the stream at any time with UNAVAILABLE (restart, new leader, connection age) or RESOURCE_EXHAUSTED / WATCH_TOO_SLOW; the reader resumes with its last token.";
/// The filter of a watch.
pub(crate) const WATCH_FILTER: &str = "OperationEvent.resume_token of an earlier watch with the same filter.";

/// Errors.
pub(crate) const ERRORS: &str = "Every error of a Scheduler, AgentGateway or Access carries exactly one `google.rpc.ErrorInfo` in `grpc-status-details-bin`";
/// Permission.
pub(crate) const PERMISSION: &str =
    "Permission is decided before existence: what is not there and what is not allowed get the same answer.";
/// Pauses.
pub(crate) const PAUSE: &str = "everything to be repeated after a pause a `RetryInfo`";
/// Reflection.
pub(crate) const REFLECTION: &str = "Reflection serves these types, so grpcurl prints them decoded.";
/// Deadlines of callers.
pub(crate) const DEADLINE: &str = "DEADLINE_EXCEEDED (made by the client) repeat with the same request_id";
/// Sizes.
pub(crate) const SIZE: &str = "A whole message stays under 1 MiB";

/// Dialling in.
pub(crate) const ATTACH: &str =
    "After OK the roles are reversed: the scheduler sends the HTTP/2 connection preface and is the gRPC client";
/// What is answered.
pub(crate) const ATTACH_ERROR: &str = "QUIESCE/1 ERROR <gRPC code name> <ErrorInfo reason> CRLF and closes";
/// Replacing.
pub(crate) const A1: &str = "A1 An instance has one attached connection. A new one with a valid token replaces the older, which the scheduler closes once the new one has answered GetHookInfo.";
/// Tokens.
pub(crate) const A2: &str =
    "A2 attach_token is good for 60 seconds and for one connection. To reconnect, register again.";
/// One port.
pub(crate) const ONE_PORT: &str = "to attach_endpoint, which may be the very port of this service";
/// Coming back.
pub(crate) const A5: &str = "A5 A lost connection does not end a shutdown (H9).";

/// Durability.
pub(crate) const DURABLE: &str = "All answers reflect every write acknowledged before them; a revision seen in one answer is never taken back in a later one.";
/// Remembering.
pub(crate) const RETENTION: &str = "Within 24 hours, or as long as the resulting operation exists if that is longer, a request with the same id from the same caller to the same method";
/// Timers go on.
pub(crate) const TIMERS: &str = "The timers of the shutdown go on meanwhile.";

/// All of them.
#[cfg(test)]
pub(crate) const ALL: &[&str] = &[
    NAMES,
    VIOLATIONS,
    CREATE,
    EXISTS,
    UPDATE,
    ETAG,
    UNKNOWN,
    POLICY,
    REGISTER,
    STOPPING,
    DEREGISTER,
    INSTANCE,
    HOOK_TOKEN,
    SECRETS,
    PAGES,
    PAGE_TOKEN,
    FILTER,
    BAD_FILTER,
    TRANSITIONS,
    GATE,
    DELETE,
    STOP_ORDER,
    ONE,
    INSTANCES_MISSING,
    SAME,
    OTHER,
    USED_UP,
    DRY_RUN,
    RECORD,
    ACCEPT,
    SILENCE,
    GRACE,
    BACKOFF,
    SHUTDOWN_ID,
    RECONNECT,
    REJECTED,
    NO_RESULT,
    TOKEN,
    BROKEN,
    RESULT,
    GIVE_UP,
    FORCE,
    UNVERIFIED,
    CLAIM,
    UNCLEAN,
    OVERALL,
    STAY,
    NO_PINGS,
    WISH,
    EXTEND,
    EXTEND_OPERATION,
    COMPLETE,
    COMPLETION_TOKEN,
    CANCEL,
    TOO_LATE,
    IN_BETWEEN,
    CLOSED,
    RETRY,
    RETRY_FORCE,
    FORCED,
    W1,
    WATCH,
    W2,
    W3,
    W4,
    W5,
    W7,
    W8,
    WATCH_FILTER,
    ERRORS,
    PERMISSION,
    PAUSE,
    REFLECTION,
    DEADLINE,
    SIZE,
    ATTACH,
    ATTACH_ERROR,
    A1,
    A2,
    ONE_PORT,
    A5,
    DURABLE,
    RETENTION,
    TIMERS,
    STARTING,
    START_JOIN,
    ROLLING_BACK,
    ROLLED_BACK,
    TAKEN_BACK,
    BACK_AGAIN,
    NO_STANDBY,
    RETIRED,
    ADMIT,
    START_ID,
    EPOCH,
    REPORT_END,
    FORGET,
    CONFIRM,
    CLUSTER,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_words_of_the_contract() {
        let files = [
            include_str!("../../../../proto/quiesce/v1/scheduler.proto"),
            include_str!("../../../../proto/quiesce/v1/agent_gateway.proto"),
            include_str!("../../../../proto/quiesce/v1/access.proto"),
            include_str!("../../../../proto/quiesce/v1/shutdown_hook.proto"),
            include_str!("../../../../proto/quiesce/v1/types.proto"),
            include_str!("../../../../docs/protocol.md"),
        ];
        let lines = files.iter().flat_map(|file| file.lines()).map(|line| line.trim().trim_start_matches("//"));
        let contract: String = lines.flat_map(str::split_whitespace).map(|word| format!("{word} ")).collect();
        for rule in ALL {
            assert!(contract.contains(rule), "not in the contract: {rule}");
        }
    }
}
