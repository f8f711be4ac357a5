-- What SCRAM-SHA-256 (RFC 5802) is answered with. SCRAM names the user first, gets a salt, and only then shows
-- its key: so all keys of a user share one salt and one count of iterations.

-- Names that nobody has get a salt too, made of this secret, so that they cannot be told from others. It is here
-- and not in the settings because all hosts, and each of them after a restart, must give the same.
CREATE TABLE relaymail.scram_secret (
    single  boolean PRIMARY KEY DEFAULT true CHECK (single),
    secret  bytea NOT NULL
);
INSERT INTO relaymail.scram_secret (secret)
    VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

CREATE TABLE relaymail.scram_salt (
    user_id     uuid PRIMARY KEY,           -- public."Users"."Id"; no foreign key crosses the schemas
    salt        bytea NOT NULL,
    iterations  integer NOT NULL
);

CREATE TABLE relaymail.scram_verifier (
    key_id      uuid PRIMARY KEY,           -- public."SmtpApiKeys"."Id", where it is seen whether the key is revoked
    user_id     uuid NOT NULL REFERENCES relaymail.scram_salt (user_id),
    stored_key  bytea NOT NULL,             -- RFC 5802 3: H(ClientKey)
    server_key  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
