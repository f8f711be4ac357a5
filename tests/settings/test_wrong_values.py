"""What is refused, and in which words: the key, what was given, what is allowed."""

from __future__ import annotations

import pytest

from relaymail.settings import SettingsError, require_database
from tests.settings.conftest import Load, Refused

# variable, value, key, words of the error
WRONG = [
    ("SMTP__PORT", "abc", "Smtp:Port", "0 to 65535"),
    ("SMTP__PORT", "65536", "Smtp:Port", "0 to 65535"),
    ("SMTP__PORT", "-1", "Smtp:Port", "0 to 65535"),
    ("SMTP__PORT", "", "Smtp:Port", "0 to 65535"),
    ("SMTP__PORT", "٣", "Smtp:Port", "0 to 65535"),
    ("SMTP__PORT", "5.5", "Smtp:Port", "0 to 65535"),
    ("SMTP__MX__PORT__0", "5", "Smtp:Mx:Port:0", "one value"),
    ("SMTP__MX", "true", "Smtp:Mx", "section"),
    ("SMTP__ENABLED", "yes", "Smtp:Enabled", "true or false"),
    ("SMTP__ENABLED", "1", "Smtp:Enabled", "true or false"),
    ("SMTP__WORKERS", "4", "Smtp:Workers", "several hosts on one database"),
    ("SMTP__SERVERNAME", "a b", "Smtp:ServerName", "host name"),
    ("SMTP__SERVERNAME", "", "Smtp:ServerName", "host name"),
    ("SMTP__MX__HOSTEDDOMAINS__0", "u@example.com", "Smtp:Mx:HostedDomains:0", "behind the @"),
    ("SMTP__MX__HOSTEDDOMAINS__0", "*.example.com", "Smtp:Mx:HostedDomains:0", "wildcards"),
    ("SMTP__MX__HOSTEDDOMAINS__0", "a..b", "Smtp:Mx:HostedDomains:0", "domain name"),
    ("SMTP__MX__HOSTEDDOMAINS__0", "192.0.2.1", "Smtp:Mx:HostedDomains:0", "domain name"),
    ("SMTP__MX__HOSTEDDOMAINS__0", "a" * 64 + ".test", "Smtp:Mx:HostedDomains:0", "domain name"),
    ("SMTP__BINDADDRESSES__0", "localhost", "Smtp:BindAddresses:0", "IP address"),
    ("SMTP__PROXYNETWORKS__0", "10.0.0.0/33", "Smtp:ProxyNetworks:0", "network"),
    ("SMTP__XCLIENTNETWORKS__0", "x", "Smtp:XclientNetworks:0", "network"),
    ("SMTP__LIMITS__EXEMPTNETWORKS__0", "x", "Smtp:Limits:ExemptNetworks:0", "network"),
    ("SMTP__LIMITS__ERRORS", "-1", "Smtp:Limits:Errors", "whole number"),
    ("SMTP__TIMEOUTS__COMMAND", "0", "Smtp:Timeouts:Command", "TimeSpan"),
    ("SMTP__TIMEOUTS__COMMAND", "soon", "Smtp:Timeouts:Command", "TimeSpan"),
    ("SMTP__ENDPOINTS__MX", "2525", "Smtp:Endpoints:Mx", "endpoint"),
    ("SMTP__POSTMASTER", "root", "Smtp:Postmaster", "address"),
    ("HEALTHCHECK__URL", "https://localhost:8081", "HealthCheck:Url", "plain http"),
    ("HEALTHCHECK__URL", "http://example.com:8081", "HealthCheck:Url", "all interfaces"),
    ("HEALTHCHECK__URL", "http://+:70000", "HealthCheck:Url", "HOST:PORT"),
    ("HEALTHCHECK__URL", "localhost:8081", "HealthCheck:Url", "HOST:PORT"),
    ("HEALTHCHECK__READYCHECKS__0", "databse", "HealthCheck:ReadyChecks:0", 'did you mean "database"?'),
    ("API__BASEURL", "api:5000", "Api:BaseUrl", "http://"),
    ("API__BASEURL", "http://", "Api:BaseUrl", "http://"),
    ("API__BASEURL", "http://x:99999", "Api:BaseUrl", "URL"),
    ("OTEL__ENDPOINT", "collector", "Otel:Endpoint", "http://"),
    ("OUTBOUNDMAIL__RELAYPORT", "0", "OutboundMail:RelayPort", "1 to 65535"),
    ("DNS__SERVERS__0", "dns.example", "Dns:Servers:0", "IP address"),
    ("DNS__SERVERS__0", "192.0.2.1:0", "Dns:Servers:0", "IP address"),
    ("DNS__TRUSTEDVALIDATOR", "x", "Dns:TrustedValidator:0", "network"),
    ("LOGGING__LOGLEVEL__DEFAULT", "Info", "Logging:LogLevel:Default", "Trace, Debug, Information"),
    ("LOGGING__FORMAT", "xml", "Logging:Format", "text, json"),
    ("DEBUG__CRASHPOINT", "now", "Debug:CrashPoint", "before-insert"),
    ("RETENTION__EVENTS", "25:00:00", "Retention:Events", "1.00:00:00"),
]


@pytest.mark.parametrize(("variable", "value", "key", "words"), WRONG)
def test_a_wrong_value_is_refused_by_its_canonical_key(
    refused: Refused, variable: str, value: str, key: str, words: str
) -> None:
    (error,) = refused(None, {variable: value})
    assert error.startswith(f"{key} is ")
    assert f'"{value}"' in error
    assert f"environment {variable}" in error
    assert words in error
    assert "allowed: " in error


def test_all_mistakes_are_reported_together(load_text: Load) -> None:
    file = '{"Smtp": {"Port": "x", "Prot": 1, "Mx": {"Enabled": true}}, "Smpt": {"Port": 1}}'
    with pytest.raises(SettingsError) as caught:
        load_text(file, {"API__BASEURL": "x"})
    text = str(caught.value)
    assert len(caught.value.errors) == 5
    for words in (
        "5 settings are wrong",
        "Smtp:Port is",
        "Smtp:Prot",
        "HostedDomains",
        "Smpt",
        "Api:BaseUrl",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("file", "meant"),
    [
        ('{"Smpt": {"Port": 1}}', "Smtp"),
        ('{"HealthChecks": {"Url": "x"}}', "HealthCheck"),
        ('{"ConnectionString": {"DefaultConnection": "x"}}', "ConnectionStrings"),
        ('{"Aip": {"BaseUrl": "x"}}', "Api"),
        ('{"Smtp": {"Mx": {"HostDomains": ["a.test"]}}}', "Smtp:Mx:HostedDomains"),
        ('{"Smtp": {"Mx": {"Hosted_Domains": ["a.test"]}}}', "Smtp:Mx:HostedDomains"),
        ('{"Smtp": {"Max_Message_Size_Bytes": 1}}', "Smtp:MaxMessageSizeBytes"),
        ('{"Smtp": {"Mxx": {"Enabled": true}}}', "Smtp:Mx"),
        ('{"Internal": {"ApiKye": "secret-value"}}', "Internal:ApiKey"),
        ('{"ConnectionStrings": {"DefaultConection": "Host=x;Password=secret-value"}}', "DefaultConnection"),
        ('{"Logging": {"LogLevel": {"Defualt": "Debug"}}}', "Logging:LogLevel:Default"),
        (
            '{"Security": {"RateLimit": {"LockoutWindowMinute": 1}}}',
            "Security:RateLimit:LockoutWindowMinutes",
        ),
    ],
)
def test_what_nearly_spells_a_known_name_is_refused(refused: Refused, file: str, meant: str) -> None:
    (error,) = refused(file)
    assert "did you mean" in error
    assert f"{meant}?" in error
    assert "secret-value" not in error


def test_misspelt_variables_are_refused_like_keys_of_the_file(refused: Refused) -> None:
    errors = refused(None, {"SMPT__PORT": "1", "SMTP__MX__HOSTEDDOMAIN__0": "a.test"})
    assert len(errors) == 2
    assert "environment SMPT__PORT" in errors[0]
    assert "did you mean Smtp:Mx:HostedDomains?" in errors[1]


@pytest.mark.parametrize("domains", ["[]", '[""]', '["", "  "]', "null"])
def test_the_mx_wants_a_domain_that_is_not_blank(refused: Refused, domains: str) -> None:
    (error,) = refused('{"Smtp": {"Mx": {"Enabled": true, "HostedDomains": %s}}}' % domains)  # noqa: UP031
    assert error.startswith("Smtp:Mx:HostedDomains ")
    assert "allowed: at least one domain" in error


def test_blank_domains_of_the_environment_are_refused_in_a_demo_too(refused: Refused) -> None:
    (error,) = refused(None, {"SMTP__MX__HOSTEDDOMAINS__0": ""}, demo=True)
    assert error.startswith("Smtp:Mx:HostedDomains ")


def test_a_domain_that_could_not_be_read_is_one_mistake_not_two(refused: Refused) -> None:
    assert len(refused(None, {"SMTP__MX__ENABLED": "true", "SMTP__MX__HOSTEDDOMAINS__0": "@"})) == 1


def test_domains_are_kept_as_lower_case_a_labels(load_text: Load) -> None:
    domains = '["EXAMPLE.com.", "example.COM", "Bücher.example", "ex。ample.jp"]'
    file = '{"Smtp": {"Mx": {"HostedDomains": ' + domains + "}}}"
    assert load_text(file).settings.smtp.mx.hosted_domains == (
        "example.com",
        "xn--bcher-kva.example",
        "ex.ample.jp",
    )


@pytest.mark.parametrize(
    ("variables", "keys"),
    [
        ({"SMTP__PORT": "465"}, ("Smtp:SecurePort", "Smtp:Port")),
        ({"SMTP__PORT": "8081"}, ("HealthCheck:Url", "Smtp:Port")),
        (
            {"SMTP__MX__ENABLED": "true", "SMTP__MX__HOSTEDDOMAINS__0": "a.test", "SMTP__MX__PORT": "587"},
            ("Smtp:Mx:Port", "Smtp:Port"),
        ),
    ],
)
def test_two_listeners_on_one_port_are_refused(
    refused: Refused, variables: dict[str, str], keys: tuple[str, ...]
) -> None:
    (error,) = refused(None, variables)
    assert all(key in error for key in keys)


def test_ports_that_are_not_used_are_free(load_text: Load) -> None:
    load_text(None, {"SMTP__PORT": "0", "SMTP__SECUREPORT": "0"})
    load_text(None, {"SMTP__MX__PORT": "587"})
    load_text(None, {"SMTP__ENABLED": "false", "SMTP__PORT": "465"})
    load_text(None, {"SMTP__PORT": "465", "SMTP__ENDPOINTS__SUBMISSION": "tcp:0"})


def test_a_key_without_its_certificate_is_refused(refused: Refused) -> None:
    (error,) = refused(None, {"SMTP__CERTIFICATEKEYPATH": "/etc/key.pem"})
    assert "Smtp:CertificateKeyPath" in error
    assert "Smtp:CertificatePath" in error


def test_no_bind_address_is_refused(refused: Refused) -> None:
    (error,) = refused('{"Smtp": {"BindAddresses": []}}')
    assert "Smtp:BindAddresses" in error


def test_embedded_and_connection_string_together_are_refused(refused: Refused) -> None:
    variables = {
        "DATA__EMBEDDEDPOSTGRES": "true",
        "ConnectionStrings__DefaultConnection": "Host=x;Password=hidden",
    }
    for demo in (False, True):
        (error,) = refused(None, variables, demo=demo)
        assert "Data:EmbeddedPostgres" in error
        assert "ConnectionStrings:DefaultConnection" in error
        assert "hidden" not in error


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8081", ("localhost", 8081)),
        ("http://+:8081", (None, 8081)),
        ("http://*:8081/", (None, 8081)),
        ("http://0.0.0.0:8081", (None, 8081)),
        ("http://[::]:8081", (None, 8081)),
        ("HTTP://127.0.0.1:0", ("127.0.0.1", 0)),
        ("http://[::1]:80", ("::1", 80)),
        ("http://localhost", ("localhost", 80)),
    ],
)
def test_the_health_url_tells_where_to_listen(
    load_text: Load, url: str, expected: tuple[str | None, int]
) -> None:
    assert load_text(None, {"HEALTHCHECK__URL": url}).settings.health_check.url == expected


def test_name_servers_have_a_port_or_53(load_text: Load) -> None:
    texts = ["192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353", "[::1]"]
    servers = load_text(
        None, {f"DNS__SERVERS__{n}": text for n, text in enumerate(texts)}
    ).settings.dns.servers
    assert servers == (
        ("192.0.2.1", 53),
        ("192.0.2.1", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::1", 5353),
        ("::1", 53),
    )


class TestDatabase:
    """No database, no start; but no error of loading."""

    @pytest.mark.parametrize("value", [None, "", "   ", "\n"])
    def test_without_one_the_three_ways_on_are_named(self, load_text: Load, value: str | None) -> None:
        # the file's string must not come back when the variable lost its value
        file = '{"ConnectionStrings": {"DefaultConnection": "Host=x"}}' if value is not None else None
        loaded = load_text(file, {} if value is None else {"ConnectionStrings__DefaultConnection": value})
        assert loaded.settings.connection is None
        assert bool(loaded.warnings) == (value is not None)
        with pytest.raises(SettingsError) as caught:
            require_database(loaded.settings)
        text = str(caught.value)
        for words in (
            "ConnectionStrings:DefaultConnection",
            "ConnectionStrings__DefaultConnection",
            "Data:EmbeddedPostgres=true",
            "--demo",
        ):
            assert words in text

    def test_either_kind_will_do(self, load_text: Load) -> None:
        require_database(load_text(None, {"DATA__EMBEDDEDPOSTGRES": "true"}).settings)
        require_database(load_text(None, {"ConnectionStrings__DefaultConnection": "Host=x"}).settings)


def test_what_is_hardly_meant_is_warned_about(load_text: Load) -> None:
    assert load_text(None, {"SMTP__PORT": "0", "SMTP__SECUREPORT": "0"}).warnings
    assert load_text(None, {"SMTP__ENDPOINTS__MX": "tcp:0"}).warnings
    assert load_text(None, {"SMTP__CERTIFICATEPASSWORD": "x"}).warnings
