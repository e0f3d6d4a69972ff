-- Target: cutovers without a lock that an administrator accepted, for a whole batch or for one user.
CREATE TABLE unlocked_batches (
    tenant TEXT NOT NULL,
    batch TEXT PRIMARY KEY REFERENCES batches (id) ON DELETE CASCADE,
    accepted BIGINT NOT NULL
);

CREATE TABLE unlocked_moves (
    tenant TEXT NOT NULL,
    move TEXT PRIMARY KEY REFERENCES moves (id) ON DELETE CASCADE,
    accepted BIGINT NOT NULL
);
