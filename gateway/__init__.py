"""Upload Gateway: a self-hosted async API gateway whose first job is durable file uploads.

The packages, top to bottom; imports go down only (`setup.cfg` has the contract):

    cli/        one module a command: serve, check, worker, events, secrets, token, sign, doctor
    server/     processes and wiring: resources, endpoints, event delivery, supervisor, worker
    endpoints/  every HTTP endpoint, and the dispatcher that leads to them
    http/       adaptation of aiohttp: protocol, responses, request bodies, CORS, sockets
    files/      `files` of scripts: by path, and the version that an event names, here or on a peer
    commit/     the promise: batch commit, publish, recover, disk space; to a directory or a bucket
    events/     journal, queue, runner, scheduler; the relay to NATS JetStream
    plugins/    YAML plugins: load, compile, test; scripting/ executes them, hooks/ calls them
    auth/       who sends a request: tokens, JSON Web Tokens, peers, trusted proxies; signed URLs
    storage/    the protocol of a storage; local/ and s3/
    records/    JSON documents of scripts: SQLite, PostgreSQL
    signing/    HMAC: signed URLs, credentials of peers, marks of objects
    settings/   flags, environment and file, as one frozen object
    telemetry/  logs, metrics, redaction
    domain/     the nouns and pure rules: model, grants, paths, metadata, schedules
    errors      the exception tree and the table of error codes (public: plugins import it)
"""

__version__ = "0.1.0"
