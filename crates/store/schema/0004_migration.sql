-- Target: batches, and one row per migration user with the move that carries him.
CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    target_delivery_domain TEXT NOT NULL,
    intent TEXT NOT NULL,
    auto_complete BIGINT NOT NULL,
    complete_after BIGINT,
    start_after BIGINT,
    skipped_approved_until BIGINT,
    submitted_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    started BIGINT,
    UNIQUE (tenant, name_key)
);

CREATE TABLE moves (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    batch TEXT NOT NULL REFERENCES batches (id),
    email_address TEXT NOT NULL,
    email_key TEXT NOT NULL,
    recipient TEXT,
    exchange_guid TEXT,
    status TEXT NOT NULL,
    waiting_for TEXT NOT NULL,
    problems TEXT NOT NULL,
    problem_correlation TEXT,
    -- Written by the administrator, read by the worker.
    complete_after BIGINT,
    sync_now BIGINT NOT NULL,
    stop BIGINT NOT NULL,
    skipped_approved_until BIGINT,
    -- Grows with every request of an administrator; the worker's next_run counts only if it saw the newest.
    requests BIGINT NOT NULL,
    --
    next_run BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    last_sync BIGINT,
    figures TEXT NOT NULL,
    lease_owner TEXT,
    lease_expires BIGINT,
    fence BIGINT NOT NULL,
    UNIQUE (batch, email_key)
);
CREATE INDEX moves_by_tenant ON moves (tenant, email_key);
CREATE INDEX moves_due ON moves (status, next_run);

-- Target: attempts to cut a move over. Never deleted while the move exists: an attempt has one outcome for ever.
CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    move TEXT NOT NULL,
    phase TEXT NOT NULL,
    fence BIGINT NOT NULL,
    begun BIGINT NOT NULL,
    root BLOB,
    exceptions TEXT,
    routing_address TEXT,
    legacy_exchange_dn TEXT,
    outcome_key BLOB NOT NULL,
    -- Order of a move's attempts; clocks may step back.
    sequence BIGINT NOT NULL,
    decided BIGINT,
    done BIGINT,
    lock_milliseconds BIGINT,
    platform TEXT,
    location TEXT
);
CREATE UNIQUE INDEX attempts_by_move ON attempts (tenant, move, sequence);

-- Source: what partners have open, and every attempt they made.
CREATE TABLE outbound_moves (
    tenant TEXT NOT NULL,
    move TEXT NOT NULL,
    exchange_guid TEXT NOT NULL,
    service_principal TEXT NOT NULL,
    opened BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    last_correlation TEXT NOT NULL,
    last_refusal TEXT,
    items_served BIGINT NOT NULL,
    bytes_served BIGINT NOT NULL,
    ended BIGINT,
    PRIMARY KEY (tenant, move, exchange_guid)
);

CREATE TABLE source_attempts (
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    exchange_guid TEXT NOT NULL,
    move TEXT NOT NULL,
    service_principal TEXT NOT NULL,
    phase TEXT NOT NULL,
    granted_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    prepared_at BIGINT,
    committed_at BIGINT,
    ended_at BIGINT,
    root BLOB,
    exceptions TEXT,
    routing_address TEXT,
    legacy_exchange_dn TEXT,
    outcome_key BLOB,
    -- Where the content was when the mailbox became a mail user, and until when it is kept.
    platform TEXT,
    location TEXT,
    retention_until BIGINT,
    closed BIGINT NOT NULL,
    -- Order of a mailbox's attempts; clocks may step back.
    sequence BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX source_attempts_by_mailbox ON source_attempts (tenant, exchange_guid, sequence);

-- Opaque chunks: the mover's ledger (in the target tenant) and the exporter's notes (in the source tenant).
CREATE TABLE chunks (
    tenant TEXT NOT NULL,
    move TEXT NOT NULL,
    kind BIGINT NOT NULL,
    folder BIGINT NOT NULL,
    chunk BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, move, kind, folder, chunk)
);
