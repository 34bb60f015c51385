-- How packs of each size were answered: what a model drops or garbles is not packed so large again.
CREATE TABLE packs (
    shard_id INTEGER NOT NULL REFERENCES shards (id),
    size INTEGER NOT NULL,
    model TEXT NOT NULL,
    classifiers TEXT NOT NULL,
    counted_at TEXT NOT NULL,
    n INTEGER NOT NULL,
    n_broken INTEGER NOT NULL,
    PRIMARY KEY (shard_id, size)
);
