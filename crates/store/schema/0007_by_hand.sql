-- Target: sweeps for what came late to a mailbox that has moved, from Commit until the source's retention ends. One row for
-- each move whose Commit was answered.
CREATE TABLE sweeps (
    tenant TEXT NOT NULL,
    move TEXT PRIMARY KEY REFERENCES moves (id) ON DELETE CASCADE,
    -- The attempt that the source committed.
    attempt TEXT NOT NULL,
    committed BIGINT NOT NULL,
    retention_until BIGINT NOT NULL,
    -- When the next one is due; NULL when there will be none.
    next_at BIGINT,
    done BIGINT NOT NULL,
    last_at BIGINT,
    -- Why the last one failed, or why there are no more.
    problem TEXT
);
CREATE INDEX sweeps_due ON sweeps (next_at);

-- Source: the reopened attempt that an attempt is there to catch up; whether the old content is kept beyond retention; and
-- when it was removed.
ALTER TABLE source_attempts ADD COLUMN catches_up TEXT;
ALTER TABLE source_attempts ADD COLUMN content_held BIGINT NOT NULL DEFAULT 0;
ALTER TABLE source_attempts ADD COLUMN content_removed BIGINT;
CREATE INDEX source_attempts_kept ON source_attempts (phase, content_removed, retention_until);
