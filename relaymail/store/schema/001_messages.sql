-- The archive of every accepted message, its envelope, its events and the outbox of notifications.
-- Ids are UUIDv7 (time-ordered), so that index writes stay local. No foreign key leaves this schema.

CREATE TABLE relaymail.message (
    id              uuid PRIMARY KEY,       -- the id of the 250 reply, of log lines and of the Received: header
    received_at     timestamptz NOT NULL,
    listener        text NOT NULL CHECK (listener IN ('mx', 'submission', 'submissions')),
    session_id      text NOT NULL,
    client_address  text NOT NULL,
    client_name     text NOT NULL,          -- as given to EHLO or HELO
    login_user_id   uuid,                   -- public."Users"."Id"; no foreign key crosses the schemas
    tls_version     text,                   -- null: plaintext
    tls_cipher      text,
    reverse_path    text NOT NULL,          -- '' is the null sender
    mail_parameters json,                   -- MAIL parameters that delivery needs
    size_bytes      bigint NOT NULL,
    sha256          bytea NOT NULL,         -- of the bytes as received
    dedupe_key      uuid,                   -- client or login + envelope + hash; null: never taken for a resend
    trace_headers   bytea NOT NULL,         -- what we put in front: Received:, Return-Path:
    message_id      text NOT NULL,          -- Message-ID without <>; generated where it was missing
    from_address    text NOT NULL,
    subject         text NOT NULL,
    parse_status    text NOT NULL,          -- 'complete', or what stopped the parser, with its version
    email_ids       uuid[] NOT NULL         -- rows of public."Emails" made of it; the API may have deleted them since
);
-- Unique, so that two hosts that get the same resend at once store it once
CREATE UNIQUE INDEX message_dedupe ON relaymail.message (dedupe_key) WHERE dedupe_key IS NOT NULL;

-- The bytes exactly as received, in parts; concatenated in order of n they are the message.
CREATE TABLE relaymail.message_part (
    message_id  uuid NOT NULL REFERENCES relaymail.message (id) ON DELETE CASCADE,
    n           integer NOT NULL,
    content     bytea NOT NULL,
    PRIMARY KEY (message_id, n)
);
ALTER TABLE relaymail.message_part ALTER COLUMN content SET STORAGE EXTERNAL;
-- A small message stays in the row itself instead of costing two more index entries in the TOAST table
ALTER TABLE relaymail.message_part SET (toast_tuple_target = 8160);

CREATE TABLE relaymail.envelope_recipient (
    message_id  uuid NOT NULL REFERENCES relaymail.message (id) ON DELETE CASCADE,
    n           integer NOT NULL,           -- order of the RCPT commands
    address     text NOT NULL,
    user_id     uuid,                       -- the local user it reached; null: local without an owner, or remote
    parameters  json,                       -- RCPT parameters (DSN)
    PRIMARY KEY (message_id, n)
);

CREATE TABLE relaymail.event (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    message_id  uuid NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    kind        text NOT NULL,              -- 'accepted', 'notified', …
    detail      json,
    PRIMARY KEY (message_id, id)
);

-- One row per notification to the API; written in the transaction that stores the message.
CREATE TABLE relaymail.outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id   uuid NOT NULL,
    email_id     uuid NOT NULL,             -- public."Emails"."Id"
    payload      json NOT NULL,             -- the body of the POST, complete
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    lease_until  timestamptz,               -- a claimed row is another's until then
    lease_token  uuid,                      -- fences a late worker
    last_error   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);
CREATE INDEX outbox_due ON relaymail.outbox (due_at) WHERE state = 'pending';
CREATE INDEX outbox_dead ON relaymail.outbox (id) WHERE state = 'dead';

-- Addresses a login may send as, beside the user's own and verified ones.
CREATE TABLE relaymail.sender_grant (
    user_id     uuid NOT NULL,
    address     text NOT NULL,              -- lower case; '@domain' grants the whole domain
    granted_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, address)
);
