-- Jobs about jobs: what was decided before any label was seen, and which plans carry it out.
CREATE TABLE studies (
    key TEXT NOT NULL PRIMARY KEY,
    created_at TEXT NOT NULL,
    document TEXT NOT NULL
);
