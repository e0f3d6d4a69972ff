-- Target: users whose reported items are to be tried again with the next sync, as an administrator asked.
CREATE TABLE retries (
    tenant TEXT NOT NULL,
    move TEXT PRIMARY KEY REFERENCES moves (id) ON DELETE CASCADE,
    asked BIGINT NOT NULL
);
