-- Samples spent on measuring strategies: what was asked for, what was found, and what may be said of a plan's labels.
CREATE TABLE calibrations (
    id TEXT NOT NULL PRIMARY KEY,
    created_at TEXT NOT NULL,
    ended_at TEXT,
    document TEXT NOT NULL
);

CREATE TABLE evidence (
    id INTEGER NOT NULL PRIMARY KEY,
    calibration_id TEXT NOT NULL REFERENCES calibrations (id),
    plan_id TEXT NOT NULL REFERENCES plans (id),
    measured_at TEXT NOT NULL,
    kind TEXT NOT NULL,
    classifier TEXT NOT NULL,
    version TEXT NOT NULL,
    companions TEXT NOT NULL,
    reference TEXT NOT NULL,
    model TEXT NOT NULL,
    strategy TEXT NOT NULL,
    source TEXT NOT NULL,
    sample TEXT NOT NULL,
    seed INTEGER NOT NULL,
    min_tokens INTEGER,
    max_tokens INTEGER,
    n INTEGER NOT NULL,
    n_different INTEGER NOT NULL
);

CREATE INDEX evidence_by_version ON evidence (version);

CREATE TABLE certificates (
    id INTEGER NOT NULL PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES plans (id),
    made_at TEXT NOT NULL,
    document TEXT NOT NULL
);

CREATE INDEX certificates_by_plan ON certificates (plan_id);
