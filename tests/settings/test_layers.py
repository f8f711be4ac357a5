"""File and environment: how they are read, and which counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymail.settings import SettingsError, describe, load
from relaymail.settings.schema import tree
from tests.settings.conftest import Load, Refused


def test_without_anything_the_defaults_of_the_contract_hold(load_text: Load) -> None:
    loaded = load_text()
    shown = {entry.key: entry.value for entry in describe(loaded)}
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.warnings == []
    expected = {
        "ConnectionStrings:DefaultConnection": None,
        "Data:Directory": "relaymail-data",
        "Data:EmbeddedPostgres": False,
        "Smtp:Enabled": True,
        "Smtp:ServerName": "localhost",
        "Smtp:Port": 587,
        "Smtp:SecurePort": 465,
        "Smtp:BindAddresses": ["0.0.0.0", "::"],
        "Smtp:RequireAuthentication": True,
        "Smtp:MaxMessageSizeBytes": 52428800,
        "Smtp:MaxAttachmentSizeBytes": 26214400,
        "Smtp:Mx:Enabled": False,
        "Smtp:Mx:Port": 25,
        "Smtp:Mx:HostedDomains": [],
        "Smtp:Mx:ValidateRecipients": True,
        "Smtp:Deduplicate:Mx": True,
        "Smtp:Deduplicate:Submission": False,
        "Smtp:Scram": False,
        "Smtp:Workers": 1,
        "Smtp:Limits:Connections": 2000,
        "Smtp:Limits:ConnectionsPerClient:Mx": 20,
        "Smtp:Limits:ConnectionsPerClient:Submission": 50,
        "Smtp:Limits:Recipients:Mx": 1000,
        "Smtp:Limits:Recipients:Submission": 500,
        "Smtp:Limits:HeaderBytes": 256 * 1024,
        "Smtp:Limits:Hops": 100,
        "Smtp:Limits:ExemptNetworks": ["127.0.0.0/8", "::1/128"],
        "Smtp:Timeouts:Command": "00:05:00",
        "Smtp:Timeouts:Session": "02:00:00",
        "HealthCheck:Url": "http://localhost:8081",
        "HealthCheck:DnsTestDomain": "gmail.com",
        "HealthCheck:ReadyChecks": ["database", "smtp", "dns-mx"],
        "Api:BaseUrl": "http://localhost:5000",
        "Internal:ApiKey": None,
        "OutboundMail:Enabled": True,
        "OutboundMail:RelayPort": 587,
        "OutboundMail:RelayUseTls": True,
        "OutboundMail:MaxConcurrency": 50,
        "OutboundMail:QueuePollingIntervalSeconds": 5.0,
        "OutboundMail:Port": 25,
        "Dns:Servers": None,
        "Security:RateLimit:MaxFailedAttempts": 5,
        "Security:RateLimit:LockoutWindow": "00:15:00",
        "Security:RateLimit:BaseBackoffDelay": "00:00:01",
        "Security:RateLimit:MaxBackoffDelay": "00:00:30",
        "Retention:Events": "90.00:00:00",
        "Logging:LogLevel:Default": "Information",
        "Logging:Format": "text",
        "Debug:CrashPoint": None,
    }
    assert {key: shown[key] for key in expected} == expected
    json.dumps(shown)


def test_the_environment_counts_over_the_file_in_any_case(load_text: Load) -> None:
    file = '{"smtp": {"PORT": 2001, "SecurePort": "2002", "mx": {"port": 2003}}}'
    loaded = load_text(file, {"SMTP__PORT": "3001", "smtp__mx__Port": "3003"})
    assert loaded.settings.smtp.port == 3001
    assert loaded.settings.smtp.secure_port == 2002
    assert loaded.settings.smtp.mx.port == 3003
    assert loaded.sources["Smtp:Port"] == "environment SMTP__PORT"
    assert loaded.sources["Smtp:Mx:Port"] == "environment smtp__mx__Port"
    assert loaded.sources["Smtp:SecurePort"].startswith("file /")
    assert loaded.sources["Smtp:Enabled"] == "default"


def test_numbers_and_booleans_may_be_texts_as_in_asp_net(load_text: Load) -> None:
    loaded = load_text(
        '{"Smtp": {"Port": "2001", "Enabled": "True", "Scram": "true", "ServerName": "mail1"}}'
    )
    assert loaded.settings.smtp.port == 2001
    assert loaded.settings.smtp.enabled is True
    assert loaded.settings.smtp.scram is True


def test_comments_last_commas_and_a_byte_order_mark_are_tolerated(load_text: Load) -> None:
    file = """// a comment, "quoted"
    { /* one
       more */ "Api": { "BaseUrl": "http://api/a//b,]" /* } */, },
      "Smtp": { "BindAddresses": ["127.0.0.1", // local
        ], } }
    """
    loaded = load_text(b"\xef\xbb\xbf" + file.encode())
    assert loaded.settings.api.base_url == "http://api/a//b,]"
    assert loaded.settings.smtp.bind_addresses == ("127.0.0.1",)
    assert load_text(file.encode("utf-16")).settings == loaded.settings


def test_a_key_with_colons_reaches_into_sections(load_text: Load) -> None:
    loaded = load_text('{"Smtp:Mx:Port": 2003, "Smtp": {"Port": 2001}}', {"Smtp:SecurePort": "2002"})
    smtp = loaded.settings.smtp
    assert (smtp.mx.port, smtp.port, smtp.secure_port) == (2003, 2001, 2002)


def test_null_in_the_file_is_not_given(load_text: Load) -> None:
    loaded = load_text('{"Smtp": {"Port": null, "CertificatePath": null}, "Internal": null}')
    assert loaded.settings.smtp.port == 587
    assert loaded.sources["Smtp:Port"] == "default"


@pytest.mark.parametrize(
    "file",
    [
        "",
        "[]",
        "5",
        '{"Smtp": ',
        "{'Smtp': 1}",
        '{"Smtp": {"Port": NaN}}',
        '{"Smtp": 1 /* never closed',
        b'{"Smtp": "\xff"}',
        '{"a":' * 5000,
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_json_object_is_refused_by_name(refused: Refused, file: str | bytes) -> None:
    (error,) = refused(file)
    assert "settings.json" in error


def test_the_place_of_a_mistake_in_the_file_is_told_past_comments(refused: Refused) -> None:
    (error,) = refused('{\n  /* one\n two */ "Smtp": {"Port": 1,,}\n}')
    assert re.search("line 3, column 2[79]", error)  # the comma, or the one before it (Python 3.13)


def test_a_key_given_twice_in_the_file_is_refused(refused: Refused) -> None:
    (error,) = refused('{"Smtp": {"Port": 1}, "smtp": {"PORT": 2}}')
    assert "smtp:PORT twice" in error


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(SettingsError, match=path.name):
            load(path, {})


class TestLists:
    """Lists by index."""

    def test_in_the_environment_elements_have_an_index(self, load_text: Load) -> None:
        variables = {f"SMTP__MX__HOSTEDDOMAINS__{n}": f"d{n}.test" for n in range(12)}
        assert load_text(None, variables).settings.smtp.mx.hosted_domains == tuple(
            f"d{n}.test" for n in range(12)
        )

    def test_the_environment_replaces_single_elements(self, load_text: Load) -> None:
        file = '{"Smtp": {"Mx": {"HostedDomains": ["a.test", "b.test", "c.test"]}}}'
        loaded = load_text(file, {"Smtp__Mx__HostedDomains__1": "x.test"})
        assert loaded.settings.smtp.mx.hosted_domains == ("a.test", "x.test", "c.test")
        assert "settings.json, environment" in loaded.sources["Smtp:Mx:HostedDomains"]

    def test_a_blank_element_drops_out(self, load_text: Load) -> None:
        file = '{"Smtp": {"Mx": {"HostedDomains": ["a.test", " ", "c.test"]}}}'
        loaded = load_text(file, {"Smtp__Mx__HostedDomains__0": ""})
        assert loaded.settings.smtp.mx.hosted_domains == ("c.test",)

    def test_any_element_replaces_the_whole_default(self, load_text: Load) -> None:
        loaded = load_text(None, {"HealthCheck__ReadyChecks__0": "SMTP"})
        assert loaded.settings.health_check.ready_checks == ("smtp",)

    def test_an_empty_list_is_one(self, load_text: Load) -> None:
        loaded = load_text('{"HealthCheck": {"ReadyChecks": []}, "Dns": {"Servers": []}}')
        assert loaded.settings.health_check.ready_checks == ()
        assert loaded.settings.dns.servers is None

    def test_commas_make_no_list(self, refused: Refused) -> None:
        (error,) = refused(None, {"SMTP__MX__HOSTEDDOMAINS": "a.test,b.test"})
        assert error.startswith("Smtp:Mx:HostedDomains is ")
        assert "Smtp__Mx__HostedDomains__0" in error

    def test_an_index_that_is_none_is_refused(self, refused: Refused) -> None:
        (error,) = refused(None, {"SMTP__MX__HOSTEDDOMAINS__first": "a.test"})
        assert "Smtp:Mx:HostedDomains:first" in error

    def test_each_wrong_element_is_named(self, refused: Refused) -> None:
        errors = refused('{"Smtp": {"ProxyNetworks": ["10.0.0.0/8", "10.0.0.1/8", "x"]}}')
        assert [error.split()[0] for error in errors] == ["Smtp:ProxyNetworks:1", "Smtp:ProxyNetworks:2"]
        assert "did you mean 10.0.0.0/8?" in errors[0]


class TestUnits:
    """TimeSpans and their alternative keys; limits per listener."""

    def test_time_spans_may_be_given_in_units(self, load_text: Load) -> None:
        file = (
            '{"Security": {"RateLimit": {"LockoutWindowMinutes": 20, "BaseBackoffDelaySeconds": 0.5,'
            ' "MaxBackoffDelay": "00:01:00"}}, "Retention": {"EventsDays": "7", "Queue": "14.00:00:00"}}'
        )
        settings = load_text(file).settings
        assert settings.security.rate_limit.lockout_window == 1200.0
        assert settings.security.rate_limit.base_backoff_delay == 0.5
        assert settings.security.rate_limit.max_backoff_delay == 60.0
        assert settings.retention.events == 7 * 86400
        assert settings.retention.queue == 14 * 86400

    def test_the_higher_layer_counts_whichever_unit_it_uses(self, load_text: Load) -> None:
        file = '{"Security": {"RateLimit": {"LockoutWindow": "00:15:00"}}}'
        loaded = load_text(file, {"SECURITY__RATELIMIT__LOCKOUTWINDOWMINUTES": "1"})
        assert loaded.settings.security.rate_limit.lockout_window == 60.0
        file = '{"Security": {"RateLimit": {"LockoutWindowMinutes": 15}}}'
        loaded = load_text(file, {"SECURITY__RATELIMIT__LOCKOUTWINDOW": "00:00:07"})
        assert loaded.settings.security.rate_limit.lockout_window == 7.0

    def test_twice_in_one_layer_is_refused(self, refused: Refused) -> None:
        file = '{"Security": {"RateLimit": {"LockoutWindow": "00:15:00", "LockoutWindowMinutes": 15}}}'
        (error,) = refused(file)
        assert "Security:RateLimit:LockoutWindow" in error
        assert "twice" in error

    def test_a_unit_takes_a_plain_number(self, refused: Refused) -> None:
        (error,) = refused('{"Security": {"RateLimit": {"LockoutWindowMinutes": "00:15:00"}}}')
        assert "not a plain number" in error

    def test_retry_delays_are_a_list_of_time_spans_that_may_repeat(self, load_text: Load) -> None:
        settings = load_text('{"OutboundMail": {"RetryDelays": ["00:05:00", 300, "60"]}}').settings
        assert settings.outbound_mail.retry_delays == (300.0, 300.0, 60.0)

    def test_a_limit_may_be_set_for_both_listeners_or_each(self, load_text: Load) -> None:
        limits = load_text('{"Smtp": {"Limits": {"Recipients": 7}}}').settings.smtp.limits
        assert (limits.recipients.mx, limits.recipients.submission) == (7, 7)
        limits = load_text(None, {"SMTP__LIMITS__RECIPIENTS__MX": "8"}).settings.smtp.limits
        assert (limits.recipients.mx, limits.recipients.submission) == (8, 500)
        file = '{"Smtp": {"Limits": {"Recipients": {"Mx": 9}}}}'
        limits = load_text(file, {"SMTP__LIMITS__RECIPIENTS": "5"}).settings.smtp.limits
        assert (limits.recipients.mx, limits.recipients.submission) == (5, 5)


class TestDemo:
    """The demo's defaults lie under everything."""

    def test_its_defaults(self, load_text: Load) -> None:
        loaded = load_text(None, {}, demo=True)
        settings = loaded.settings
        assert (settings.smtp.port, settings.smtp.secure_port, settings.smtp.mx.port) == (2587, 2465, 2525)
        assert settings.smtp.mx.enabled
        assert settings.smtp.mx.hosted_domains == ("example.test",)
        assert settings.smtp.server_name == "relaymail.example.test"
        assert settings.smtp.bind_addresses == ("127.0.0.1", "::1")
        assert settings.health_check.url == ("localhost", 8081)
        assert settings.data.directory == Path("relaymail-demo")
        assert settings.data.embedded_postgres
        assert loaded.sources["Smtp:Port"] == "demo"
        assert loaded.sources["HealthCheck:Url"] == "default"

    def test_file_and_environment_lie_over_it(self, load_text: Load) -> None:
        file = '{"Smtp": {"SecurePort": 0}}'
        loaded = load_text(file, {"SMTP__PORT": "3587", "SMTP__MX__HOSTEDDOMAINS__0": "x.test"}, demo=True)
        assert (loaded.settings.smtp.port, loaded.settings.smtp.secure_port) == (3587, 0)
        assert loaded.settings.smtp.mx.hosted_domains == ("x.test",)

    def test_a_connection_string_turns_the_embedded_server_off(self, load_text: Load) -> None:
        loaded = load_text(None, {"ConnectionStrings__DefaultConnection": "Host=db"}, demo=True)
        assert loaded.settings.connection is not None
        assert not loaded.settings.data.embedded_postgres
        assert "connection string" in loaded.sources["Data:EmbeddedPostgres"]

    def test_an_empty_connection_string_does_not(self, load_text: Load) -> None:
        loaded = load_text(None, {"ConnectionStrings__DefaultConnection": "  "}, demo=True)
        assert loaded.settings.connection is None
        assert loaded.settings.data.embedded_postgres

    def test_the_folder_of_the_command_line_counts_over_all(self, load_text: Load, tmp_path: Path) -> None:
        for demo in (False, True):
            loaded = load_text(
                '{"Data": {"Directory": "/a"}}', {"DATA__DIRECTORY": "/b"}, demo=demo, data=tmp_path
            )
            assert loaded.settings.data.directory == tmp_path
            assert loaded.sources["Data:Directory"] == "command line --data"


def test_variables_and_sections_of_others_are_passed_over(load_text: Load) -> None:
    file = """{"Oidc": {"Authority": "x"}, "Jwt": {}, "Cors": {"Origins": ["x"]}, "Pop3": {"Port": 110},
        "Imap": {"Port": 143}, "AllowedHosts": "*", "Kestrel": {"Limits": {}},
        "Logging": {"LogLevel": {"Microsoft.AspNetCore": "Warning", "Default": "Debug"}, "Console": {"X": 1}},
        "ConnectionStrings": {"Redis": "x"},
        "Smtp": {"Host": "h", "UseSsl": true, "Username": "u", "Password": "p"}}"""
    variables = {
        "PATH": "/bin",
        "HOME": "/",
        "DEBUG": "1",
        "DATA": "x",
        "SMTP_PORT": "tcp://10.0.0.1:25",
        "__CF_USER": "1",
        "APP__NAME": "x",
        "ASPNETCORE_URLS": "http://+:80",
        "IMAP__PORT": "1",
        "OIDC__AUTHORITY": "x",
    }
    loaded = load_text(file, variables)
    assert loaded.warnings == []
    assert loaded.settings.logging.log_level.default == "Debug"
    assert loaded.settings.smtp.port == 587


def test_an_unknown_key_of_ours_is_warned_about_with_its_right_place(load_text: Load) -> None:
    loaded = load_text('{"Smtp": {"HostedDomains": ["a.test"], "Colour": 1}}')
    assert [warning.split()[0] for warning in loaded.warnings] == ["Smtp:HostedDomains", "Smtp:Colour"]
    assert "Smtp:Mx:HostedDomains" in loaded.warnings[0]


def test_variables_that_differ_in_case_only_must_agree(load_text: Load, refused: Refused) -> None:
    assert load_text(None, {"SMTP__PORT": "25", "Smtp__Port": "25"}).settings.smtp.port == 25
    (error,) = refused(None, {"SMTP__PORT": "25", "Smtp__Port": "26"})
    assert "SMTP__PORT" in error
    assert "Smtp__Port" in error
    load_text(None, {"OTHER__X": "25", "Other__X": "26"})


@pytest.mark.parametrize("demo", [False, True])
def test_what_is_described_may_be_loaded_again(load_text: Load, demo: bool) -> None:
    variables = {
        "SMTP__POSTMASTER": "root@example.test",
        "HEALTHCHECK__URL": "http://*:8082",
        "DNS__SERVERS__0": "[2001:db8::1]:5353",
        "SMTP__CERTIFICATEPATH": "/etc/x",
        "RETENTION__MESSAGESDAYS": "400",
        "OUTBOUNDMAIL__RETRYDELAYS__0": "0.5",
        "OUTBOUNDMAIL__SMTPTIMEOUTSECONDS": "12.5",
        "OTEL__ENDPOINT": "https://collector:4318",
        "DEBUG__CRASHPOINT": "After-Commit",
    }
    loaded = load_text(None, variables, demo=demo)
    shown = json.dumps({entry.key: entry.value for entry in describe(loaded)})
    assert load_text(shown).settings == loaded.settings


KEYS = [leaf.path for leaf in tree().leaves()]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(
        ["", "5", "00:00:05", "example.test", "10.0.0.0/8", "http://localhost:1", "::1", "a@b.test"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)
TEXTS = st.one_of(SCALARS.map(str), st.text(st.characters(exclude_characters="\0"), max_size=20))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
    st.dictionaries(st.sampled_from(KEYS).map(lambda key: key.upper().replace(":", "__")), TEXTS, max_size=6),
    st.booleans(),
)
def test_anything_given_is_loaded_or_refused(
    load_text: Load, file: dict[str, object], variables: dict[str, str], demo: bool
) -> None:
    errors: list[str] = []
    try:
        json.dumps(describe(load_text(json.dumps(file), variables, demo=demo)))
    except SettingsError as error:
        errors += error.errors
    for text in errors:
        text.encode()
        assert any(words in text for words in ("allowed:", "did you mean", "twice")), text


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_and_any_variable_is_read_or_refused(
    load_text: Load, file: str, variables: dict[str, str]
) -> None:
    try:
        load_text(file.encode("utf-8", "surrogatepass"), variables)
    except SettingsError as error:
        str(error).encode()
