"""DNS of the host and of its domains, from a server with zones of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relaymail.delivery.policy_fetch import PolicyFetcher
from relaymail.dns import Resolver
from relaymail.doctor import Severity
from relaymail.message.dkim_keys import public_text, read_key
from relaymail.store import dkim
from relaymail.store.database import Database
from tests.conftest import reactor, run_on_reactor
from tests.doctor.conftest import Installation, failed_with, is_skipped, is_well
from tests.smtp_tls.conftest import Issued, issue
from tests.support.dns_server import Entry, Zones
from tests.support.policy_server import PolicyServer, answer, trust

NAME = "mail.example.com"
V4, V6 = "8.8.4.4", "2001:4860:4860::8844"
"""Public ones: those for documentation are not."""


@pytest.fixture
def host(installation: Installation, zones: Zones) -> Installation:
    """A host for one domain, with all records as they should be."""
    installation.hosted("example.com", name=NAME)
    zones.mx("gmail.com", "5 gmail-smtp-in.l.google.com")
    zones.a(NAME, V4, V6)
    zones.mx("example.com", f"10 {NAME}")
    zones.set("4.4.8.8.in-addr.arpa", "PTR", f"{NAME}.")
    reverse = "4.4.8.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.8.4.0.6.8.4.1.0.0.2.ip6.arpa"
    zones.set(reverse, "PTR", f"{NAME}.")
    zones.set("example.com", "TXT", f'"v=spf1 mx ip4:{V4} -all"')
    zones.set("_dmarc.example.com", "TXT", '"v=DMARC1; p=reject"')
    return installation


SOUND = ("check.dns.resolver", "check.dns.addresses", "check.dns.ptr", "check.dns.mx", "check.dns.dmarc")


async def test_records_as_they_should_be(host: Installation) -> None:
    outcomes = await host.run(*SOUND)
    assert [is_well(outcome) for outcome in outcomes] == [True] * len(SOUND), outcomes


# The resolver


async def test_a_server_that_is_not_there(installation: Installation) -> None:
    installation.hosted("example.com", name=NAME)
    first, *others = await installation.run(*SOUND)
    assert failed_with(first, Severity.ERROR, "DNS does not work", "127.0.0.1 (Dns:Servers)")
    assert all(is_skipped(other, "check.dns.resolver") for other in others)


@pytest.mark.parametrize(
    ("entry", "severity", "told"),
    [
        (Entry(silent=True), Severity.ERROR, "no answer in time"),
        (Entry(rcode="SERVFAIL"), Severity.ERROR, "SERVFAIL"),
        (Entry(rcode="REFUSED"), Severity.ERROR, "REFUSED"),
        (Entry(rcode="NXDOMAIN"), Severity.WARN, "gmail.com does not exist"),
        (Entry(), Severity.WARN, "no MX records"),
    ],
)
async def test_a_server_that_does_not_answer(
    installation: Installation,
    zones: Zones,
    entry: Entry,
    severity: Severity,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaymail.doctor.checks.dns_resolver.LOOKUP_LIMIT", 1.0)
    zones.fallback = entry
    assert failed_with(await installation.look("check.dns.resolver"), severity, told)


async def test_a_domain_whose_own_servers_are_broken(host: Installation, zones: Zones) -> None:
    zones.fail("example.com", "MX")
    outcome = await host.look("check.dns.mx")
    assert failed_with(outcome, Severity.ERROR, "DNS cannot answer for example.com (MX)", "DNSSEC")


async def test_validation(installation: Installation, zones: Zones) -> None:
    zones.set("org", "SOA", "ns.example.org. hostmaster.example.org. 1 3600 600 86400 60")
    outcome = await installation.look("check.dns.validation")
    assert failed_with(outcome, Severity.INFO, "does not validate")
    zones.entries["org", "SOA"].signed = True
    assert is_well(await installation.look("check.dns.validation"))
    installation.set(Dns__TrustedValidator__0="192.0.2.0/24")
    outcome = await installation.look("check.dns.validation")
    assert failed_with(outcome, Severity.INFO, "not among Dns:TrustedValidator")
    installation.set(Dns__TrustedValidator__0="127.0.0.0/8")
    zones.entries["org", "SOA"].silent = True
    zones.fail("org", "SOA")
    assert is_skipped(await installation.look("check.dns.validation"), "check.dns.resolver")


# Addresses and reverse DNS


async def test_a_name_without_addresses(host: Installation, zones: Zones) -> None:
    zones.a(NAME)
    outcome = await host.look("check.dns.addresses")
    assert failed_with(outcome, Severity.WARN, f"{NAME} has no address")
    assert is_skipped(await host.look("check.dns.ptr"), "check.dns.addresses")


async def test_a_name_with_a_private_address(host: Installation, zones: Zones) -> None:
    zones.a(NAME, "10.0.0.1", V4)
    outcome = await host.look("check.dns.addresses")
    assert failed_with(outcome, Severity.WARN, "nobody else can reach: 10.0.0.1")


async def test_a_name_that_is_none(host: Installation) -> None:
    host.set(Smtp__ServerName="localhost")
    assert failed_with(await host.look("check.dns.addresses"), Severity.WARN, "localhost", "no mail is sent")


@pytest.mark.parametrize(
    ("pointer", "told"),
    [(None, "has no PTR record"), ("other.example.net.", "does not lead back")],
)
async def test_reverse_dns_that_is_wrong(
    host: Installation, zones: Zones, pointer: str | None, told: str
) -> None:
    zones.forget("4.4.8.8.in-addr.arpa")
    if pointer:
        zones.set("4.4.8.8.in-addr.arpa", "PTR", pointer)
    outcome = await host.look("check.dns.ptr")
    assert failed_with(outcome, Severity.WARN, told, f"4.4.8.8.in-addr.arpa. 3600 IN PTR {NAME}.")


async def test_reverse_dns_matters_to_who_sends_only(host: Installation) -> None:
    host.set(OutboundMail__Enabled="false")
    for check in ("check.dns.ptr", "check.dns.spf", "check.dns.dmarc", "check.dns.dkim"):
        assert is_skipped(await host.look(check), "no mail is sent")


# MX


@pytest.mark.parametrize(
    ("exchangers", "severity", "told"),
    [
        (None, Severity.ERROR, "has no MX records"),
        ((), Severity.ERROR, "null MX"),
        (("10 elsewhere.example.net",), Severity.WARN, "which is not this host"),
        (("10 nowhere.example.net",), Severity.ERROR, "has no address"),
        (("10 alias.example.net",), Severity.ERROR, "is an alias (CNAME)"),
        ((f"10 {NAME}", "20 elsewhere.example.net"), None, ""),
        (("10 other-name-of-ours.example.net",), None, ""),
    ],
)
async def test_where_mail_for_a_domain_goes(
    host: Installation,
    zones: Zones,
    exchangers: tuple[str, ...] | None,
    severity: Severity | None,
    told: str,
) -> None:
    zones.a("elsewhere.example.net", "9.9.9.9")
    zones.a("other-name-of-ours.example.net", V6)
    zones.cname("alias.example.net", "elsewhere.example.net")
    zones.forget("example.com", "MX")
    if exchangers is not None:
        zones.mx("example.com", *exchangers)
    outcome = await host.look("check.dns.mx")
    if severity is None:
        assert is_well(outcome)
    else:
        record = f"example.com. 3600 IN MX 10 {NAME}."
        assert failed_with(outcome, severity, "Mail for example.com does not come here", told, record)


async def test_no_hosted_domains(installation: Installation, zones: Zones) -> None:
    for check in ("check.dns.mx", "check.dns.spf", "check.dns.mta-sts", "check.accounts.postmaster"):
        assert is_skipped(await installation.look(check), "no domains are hosted")


async def test_names_for_tests_are_not_asked_for(installation: Installation, zones: Zones) -> None:
    installation.hosted("example.test", name="mail.example.test")
    for check in (
        "check.dns.addresses",
        "check.dns.ptr",
        "check.dns.mx",
        "check.dns.spf",
        "check.dns.mta-sts",
    ):
        assert is_skipped(await installation.look(check), "RFC 6761")


# SPF


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (["v=spf1 mx -all"], ""),
        ([f"v=spf1 ip4:{V4} ip6:{V6} -all"], ""),
        ([f"v=spf1 ip4:8.8.0.0/16 a:{NAME} ~all"], ""),
        (["v=spf1 include:_spf.example.net -all"], ""),
        (["v=spf1 redirect=_spf.example.net"], ""),
        (["v=spf1 +all"], ""),
        (["v=spf1 a:near.example.net/16//32 -all"], ""),
        (["v=spf1 a:near.example.net/24 -all"], "SPF says fail for"),
        (["v=spf1 mx/24//64 exp=why.example.net -all"], ""),
        (["v=spf1 exists:%{i}.example.net ptr a:%{d} mx -all"], ""),
        ([], "has no SPF record"),
        (["something else"], "has no SPF record"),
        (["v=spf1 ip4:192.0.2.1 -all"], "SPF says fail for"),
        (["v=spf1 ip4:192.0.2.1 ~all"], "SPF says softfail for"),
        (["v=spf1 ip4:192.0.2.1"], "does not mention"),
        ([f"v=spf1 ip4:{V4} -all"], f"SPF says fail for {V6}"),
        (["v=spf1 mx -all", "v=spf1 a -all"], "only one is allowed"),
        (["v=spf1 ipv4:8.8.4.4 -all"], "is no mechanism of SPF"),
        (["v=spf1 ip4:8.8.4 -all"], "has no IP address"),
        (["v=spf1 include:nothing.example.net -all"], "has no SPF record"),
        (["v=spf1 include:loop.example.net -all"], "more than 10 DNS look-ups"),
    ],
)
async def test_spf(
    host: Installation, zones: Zones, records: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.doctor.dns_facts.sending_addresses", list)
    zones.a("near.example.net", "8.8.200.1", "2001:4860::1")
    zones.set("_spf.example.net", "TXT", f'"v=spf1 a:{NAME}" " -all"')
    zones.set("loop.example.net", "TXT", '"v=spf1 include:loop.example.net -all"')
    zones.set("example.com", "TXT", *[f'"{record}"' for record in records])
    outcome = await host.look("check.dns.spf")
    if told:
        record = f'example.com. 3600 IN TXT "v=spf1 mx ip6:{V6} ip4:{V4} -all"'
        assert failed_with(outcome, Severity.WARN, told, record), outcome.finding
    else:
        assert is_well(outcome), outcome.finding


async def test_with_a_smarthost_spf_only_has_to_be_there(host: Installation, zones: Zones) -> None:
    host.set(OutboundMail__RelayHost="smtp.provider.example")
    zones.set("example.com", "TXT", '"v=spf1 include:provider.example -all"')
    assert is_well(await host.look("check.dns.spf"))
    zones.forget("example.com", "TXT")
    assert failed_with(await host.look("check.dns.spf"), Severity.WARN, "a:smtp.provider.example")


# DMARC


@pytest.mark.parametrize(
    ("name", "records", "severity", "told"),
    [
        ("_dmarc.example.com", ["v=DMARC1; p=quarantine"], None, ""),
        ("_dmarc.example.com", ["v=DMARC1; p=none"], Severity.INFO, "report only"),
        ("_dmarc.example.com", ["v=DMARC1; p=refuse"], Severity.WARN, "p= is refuse"),
        ("_dmarc.example.com", ["v=DMARC1"], Severity.WARN, "p= is missing"),
        ("_dmarc.example.com", ["v=DMARC1; p=none"] * 2 + ["v=DMARC1; p=reject"], Severity.WARN, "records"),
        ("nothing.example.com", [], Severity.WARN, "_dmarc.example.com has no record"),
    ],
)
async def test_dmarc(
    host: Installation, zones: Zones, name: str, records: list[str], severity: Severity | None, told: str
) -> None:
    zones.forget("_dmarc.example.com")
    zones.set(name, "TXT", *dict.fromkeys(f'"{record}"' for record in records))
    outcome = await host.look("check.dns.dmarc")
    assert is_well(outcome) if severity is None else failed_with(outcome, severity, told)


async def test_dmarc_of_the_domain_above(host: Installation, zones: Zones) -> None:
    host.hosted("lists.example.com", name=NAME)
    assert is_well(await host.look("check.dns.dmarc"))


# DKIM


@pytest.fixture
def public_key() -> tuple[str, str]:
    """A new key: PEM, and what is published of it."""
    pem = (
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
    )
    return pem, public_text(read_key(pem.encode(), "example.com", "s1"))


async def add_key(database: Database, pem: str, *, active: bool = True) -> None:
    key = read_key(pem.encode(), "example.com", "s1")
    await dkim.add(database, [dkim.NewKey(key, pem, active=active)])


async def test_a_domain_without_a_key(
    host: Installation, database: Database, database_parameters: dict[str, str], public_key: tuple[str, str]
) -> None:
    host.database(database_parameters)
    told = "example.com has no active key"
    assert failed_with(await host.look("check.dns.dkim"), Severity.WARN, told)
    await add_key(database, public_key[0], active=False)
    assert failed_with(await host.look("check.dns.dkim"), Severity.WARN, told)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("v=DKIM1; k=ed25519; p={public}", ""),
        (None, "no record"),
        ("v=DKIM1; k=ed25519; p=", "is revoked in DNS"),
        ("v=DKIM1; k=ed25519; p=AAAA", "another key is published"),
    ],
)
async def test_a_key_and_its_record(
    host: Installation,
    zones: Zones,
    database: Database,
    database_parameters: dict[str, str],
    public_key: tuple[str, str],
    record: str | None,
    told: str,
) -> None:
    host.database(database_parameters)
    pem, public = public_key
    await add_key(database, pem)
    if record is not None:
        zones.set("s1._domainkey.example.com", "TXT", f'"{record.format(public=public)}"')
    outcome = await host.look("check.dns.dkim")
    if not told:
        assert is_well(outcome), outcome.finding
        return
    assert failed_with(outcome, Severity.ERROR, told, "s1._domainkey.example.com. 3600 IN TXT", public)
    assert "PRIVATE" not in repr(outcome.finding)


# MTA-STS


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue("Root", authority=True)


@pytest.fixture
def policies(host: Installation, zones: Zones, root: Issued) -> Iterator[PolicyServer]:
    """The web server of the policy."""

    async def start() -> PolicyServer:
        return PolicyServer(reactor, issue("mta-sts.example.com", root))

    server: PolicyServer = run_on_reactor(start())
    zones.a("mta-sts.example.com", "127.0.0.1")
    resolver = Resolver([host.environ["Dns__Servers__0"]], reactor=reactor)
    host.options["policies"] = PolicyFetcher(
        resolver, reactor=reactor, trust=trust(root), port=server.port, limit=5.0
    )
    yield server
    run_on_reactor(server.stop())


async def test_no_mta_sts_is_only_told(host: Installation) -> None:
    outcome = await host.look("check.dns.mta-sts")
    record = '_mta-sts.example.com. 3600 IN TXT "v=STSv1; id=1;"'
    assert failed_with(outcome, Severity.INFO, "not used for example.com", record, NAME)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (f"version: STSv1\nmode: enforce\nmx: {NAME}\nmax_age: 604800\n", ""),
        ("version: STSv1\nmode: none\nmax_age: 604800\n", ""),
        (
            "version: STSv1\nmode: enforce\nmx: other.example.com\nmax_age: 604800\n",
            f"does not name the MX {NAME}",
        ),
        ("version: STSv1\nmode: enforce\n", "https://mta-sts.example.com: no mx is named"),
    ],
)
async def test_a_policy(
    host: Installation, zones: Zones, policies: PolicyServer, policy: str, told: str
) -> None:
    zones.set("_mta-sts.example.com", "TXT", '"v=STSv1; id=1;"')
    policies.respond = lambda: [answer(policy)]
    outcome = await host.look("check.dns.mta-sts")
    if told:
        assert failed_with(outcome, Severity.WARN, told), outcome.finding
    else:
        assert is_well(outcome), outcome.finding


async def test_a_policy_that_is_not_there(host: Installation, zones: Zones, policies: PolicyServer) -> None:
    zones.set("_mta-sts.example.com", "TXT", '"v=STSv1; id=1;"')
    policies.respond = lambda: [answer(status="404 Not Found")]
    assert failed_with(await host.look("check.dns.mta-sts"), Severity.WARN, "is broken", "404")
