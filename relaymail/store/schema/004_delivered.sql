-- What the delivered form of a submitted message needs and nobody could tell later: users change their
-- addresses, and grants are taken back.
ALTER TABLE relaymail.message ADD COLUMN added_sender text;   -- address for the Sender: field; null: none is added
