-- FUTURERELEASE (RFC 4865): a message held until then has no rows in the shared tables yet.

ALTER TABLE relaymail.message ADD COLUMN release_at timestamptz;   -- null: released with its acceptance
ALTER TABLE relaymail.message ADD COLUMN released_at timestamptz;
CREATE INDEX message_held ON relaymail.message (release_at) WHERE release_at IS NOT NULL AND released_at IS NULL;
