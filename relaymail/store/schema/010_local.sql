-- Messages that the host itself makes (reports of delivery) come over no listener. NOT VALID spares reading the
-- whole table under a lock: the constraint that goes allowed less.
ALTER TABLE relaymail.message DROP CONSTRAINT message_listener_check;
ALTER TABLE relaymail.message ADD CONSTRAINT message_listener_check
    CHECK (listener IN ('mx', 'submission', 'submissions', 'local')) NOT VALID;
