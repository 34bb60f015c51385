-- Whose texts a user had deleted, and whether the labels were to stay.
CREATE TABLE purges (
    plan_id TEXT NOT NULL PRIMARY KEY REFERENCES plans (id),
    at TEXT NOT NULL,
    labels_kept INTEGER NOT NULL
);
