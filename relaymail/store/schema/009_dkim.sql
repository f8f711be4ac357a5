-- Keys that DKIM signatures are made with (RFC 6376). Who can read this table can sign mail as these domains:
-- it belongs to the host's role alone. A key may as well stay in a file, whose path is here.
CREATE TABLE relaymail.dkim_key (
    domain      text NOT NULL CHECK (domain = lower(domain)),   -- as A-labels
    selector    text NOT NULL CHECK (selector = lower(selector)),
    algorithm   text NOT NULL CHECK (algorithm IN ('rsa', 'ed25519')),
    private_key text,                                           -- PEM, not encrypted; null: it is in key_file
    key_file    text,                                           -- path on every host
    public_key  text NOT NULL,                                  -- p= of the DNS record
    subdomains  boolean NOT NULL DEFAULT false,                 -- signs for the domains below this one, too
    active      boolean NOT NULL DEFAULT false,                 -- the newest active one of each algorithm signs
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, selector),
    CHECK ((private_key IS NULL) <> (key_file IS NULL))
);
REVOKE ALL ON relaymail.dkim_key FROM PUBLIC;
