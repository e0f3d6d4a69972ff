-- Keys are case-folded by the program; the spelling is in `body`.
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
CREATE UNIQUE INDEX recipients_name ON recipients (tenant, name_key);
CREATE UNIQUE INDEX recipients_alias ON recipients (tenant, alias_key);
CREATE UNIQUE INDEX recipients_principal_name ON recipients (tenant, principal_name_key);
CREATE UNIQUE INDEX recipients_legacy_exchange_dn ON recipients (tenant, legacy_exchange_dn_key);
CREATE UNIQUE INDEX recipients_exchange_guid ON recipients (tenant, exchange_guid);
-- One place holds one mailbox, whoever's it is: never two tenants over one folder.
CREATE UNIQUE INDEX recipients_place ON recipients (platform, location);
CREATE INDEX recipients_external_address ON recipients (tenant, external_address_key);

CREATE TABLE proxy_addresses (
    tenant TEXT NOT NULL,
    address_key TEXT NOT NULL,
    recipient TEXT NOT NULL,
    PRIMARY KEY (tenant, address_key),
    FOREIGN KEY (tenant, recipient) REFERENCES recipients (tenant, id) ON DELETE CASCADE
);
CREATE INDEX proxy_addresses_by_recipient ON proxy_addresses (tenant, recipient);

CREATE TABLE group_members (
    tenant TEXT NOT NULL,
    group_id TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (tenant, group_id, member),
    FOREIGN KEY (tenant, group_id) REFERENCES recipients (tenant, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant, member) REFERENCES recipients (tenant, id) ON DELETE CASCADE
);
CREATE INDEX group_members_by_member ON group_members (tenant, member);

CREATE TABLE relationships (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    name_key TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX relationships_name ON relationships (tenant, name_key);

CREATE TABLE relationship_domains (
    tenant TEXT NOT NULL,
    domain_key TEXT NOT NULL,
    relationship TEXT NOT NULL,
    PRIMARY KEY (tenant, domain_key),
    FOREIGN KEY (tenant, relationship) REFERENCES relationships (tenant, id) ON DELETE CASCADE
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
    max_incremental_syncs BIGINT,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX endpoints_name ON endpoints (tenant, name_key);
