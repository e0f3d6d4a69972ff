-- Migration endpoints that are IMAP servers: how the server is reached and who signs in, as JSON; NULL is ExchangeRemoteMove.
-- remote_tenant and application_id are empty there, and sealed_secret where rows bring their own passwords.
ALTER TABLE endpoints ADD COLUMN imap TEXT;

-- Batches from them: folders that are left out, as a JSON array of patterns; NULL is none.
ALTER TABLE batches ADD COLUMN excluded_folders TEXT;

-- Their users: the name at the source, and the sealed password of the row until the user is completed.
ALTER TABLE moves ADD COLUMN remote_user TEXT;
ALTER TABLE moves ADD COLUMN sealed_password BLOB;
