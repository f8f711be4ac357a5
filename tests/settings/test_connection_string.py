"""Connection strings of both forms."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2.extensions import parse_dsn

from relaymail.settings import ConnectionString, SettingsError
from relaymail.settings.postgres_url import KEYWORDS

parse = ConnectionString.parse

ADO_NET = [
    ("Host=db", {"host": "db"}),
    ("Server=db;User Id=u;Pwd=p", {"host": "db", "user": "u", "password": "p"}),
    ("SERVER = db ; UID = u ;; PASSWORD = p ;", {"host": "db", "user": "u", "password": "p"}),
    (
        "Data Source=db;Initial Catalog=x;UserId=u;PSW=p",
        {"host": "db", "dbname": "x", "user": "u", "password": "p"},
    ),
    ("Host=db;DB=x;Username=u", {"host": "db", "dbname": "x", "user": "u"}),
    ("Host=db;Password=a=b", {"host": "db", "password": "a=b"}),
    ("Host=db;Password='a;b''c\"d'", {"host": "db", "password": "a;b'c\"d"}),
    ('Host=db;Password="a;b\'c""d" ;Port=5', {"host": "db", "port": "5", "password": "a;b'c\"d"}),
    ("Host=db;Password=' x '", {"host": "db", "password": " x "}),
    ("Host=db;Password=;Username=u", {"host": "db", "user": "u"}),
    ("Host=a;Host=db", {"host": "db"}),
    ("Host=db;SSL Mode=VerifyFull", {"host": "db", "sslmode": "verify-full"}),
    ("Host=db;SslMode=verify-ca", {"host": "db", "sslmode": "verify-ca"}),
    ("Host=db;sslmode=REQUIRE;Trust Server Certificate=true", {"host": "db", "sslmode": "require"}),
    (
        "Host=db;Root Certificate=/ca;SSL Certificate=/c;SSL Key=/k",
        {"host": "db", "sslrootcert": "/ca", "sslcert": "/c", "sslkey": "/k"},
    ),
    ("Host=db;Timeout=15;Keepalive=30", {"host": "db", "connect_timeout": "15", "keepalives_idle": "30"}),
    ("Host=db;Keepalive=0;Application Name=mail", {"host": "db", "application_name": "mail"}),
    ("Host=db;Search Path=a, b", {"host": "db", "options": "-csearch_path=a,\\ b"}),
    ("Host=db;Options=-c x=1;Search Path=a", {"host": "db", "options": "-c x=1 -csearch_path=a"}),
    ("Host=db;Pooling=true;Include Error Detail=true;Command Timeout=30;Max Auto Prepare=5", {"host": "db"}),
    ("Host=/run/postgresql", {"host": "/run/postgresql"}),
    ("Host=a,b", {"host": "a,b", "target_session_attrs": "read-write"}),
    ("Host=a, b;Port=5", {"host": "a,b", "port": "5", "target_session_attrs": "read-write"}),
    ("Host=a:1,b:2", {"host": "a,b", "port": "1,2", "target_session_attrs": "read-write"}),
    ("Host=a,b:2;Port=5", {"host": "a,b", "port": "5,2", "target_session_attrs": "read-write"}),
    ("Host=a,b:2", {"host": "a,b", "port": ",2", "target_session_attrs": "read-write"}),
    ("Host=a,b;Target Session Attributes=any", {"host": "a,b", "target_session_attrs": "any"}),
    ("Host=::1;Port=5", {"host": "::1", "port": "5"}),
    ("Host=[::1]:5", {"host": "::1", "port": "5"}),
]


@pytest.mark.parametrize(("text", "expected"), ADO_NET)
def test_ado_net_becomes_libpq_keywords(text: str, expected: dict[str, str]) -> None:
    assert parse(text).parameters() == expected


def test_the_pool_size_is_told() -> None:
    assert parse("Host=db;Maximum Pool Size=20").pool_size == 20
    assert parse("Host=db;MaxPoolSize=20").pool_size == 20
    assert parse("Host=db").pool_size is None


URLS = [
    "postgresql://",
    "postgresql:///mydb",
    "postgresql://localhost",
    "postgresql://localhost:5433",
    "postgresql://localhost/mydb",
    "postgresql://user@localhost",
    "postgresql://user:secret@localhost",
    "postgres://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
    "postgresql://host1:123,host2:456/somedb?target_session_attrs=any&application_name=myapp",
    "postgresql://host1,host2:456/somedb?target_session_attrs=primary",
    "postgresql://[2001:db8::1234]/database",
    "postgresql://[2001:db8::1234]:5433/database",
    "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
    "postgresql:///dbname?host=/var/lib/postgresql",
    "postgresql://u%40x:p%3A%2F%3f%23%40@h/d%20b",
    "postgresql://user:se+c%C3%A9@localhost/x?options=-c%20geqo%3Doff",
    "postgresql://h?sslmode=verify-full",
    "postgresql://h/x?ssl=true",
    "postgresql://:p@h/x",
]


@pytest.mark.parametrize("url", URLS)
def test_urls_are_read_as_libpq_reads_them(url: str) -> None:
    expected = {keyword: value for keyword, value in parse_dsn(url).items() if value}
    found = {keyword: value for keyword, value in parse(url).parameters().items() if value}
    assert found == expected


def test_known_keywords_are_libpqs() -> None:
    for keyword in KEYWORDS - {"ssl"}:
        assert parse_dsn(f"{keyword}=x")


def test_several_hosts_of_a_url_want_the_one_that_takes_writes() -> None:
    assert parse("postgresql://a,b/x").parameters()["target_session_attrs"] == "read-write"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host=db;Bogus=1", '"Bogus"'),
        ("Host=db;Prot=1", 'did you mean "Port"?'),
        ("Host=db;Port=0", "Port is not"),
        ("Host=db;Port=x", "Port is not"),
        ("Host=db;SSL Mode=maybe", "verify-full"),
        ("Host=db;Timeout=-1", "Timeout is not"),
        ("Host=db:x", "port"),
        ("Host=[::1", "bracket"),
        ("Host=;Database=x", "no Host"),
        ("Database=x", "no Host"),
        ("host=db dbname=x user=u", "semicolons"),
        ("Host=db;Password='x", "not closed"),
        ("Host=db;Password='x'y", "behind a closing quote"),
        ("Host=db;Password=x'", "in quotes"),
        ("Host=db;lonely", "part 2 has no ="),
        ("Host=db;=x", "part 2 has no keyword"),
        ("Host=db;Password=a\x01b", "in quotes"),
        ("Host=db;Password='a\0b'", "NUL"),
        ("postgresql+psycopg2://db/x", "postgresql://"),
        ("mysql://db/x", "postgresql://"),
        ("postgresql://db/x?bogus=1", '"bogus"'),
        ("postgresql://db/x?sslmod=require", 'did you mean "sslmode"?'),
        ("postgresql://db/x?sslmode=maybe", "verify-full"),
        ("postgresql://db:0/x", "port"),
        ("postgresql://db:99999/x", "port"),
        ("postgresql://db/x?connect_timeout", "no value"),
        ("postgresql://db/%", "%"),
        ("postgresql://db/%ff", "UTF-8"),
        ("postgresql://db/%00", "NUL"),
        ("postgresql://[::1/x", "malformed"),
        ("", "empty"),
        ("  ", "empty"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert words in str(caught.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
HOST = st.from_regex(r"[a-z][a-z0-9.-]{0,10}|/[a-z]{1,8}|[0-9a-f]{1,4}::[0-9a-f]{1,4}", fullmatch=True)
PORT = st.integers(1, 65535).map(str)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "dbname": TEXT,
        "user": TEXT,
        "password": TEXT,
        "sslmode": st.sampled_from(["disable", "require", "verify-full"]),
        "application_name": TEXT,
        "sslrootcert": TEXT,
    },
)


@st.composite
def connections(draw: st.DrawFn) -> ConnectionString:
    hosts = draw(st.lists(HOST, min_size=1, max_size=3))
    parameters = {"host": ",".join(hosts)}
    if draw(st.booleans()):
        parameters["port"] = draw(PORT)
    return ConnectionString({**parameters, **draw(OTHERS)})


NAMES = {"host": "Host", "port": "Port", "dbname": "Database", "user": "Username", "password": "Password",
         "sslmode": "SSL Mode", "application_name": "Application Name",
         "sslrootcert": "Root Certificate"}  # fmt: skip


def ado_net(connection: ConnectionString, quote: str) -> str:
    """Write a connection string as ADO.NET does."""
    parameters = connection.parameters()
    parameters.pop("target_session_attrs", None)
    return ";".join(
        f"{NAMES[keyword]}={quote}{value.replace(quote, quote * 2)}{quote}"
        for keyword, value in parameters.items()
    )


@given(connections(), st.sampled_from("'\""))
def test_what_is_written_as_ado_net_is_read_back(connection: ConnectionString, quote: str) -> None:
    assert parse(ado_net(connection, quote)).parameters() == connection.parameters()


@given(connections())
def test_what_is_written_as_a_url_is_read_back_by_us_and_by_libpq(connection: ConnectionString) -> None:
    url = connection.url()
    assert parse(url).parameters() == connection.parameters()
    assert parse_dsn(url) == {**parse_dsn(url), **ConnectionString(parse(url)._parameters)._parameters}


@given(connections())
def test_the_redacted_form_is_read_by_libpq_and_has_no_password(connection: ConnectionString) -> None:
    found = parse_dsn(connection.redacted())
    expected = connection.parameters()
    expected.pop("target_session_attrs", None)
    if "password" in expected:
        expected["password"] = "***"
    assert found == expected


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(max_size=40).map("postgresql://".__add__),
        st.lists(
            st.sampled_from(["Host", "Password", "Port", "=", ";", "'", '"', " ", ",", ":", "a", "5"])
        ).map("".join),
    )
)
@example("Host='''")
@example("Host=\ud800")
@example("postgresql://\ud800")
@example("Port==5=")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        connection = parse(text)
    except SettingsError:
        return
    assert parse(connection.url()).parameters() == connection.parameters()


def test_the_time_to_read_grows_with_the_text_only() -> None:
    texts = (
        "=" * 200_000,
        "'" * 200_000,
        "Host='" + "''" * 100_000,
        " ;" * 100_000,
        "postgresql://" + "," * 200_000,
    )
    start = process_time()
    for text in texts:
        with pytest.raises(SettingsError):
            parse(text + "%")
    # 0.3 s of work; anything quadratic takes minutes
    assert process_time() - start < 10
