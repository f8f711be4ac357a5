-- MTA-STS policies (RFC 8461) of the domains that mail was sent to, for all hosts. A policy counts until it
-- expires, whatever its domain's DNS or web server say meanwhile: else whoever can cut them off could do away
-- with it.
CREATE TABLE relaymail.mta_sts (
    domain      text PRIMARY KEY CHECK (domain = lower(domain)),   -- as A-labels
    policy_id   text,                       -- id= of the TXT record that it was fetched for
    policy      text,                       -- as fetched; null: never was
    fetched_at  timestamptz,
    expires_at  timestamptz,                -- fetched_at and the policy's max_age
    failed_id   text,                       -- id= of the last fetch, where that failed
    failures    integer NOT NULL DEFAULT 0, -- fetches for failed_id that failed
    retry_at    timestamptz,                -- the next fetch for failed_id, not before
    last_error  text,
    CHECK ((policy IS NULL) = (expires_at IS NULL) AND (failed_id IS NULL) = (retry_at IS NULL))
);
