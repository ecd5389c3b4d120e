//! What `--help` and the manual pages show under "Examples": commands as they are typed.
//!
//! A test walks through all commands and parses every example. A comment begins with `#`, as in a shell.

pub(super) const QUIESCE: &str = "Examples:
  quiesce demo                 # see it all on this machine
  quiesce doctor               # is everything set up well, and what is to be done
  quiesce migrate db --to b    # stop db, prove it, start it on b

Exit codes:
  0  done as asked
  1  error
  2  wrong usage
  3  the operation ended another way: DEGRADED, ROLLED_BACK, CANCELLED, ABANDONED
  4  waited too long; the operation goes on";

pub(super) const APPLY: &str = "Examples:
  quiesce apply -f shop.yaml
  quiesce apply -f - --dry-run    # from the standard input, changing nothing

A document is `kind: Application` or `kind: Cluster` and the fields of that message, as YAML or JSON:

    kind: Application
    name: db
    cluster: a
    placement: {agents: {}}
    policy: {gracePeriod: 1m30s}

Fields that are not in the document stay as they are; those that are replace the old value as a whole.";

pub(super) const GET: &str = "Examples:
  quiesce get instances
  quiesce get operations --filter 'state = DEGRADED'    # what waits for a person
  quiesce get application db -o json";

pub(super) const DESCRIBE: &str = "Examples:
  quiesce describe operation op-7f3k    # how it stands, why, what to type next
  quiesce describe instance db/db-0     # also why it is UNREACHABLE";

pub(super) const MIGRATE: &str = "Examples:
  quiesce migrate db --to b --dry-run           # ask every hook whether it would work
  quiesce migrate db --to b --grace-period 5m
  quiesce migrate db --to b --detach --request-id ticket-4711 -o json";

pub(super) const DELETE: &str = "Examples:
  quiesce delete db --dry-run
  quiesce delete db --reason 'replaced by db2'
  quiesce delete db --force --reason 'its host is lost'";

pub(super) const WATCH: &str = "Examples:
  quiesce watch op-7f3k                  # to its end
  quiesce watch -o json                  # every event, with its resumeToken
  quiesce watch --filter 'application = applications/db'";

pub(super) const TOP: &str = "Examples:
  quiesce top
  quiesce top --filter 'application = applications/db'

Keys: arrows or j and k move, Enter opens an operation, Tab changes between operations, instances and events,
/ filters, ? explains, q ends. Where the standard output is no terminal, use `quiesce get` or `quiesce watch -o json`.";

pub(super) const DOCTOR: &str = "Examples:
  quiesce doctor                # everything
  quiesce doctor db             # of the applications, only db
  quiesce doctor -o json        # for monitoring; look at the exit code

Each line is ok, a warning, or a PROBLEM with what to do about it. It changes nothing: hooks are asked by a dry run,
which takes the role operator. Exit code: 0 no problem, 1 at least one.";

pub(super) const CANCEL: &str = "Examples:
  quiesce cancel op-7f3k
  quiesce cancel op-7f3k --reason 'wrong target'";

pub(super) const RETRY: &str = "Examples:
  quiesce retry op-7f3k --grace-period 5m
  quiesce retry op-7f3k --force --reason 'hangs, its data is safe'
  quiesce retry op-7f3k --force --allow-unverified --reason 'its host is gone'";

pub(super) const CONFIRM: &str = "Examples:
  quiesce confirm op-7f3k";

pub(super) const EXTEND: &str = "Examples:
  quiesce extend op-7f3k --by 30s";

pub(super) const FORGET: &str = "Examples:
  quiesce forget db/db-2    # scaled down, its host is gone for good";

pub(super) const READMIT: &str = "Examples:
  quiesce readmit db
  quiesce readmit db --cluster b    # it has moved since the backup
  quiesce readmit --all

A store that was restored from a backup does not know what has happened since. Before you readmit an \
application, see where it really runs, and make sure that no other copy of it does.";

pub(super) const TOKEN: &str = "Examples:
  quiesce token create --role operator --name ann
  quiesce token list";

pub(super) const TOKEN_CREATE: &str = "Examples:
  quiesce token create --role operator --name ann --application db --out ann.token
  quiesce token create --role agent --application db --uses 3 --out join.token";

pub(super) const TOKEN_LIST: &str = "Examples:
  quiesce token list";

pub(super) const TOKEN_REVOKE: &str = "Examples:
  quiesce token revoke t0c1d2e3 --reason 'ann has left'";

pub(super) const PKI: &str = "Examples:
  quiesce pki init pki
  quiesce pki issue pki scheduler.example.net 10.0.0.7
  quiesce pki show pki/scheduler.example.net.pem";

pub(super) const PKI_INIT: &str = "Examples:
  quiesce pki init pki
  quiesce pki init pki --name 'Example CA' --lifetime 730d";

pub(super) const PKI_ISSUE: &str = "Examples:
  quiesce pki issue pki scheduler.example.net 10.0.0.7     # a scheduler, by every name of it
  quiesce pki issue pki --agent shop/shop-0                # an agent
  quiesce pki issue pki spiffe://example.net/people/ann    # a person";

pub(super) const PKI_SHOW: &str = "Examples:
  quiesce pki show pki/ca.pem";

pub(super) const STORE: &str = "Examples:
  quiesce store backup /backups/today.quiesce    # while the scheduler runs
  quiesce store check --backup /backups/today.quiesce";

pub(super) const STORE_CHECK: &str = "Examples:
  quiesce store check
  quiesce store check --backup /backups/today.quiesce";

pub(super) const STORE_BACKUP: &str = "Examples:
  quiesce store backup /backups/today.quiesce

A scheduler that runs hands the backup out itself, to its own user and to root.";

pub(super) const STORE_RESTORE: &str = "Examples:
  quiesce store restore /backups/today.quiesce
  quiesce store restore /backups/today.quiesce --data-dir /srv/quiesce --replace

Only for a store that is lost. To move a scheduler to another machine, stop it and move its data directory.";

pub(super) const SCHEDULER: &str = "Examples:
  quiesce scheduler                                # on loopback, open to everybody on this machine
  quiesce scheduler --listen 0.0.0.0:7600 --tls-cert s.pem --tls-key s.key --tls-client-ca ca.pem
  quiesce scheduler --config quiesce.toml --print-config";

pub(super) const AGENT: &str = "Examples:
  quiesce agent --application db --cluster a -- redis-server --port 7001
  quiesce agent --application db --cluster b --standby -- redis-server --port 7002
  quiesce agent --application db --cluster a --stop-signal SIGINT:10s,SIGTERM -- ./server";

#[cfg(feature = "demo")]
pub(super) const DEMO: &str = "Examples:
  quiesce demo
  quiesce demo --keep    # look at state and logs afterwards";

pub(super) const COMPLETIONS: &str = "Examples:
  quiesce completions bash > /etc/bash_completion.d/quiesce
  quiesce completions zsh > ~/.zfunc/_quiesce
  quiesce completions bash --program quiesce-agent > /etc/bash_completion.d/quiesce-agent";

pub(super) const MAN: &str = "Examples:
  quiesce man /usr/local/share/man/man1
  quiesce man pages && man pages/quiesce.1";
