-- Both sides: receipts of finished moves. They outlive the user, the batch and the attempt; no command removes one.
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
CREATE INDEX receipts_by_address ON receipts (tenant, address_key);

-- Folders and leaves of receipts as the file has them, compressed, in parts.
CREATE TABLE receipt_parts (
    tenant TEXT NOT NULL,
    attempt TEXT NOT NULL,
    number BIGINT NOT NULL,
    part BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, attempt, number, part)
);
