//! Every option there is: one table, from which the command line, the file's keys, `--help`, the README's table and
//! the checks of single values are made. A default stands here with its reason.

use std::time::Duration;

use super::{parse, policy};

/// What a value must look like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// 0 to 65535; 0 lets the system choose.
    Port,
    /// An IP address to listen on.
    Address,
    /// A whole number within bounds, both included.
    Count(u64, u64),
    /// A duration with its unit, within bounds, both included.
    Duration(Duration, Duration),
    /// Bytes, with a unit such as KiB, within bounds, both included.
    Size(u64, u64),
    /// 0 to 1.
    Share,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A token of RFC 9110 §5.6.2, since it goes into a header.
    Token,
    /// Tokens, separated by commas.
    Tokens,
    /// Error statuses, separated by commas.
    Errors,
    /// Networks such as `10.0.0.0/8`.
    Networks,
    /// Backends: `HOST:PORT[,weight=N][,name=X]`.
    Backends,
    /// A file's path.
    Path,
    /// Any text; a secret is never shown.
    Secret,
    /// What `RUST_LOG` takes.
    LogFilter,
    /// A path, perhaps with a query, as it stands in a request.
    Target,
    /// A host name or address, perhaps with a port; or nothing.
    Host,
    /// A set of statuses.
    Statuses,
    /// A short text; or nothing.
    Text,
}

/// One option.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Its key in the file, and its name in messages. Empty for what a file cannot say.
    pub key: &'static str,
    pub flag: Option<&'static str>,
    pub variable: Option<&'static str>,
    pub kind: Kind,
    /// As a person would write it; empty when there is none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
    pub heading: &'static str,
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = secs(3600);

macro_rules! option {
    ($heading:literal, $key:literal, $flag:expr, $variable:expr, $kind:expr, $default:literal, $help:literal, $reason:literal) => {
        Opt {
            key: $key,
            flag: $flag,
            variable: $variable,
            kind: $kind,
            default: $default,
            help: $help,
            reason: $reason,
            heading: $heading,
        }
    };
}

/// All options, in the order that tables show them.
#[rustfmt::skip]
pub(crate) static OPTIONS: &[Opt] = &[
    option!("Listening", "proxy.port", Some("port"), Some("PROXY_PORT"), Kind::Port, "8080",
        "Port that clients connect to; 0 lets the system choose", "above 1024, so no privilege is needed"),
    option!("Listening", "proxy.bind", Some("bind"), Some("PROXY_BIND"), Kind::Address, "::",
        "Address that clients connect to; :: is every interface, IPv6 and IPv4", "a balancer is there to be reached"),
    option!("Listening", "proxy.workers", Some("workers"), Some("LB_WORKERS"), Kind::Count(0, 256), "0",
        "Worker threads; 0 is one per core", "each worker runs alone on its core, so more would only take turns"),
    option!("Listening", "proxy.trusted_proxies", Some("trusted-proxy"), Some("LB_TRUSTED_PROXIES"), Kind::Networks, "",
        "Networks whose X-Forwarded-* and X-Request-Id are kept and extended; others' are replaced",
        "a client must not be able to choose the address it is logged with"),
    option!("Listening", "proxy.proxy_protocol_from", Some("proxy-protocol-from"), Some("LB_PROXY_PROTOCOL_FROM"), Kind::Networks, "",
        "Networks whose connections must begin with a PROXY protocol header (v1 or v2) that names the client",
        "whoever may send one chooses the address it is known by"),
    option!("Listening", "proxy.via", None, None, Kind::Token, "",
        "Name in the Via header; a request that carries it already is refused as a loop (508)",
        "loadbalancer-XXXXXXXX, made at each start: it tells this process from all others without naming the host"),
    option!("Listening", "proxy.upgrades", None, None, Kind::Tokens, "websocket",
        "Protocols that a GET may switch to (Upgrade); others are left out of the request",
        "h2c is a known way round a proxy's rules"),
    option!("Listening", "proxy.abort_on_close", Some("abort-on-close"), Some("LB_ABORT_ON_CLOSE"), Kind::Switch, "false",
        "Whether a client that closes its sending side while it waits has given up; otherwise it gets its answer",
        "a half-closed connection is valid (RFC 9112 9.6); a reset always ends the request"),
    option!("Listening", "proxy.explain_errors", Some("explain-errors"), Some("LB_EXPLAIN_ERRORS"), Kind::Switch, "true",
        "Whether error replies name backends and reasons", "the reader is usually the engineer on call; switch it off on a public edge"),

    option!("Limits", "limits.connections", Some("max-connections"), Some("LB_MAX_CONNECTIONS"), Kind::Count(0, 10_000_000), "0",
        "Client connections at a time, all workers together; more wait in the kernel, and idle ones are closed for them. 0 is what the descriptor limit carries",
        "half of what the limit leaves: each client may need a connection to a backend, and the admin API keeps its own"),
    option!("Limits", "limits.connections_per_client", Some("max-connections-per-client"), Some("LB_MAX_CONNECTIONS_PER_CLIENT"), Kind::Count(0, 1_000_000), "0",
        "Connections at a time of one client address (IPv6: one /64); more are answered 429. 0 is no limit; trusted proxies have none",
        "people behind one NAT or CDN share an address"),

    option!("Backends", "pool.backends", Some("backend"), Some("BACKENDS"), Kind::Backends,
        "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083",
        "A server, HOST:PORT[,weight=N][,name=X]; the flag repeats, the variable lists them with commas",
        "the ports of the servers in the quick start"),

    option!("Backends", "pool.policy", Some("policy"), Some("LB_POLICY"), Kind::Choice(policy::NAMES), "round_robin",
        "Who gets the next request: each in turn by weight; or, of two drawn by weight, the one with less under way; or the one where that times its response time is less. Failures count for a while, too",
        "turns can be counted with curl; least_requests is for servers or requests that differ, peak_ewma where one may get slow, but not for long polls"),

    option!("Backends", "pool.max_requests", Some("max-requests"), Some("LB_MAX_REQUESTS"), Kind::Count(0, 10_000_000), "0",
        "Requests under way in a pool at a time, tunnels included; more wait (queue.length). 0 is no limit",
        "only who runs the servers knows what they carry"),
    option!("Backends", "pool.max_requests_per_backend", Some("max-requests-per-backend"), Some("LB_MAX_REQUESTS_PER_BACKEND"), Kind::Count(0, 10_000_000), "0",
        "Requests under way at one backend at a time; full ones are passed over, and when all are full requests wait (queue.length). 0 is no limit",
        "as above; the number of its threads or processes is a good value"),
    option!("Backends", "pool.max_connections", None, None, Kind::Count(0, 10_000_000), "0",
        "Connections to a pool's backends at a time, idle ones included; a request that needs one more waits for timeouts.connect. 0 is no limit but that of descriptors",
        "idle ones are closed from 90 % of what descriptors carry on, so they are never in the way"),
    option!("Backends", "queue.length", None, None, Kind::Count(0, 1_000_000), "1024",
        "Requests that may wait while a limit of a pool is reached; more are answered 503. 0 is none", "Envoy's; at 10 ms a request and 10 at a time it is emptied in a second"),
    option!("Backends", "queue.timeout", None, None, Kind::Duration(MILLI, HOUR), "1s",
        "For a request to wait there; then it is answered 503", "linkerd's; a person does not notice a second, and a standing queue must not become everybody's delay"),

    option!("Overload", "overload.memory", Some("memory-limit"), Some("LB_MEMORY_LIMIT"), Kind::Size(0, 1 << 50), "0",
        "Memory that the balancer may take: from 90 % on idle connections are closed, from 95 % on requests are answered 503. 0 is what the control group or the machine has",
        "quick 503s are better than being killed by the kernel"),
    option!("Overload", "rate_limit.requests", Some("rate-limit"), Some("LB_RATE_LIMIT"), Kind::Count(0, 1_000_000), "0",
        "Requests of one client (address, or /64 of IPv6) in each rate_limit.period; more are answered 429. 0 is no limit; trusted proxies speak for the clients they name",
        "people behind one NAT share an address"),
    option!("Overload", "rate_limit.period", None, None, Kind::Duration(MILLI, HOUR), "1s",
        "The time in which rate_limit.requests may come", "rates are mostly meant per second"),
    option!("Overload", "rate_limit.burst", None, None, Kind::Count(0, 1_000_000), "0",
        "Requests of one client that may come at once after a rest; 0 is rate_limit.requests", "a page with its pictures is a burst"),
    option!("Overload", "rate_limit.header", None, None, Kind::Token, "",
        "Field that says who asks, such as an API key; believed from trusted proxies only", "an address can be had by anybody, a name only from who checks it"),
    option!("Overload", "rate_limit.clients", None, None, Kind::Count(1024, 1 << 24), "131072",
        "Clients remembered at a time, 16 bytes each; beyond, those that have used least are forgotten", "2 MiB, whatever comes"),

    option!("Timeouts", "timeouts.client_head", Some("client-head-timeout"), Some("LB_CLIENT_HEAD_TIMEOUT"), Kind::Duration(MILLI, HOUR), "10s",
        "For a client to send a whole request head, from its first byte (or the connection's start)",
        "in total, not per byte, so that a slow sender cannot hold a connection"),
    option!("Timeouts", "timeouts.keep_alive", Some("keep-alive-timeout"), Some("LB_KEEP_ALIVE_TIMEOUT"), Kind::Duration(MILLI, HOUR), "75s",
        "For a client's connection to wait for its next request", "NGINX's; above the 60 s of common clients, so that they close first"),
    option!("Timeouts", "timeouts.connect", Some("connect-timeout"), Some("LB_CONNECT_TIMEOUT"), Kind::Duration(MILLI, HOUR), "2s",
        "To open a connection to a backend", "one lost SYN is sent again after 1 s and still fits"),
    option!("Timeouts", "timeouts.response_head", Some("response-head-timeout"), Some("LB_RESPONSE_HEAD_TIMEOUT"), Kind::Duration(MILLI, secs(86_400)), "30s",
        "For a backend to answer, from the end of the request to the end of the response head", "longer than a slow page, shorter than a person's patience"),
    option!("Timeouts", "timeouts.body_stall", Some("body-stall-timeout"), Some("LB_BODY_STALL_TIMEOUT"), Kind::Duration(MILLI, secs(86_400)), "60s",
        "For a body, either way, to stand still", "NGINX's; a body may take for ever as long as it moves"),
    option!("Timeouts", "timeouts.expect_continue", None, None, Kind::Duration(MILLI, HOUR), "1s",
        "For a backend to say 100 Continue before the body is asked for without it", "curl's; many backends never say it"),
    option!("Timeouts", "timeouts.tunnel", Some("tunnel-timeout"), Some("LB_TUNNEL_TIMEOUT"), Kind::Duration(MILLI, secs(30 * 86_400)), "1h",
        "For a tunnel (WebSocket) to be silent both ways", "applications send pings long before; what is silent longer is gone"),
    option!("Timeouts", "timeouts.drain", Some("drain-timeout"), Some("LB_DRAIN_TIMEOUT"), Kind::Duration(Duration::ZERO, HOUR), "30s",
        "For requests in flight to finish after SIGTERM; what is left then is cut", "Kubernetes' terminationGracePeriodSeconds"),

    option!("Limits", "limits.head", Some("max-head"), Some("LB_MAX_HEAD"), Kind::Size(1024, 1 << 20), "32KiB",
        "Largest request head; more is 431", "NGINX's large buffers; browsers' cookies stay below"),
    option!("Limits", "limits.fields", None, None, Kind::Count(8, 1000), "100",
        "Most header fields of a request; more is 431", "Apache's and hyper's; what has more is an attack or a mistake"),
    option!("Limits", "limits.target", None, None, Kind::Size(256, 60 << 10), "8KiB",
        "Longest request target; more is 414", "RFC 9112 3 recommends at least 8000 bytes"),
    option!("Limits", "limits.body", Some("max-body"), Some("LB_MAX_BODY"), Kind::Size(0, 1 << 50), "0",
        "Largest request body; more is 413; 0 is no limit", "bodies are streamed: their size costs nothing here"),
    option!("Limits", "limits.requests_per_connection", None, None, Kind::Count(0, 1_000_000_000), "0",
        "Requests after which a client's connection is closed; 0 is no limit", "nothing here grows with a connection's age"),
    option!("Limits", "limits.min_body_rate", None, None, Kind::Size(0, 1 << 30), "1KiB",
        "Bytes per second that a client must send of a body, or take of a response, over 30 s; 0 is no limit",
        "a client that trickles holds a connection and a backend for nothing; pauses of the backend do not count"),

    option!("Health checks", "health.interval", Some("check-interval"), Some("LB_CHECK_INTERVAL"), Kind::Duration(Duration::from_millis(10), HOUR), "5s",
        "Between checks of a backend whose state is settled", "live traffic notices a refused connection at once; checks find the rest"),
    option!("Health checks", "health.fast_interval", Some("check-fast-interval"), Some("LB_CHECK_FAST_INTERVAL"), Kind::Duration(Duration::from_millis(10), HOUR), "1s",
        "Between checks while a backend's state is changing, or it has never been up", "a change is decided within rise or fall seconds"),
    option!("Health checks", "health.timeout", Some("check-timeout"), Some("LB_CHECK_TIMEOUT"), Kind::Duration(MILLI, HOUR), "2s",
        "For a whole check: look-up, connection, request and answer", "as for a connection of requests"),
    option!("Health checks", "health.rise", Some("check-rise"), Some("LB_CHECK_RISE"), Kind::Count(1, 100), "2",
        "Passes in a row that bring a backend back; the first result after a start counts at once", "HAProxy's"),
    option!("Health checks", "health.fall", Some("check-fall"), Some("LB_CHECK_FALL"), Kind::Count(1, 100), "3",
        "Failures in a row (checks, or connects of live requests) that take a backend out", "HAProxy's; one lost packet is not an outage"),
    option!("Health checks", "health.jitter", Some("check-jitter"), Some("LB_CHECK_JITTER"), Kind::Share, "0.1",
        "Share by which each interval is varied, 0 to 1; checks that are due at about the same time are made together, up to 2 % later", "many balancers must not check in step"),

    option!("Rotation", "outlier.detection", Some("outlier-detection"), Some("LB_OUTLIER_DETECTION"), Kind::Switch, "true",
        "Whether backends that take connections and fail requests are left out for a while (ejected)",
        "checks do not see it; at most half of a pool is ever out for it"),
    option!("Rotation", "outlier.consecutive", None, None, Kind::Count(0, 1000), "5",
        "Errors in a row (outlier.errors, or no answer) that eject a backend, at once; 0 is off",
        "Envoy's; five in a row are no accident, and one bad page is not five"),
    option!("Rotation", "outlier.errors", None, None, Kind::Choice(&["gateway", "5xx"]), "gateway",
        "Which answers are errors in a row: gateway is 502, 503 and 504",
        "with these a server says that it cannot serve; a 500 may be one page's fault"),
    option!("Rotation", "outlier.interval", None, None, Kind::Duration(Duration::from_millis(100), HOUR), "10s",
        "Over which success rates and failure percentages (every 5xx, or no answer) are taken", "Envoy's and gRPC's"),
    option!("Rotation", "outlier.success_rate_hosts", None, None, Kind::Count(0, 1024), "5",
        "Fewest backends that are compared: one 1.9 standard deviations and 5 points below their mean success rate is ejected; 0 is off",
        "Envoy's; among four none can be 1.9 standard deviations away"),
    option!("Rotation", "outlier.success_rate_requests", None, None, Kind::Count(1, 1_000_000_000), "100",
        "Fewest requests in an interval for a backend to be compared", "Envoy's; below, one error is more than a percent"),
    option!("Rotation", "outlier.failure_percent", None, None, Kind::Count(0, 100), "85",
        "Percentage of failed requests in an interval that ejects, whatever the others do; 0 is off",
        "Envoy's; what fails so much serves nobody, and it works in small pools"),
    option!("Rotation", "outlier.failure_requests", None, None, Kind::Count(1, 1_000_000_000), "50",
        "Fewest requests in an interval to be judged by outlier.failure_percent", "Envoy's and gRPC's"),
    option!("Rotation", "outlier.max_ejected", None, None, Kind::Count(0, 100), "50",
        "Largest percentage of a pool that may be ejected at a time; one of two always may, the last one never",
        "the other half must carry the load; if more fail, something else is wrong"),
    option!("Rotation", "outlier.base_time", None, None, Kind::Duration(Duration::from_millis(100), HOUR), "10s",
        "Length of a first ejection; the n-th takes n times as long, less after healthy intervals",
        "NGINX's fail_timeout; long enough for a restart, short enough for a mistake"),
    option!("Rotation", "outlier.max_time", None, None, Kind::Duration(Duration::from_millis(100), secs(86_400)), "300s",
        "Longest ejection", "Envoy's; a server that is mended by night serves by breakfast"),
    option!("Rotation", "panic.threshold", Some("panic-threshold"), Some("LB_PANIC_THRESHOLD"), Kind::Count(0, 100), "30",
        "Percentage of ready backends below which all that take connections are used, also ejected ones and those whose checks fail; 0 is never",
        "one of three may be alone; where fewer are left they would be pushed over too, or the verdicts are wrong"),
    option!("Rotation", "slow_start.window", Some("slow-start"), Some("LB_SLOW_START"), Kind::Duration(Duration::ZERO, HOUR), "5s",
        "For a backend that returns or is new to get from a tenth of its share to the whole; 0s is at once",
        "caches and pools of connections warm within seconds, and who watches soon sees equal shares"),
    option!("What is checked", "health.kind", Some("check-kind"), Some("LB_CHECK_KIND"), Kind::Choice(&["tcp", "http"]), "tcp",
        "What a check is: a connection that can be made, or a request that is answered as expected",
        "whatever answers HTTP takes connections, and no path is known that every server has"),
    option!("What is checked", "health.path", Some("check-path"), Some("LB_CHECK_PATH"), Kind::Target, "/",
        "With http: what is asked for", "the one path that every server answers somehow"),
    option!("What is checked", "health.method", None, None, Kind::Choice(&["GET", "HEAD", "OPTIONS"]), "GET",
        "With http: how it is asked", "every server knows it; others would change something, for ever"),
    option!("What is checked", "health.host", None, None, Kind::Host, "",
        "With http: the Host of the request; empty is the backend's own name and the port that is checked", "what a client that goes there directly would send"),
    option!("What is checked", "health.statuses", Some("check-statuses"), Some("LB_CHECK_STATUSES"), Kind::Statuses, "200-399",
        "With http: which statuses are good, such as 200-299,304", "HAProxy's: a redirect to a login page is a sign of life"),
    option!("What is checked", "health.body", None, None, Kind::Text, "",
        "With http: a text that must appear in the first 64 KiB of the body; the body must end within 1 MiB", "most health pages say it by their status"),
    option!("What is checked", "health.port", Some("check-port"), Some("LB_CHECK_PORT"), Kind::Port, "0",
        "The port that is checked; 0 is the one that requests go to. Another gets no PROXY header, and its checks do not answer for that of requests", "what serves requests is what should be looked at"),
    option!("What is checked", "health.reuse", None, None, Kind::Switch, "false",
        "With http: whether a connection is kept for the next check", "a new one also shows that the server still takes any"),
    option!("What is checked", "health.down_interval", None, None, Kind::Duration(Duration::from_millis(10), HOUR), "5s",
        "Between checks of a backend that is settled down", "as long as for one that is up: it is wanted back as soon as a failure is noticed"),
    option!("What is checked", "health.concurrency", None, None, Kind::Count(1, 10_000), "128",
        "Backends that are checked at once; others wait for their turn, beyond their own time",
        "a thousand backends at 5 s need 200 checks a second, which are over in milliseconds; with 128 that all hang for 2 s, 64 a second are still done"),

    option!("Draining a backend", "drain.deadline", Some("drain-deadline"), Some("LB_DRAIN_DEADLINE"), Kind::Duration(Duration::ZERO, secs(86_400)), "5m",
        "For what is under way at a backend that is taken out; 0s is for ever. That of the whole process is timeouts.drain",
        "nearly every download and long poll is through by then, and an operator who waits should hear of it"),
    option!("Draining a backend", "drain.at_deadline", Some("drain-at-deadline"), Some("LB_DRAIN_AT_DEADLINE"), Kind::Choice(&["wait", "close"]), "wait",
        "What happens to requests, streams and tunnels that are left then: they are told of and waited for, or closed",
        "cutting somebody's work is for the operator to decide"),

    option!("Retries", "retry.max", Some("retries"), Some("LB_RETRIES"), Kind::Count(0, 3), "1",
        "Times an idempotent request whose connection broke before the response is sent again, to another backend",
        "one more covers a dying backend; more would multiply load"),
    option!("Retries", "retry.max_connect", None, None, Kind::Count(0, 3), "2",
        "Further backends tried, whatever the method, when a connection cannot be made", "nothing was sent, so nothing can happen twice"),
    option!("Retries", "retry.percent", None, None, Kind::Count(0, 100), "20",
        "Most retries per hundred requests in the long run", "Finagle's and Envoy's: a failing pool is not pushed over by retries"),
    option!("Retries", "retry.reserve", None, None, Kind::Count(0, 100_000), "100",
        "Retries possible in any ten seconds whatever the traffic, shared out between the workers (10 each at least)", "Finagle's 10 a second"),

    option!("Attempts", "timeouts.request", Some("request-timeout"), Some("LB_REQUEST_TIMEOUT"), Kind::Duration(Duration::ZERO, secs(86_400)), "0s",
        "For a whole request, from its arrival to the end of its response; then it is 504, or its response is cut. Backends are told what is left in X-Request-Timeout-Ms, and a trusted proxy can shorten it there. 0s is no limit",
        "a long download is no fault; every wait within a request has its own limit"),
    option!("Attempts", "timeouts.try", Some("try-timeout"), Some("LB_TRY_TIMEOUT"), Kind::Duration(Duration::ZERO, secs(86_400)), "0s",
        "For one try at a backend: to connect, and from the end of the request to the response head; then an idempotent request goes to another backend. 0s is no limit",
        "only who knows the service can say how long is too long"),
    option!("Attempts", "retry.buffer", None, None, Kind::Size(0, 1 << 20), "64KiB",
        "Most of a request body that is kept, while a retry is possible, to be sent again; a larger one is sent once", "linkerd's; what is larger is an upload, and kept bytes are memory for each request under way"),
    option!("Attempts", "retry.statuses", Some("retry-statuses"), Some("LB_RETRY_STATUSES"), Kind::Errors, "",
        "Statuses after which an idempotent request is sent again, to another backend, within retry.max and the budget", "what a backend answers is an answer, unless its owner says otherwise"),
    option!("Attempts", "retry.show_attempts", None, None, Kind::Switch, "false",
        "Whether responses tell in X-LB-Attempts how many attempts there were", "it says something about the backends; the access log has it anyway"),

    option!("Connections to backends", "upstream.max_idle", None, None, Kind::Count(0, 10_000), "1024",
        "Idle connections kept per backend and worker", "as many as were in use at once are kept, however many clients there are; unused ones go after upstream.idle_timeout"),
    option!("Connections to backends", "upstream.idle_timeout", None, None, Kind::Duration(MILLI, HOUR), "55s",
        "For a connection to a backend to stay unused", "below the 60 s after which common servers close"),
    option!("Connections to backends", "upstream.proxy_protocol", Some("upstream-proxy-protocol"), Some("LB_UPSTREAM_PROXY_PROTOCOL"), Kind::Choice(&["off", "v1", "v2"]), "off",
        "Whether each connection to a backend begins with a PROXY protocol header that names the client",
        "X-Forwarded-For tells the same, and connections that name one client cannot be shared by others"),
    option!("Connections to backends", "discovery.refresh", None, None, Kind::Duration(Duration::from_millis(100), HOUR), "30s",
        "Between look-ups of backends' host names; one that fails keeps the last addresses", "the usual time to live of a record that changes"),

    option!("Admin", "admin.port", Some("admin-port"), Some("ADMIN_PORT"), Kind::Port, "8089",
        "Port of health, metrics and the admin API; 0 lets the system choose", "next to the proxy's, and the dashboard looks for it there"),
    option!("Admin", "admin.bind", Some("admin-bind"), Some("ADMIN_BIND"), Kind::Address, "127.0.0.1",
        "Address of the admin API; beyond loopback it needs a token of yours", "no open door by default"),
    option!("Admin", "", None, Some("ADMIN_TOKEN"), Kind::Secret, "",
        "Bearer token of /v1 (at least 16 visible characters)", "without one, a token is made at each start and kept in a file that only you can read"),
    option!("Admin", "admin.token_file", Some("admin-token-file"), Some("ADMIN_TOKEN_FILE"), Kind::Path, "",
        "File that holds the bearer token of /v1", "as above"),

    option!("Logs", "log.level", Some("log-level"), Some("LOG_LEVEL"), Kind::LogFilter, "info",
        "What is logged, as in RUST_LOG (which wins)", "state changes and what an operator does, nothing per request"),
    option!("Logs", "log.format", Some("log-format"), Some("LOG_FORMAT"), Kind::Choice(&["auto", "text", "json"]), "auto",
        "Logs for people or for machines; auto is text on a terminal, else json", "each reader gets what it can read"),
    option!("Logs", "log.access", Some("access-log"), Some("LB_ACCESS_LOG"), Kind::Path, "",
        "File that gets a JSON line per request; - is standard output, empty is none",
        "the metrics count everything; a line per request is for those who keep them"),
];

impl Opt {
    /// What a message calls it: its key, else its variable.
    pub(crate) fn name(&self) -> &'static str {
        if self.key.is_empty() { self.variable.unwrap_or_default() } else { self.key }
    }
}

/// The option with this file key.
pub(crate) fn by_key(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.key == key && !key.is_empty())
}

impl Kind {
    /// What a value must be, for a message: `expected …`.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Port => "a port number from 0 to 65535".to_owned(),
            Self::Address => "an IP address to listen on, such as 127.0.0.1 or ::".to_owned(),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            Self::Duration(low, high) => {
                format!(
                    "a duration with its unit, such as 500ms, 10s or 2m, from {} to {}",
                    parse::words(low),
                    parse::words(high)
                )
            }
            Self::Size(low, high) => {
                format!(
                    "a size such as 512, 8KiB or 10MiB, from {} to {}",
                    parse::size_words(low),
                    parse::size_words(high)
                )
            }
            Self::Share => "a number from 0 to 1".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Token => "a word of letters, digits and -._~".to_owned(),
            Self::Tokens => "words of letters, digits and -._~, separated by commas".to_owned(),
            Self::Errors => "statuses from 400 to 599, separated by commas".to_owned(),
            Self::Networks => "networks or addresses such as 10.0.0.0/8, separated by commas".to_owned(),
            Self::Backends => parse::BACKEND_EXPECTED.to_owned(),
            Self::Path => "the path of a file".to_owned(),
            Self::Secret => "at least 16 visible characters".to_owned(),
            Self::LogFilter => "a filter such as info, debug or loadbalancer=debug".to_owned(),
            Self::Target => "a path such as /health, perhaps with a query, of visible ASCII characters".to_owned(),
            Self::Host => "a host such as example.com or 10.0.0.7:8080".to_owned(),
            Self::Statuses => lb_core::check::Statuses::EXPECTED.to_owned(),
            Self::Text => "a text of at most 256 bytes".to_owned(),
        }
    }

    /// The values it may have, in a few words, where that is not plain from the default.
    fn bounds(self) -> Option<String> {
        match self {
            Self::Count(low, high) => Some(format!("{low} to {high}")),
            Self::Duration(low, high) => Some(format!("{} to {}", parse::words(low), parse::words(high))),
            Self::Size(low, high) => Some(format!("{} to {}", parse::size_words(low), parse::size_words(high))),
            Self::Choice(words) => Some(words.join(", ")),
            Self::Switch => Some("true or false".to_owned()),
            _ => None,
        }
    }

    /// The placeholder in `--help`.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Self::Port => "PORT",
            Self::Address => "ADDRESS",
            Self::Count(..) => "NUMBER",
            Self::Duration(..) => "DURATION",
            Self::Size(..) => "SIZE",
            Self::Share => "SHARE",
            Self::Switch => "BOOL",
            Self::Choice(_) => "WORD",
            Self::Tokens => "WORDS",
            Self::Token | Self::Secret | Self::Text => "TEXT",
            Self::Target => "PATH",
            Self::Host => "HOST",
            Self::Errors | Self::Statuses => "STATUSES",
            Self::Networks => "CIDR",
            Self::Backends => "HOST:PORT",
            Self::Path => "FILE",
            Self::LogFilter => "FILTER",
        }
    }
}

/// The README's table of all options.
pub fn options_markdown() -> String {
    let mut table = String::from("| flag | variable | file key | default | what it does | why this default |\n");
    table.push_str("|---|---|---|---|---|---|\n");
    let code = |text: &str| if text.is_empty() { "–".to_owned() } else { format!("`{text}`") };
    table.push_str("| `--config` | `LB_CONFIG` | – | – | TOML file with any of the keys below; flag > variable > file > default | – |\n");
    for option in OPTIONS {
        let flag = option.flag.map(|flag| format!("--{flag}")).unwrap_or_default();
        let cells = [
            code(&flag),
            code(option.variable.unwrap_or_default()),
            code(option.key),
            code(option.default),
            match option.kind.bounds() {
                Some(bounds) => format!("{} ({bounds})", option.help),
                None => option.help.to_owned(),
            },
            option.reason.to_owned(),
        ];
        table.push_str(&format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
    table
}
