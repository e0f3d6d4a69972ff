-- Target: mailboxes that came from a partner, as he committed them. Until retention ends he may take them back.
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
CREATE UNIQUE INDEX commits_by_mailbox ON commits (tenant, exchange_guid, sequence);
CREATE INDEX commits_by_move ON commits (tenant, move);

-- Old source: moves that bring a mailbox back, and the attempt by which it left.
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
CREATE INDEX returns_by_mailbox ON returns (tenant, exchange_guid);
