-- Who embeds a plan's conversations, where the plan itself does not say: `distill` does so after the plan was frozen.
CREATE TABLE embedders (
    plan_id TEXT NOT NULL REFERENCES plans (id),
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (plan_id, name)
);
