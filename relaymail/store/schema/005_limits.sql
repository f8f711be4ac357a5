-- What the hosts answer to `relaymail limits`, which is another process and knows of them only by way of the
-- database. Each row is read once and deleted: nothing is lost with it in a crash.
CREATE UNLOGGED TABLE relaymail.limit_state (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    question     uuid NOT NULL,
    state        text NOT NULL,
    answered_at  timestamptz NOT NULL DEFAULT now()
);
