"""Every setting, its default and what it means; the documentation's reference page is made from this file.

A field's key is its name in PascalCase, joined with colons: ``settings.smtp.mx.hosted_domains`` is
``Smtp:Mx:HostedDomains``. TimeSpans are seconds as ``float``. ``None`` stands for "not set".
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from relaymail.settings import kinds
from relaymail.settings.connection_string import ConnectionString
from relaymail.settings.kinds import DAY, HOUR, MINUTE, DnsServer, HealthUrl, HostAndPort, Key
from relaymail.settings.secret import Secret

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A level of the settings: its fields are keys or further sections."""


class ConnectionStrings(Section, frozen=True):
    """Where the database is."""

    default_connection: Annotated[
        ConnectionString | None,
        Key(
            "The PostgreSQL database: `Host=…;Port=…;Database=…;Username=…;Password=…;SSL Mode=…` or a "
            "`postgresql://` URL; several hosts may be given. Empty counts as missing, and the host then "
            "does not start.",
            kinds.CONNECTION,
        ),
    ] = None


class Data(Section, frozen=True):
    """What the host keeps on its own disk."""

    directory: Annotated[
        Path, Key("Folder of the embedded PostgreSQL, the development certificate and the spool.", kinds.PATH)
    ] = Path("relaymail-data")
    embedded_postgres: Annotated[
        bool,
        Key("Run a PostgreSQL of our own in `Data:Directory`, in place of a connection string.", kinds.FLAG),
    ] = False


class Endpoints(Section, frozen=True):
    """Twisted endpoint strings in place of port and bind addresses, as socket activation needs them."""

    submission: Annotated[
        str | None,
        Key("Listen here for submission, e.g. `systemd:domain=INET:name=submission`.", kinds.ENDPOINT),
    ] = None
    smtps: Annotated[str | None, Key("Listen here for submission with implicit TLS.", kinds.ENDPOINT)] = None
    mx: Annotated[str | None, Key("Listen here for mail from other hosts.", kinds.ENDPOINT)] = None


class Mx(Section, frozen=True):
    """Mail from other hosts, for domains of ours."""

    enabled: Annotated[bool, Key("Listen for mail from other hosts.", kinds.FLAG)] = False
    port: Annotated[int, Key("Port of the MX listener; 0 turns it off.", kinds.PORT)] = 25
    hosted_domains: Annotated[
        tuple[str, ...],
        Key(
            "Domains mail is taken for; with `Smtp:Mx:Enabled` at least one. Kept as lower-case A-labels.",
            kinds.DOMAIN,
            many=True,
        ),
    ] = ()
    validate_recipients: Annotated[
        bool, Key("Take mail only for addresses that a user has (and `postmaster`).", kinds.FLAG)
    ] = True


class PerListener(Section, frozen=True):
    """A limit that differs between MX and submission listeners; a value at the key itself sets both."""

    mx: Annotated[int, Key("On the MX listener; 0 is no limit.", kinds.LIMIT)]
    submission: Annotated[int, Key("On the submission listeners; 0 is no limit.", kinds.LIMIT)]


class Limits(Section, frozen=True):
    """What a client may ask for; 0 turns a limit off."""

    connections: Annotated[int, Key("Connections in all.", kinds.LIMIT)] = 2000
    connections_per_client: Annotated[
        PerListener, Key("Connections per client address (IPv6: per /64).", kinds.LIMIT)
    ] = PerListener(mx=20, submission=50)
    connections_per_minute: Annotated[
        int, Key("New connections per client and minute on the MX listener.", kinds.LIMIT)
    ] = 60
    messages_per_minute: Annotated[
        int, Key("Messages per client and minute on the MX listener.", kinds.LIMIT)
    ] = 100
    recipients_per_minute: Annotated[
        int, Key("Recipients per client and minute on the MX listener.", kinds.LIMIT)
    ] = 500
    recipients: Annotated[PerListener, Key("Recipients per message.", kinds.LIMIT)] = PerListener(
        mx=1000, submission=500
    )
    messages_per_session: Annotated[int, Key("Messages per session.", kinds.LIMIT)] = 1000
    errors: Annotated[int, Key("Errors per session; from the 5th each costs a second.", kinds.LIMIT)] = 15
    junk_commands: Annotated[
        int, Key("NOOP, RSET and VRFY per session, beyond which each counts as an error.", kinds.LIMIT)
    ] = 50
    line_length: Annotated[int, Key("Bytes of a text line of a message.", kinds.LIMIT)] = 65536
    header_bytes: Annotated[int, Key("Bytes of a message's header section.", kinds.LIMIT)] = 262144
    hops: Annotated[int, Key("`Received:` headers before a message counts as looping.", kinds.LIMIT)] = 100
    exempt_networks: Annotated[
        tuple[Network, ...],
        Key("Networks whose clients the per-client counts and rates do not touch.", kinds.NETWORK, many=True),
    ] = LOOPBACK


class Timeouts(Section, frozen=True):
    """How long the host waits for a client, and for itself."""

    command: Annotated[float, Key("For a command.", kinds.WAIT)] = 5.0 * MINUTE
    command_under_load: Annotated[
        float, Key("For a command, while over 80 % of `Smtp:Limits:Connections` are used.", kinds.WAIT)
    ] = 10.0
    handshake: Annotated[float, Key("For a TLS handshake.", kinds.WAIT)] = 60.0
    auth_line: Annotated[float, Key("For a line of an AUTH exchange.", kinds.WAIT)] = 60.0
    data_idle: Annotated[float, Key("For more of a message.", kinds.WAIT)] = 3.0 * MINUTE
    data_minimum_rate: Annotated[
        int, Key("Bytes per second a message must come in with on average; 0 turns it off.", kinds.LIMIT)
    ] = 500
    store: Annotated[
        float,
        Key("For our own work behind the final dot; then it is cancelled and answered `451`.", kinds.WAIT),
    ] = 2.0 * MINUTE
    proxy_header: Annotated[float, Key("For the PROXY header of a listed network.", kinds.WAIT)] = 5.0
    session: Annotated[float, Key("For the whole session.", kinds.WAIT)] = 2.0 * HOUR
    drain: Annotated[
        float, Key("For messages in progress when the host stops; may be 0.", kinds.PATIENCE)
    ] = 60.0


class Deduplicate(Section, frozen=True):
    """Whether a resend of a message whose `250` was lost is stored once."""

    mx: Annotated[bool, Key("On the MX listener.", kinds.FLAG)] = True
    submission: Annotated[bool, Key("On the submission listeners.", kinds.FLAG)] = False


class Smtp(Section, frozen=True):
    """The listeners."""

    enabled: Annotated[bool, Key("Listen for SMTP at all.", kinds.FLAG)] = True
    server_name: Annotated[str, Key("Name in the greeting and the reply to EHLO.", kinds.SERVER_NAME)] = (
        "localhost"
    )
    port: Annotated[int, Key("Port for submission (STARTTLS); 0 turns it off.", kinds.PORT)] = 587
    secure_port: Annotated[int, Key("Port for submission with implicit TLS; 0 turns it off.", kinds.PORT)] = (
        465
    )
    bind_addresses: Annotated[
        tuple[str, ...], Key("IP addresses to listen on.", kinds.ADDRESS, many=True)
    ] = ("0.0.0.0", "::")  # noqa: S104 - a mail host is there for everyone; others put their own
    endpoints: Endpoints = Endpoints()
    require_authentication: Annotated[
        bool,
        Key(
            "Ask for a login on submission ports. `false` opens no relay: without a login only local "
            "recipients are reached.",
            kinds.FLAG,
        ),
    ] = True
    certificate_path: Annotated[
        Path | None, Key("The certificate: PFX/PKCS#12, PEM (chain and key) or DER.", kinds.PATH)
    ] = None
    certificate_key_path: Annotated[
        Path | None, Key("The private key, where it has a file of its own, as certbot writes it.", kinds.PATH)
    ] = None
    certificate_password: Annotated[
        Secret | None, Key("Password of the PFX file or the private key.", kinds.SECRET)
    ] = None
    max_message_size_bytes: Annotated[int, Key("Largest message in bytes.", kinds.SIZE)] = 52428800
    max_attachment_size_bytes: Annotated[int, Key("Largest decoded attachment in bytes.", kinds.SIZE)] = (
        26214400
    )
    mx: Mx = Mx()
    postmaster: Annotated[
        str | None,
        Key(
            "Address of the user who gets `postmaster@…`; without one such mail is stored without an owner.",
            kinds.MAILBOX,
        ),
    ] = None
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    proxy_networks: Annotated[
        tuple[Network, ...], Key("Networks that may send a PROXY header.", kinds.NETWORK, many=True)
    ] = ()
    xclient_networks: Annotated[
        tuple[Network, ...], Key("Networks that may use XCLIENT.", kinds.NETWORK, many=True)
    ] = ()
    deduplicate: Deduplicate = Deduplicate()
    scram: Annotated[
        bool,
        Key(
            "Offer SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, while every live API key has a verifier: clients "
            "that choose it do not fall back.",
            kinds.FLAG,
        ),
    ] = False
    workers: Annotated[
        int, Key("Processes that share the listening sockets; this version has one.", kinds.WORKERS)
    ] = 1


class HealthCheck(Section, frozen=True):
    """The health listener and its checks."""

    url: Annotated[
        HealthUrl,
        Key(
            "Where health is served; `http://+:8081`, `http://*:8081`, `http://0.0.0.0:8081`: everywhere.",
            kinds.HEALTH_URL,
        ),
    ] = HealthUrl("localhost", 8081)
    dns_test_domain: Annotated[
        str, Key("Domain whose MX records the `dns-mx` check asks for.", kinds.DOMAIN)
    ] = "gmail.com"
    ready_checks: Annotated[
        tuple[str, ...], Key("Checks behind `/healthz/ready`.", kinds.CHECK, many=True)
    ] = ("database", "smtp", "dns-mx")


class Api(Section, frozen=True):
    """The API that is told of new mail."""

    base_url: Annotated[str, Key("Base URL of the API.", kinds.HTTP_URL)] = "http://localhost:5000"


class Internal(Section, frozen=True):
    """What the hosts share among themselves."""

    api_key: Annotated[
        Secret | None, Key("Sent to the API as `Authorization: ApiKey <key>`.", kinds.SECRET)
    ] = None


class OutboundMail(Section, frozen=True):
    """Mail to other hosts."""

    enabled: Annotated[bool, Key("Take mail for other hosts and send it on.", kinds.FLAG)] = True
    relay_host: Annotated[
        str | None,
        Key("Smarthost all outbound mail goes to, in place of the recipients' hosts.", kinds.SERVER_NAME),
    ] = None
    relay_port: Annotated[int, Key("Port of the smarthost; 465 is implicit TLS.", kinds.OPEN_PORT)] = 587
    relay_username: Annotated[str | None, Key("Login at the smarthost.", kinds.TEXT)] = None
    relay_password: Annotated[Secret | None, Key("Password at the smarthost.", kinds.SECRET)] = None
    relay_use_tls: Annotated[
        bool, Key("Verified TLS to the smarthost; only `false` sends in clear.", kinds.FLAG)
    ] = True
    max_concurrency: Annotated[int, Key("Deliveries at one time.", kinds.whole(1, 10_000))] = 50
    smtp_timeout_seconds: Annotated[
        float | None, Key("Seconds to wait for a reply; unset: RFC 5321's, per phase.", kinds.WAIT)
    ] = None
    queue_polling_interval_seconds: Annotated[
        float, Key("Seconds between looks into the queue.", kinds.WAIT)
    ] = 5.0
    sender_domain: Annotated[
        str | None, Key("Name said in EHLO to other hosts; unset: `Smtp:ServerName`.", kinds.DOMAIN)
    ] = None
    retry_delays: Annotated[
        tuple[float, ...] | None,
        Key(
            "Waits before each further try; unset: `MaxRetries` and `RetryBaseDelaySeconds`, else 5 days.",
            kinds.WAIT,
            many=True,
        ),
    ] = None
    max_retries: Annotated[
        int | None, Key("Further tries, where `RetryDelays` is not set.", kinds.whole(0, 1000))
    ] = None
    retry_base_delay_seconds: Annotated[
        float | None, Key("Seconds before the first further try; doubles with each.", kinds.WAIT)
    ] = None
    port: Annotated[int, Key("Port of the next hosts (for tests).", kinds.OPEN_PORT)] = 25


class Dns(Section, frozen=True):
    """Who is asked for names."""

    servers: Annotated[
        tuple[DnsServer, ...] | None,
        Key(
            "Name servers, `address` or `address:port`, used by every lookup; unset: the system's.",
            kinds.DNS_SERVER,
            many=True,
        ),
    ] = None
    trusted_validator: Annotated[
        tuple[Network, ...],
        Key(
            "Name servers (addresses or networks) whose AD bit counts for DANE.",
            kinds.NETWORK,
            many=True,
            single=True,
        ),
    ] = LOOPBACK


class Doctor(Section, frozen=True):
    """The command `relaymail doctor`."""

    outbound_target: Annotated[
        HostAndPort | None,
        Key(
            "Host that is connected to, to see whether mail gets out; unset: the smarthost, else the first "
            "MX of `HealthCheck:DnsTestDomain`.",
            kinds.HOST_AND_PORT,
        ),
    ] = None


class RateLimit(Section, frozen=True):
    """Against guessing of passwords; counted per client address (IPv6: per /64), by all hosts together."""

    max_failed_attempts: Annotated[
        int,
        Key(
            "Failed logins of a client within the window before it is locked out.", kinds.whole(1, 1_000_000)
        ),
    ] = 5
    lockout_window: Annotated[
        float, Key("The window, and how long a client stays locked out.", kinds.WAIT)
    ] = 15.0 * MINUTE
    base_backoff_delay: Annotated[
        float, Key("Wait after the first failure; doubles with each.", kinds.PATIENCE)
    ] = 1.0
    max_backoff_delay: Annotated[float, Key("Longest wait between tries.", kinds.PATIENCE)] = 30.0


class Security(Section, frozen=True):
    """Logins."""

    authentication_salt: Annotated[
        Secret | None, Key("HMAC key of the cache of logins; unset: random per process.", kinds.SECRET)
    ] = None
    rate_limit: RateLimit = RateLimit()


class Retention(Section, frozen=True):
    """How long what is done with is kept."""

    events: Annotated[float, Key("Events.", kinds.AGE)] = 90.0 * DAY
    queue: Annotated[float, Key("Finished rows of the queue.", kinds.AGE)] = 30.0 * DAY
    outbox: Annotated[float, Key("Finished notifications.", kinds.AGE)] = 30.0 * DAY
    messages: Annotated[float | None, Key("Raw messages; unset: kept for ever.", kinds.AGE)] = None


class Otel(Section, frozen=True):
    """OpenTelemetry."""

    endpoint: Annotated[str | None, Key("OTLP/HTTP collector for traces and metrics.", kinds.HTTP_URL)] = None
    traced_percent: Annotated[
        int,
        Key("Of a hundred messages so many are traced, where there is a collector.", kinds.whole(0, 100)),
    ] = 5


class LogLevel(Section, frozen=True):
    """The least severe level that is logged, per category; we have one category."""

    default: Annotated[
        Literal["Trace", "Debug", "Information", "Warning", "Error", "Critical"],
        Key("Least severe level that is logged.", kinds.LEVEL),
    ] = "Information"


class Logging(Section, frozen=True):
    """The log."""

    log_level: LogLevel = LogLevel()
    format: Annotated[
        Literal["text", "json"], Key("Lines for people or for machines.", kinds.choice("text", "json"))
    ] = "text"


class Debug(Section, frozen=True):
    """For tests of the host itself."""

    crash_point: Annotated[
        str | None, Key("The process kills itself when it reaches this point.", kinds.CRASH_POINT)
    ] = None


class Settings(Section, frozen=True):
    """All settings of the host. Immutable; made by :func:`relaymail.settings.load`."""

    connection_strings: ConnectionStrings = ConnectionStrings()
    data: Data = Data()
    smtp: Smtp = Smtp()
    health_check: HealthCheck = HealthCheck()
    api: Api = Api()
    internal: Internal = Internal()
    outbound_mail: OutboundMail = OutboundMail()
    dns: Dns = Dns()
    doctor: Doctor = Doctor()
    security: Security = Security()
    retention: Retention = Retention()
    otel: Otel = Otel()
    logging: Logging = Logging()
    debug: Debug = Debug()

    @property
    def connection(self) -> ConnectionString | None:
        """The database of ``ConnectionStrings:DefaultConnection``, ``None`` if it is empty or missing."""
        return self.connection_strings.default_connection
