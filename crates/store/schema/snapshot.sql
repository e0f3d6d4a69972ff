CREATE TABLE accepted_domains (
    name TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    is_default BIGINT NOT NULL
);

CREATE TABLE accounts (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    password_hash TEXT,
    code_hash BLOB,
    code_expires BIGINT,
    tokens_from BIGINT NOT NULL,
    basic_allowed BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, name_key)
);

CREATE TABLE application_grants (
    tenant TEXT NOT NULL,
    app_id TEXT NOT NULL,
    role TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    granted_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, app_id, role),
    FOREIGN KEY (tenant, app_id) REFERENCES applications (tenant, app_id)
);

CREATE TABLE application_secrets (
    tenant TEXT NOT NULL,
    app_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    hint TEXT NOT NULL,
    hash BLOB NOT NULL,
    start_at BIGINT NOT NULL,
    end_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, app_id, key_id),
    FOREIGN KEY (tenant, app_id) REFERENCES applications (tenant, app_id)
);

CREATE TABLE applications (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    app_id TEXT NOT NULL UNIQUE,
    service_principal TEXT NOT NULL,
    display_name TEXT NOT NULL,
    sign_in_audience TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, app_id)
);

CREATE TABLE assertion_ids (
    tenant TEXT NOT NULL,
    issuer TEXT NOT NULL,
    jti TEXT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (tenant, issuer, jti)
);

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

CREATE TABLE audit (
    tenant TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (tenant, sequence)
);

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
    started BIGINT, excluded_folders TEXT,
    UNIQUE (tenant, name_key)
);

CREATE TABLE chunks (
    tenant TEXT NOT NULL,
    move TEXT NOT NULL,
    kind BIGINT NOT NULL,
    folder BIGINT NOT NULL,
    chunk BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, move, kind, folder, chunk)
);

CREATE TABLE commits (
    tenant TEXT NOT NULL,
    attempt TEXT NOT NULL,
    move TEXT NOT NULL,
    exchange_guid TEXT NOT NULL,
    -- The old source as it may come back: a service principal with the role Mailbox.Return.
    service_principal TEXT NOT NULL,
    committed BIGINT NOT NULL,
    retention_until BIGINT NOT NULL,
    approved_at BIGINT,
    approved_by TEXT,
    -- Order of a mailbox's commits; clocks may step back.
    sequence BIGINT NOT NULL,
    PRIMARY KEY (tenant, attempt)
);

CREATE TABLE endpoints (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    remote_server TEXT NOT NULL,
    remote_tenant TEXT NOT NULL,
    remote_tenant_id TEXT,
    application_id TEXT NOT NULL,
    sealed_secret BLOB NOT NULL,
    max_migrations BIGINT,
    max_incremental_syncs BIGINT, imap TEXT,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE group_members (
    tenant TEXT NOT NULL,
    group_id TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (tenant, group_id, member),
    FOREIGN KEY (tenant, group_id) REFERENCES recipients (tenant, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant, member) REFERENCES recipients (tenant, id) ON DELETE CASCADE
);

CREATE TABLE key_sets (
    tenant TEXT PRIMARY KEY REFERENCES tenants (id),
    sequence BIGINT NOT NULL
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
    fence BIGINT NOT NULL, remote_user TEXT, sealed_password BLOB,
    UNIQUE (batch, email_key)
);

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

CREATE TABLE pinned_keys (
    tenant TEXT NOT NULL,
    service_principal TEXT NOT NULL,
    kid TEXT NOT NULL,
    purpose TEXT NOT NULL,
    public_key BLOB NOT NULL,
    PRIMARY KEY (tenant, service_principal, kid),
    FOREIGN KEY (tenant, service_principal) REFERENCES service_principals (tenant, id)
);

CREATE TABLE proxy_addresses (
    tenant TEXT NOT NULL,
    address_key TEXT NOT NULL,
    recipient TEXT NOT NULL,
    PRIMARY KEY (tenant, address_key),
    FOREIGN KEY (tenant, recipient) REFERENCES recipients (tenant, id) ON DELETE CASCADE
);

CREATE TABLE receipt_parts (
    tenant TEXT NOT NULL,
    attempt TEXT NOT NULL,
    number BIGINT NOT NULL,
    part BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, attempt, number, part)
);

CREATE TABLE receipts (
    tenant TEXT NOT NULL,
    attempt TEXT NOT NULL,
    -- 0: the receipt; 1 and above: what a later sweep brought.
    number BIGINT NOT NULL,
    side TEXT NOT NULL,
    move TEXT NOT NULL,
    exchange_guid TEXT NOT NULL,
    -- How the mailbox was called when it moved.
    address TEXT NOT NULL,
    address_key TEXT NOT NULL,
    partner_tenant TEXT NOT NULL,
    root BLOB NOT NULL,
    folders BIGINT NOT NULL,
    items BIGINT NOT NULL,
    octets BIGINT NOT NULL,
    exceptions TEXT NOT NULL,
    -- Null while the source has only promised.
    made BIGINT,
    own_statement TEXT,
    partner_statement TEXT,
    PRIMARY KEY (tenant, attempt, number)
);

CREATE TABLE recipients (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    name_key TEXT NOT NULL,
    alias_key TEXT NOT NULL,
    principal_name_key TEXT,
    legacy_exchange_dn_key TEXT NOT NULL,
    exchange_guid TEXT,
    external_address_key TEXT,
    platform TEXT,
    location TEXT,
    body TEXT NOT NULL,
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE relationship_domains (
    tenant TEXT NOT NULL,
    domain_key TEXT NOT NULL,
    relationship TEXT NOT NULL,
    PRIMARY KEY (tenant, domain_key),
    FOREIGN KEY (tenant, relationship) REFERENCES relationships (tenant, id) ON DELETE CASCADE
);

CREATE TABLE relationships (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    name_key TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE retries (
    tenant TEXT NOT NULL,
    move TEXT PRIMARY KEY REFERENCES moves (id) ON DELETE CASCADE,
    asked BIGINT NOT NULL
);

CREATE TABLE returns (
    tenant TEXT NOT NULL,
    move TEXT NOT NULL,
    exchange_guid TEXT NOT NULL,
    -- The organisation that has the mailbox now, as it was consented to.
    service_principal TEXT NOT NULL,
    attempt TEXT NOT NULL,
    outbound_move TEXT NOT NULL,
    platform TEXT NOT NULL,
    location TEXT NOT NULL,
    retention_until BIGINT NOT NULL,
    -- Whether the old content and the inverted ledger are in place, so that only what changed is copied.
    filled BIGINT NOT NULL,
    -- Whether the partner's pairs are used; not any more once the roots have shown that they do not hold.
    trusts_pairs BIGINT NOT NULL,
    PRIMARY KEY (tenant, move)
);

CREATE TABLE role_group_members (
    tenant TEXT NOT NULL,
    role_group TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (tenant, role_group, account),
    FOREIGN KEY (tenant, account) REFERENCES accounts (tenant, id)
);

CREATE TABLE schema_steps (step BIGINT PRIMARY KEY, description TEXT NOT NULL);

CREATE TABLE service_principals (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    issuer TEXT NOT NULL,
    home_tenant TEXT NOT NULL,
    app_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    home_domains TEXT NOT NULL,
    outcome_endpoint TEXT,
    key_sequence BIGINT NOT NULL,
    roles TEXT NOT NULL,
    return_right BIGINT NOT NULL,
    accepted_by TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, app_id)
);

CREATE TABLE signing_keys (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    kid TEXT NOT NULL,
    purpose TEXT NOT NULL,
    public_key BLOB NOT NULL,
    sealed_private BLOB NOT NULL,
    created BIGINT NOT NULL,
    retired BIGINT,
    PRIMARY KEY (tenant, kid)
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
    sequence BIGINT NOT NULL, catches_up TEXT, content_held BIGINT NOT NULL DEFAULT 0, content_removed BIGINT,
    PRIMARY KEY (tenant, id)
);

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

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    initial_domain TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    created BIGINT NOT NULL
);

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

CREATE INDEX accepted_domains_by_tenant ON accepted_domains (tenant);

CREATE INDEX assertion_ids_by_end ON assertion_ids (tenant, expires);

CREATE UNIQUE INDEX attempts_by_move ON attempts (tenant, move, sequence);

CREATE UNIQUE INDEX commits_by_mailbox ON commits (tenant, exchange_guid, sequence);

CREATE INDEX commits_by_move ON commits (tenant, move);

CREATE UNIQUE INDEX endpoints_name ON endpoints (tenant, name_key);

CREATE INDEX group_members_by_member ON group_members (tenant, member);

CREATE INDEX moves_by_tenant ON moves (tenant, email_key);

CREATE INDEX moves_due ON moves (status, next_run);

CREATE INDEX proxy_addresses_by_recipient ON proxy_addresses (tenant, recipient);

CREATE INDEX receipts_by_address ON receipts (tenant, address_key);

CREATE UNIQUE INDEX recipients_alias ON recipients (tenant, alias_key);

CREATE UNIQUE INDEX recipients_exchange_guid ON recipients (tenant, exchange_guid);

CREATE INDEX recipients_external_address ON recipients (tenant, external_address_key);

CREATE UNIQUE INDEX recipients_legacy_exchange_dn ON recipients (tenant, legacy_exchange_dn_key);

CREATE UNIQUE INDEX recipients_name ON recipients (tenant, name_key);

CREATE UNIQUE INDEX recipients_place ON recipients (platform, location);

CREATE UNIQUE INDEX recipients_principal_name ON recipients (tenant, principal_name_key);

CREATE UNIQUE INDEX relationships_name ON relationships (tenant, name_key);

CREATE INDEX returns_by_mailbox ON returns (tenant, exchange_guid);

CREATE UNIQUE INDEX source_attempts_by_mailbox ON source_attempts (tenant, exchange_guid, sequence);

CREATE INDEX source_attempts_kept ON source_attempts (phase, content_removed, retention_until);

CREATE INDEX sweeps_due ON sweeps (next_at);

