-- The first store: plans, their legs and shards, what was submitted, what was written down, what went wrong.
-- Money is TEXT (decimal), times are TEXT (ISO 8601, UTC).

CREATE TABLE plans (
    id TEXT NOT NULL PRIMARY KEY,
    created_at TEXT NOT NULL,
    hash TEXT NOT NULL,
    document TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at TEXT,
    ended_at TEXT
);

CREATE TABLE legs (
    plan_id TEXT NOT NULL REFERENCES plans (id),
    leg INTEGER NOT NULL,
    stage TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    ended_at TEXT,
    PRIMARY KEY (plan_id, leg, stage, attempt)
);

CREATE TABLE shards (
    id INTEGER NOT NULL PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    plan_id TEXT NOT NULL REFERENCES plans (id),
    leg INTEGER NOT NULL,
    stage TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    classifiers TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    way TEXT NOT NULL,
    state TEXT NOT NULL,
    manifest TEXT NOT NULL,
    n_requests INTEGER NOT NULL,
    n_items INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    max_completion_tokens INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    ended_at TEXT
);

CREATE INDEX shards_by_plan ON shards (plan_id, state);
CREATE INDEX shards_by_way ON shards (way);

CREATE TABLE submissions (
    id INTEGER NOT NULL PRIMARY KEY,
    shard_id INTEGER NOT NULL REFERENCES shards (id),
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    input_file_id TEXT,
    batch_id TEXT,
    status TEXT,
    n_completed INTEGER NOT NULL,
    n_failed INTEGER NOT NULL,
    n_total INTEGER NOT NULL,
    error_code TEXT,
    error_message TEXT,
    intended_at TEXT NOT NULL,
    submitted_at TEXT,
    polled_at TEXT,
    ended_at TEXT,
    UNIQUE (shard_id, number)
);

CREATE TABLE parts (
    id INTEGER NOT NULL PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES plans (id),
    shard_id INTEGER NOT NULL REFERENCES shards (id),
    answers TEXT NOT NULL,
    labels TEXT NOT NULL,
    n_requests INTEGER NOT NULL,
    n_items INTEGER NOT NULL,
    n_answered INTEGER NOT NULL,
    n_tries INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_usd TEXT NOT NULL,
    written_at TEXT NOT NULL
);

CREATE INDEX parts_by_shard ON parts (shard_id);

CREATE TABLE problems (
    plan_id TEXT NOT NULL REFERENCES plans (id),
    row INTEGER NOT NULL,
    classifier TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (plan_id, row, classifier)
);

CREATE TABLE paces (
    id INTEGER NOT NULL PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES plans (id),
    endpoint TEXT NOT NULL,
    at TEXT NOT NULL,
    span_s REAL NOT NULL,
    allowed INTEGER NOT NULL,
    in_flight INTEGER NOT NULL,
    n_answered INTEGER NOT NULL,
    n_limited INTEGER NOT NULL,
    n_failed INTEGER NOT NULL,
    p50_s REAL
);

CREATE INDEX paces_by_plan ON paces (plan_id);

CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    until TEXT NOT NULL
);
