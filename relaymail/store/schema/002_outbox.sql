-- A retry asked for by the operator gives a dead notification a new life: its age counts from here.
ALTER TABLE relaymail.outbox ADD COLUMN retried_at timestamptz;

-- Each row is updated twice within seconds of its insert. The default of a fifth of the table would let
-- the dead entries of millions of rows pile up in front of the index that every claim begins to read.
ALTER TABLE relaymail.outbox SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
