-- The queue of mail for other hosts: what is on its way, what was tried, and what became of it.
--
-- A row of the queue is due at due_at and not before; a claim moves due_at to the end of its lease, so that an
-- expired lease is simply due again. Every write of a worker names the token of its lease. All times are now().

CREATE TABLE relaymail.queue (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id   uuid NOT NULL REFERENCES relaymail.message (id) ON DELETE CASCADE,
    n            integer NOT NULL,           -- that of envelope_recipient
    recipient    text NOT NULL,
    destination  text NOT NULL,              -- lower-case domain (A-labels) or address literal
    priority     smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -9 AND 9),   -- MT-PRIORITY, RFC 6710
    state        text NOT NULL DEFAULT 'queued'
                 CHECK (state IN ('queued', 'held', 'delivered', 'failed', 'cancelled')),
    queued_at    timestamptz NOT NULL DEFAULT now(),   -- its life counts from here
    due_at       timestamptz NOT NULL DEFAULT now(),   -- may be claimed from then on
    attempts     integer NOT NULL DEFAULT 0,
    lease_token  uuid,                       -- fences a late worker; null: nobody has it
    lease_owner  text,                       -- host and process that claimed it last
    in_doubt     boolean NOT NULL DEFAULT false,       -- a final dot got no reply: what follows may be a duplicate
    warned_at    timestamptz,                -- when a delay was reported to the sender
    last_at      timestamptz,
    last_status  text,                       -- enhanced status code
    last_reply   text,                       -- the next host's exact reply, or why there was none
    last_host    text,
    finished_at  timestamptz,
    owed_dsn     text CHECK (owed_dsn IN ('failed', 'delayed', 'delivered', 'relayed', 'expanded')),
                                             -- the Action field (RFC 3464 2.3.3) of a report not yet made
    dsn_id       uuid,                       -- the id that report is, or was, stored under
    dsn_due_at   timestamptz,                -- someone is making it until then
    UNIQUE (message_id, n)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX queue_due ON relaymail.queue (destination, priority, due_at) WHERE state = 'queued';
CREATE INDEX queue_age ON relaymail.queue (queued_at) WHERE state = 'queued';
CREATE INDEX queue_leased ON relaymail.queue (due_at) WHERE state = 'queued' AND lease_token IS NOT NULL;
-- Few rows ever get into the following
CREATE INDEX queue_tried ON relaymail.queue (id) WHERE state = 'queued' AND attempts >= 3;
CREATE INDEX queue_held ON relaymail.queue (id) WHERE state = 'held';
CREATE INDEX queue_owed ON relaymail.queue (message_id) WHERE owed_dsn IS NOT NULL;

-- The unit of scheduling: all rows of one destination and priority. A destination with 100,000 rows is one lane
-- among others, and takes its turn.
CREATE TABLE relaymail.lane (
    destination  text NOT NULL,
    priority     smallint NOT NULL,
    due_at       timestamptz NOT NULL,       -- its next turn
    first_at     timestamptz NOT NULL,       -- no queued row of it is due before: the index is read from here on
    PRIMARY KEY (destination, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
        vacuum_truncate = off);
CREATE INDEX lane_due ON relaymail.lane (priority, due_at);

-- What became due, appended by whoever made it so. Accepting transactions never lock a lane: two messages for
-- one domain would wait for each other. No index: rows live for milliseconds and are read in any order.
CREATE TABLE relaymail.arrival (
    destination  text NOT NULL,
    priority     smallint NOT NULL,
    due_at       timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_threshold = -1, vacuum_truncate = off);

-- Destinations whose hosts could not be reached: left alone until blocked_until, then asked with one row.
CREATE TABLE relaymail.blocked (
    destination    text PRIMARY KEY,
    failures       integer NOT NULL,
    since          timestamptz NOT NULL DEFAULT now(),
    blocked_until  timestamptz NOT NULL,
    probe_until    timestamptz,              -- a row is on its way to find out
    reason         text NOT NULL
) WITH (fillfactor = 70, vacuum_truncate = off);

-- What an operator wants for a domain other than for all the rest; null: as everywhere.
CREATE TABLE relaymail.destination (
    destination      text PRIMARY KEY CHECK (destination = lower(destination)),
    max_connections  integer CHECK (max_connections BETWEEN 1 AND 1000),
    max_recipients   integer CHECK (max_recipients BETWEEN 1 AND 1000),   -- of one transaction
    relay_host       text,                   -- instead of the MX; a name or an address
    relay_port       integer CHECK (relay_port BETWEEN 1 AND 65535),
    tls_level        text CHECK (tls_level IN
                     ('none', 'opportunistic', 'encrypted', 'verified', 'dane', 'implicit')),
    note             text
);

-- One row per recipient and try. It is written before the final dot where the try gets that far, else with its
-- outcome. One without an outcome whose lease is over is in doubt.
CREATE TABLE relaymail.attempt (
    queue_id            bigint NOT NULL,
    number              integer NOT NULL,    -- counts from 1
    started_at          timestamptz NOT NULL,
    ended_at            timestamptz,
    owner               text,
    destination         text NOT NULL,
    phase               text NOT NULL,       -- how far it got: 'connect', 'mail', 'rcpt', 'final-dot', …
    host                text,
    address             text,
    tls                 text,                -- version, cipher and how it was verified; null: clear
    outcome             text CHECK (outcome IN ('delivered', 'deferred', 'failed', 'in doubt')),
    status              text,
    reply               text,
    possible_duplicate  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue_id, number)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

-- Addresses that a next host has said do not exist: refused at RCPT until it may be different.
CREATE TABLE relaymail.suppression (
    address     text PRIMARY KEY,            -- lower case
    status      text NOT NULL,
    reply       text NOT NULL,
    message_id  uuid,                        -- what was refused; null: an operator's entry
    since       timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE INDEX suppression_expiry ON relaymail.suppression (expires_at);

-- What a worker is given with a claimed row.
CREATE TYPE relaymail.claimed AS (
    id bigint, message_id uuid, n integer, recipient text, parameters json, destination text,
    priority smallint, attempts integer, queued_at timestamptz, warned boolean, in_doubt boolean, probe boolean,
    max_recipients integer, reverse_path text, mail_parameters json, size_bytes bigint, received_at timestamptz,
    login_user_id uuid
);

-- The functions of the hot path are PL/pgSQL, which keeps its plans, as making them would cost more than carrying
-- them out. The first is made while the tables are still empty: no plan may read a table from end to end but that of
-- arrivals, or join but by an index, whatever the statistics say. All that lock several rows of the queue do so in the
-- order of their ids, or pass over locked ones: workers and operators do not deadlock.

-- Arrivals become lanes that are due. Deleting one and moving its lane is one transaction: none is lost.
CREATE FUNCTION relaymail.queue_take_arrivals(p_limit integer) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    WITH arrived AS (
        DELETE FROM relaymail.arrival WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM relaymail.arrival LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING destination, priority, due_at
    ), lanes AS (
        SELECT destination, priority, min(due_at) AS due_at FROM arrived GROUP BY destination, priority
    )
    INSERT INTO relaymail.lane AS l (destination, priority, due_at, first_at)
    SELECT destination, priority, due_at, due_at FROM lanes
     ORDER BY destination, priority    -- the same order in all hosts, so that two of them do not deadlock
    ON CONFLICT (destination, priority) DO UPDATE
       SET due_at = least(l.due_at, excluded.due_at), first_at = least(l.first_at, excluded.first_at)
     WHERE l.due_at > excluded.due_at OR l.first_at > excluded.first_at;
END
$$;

-- What the worker needs of rows it has just claimed, and what their former leases left behind.
CREATE FUNCTION relaymail.queue_lease(
    p_ids bigint[], p_probes boolean[], p_token uuid, p_owner text, p_lease interval
) RETURNS SETOF relaymail.claimed LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    WITH broken AS (
        UPDATE relaymail.attempt AS a SET outcome = 'in doubt', ended_at = now()
          FROM relaymail.queue AS q
         WHERE q.id = ANY (p_ids) AND q.lease_token IS NOT NULL
           AND a.queue_id = q.id AND a.number = q.attempts + 1 AND a.outcome IS NULL
        RETURNING a.queue_id
    ), mine AS (
        UPDATE relaymail.queue AS q
           SET lease_token = p_token, lease_owner = p_owner, due_at = now() + p_lease,
               attempts = q.attempts + (b.queue_id IS NOT NULL)::integer,
               in_doubt = q.in_doubt OR b.queue_id IS NOT NULL
          FROM unnest(p_ids, p_probes) WITH ORDINALITY AS p (id, probe, place)
          LEFT JOIN broken AS b ON b.queue_id = p.id
         WHERE q.id = p.id
        RETURNING q.*, p.probe, p.place
    )
    SELECT q.id, q.message_id, q.n, q.recipient, r.parameters, q.destination, q.priority, q.attempts,
           q.queued_at, q.warned_at IS NOT NULL, q.in_doubt, q.probe, d.max_recipients, m.reverse_path,
           m.mail_parameters, m.size_bytes, m.received_at, m.login_user_id
      FROM mine AS q
      JOIN relaymail.message AS m ON m.id = q.message_id
      LEFT JOIN relaymail.envelope_recipient AS r ON r.message_id = q.message_id AND r.n = q.n
      LEFT JOIN relaymail.destination AS d ON d.destination = q.destination
     ORDER BY q.place;
END
$$;

-- Takes rows of lanes that the caller has locked, and sets the time of their next turn. A lane that has more goes
-- to the end of the line. No lane gets two turns in one claim, whose rows are leased at its end only: the times it
-- gets are later than now(), as clock_timestamp() is.
--
-- p_known are the blocked destinations that the caller has locked as well, so that what ends a block sees the lanes
-- that are put off because of it. A block that somebody is changing at this moment is left to the next claim.
CREATE FUNCTION relaymail.queue_visit(
    p_destinations text[], p_priorities smallint[], p_known text[], p_limit integer, p_share integer,
    p_lease interval, OUT ids bigint[], OUT probes boolean[]
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT p.place, l.destination, l.priority, l.first_at, b.destination IS NOT NULL AS probe,
               CASE WHEN b.destination <> ALL (p_known) THEN NULL
                    WHEN b.blocked_until > now() THEN b.blocked_until
                    WHEN b.probe_until > now() THEN b.probe_until END AS closed_until,
               -- one lane of a destination asks for all of them
               b.destination IS NOT NULL
               AND (b.destination <> ALL (p_known)
                    OR row_number() OVER (PARTITION BY b.destination ORDER BY p.place) > 1) AS later
          FROM unnest(p_destinations, p_priorities) WITH ORDINALITY AS p (destination, priority, place)
          JOIN relaymail.lane AS l ON l.destination = p.destination AND l.priority = p.priority
          LEFT JOIN relaymail.blocked AS b ON b.destination = p.destination
    ), found AS MATERIALIZED (
        SELECT q.id, p.place, p.probe, p.destination
          FROM picked AS p
         CROSS JOIN LATERAL (
               SELECT q.id FROM relaymail.queue AS q
                WHERE q.state = 'queued' AND q.destination = p.destination AND q.priority = p.priority
                  AND q.due_at >= p.first_at AND q.due_at <= now()
                ORDER BY q.due_at
                LIMIT CASE WHEN p.closed_until IS NOT NULL OR p.later THEN 0 WHEN p.probe THEN 1 ELSE p_share END
                  FOR UPDATE SKIP LOCKED) AS q
         LIMIT p_limit
    ), taken AS MATERIALIZED (
        SELECT f.place, array_agg(f.id) AS rows FROM found AS f GROUP BY f.place
    ), turn AS MATERIALIZED (
        SELECT p.*, t.place IS NOT NULL AS took,
               (SELECT q.due_at FROM relaymail.queue AS q
                 WHERE q.state = 'queued' AND q.destination = p.destination AND q.priority = p.priority
                   AND q.due_at >= p.first_at AND q.id <> ALL (coalesce(t.rows, '{}'))
                 ORDER BY q.due_at LIMIT 1) AS next_at
          FROM picked AS p LEFT JOIN taken AS t ON t.place = p.place
    ), moved AS (
        UPDATE relaymail.lane AS l
           SET first_at = least(t.next_at, CASE WHEN t.took THEN now() + p_lease END),
               due_at = CASE
                   WHEN t.closed_until IS NOT NULL THEN greatest(t.closed_until, t.next_at)
                   WHEN t.probe AND t.took THEN greatest(now() + p_lease, clock_timestamp())
                   WHEN t.next_at > now() OR t.next_at IS NULL
                        THEN least(t.next_at, CASE WHEN t.took THEN greatest(now() + p_lease, clock_timestamp()) END)
                   -- the limit was reached before it had its turn
                   WHEN NOT t.took AND (SELECT count(*) FROM found) >= p_limit THEN l.due_at
                   ELSE clock_timestamp() END
          FROM turn AS t
         WHERE l.destination = t.destination AND l.priority = t.priority AND (t.took OR t.next_at IS NOT NULL)
    ), emptied AS (
        DELETE FROM relaymail.lane AS l USING turn AS t
         WHERE l.destination = t.destination AND l.priority = t.priority AND NOT t.took AND t.next_at IS NULL
    ), probing AS (
        UPDATE relaymail.blocked AS b SET probe_until = now() + p_lease
         WHERE b.destination = ANY (ARRAY(SELECT f.destination FROM found AS f WHERE f.probe))
    )
    SELECT coalesce(array_agg(f.id ORDER BY f.place), '{}'),
           coalesce(array_agg(f.probe ORDER BY f.place), '{}')
      INTO ids, probes FROM found AS f;
END
$$;

-- Claims up to p_limit due rows, p_share of a lane at most, from the lanes whose turn it is: high priority first,
-- then the one that has waited longest. p_busy: destinations to pass over; p_only: the only ones to look at. p_along:
-- so many recipients may be in a transaction, where relaymail.destination does not say otherwise; those of a claimed
-- message who are due at the same destination come along, beyond the limit: they cost a line of a transaction that is
-- made anyhow.
--
-- Each statement has a snapshot of its own, and that matters: rows are looked for only after their lane is locked,
-- so that what an arrival announced that another claim has put into the lane is seen.
CREATE FUNCTION relaymail.queue_claim(
    p_token uuid, p_owner text, p_lease interval, p_limit integer, p_share integer, p_busy text[],
    p_only text[] DEFAULT NULL, p_along integer DEFAULT 0
) RETURNS SETOF relaymail.claimed LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    lanes_wanted  integer := greatest(1, p_limit / p_share);
    lanes_seen    integer := 0;
    destinations  text[];
    priorities    smallint[];
    known         text[];
    ids           bigint[];
    probes        boolean[];
    all_ids       bigint[] := '{}';
    all_probes    boolean[] := '{}';
    taken         integer := 0;
BEGIN
    PERFORM relaymail.queue_take_arrivals(5000);
    LOOP
        IF p_only IS NULL THEN
            SELECT array_agg(l.destination), array_agg(l.priority) INTO destinations, priorities
              FROM (SELECT l.destination, l.priority
                      FROM generate_series(9, -9, -1) AS p (priority)
                     CROSS JOIN LATERAL (
                           SELECT l.destination, l.priority FROM relaymail.lane AS l
                            WHERE l.priority = p.priority AND l.due_at <= now()
                              AND l.destination <> ALL (p_busy)
                            ORDER BY l.due_at LIMIT lanes_wanted FOR UPDATE SKIP LOCKED) AS l
                     LIMIT lanes_wanted) AS l;
        ELSE
            SELECT array_agg(l.destination), array_agg(l.priority) INTO destinations, priorities
              FROM (SELECT l.destination, l.priority FROM relaymail.lane AS l
                     WHERE l.destination = ANY (p_only) AND l.due_at <= now()
                     ORDER BY l.priority DESC, l.due_at LIMIT lanes_wanted FOR UPDATE SKIP LOCKED) AS l;
        END IF;
        EXIT WHEN destinations IS NULL;
        SELECT coalesce(array_agg(b.destination), '{}') INTO known
          FROM (SELECT b.destination FROM relaymail.blocked AS b WHERE b.destination = ANY (destinations)
                   FOR UPDATE SKIP LOCKED) AS b;
        SELECT visited.ids, visited.probes INTO ids, probes
          FROM relaymail.queue_visit(destinations, priorities, known, p_limit - taken, p_share, p_lease) AS visited;
        all_ids := all_ids || ids;
        all_probes := all_probes || probes;
        taken := taken + cardinality(ids);
        lanes_seen := lanes_seen + cardinality(destinations);
        EXIT WHEN taken >= p_limit OR cardinality(destinations) < lanes_wanted OR lanes_seen >= 4 * p_limit;
        lanes_wanted := least(p_limit, ceil((p_limit - taken) * lanes_seen / greatest(1.0, taken)));
    END LOOP;
    IF p_along > 0 THEN
        SELECT all_ids || coalesce(array_agg(c.id), '{}'),
               all_probes || coalesce(array_agg(false), '{}')
          INTO all_ids, all_probes
          FROM (SELECT q.message_id, q.destination, q.priority,
                       coalesce(max(d.max_recipients), p_along) - count(*) AS room
                  FROM unnest(all_ids, all_probes) AS a (id, probe)
                  JOIN relaymail.queue AS q ON q.id = a.id
                  LEFT JOIN relaymail.destination AS d ON d.destination = q.destination
                 WHERE NOT a.probe
                 GROUP BY q.message_id, q.destination, q.priority) AS m
         CROSS JOIN LATERAL (
               SELECT q.id FROM relaymail.queue AS q
                WHERE q.message_id = m.message_id AND q.destination = m.destination AND q.priority = m.priority
                  AND q.state = 'queued' AND q.due_at <= now() AND q.id <> ALL (all_ids)
                ORDER BY q.n LIMIT greatest(m.room, 0) FOR UPDATE SKIP LOCKED) AS c;
    END IF;
    RETURN QUERY SELECT * FROM relaymail.queue_lease(all_ids, all_probes, p_token, p_owner, p_lease);
END
$$;

-- Claims rows whose life is over, whatever their lane is doing: in a blocked one nobody would look at them.
CREATE FUNCTION relaymail.queue_claim_expired(
    p_token uuid, p_owner text, p_lease interval, p_limit integer, p_life interval, p_null_sender_life interval
) RETURNS SETOF relaymail.claimed LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    all_ids bigint[];
BEGIN
    SELECT array_agg(expired.id) INTO all_ids
      FROM (SELECT q.id FROM relaymail.queue AS q
             WHERE q.state = 'queued' AND q.queued_at < now() - least(p_life, p_null_sender_life)
               AND (q.lease_token IS NULL OR q.due_at <= now())
               AND (q.queued_at < now() - p_life OR EXISTS (
                    SELECT FROM relaymail.message AS m WHERE m.id = q.message_id AND m.reverse_path = ''))
             ORDER BY q.queued_at LIMIT p_limit FOR UPDATE OF q SKIP LOCKED) AS expired;
    -- A lease that is not kept must be found again
    INSERT INTO relaymail.arrival (destination, priority, due_at)
    SELECT DISTINCT q.destination, q.priority, now() + p_lease FROM relaymail.queue AS q WHERE q.id = ANY (all_ids);
    RETURN QUERY SELECT * FROM relaymail.queue_lease(
        coalesce(all_ids, '{}'), array_fill(false, ARRAY[coalesce(cardinality(all_ids), 0)]), p_token, p_owner,
        p_lease);
END
$$;

-- Extends leases, never shortens one; returns the rows that are still the worker's.
CREATE FUNCTION relaymail.queue_extend(p_ids bigint[], p_tokens uuid[], p_lease interval)
RETURNS SETOF bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    WITH locked AS MATERIALIZED (
        SELECT q.id FROM relaymail.queue AS q WHERE q.id = ANY (p_ids) ORDER BY q.id FOR NO KEY UPDATE
    )
    UPDATE relaymail.queue AS q SET due_at = greatest(q.due_at, now() + p_lease)
      FROM unnest(p_ids, p_tokens) AS mine (id, token) JOIN locked ON locked.id = mine.id
     WHERE q.id = mine.id AND q.lease_token = mine.token AND q.state = 'queued'
    RETURNING q.id;
END
$$;

-- Called before the final dot: notes what is about to happen, and returns the rows that may be sent. Those that
-- another worker has by now, or that were held, cancelled or rerouted meanwhile, are not among them.
CREATE FUNCTION relaymail.queue_begin_transfer(
    p_ids bigint[], p_tokens uuid[], p_destinations text[], p_hosts text[], p_addresses text[], p_tls text[]
) RETURNS SETOF bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    INSERT INTO relaymail.attempt AS a
           (queue_id, number, started_at, owner, destination, phase, host, address, tls, possible_duplicate)
    SELECT q.id, q.attempts + 1, now(), q.lease_owner, q.destination, 'final-dot', mine.host, mine.address,
           mine.tls, q.in_doubt
      FROM unnest(p_ids, p_tokens, p_destinations, p_hosts, p_addresses, p_tls)
           AS mine (id, token, destination, host, address, tls)
      JOIN relaymail.queue AS q ON q.id = mine.id
     WHERE q.lease_token = mine.token AND q.state = 'queued' AND q.due_at > now()
       AND q.destination = mine.destination
    ON CONFLICT (queue_id, number) DO UPDATE
       SET phase = excluded.phase, host = excluded.host, address = excluded.address, tls = excluded.tls
    RETURNING a.queue_id;
END
$$;

-- Writes down what became of rows; returns those that were still the worker's. A row that was held meanwhile stays
-- so, but a message that has been delivered is delivered, whatever was asked for behind the final dot.
CREATE FUNCTION relaymail.queue_settle(
    p_ids bigint[], p_tokens uuid[], p_outcomes text[], p_statuses text[], p_replies text[], p_hosts text[],
    p_addresses text[], p_tls text[], p_phases text[], p_delays float8[], p_owed text[], p_in_doubt boolean[],
    p_seconds float8[]
) RETURNS SETOF bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    WITH result AS (
        SELECT r.id, r.token, r.outcome, r.status, r.reply, r.host, r.address, r.tls, r.phase, r.delay, r.in_doubt,
               r.seconds,
               -- told meanwhile, as nobody seemed to try it any more
               CASE WHEN r.owed = 'delayed' AND EXISTS (
                         SELECT FROM relaymail.queue AS q WHERE q.id = r.id AND q.warned_at IS NOT NULL)
                    THEN NULL ELSE r.owed END AS owed
          FROM unnest(p_ids, p_tokens, p_outcomes, p_statuses, p_replies, p_hosts, p_addresses, p_tls,
                      p_phases, p_delays, p_owed, p_in_doubt, p_seconds)
               AS r (id, token, outcome, status, reply, host, address, tls, phase, delay, owed, in_doubt, seconds)
         ORDER BY r.id
    ), settled AS (
        UPDATE relaymail.queue AS q
           SET state = CASE WHEN r.outcome = 'delivered' THEN 'delivered'
                            WHEN r.outcome = 'failed' AND q.state <> 'cancelled' THEN 'failed' ELSE q.state END,
               attempts = q.attempts + 1,
               due_at = CASE WHEN r.outcome = 'deferred' THEN now() + r.delay * interval '1 second'
                             ELSE q.due_at END,
               lease_token = NULL,
               in_doubt = q.in_doubt OR r.in_doubt,
               last_at = now(), last_status = r.status, last_reply = coalesce(r.reply, q.last_reply),
               last_host = coalesce(r.host, q.last_host),
               finished_at = CASE WHEN r.outcome = 'deferred' THEN q.finished_at ELSE now() END,
               warned_at = CASE WHEN r.owed = 'delayed' THEN now() ELSE q.warned_at END,
               owed_dsn = CASE WHEN r.owed IS NOT NULL AND NOT (q.state = 'cancelled' AND r.outcome <> 'delivered')
                               THEN r.owed
                               WHEN r.outcome = 'delivered' THEN NULL ELSE q.owed_dsn END,
               dsn_id = CASE WHEN r.owed IS NULL THEN q.dsn_id END,
               dsn_due_at = CASE WHEN r.owed IS NULL THEN q.dsn_due_at END
          FROM result AS r
         WHERE q.id = r.id AND q.lease_token = r.token AND q.state IN ('queued', 'held', 'cancelled')
        RETURNING q.id, q.message_id, q.recipient, q.state, q.destination, q.priority, q.due_at, q.attempts,
                  q.lease_owner, r.outcome, r.status, r.reply, r.host, r.address, r.tls, r.phase, r.in_doubt,
                  r.seconds
    ), tried AS (
        INSERT INTO relaymail.attempt AS a
               (queue_id, number, started_at, ended_at, owner, destination, phase, host, address, tls, outcome,
                status, reply)
        SELECT id, attempts, now() - seconds * interval '1 second', now(), lease_owner, destination, phase, host,
               address, tls, CASE WHEN in_doubt THEN 'in doubt' ELSE outcome END, status, reply
          FROM settled
        ON CONFLICT (queue_id, number) DO UPDATE
           SET ended_at = excluded.ended_at, started_at = excluded.started_at, phase = excluded.phase,
               host = coalesce(excluded.host, a.host), address = coalesce(excluded.address, a.address),
               tls = coalesce(excluded.tls, a.tls), outcome = excluded.outcome, status = excluded.status,
               reply = excluded.reply
    ), arrived AS (
        INSERT INTO relaymail.arrival (destination, priority, due_at)
        SELECT destination, priority, min(due_at) FROM settled WHERE state = 'queued'
         GROUP BY destination, priority
    ), suppressed AS (
        INSERT INTO relaymail.suppression AS s (address, status, reply, message_id, expires_at)
        SELECT DISTINCT ON (lower(recipient)) lower(recipient), status, coalesce(reply, ''), message_id,
               now() + interval '30 days'
          FROM settled WHERE state = 'failed' AND status IN ('5.1.1', '5.1.2', '5.1.10')
         ORDER BY lower(recipient)
        ON CONFLICT (address) DO UPDATE
           SET status = excluded.status, reply = excluded.reply, message_id = excluded.message_id, since = now(),
               expires_at = greatest(s.expires_at, excluded.expires_at)
    )
    SELECT id FROM settled;
END
$$;

-- Gives rows back that were not tried.
CREATE FUNCTION relaymail.queue_give_back(p_ids bigint[], p_tokens uuid[]) RETURNS SETOF bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    WITH returned AS (
        UPDATE relaymail.queue AS q SET lease_token = NULL, due_at = now()
          FROM (SELECT * FROM unnest(p_ids, p_tokens) AS given (id, token) ORDER BY id) AS mine
         WHERE q.id = mine.id AND q.lease_token = mine.token AND q.state IN ('queued', 'held', 'cancelled')
        RETURNING q.id, q.state, q.destination, q.priority, q.attempts
    ), forgotten AS (
        -- begun and then not sent after all
        DELETE FROM relaymail.attempt AS a USING returned AS r
         WHERE a.queue_id = r.id AND a.number = r.attempts + 1 AND a.outcome IS NULL
    ), arrived AS (
        INSERT INTO relaymail.arrival (destination, priority, due_at)
        SELECT DISTINCT destination, priority, now() FROM returned WHERE state = 'queued'
    )
    SELECT id FROM returned;
END
$$;

-- Leaves a destination alone: for p_first, and twice as long each time its hosts cannot be reached again, up to
-- p_longest. What fails while it is blocked already was under way before, and does not count again. Returns how
-- many seconds are left.
CREATE FUNCTION relaymail.queue_block(p_destination text, p_reason text, p_first interval, p_longest interval)
RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz;
BEGIN
    INSERT INTO relaymail.blocked AS b (destination, failures, blocked_until, reason)
    VALUES (p_destination, 1, now() + p_first, p_reason)
    ON CONFLICT (destination) DO UPDATE
       SET failures = CASE WHEN b.blocked_until > now() THEN b.failures ELSE b.failures + 1 END,
           blocked_until = CASE WHEN b.blocked_until > now() THEN b.blocked_until
                                ELSE now() + least(p_longest, p_first * power(2, least(b.failures, 30))) END,
           probe_until = NULL, reason = excluded.reason
    RETURNING blocked_until INTO until;
    -- Its lanes wait for the end of a probe's lease, which may be later
    INSERT INTO relaymail.arrival (destination, priority, due_at)
    SELECT l.destination, l.priority, until FROM relaymail.lane AS l WHERE l.destination = p_destination;
    RETURN extract(epoch FROM until - now());
END
$$;

-- Ends it. Its lanes have their turn at once. Returns whether it was blocked.
CREATE FUNCTION relaymail.queue_unblock(p_destination text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM relaymail.blocked WHERE destination = p_destination;
    IF NOT found THEN
        RETURN false;
    END IF;
    -- A statement of its own, which sees what claims did that the one before has waited for
    INSERT INTO relaymail.arrival (destination, priority, due_at)
    SELECT l.destination, l.priority, now() FROM relaymail.lane AS l WHERE l.destination = p_destination;
    PERFORM pg_notify('relaymail_queue', '');
    RETURN true;
END
$$;

-- Makes a lane for every row that should have one. Nothing is known to need it: it is for what is not known.
CREATE FUNCTION relaymail.queue_repair() RETURNS void LANGUAGE sql AS $$
    INSERT INTO relaymail.arrival (destination, priority, due_at)
    SELECT destination, priority, min(due_at) FROM relaymail.queue WHERE state = 'queued'
     GROUP BY destination, priority
$$;

-- What an operator does, by SQL or by `relaymail queue`, which calls these. Each takes ids of rows and returns how
-- many it changed; rows in another state than it is about stay as they are.

CREATE FUNCTION relaymail.queue_announce(p_ids bigint[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO relaymail.arrival (destination, priority, due_at)
    SELECT destination, priority, min(due_at) FROM relaymail.queue
     WHERE id = ANY (p_ids) AND state = 'queued' GROUP BY destination, priority;
    SELECT pg_notify('relaymail_queue', '');
$$;

-- Queued rows are due now; failed and cancelled ones begin a new life. Blocked destinations among them are asked
-- again. A row that is being sent is left to it, a held one wants queue_release.
CREATE FUNCTION relaymail.queue_retry(p_ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    changed bigint[];
BEGIN
    WITH wanted AS (
        -- the message is locked against being purged
        SELECT q.id FROM relaymail.queue AS q JOIN relaymail.message AS m ON m.id = q.message_id
         WHERE q.id = ANY (p_ids) ORDER BY q.id FOR UPDATE OF q FOR KEY SHARE OF m
    ), again AS (
        UPDATE relaymail.queue AS q
           SET due_at = now(), state = 'queued',
               queued_at = CASE WHEN q.state = 'queued' THEN q.queued_at ELSE now() END,
               warned_at = CASE WHEN q.state = 'queued' THEN q.warned_at END,
               finished_at = NULL,
               -- a report of a failure that is not made yet is not true any more
               owed_dsn = CASE WHEN q.state = 'queued' THEN q.owed_dsn END,
               dsn_due_at = CASE WHEN q.state = 'queued' THEN q.dsn_due_at END,
               dsn_id = CASE WHEN q.state = 'queued' OR q.owed_dsn IS NULL THEN q.dsn_id END
          FROM wanted
         WHERE q.id = wanted.id AND (q.lease_token IS NULL OR q.due_at <= now())
           AND q.state IN ('queued', 'failed', 'cancelled')
        RETURNING q.id
    )
    SELECT array_agg(id) INTO changed FROM again;
    PERFORM relaymail.queue_unblock(destination) FROM (
        SELECT DISTINCT destination FROM relaymail.queue WHERE id = ANY (changed) ORDER BY destination) AS asked;
    PERFORM relaymail.queue_announce(changed);
    RETURN coalesce(cardinality(changed), 0);
END
$$;

-- Keeps queued rows back until queue_release. One that is being sent is held if this try does not deliver it.
CREATE FUNCTION relaymail.queue_hold(p_ids bigint[]) RETURNS integer LANGUAGE sql AS $$
    WITH wanted AS (
        SELECT id FROM relaymail.queue WHERE id = ANY (p_ids) AND state = 'queued' ORDER BY id FOR UPDATE
    ), held AS (
        UPDATE relaymail.queue AS q SET state = 'held' FROM wanted WHERE q.id = wanted.id RETURNING 1
    )
    SELECT count(*)::integer FROM held
$$;

-- Lets held rows go on: due now, with a new life.
CREATE FUNCTION relaymail.queue_release(p_ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    changed bigint[];
BEGIN
    WITH wanted AS (
        SELECT id FROM relaymail.queue WHERE id = ANY (p_ids) AND state = 'held' ORDER BY id FOR UPDATE
    ), released AS (
        UPDATE relaymail.queue AS q
           SET state = 'queued', queued_at = greatest(q.queued_at, now()),
               due_at = CASE WHEN q.lease_token IS NOT NULL THEN greatest(q.due_at, now()) ELSE now() END
          FROM wanted WHERE q.id = wanted.id
        RETURNING q.id
    )
    SELECT array_agg(id) INTO changed FROM released;
    PERFORM relaymail.queue_announce(changed);
    RETURN coalesce(cardinality(changed), 0);
END
$$;

-- Gives queued and held rows up. The sender is told with the reason, where one is given. One that is being sent may
-- be delivered all the same, and is shown as delivered then.
CREATE FUNCTION relaymail.queue_cancel(p_ids bigint[], p_reason text DEFAULT NULL) RETURNS integer LANGUAGE sql AS $$
    WITH wanted AS (
        SELECT id FROM relaymail.queue
         WHERE id = ANY (p_ids) AND state IN ('queued', 'held') ORDER BY id FOR UPDATE
    ), cancelled AS (
        UPDATE relaymail.queue AS q
           SET state = 'cancelled', finished_at = now(),
               last_at = CASE WHEN p_reason IS NULL THEN q.last_at ELSE now() END,
               last_status = CASE WHEN p_reason IS NULL THEN q.last_status ELSE '5.7.1' END,
               last_reply = coalesce(p_reason, q.last_reply),
               last_host = CASE WHEN p_reason IS NULL THEN q.last_host END,
               owed_dsn = CASE WHEN p_reason IS NOT NULL THEN 'failed' END, dsn_due_at = NULL,
               dsn_id = CASE WHEN p_reason IS NULL AND q.owed_dsn IS NULL THEN q.dsn_id END
          FROM wanted WHERE q.id = wanted.id
        RETURNING 1
    )
    SELECT count(*)::integer FROM cancelled
$$;

-- Sends queued and held rows another way: to the hosts of another domain, or of an address literal. Queued ones are
-- due now, but for one that is being sent, which takes the new way if this try does not deliver it.
CREATE FUNCTION relaymail.queue_reroute(p_ids bigint[], p_destination text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    changed bigint[];
BEGIN
    IF p_destination !~ '^([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$'
       AND p_destination !~ '^\[[0-9a-f.:ipv]+\]$' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'a destination is a domain in lower case (A-labels) or an address literal such as [192.0.2.1]';
    END IF;
    WITH wanted AS (
        SELECT id FROM relaymail.queue
         WHERE id = ANY (p_ids) AND state IN ('queued', 'held') ORDER BY id FOR UPDATE
    ), rerouted AS (
        UPDATE relaymail.queue AS q
           SET destination = p_destination,
               due_at = CASE WHEN q.lease_token IS NOT NULL AND q.due_at > now() THEN q.due_at ELSE now() END
          FROM wanted WHERE q.id = wanted.id
        RETURNING q.id
    )
    SELECT array_agg(id) INTO changed FROM rerouted;
    PERFORM relaymail.queue_announce(changed);
    RETURN coalesce(cardinality(changed), 0);
END
$$;

-- One line per row of the queue.
CREATE VIEW relaymail.queue_view AS
    SELECT q.id, q.message_id, q.state,
           q.state = 'queued' AND q.lease_token IS NOT NULL AND q.due_at > now() AS sending,
           m.reverse_path AS sender, q.recipient, q.destination, q.priority, q.queued_at,
           CASE WHEN q.state IN ('queued', 'held') THEN now() - q.queued_at END AS age,
           q.due_at, b.blocked_until, q.attempts, q.in_doubt, q.last_at, q.last_status, q.last_reply, q.last_host,
           q.warned_at, q.finished_at, q.owed_dsn, q.lease_owner, m.size_bytes, m.message_id AS header_message_id,
           m.subject
      FROM relaymail.queue AS q
      JOIN relaymail.message AS m ON m.id = q.message_id
      LEFT JOIN relaymail.blocked AS b ON b.destination = q.destination;

-- One line per recipient and try.
CREATE VIEW relaymail.attempts AS
    SELECT q.message_id, a.queue_id, q.recipient, a.destination, a.number, a.started_at, a.ended_at, a.owner,
           a.phase, a.host, a.address, a.tls,
           coalesce(a.outcome, CASE WHEN q.lease_token IS NOT NULL AND q.due_at > now() AND a.number = q.attempts + 1
                                    THEN 'running' ELSE 'in doubt' END) AS outcome,
           a.status, a.reply, a.possible_duplicate
      FROM relaymail.attempt AS a JOIN relaymail.queue AS q ON q.id = a.queue_id;

-- One line per destination that something waits for, that is blocked, or that has settings of its own.
CREATE VIEW relaymail.destinations_view AS
    SELECT destination, coalesce(w.queued, 0) AS queued, coalesce(w.held, 0) AS held, coalesce(w.sending, 0) AS sending,
           coalesce(w.due, 0) AS due, w.oldest_at, w.next_due_at, b.failures, b.since AS blocked_since, b.blocked_until,
           b.reason, d.max_connections, d.max_recipients, d.relay_host, d.relay_port, d.tls_level, d.note
      FROM (SELECT destination, count(*) FILTER (WHERE state = 'queued') AS queued,
                   count(*) FILTER (WHERE state = 'held') AS held,
                   count(*) FILTER (WHERE state = 'queued' AND lease_token IS NOT NULL AND due_at > now()) AS sending,
                   count(*) FILTER (WHERE state = 'queued' AND due_at <= now()) AS due,
                   min(queued_at) AS oldest_at, min(due_at) FILTER (WHERE state = 'queued') AS next_due_at
              FROM relaymail.queue WHERE state = 'queued' OR state = 'held'
             GROUP BY destination) AS w
      FULL JOIN relaymail.blocked AS b USING (destination)
      FULL JOIN relaymail.destination AS d USING (destination);
