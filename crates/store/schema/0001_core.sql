CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    initial_domain TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    created BIGINT NOT NULL
);

-- Unique over the deployment: the operator vouches for ownership.
CREATE TABLE accepted_domains (
    name TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    is_default BIGINT NOT NULL
);
CREATE INDEX accepted_domains_by_tenant ON accepted_domains (tenant);

CREATE TABLE audit (
    tenant TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (tenant, sequence)
);
