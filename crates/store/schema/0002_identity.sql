-- A tenant's signing keys. Statement keys are never deleted; a retired token key is kept for its overlap.
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

-- The number of the tenant's published key set; grows with every change of it.
CREATE TABLE key_sets (
    tenant TEXT PRIMARY KEY REFERENCES tenants (id),
    sequence BIGINT NOT NULL
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

-- The home tenant's own consent, one row a role.
CREATE TABLE application_grants (
    tenant TEXT NOT NULL,
    app_id TEXT NOT NULL,
    role TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    granted_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, app_id, role),
    FOREIGN KEY (tenant, app_id) REFERENCES applications (tenant, app_id)
);

-- Consents to other organisations' applications. Rows are kept when revoked.
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

CREATE TABLE pinned_keys (
    tenant TEXT NOT NULL,
    service_principal TEXT NOT NULL,
    kid TEXT NOT NULL,
    purpose TEXT NOT NULL,
    public_key BLOB NOT NULL,
    PRIMARY KEY (tenant, service_principal, kid),
    FOREIGN KEY (tenant, service_principal) REFERENCES service_principals (tenant, id)
);

-- Ids of client assertions already used, until they end.
CREATE TABLE assertion_ids (
    tenant TEXT NOT NULL,
    issuer TEXT NOT NULL,
    jti TEXT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (tenant, issuer, jti)
);
CREATE INDEX assertion_ids_by_end ON assertion_ids (tenant, expires);

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

CREATE TABLE role_group_members (
    tenant TEXT NOT NULL,
    role_group TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (tenant, role_group, account),
    FOREIGN KEY (tenant, account) REFERENCES accounts (tenant, id)
);
