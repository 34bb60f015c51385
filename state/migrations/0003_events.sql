-- Which realtime endpoints were stopped, rested or taken up again, and why.

CREATE TABLE events (
    id INTEGER NOT NULL PRIMARY KEY,
    plan_id TEXT NOT NULL REFERENCES plans (id),
    endpoint TEXT NOT NULL,
    at TEXT NOT NULL,
    change TEXT NOT NULL,
    reason TEXT NOT NULL
);

CREATE INDEX events_by_plan ON events (plan_id);
