"""One request to the API, over real sockets."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.web.client import BrowserLikePolicyForHTTPS
from zope.interface import implementer

from relaymail.notify.connection import ANSWER_LIMIT, Connections
from relaymail.notify.endpoint import Endpoint
from relaymail.notify.outcome import Verdict
from relaymail.settings import Secret
from tests.conftest import reactor, run_on_reactor
from tests.notify.api import Api, Raw, Received, silence, status
from tests.notify.rows import until
from tests.support.ipv6 import needs_ipv6

PAYLOAD = '{"userIds": ["6f1c"], "email": {"subject": "Grüße"}}'
PATH = b"/api/internal/notifications/new-email"


class Client:
    """Makes endpoints that share one pool of connections."""

    def __init__(self, trust: Any = None) -> None:
        self.connections = Connections(reactor, 8, trust)

    def at(self, url: str, key: str | None = None, deadline: float = 10.0) -> Endpoint:
        secret = None if key is None else Secret(key)
        return Endpoint(url, secret, agent=self.connections.agent, clock=reactor, deadline=deadline)


@pytest.fixture
def client() -> Iterator[Client]:
    """A client whose connections are closed after the test."""
    made = Client()
    yield made
    run_on_reactor(made.connections.close())


class RawServer:
    """Listens and gives each connection to a :class:`Raw`."""

    def __init__(self, head: bytes, more: bytes = b"") -> None:
        self.made: list[Raw] = []
        self._answer = (head, more)
        self._listener = reactor.listenTCP(0, Factory.forProtocol(self._make), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._listener.getHost().port}"

    def _make(self) -> Raw:
        self.made.append(Raw(*self._answer))
        return self.made[-1]

    async def stop(self) -> None:
        await self._listener.stopListening()
        await until(lambda: all(raw.lost for raw in self.made))


async def test_the_request_is_exactly_what_the_api_expects(api: Api, client: Client) -> None:
    outcome = await client.at(api.url, key="s3cret").post(PAYLOAD)
    assert outcome.verdict is Verdict.SENT
    (request,) = api.requests
    assert (request.method, request.path, request.body) == (b"POST", PATH, PAYLOAD.encode())
    assert request.headers == {
        b"Host": [f"127.0.0.1:{api.port}".encode()],
        b"Content-Type": [b"application/json"],
        b"Content-Length": [b"%d" % len(PAYLOAD.encode())],
        b"Authorization": [b"ApiKey s3cret"],
        b"User-Agent": [b"relaymail"],
    }


async def test_a_trace_is_carried_on(api: Api, client: Client) -> None:
    """W3C Trace Context 3.2."""
    await client.at(api.url).post(PAYLOAD, "00-1f-2e-01")
    assert api.requests[0].headers[b"Traceparent"] == [b"00-1f-2e-01"]


async def test_without_a_key_there_is_no_authorization(api: Api, client: Client) -> None:
    await client.at(api.url).post(PAYLOAD)
    assert b"Authorization" not in api.requests[0].headers


@pytest.mark.parametrize(
    ("suffix", "path"), [("/", PATH), ("/relate", b"/relate" + PATH), ("/relate/", b"/relate" + PATH)]
)
async def test_the_base_url_may_have_a_path_and_a_slash(
    api: Api, client: Client, suffix: str, path: bytes
) -> None:
    await client.at(api.url + suffix).post(PAYLOAD)
    assert api.requests[0].path == path


@needs_ipv6
async def test_the_base_url_may_have_an_ipv6_address(client: Client) -> None:
    api = Api(address="::1")
    outcome = await client.at(api.url + "/relate").post(PAYLOAD)
    await api.stop()
    assert outcome.verdict is Verdict.SENT
    assert api.requests[0].path == b"/relate" + PATH
    assert api.requests[0].headers[b"Host"] == [f"[::1]:{api.port}".encode()]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api:5000",
        "ftp://api",
        "http://",
        "http://u:p@api",
        "http://api/?x=1",
        "http://a..b",
        "http://api:x",
        "http://[fe80::1%25eth0]",
    ],
)
def test_what_is_no_base_url_is_refused_without_being_shown(client: Client, url: str) -> None:
    with pytest.raises(ValueError, match="Api:BaseUrl") as caught:
        client.at(url)
    assert "u:p" not in str(caught.value)


async def test_connections_are_kept_and_no_cookie_is(api: Api, client: Client) -> None:
    api.answer = status(200, Set_Cookie="a=b")
    endpoint = client.at(api.url)
    for _ in range(5):
        await endpoint.post(PAYLOAD)
    assert api.connections == 1
    assert b"Cookie" not in api.requests[-1].headers


async def test_a_redirect_is_shown_and_not_followed(api: Api, client: Client) -> None:
    elsewhere = Api()
    api.answer = status(307, Location=elsewhere.url + PATH.decode())
    outcome = await client.at(api.url, key="s3cret").post(PAYLOAD)
    await elsewhere.stop()
    assert outcome.verdict is Verdict.UNAVAILABLE
    assert outcome.reason == "HTTP 307 Temporary Redirect: redirects are not followed, see Api:BaseUrl"
    assert elsewhere.requests == []
    assert len(api.requests) == 1


async def test_retry_after_is_handed_on(api: Api, client: Client) -> None:
    api.answer = status(503, Retry_After="17")
    assert (await client.at(api.url).post(PAYLOAD)).retry_after == 17


async def test_an_endpoint_that_never_answers_is_left_at_the_deadline(api: Api, client: Client) -> None:
    api.answer = silence
    outcome = await client.at(api.url, deadline=0.2).post(PAYLOAD)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNAVAILABLE, "no answer within 0.2 s")
    await until(lambda: api.connections == 0)


async def test_an_endpoint_that_is_not_there_is_named_so(api: Api, client: Client) -> None:
    await api.stop()
    outcome = await client.at(api.url).post(PAYLOAD)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNAVAILABLE, "connection refused")


@implementer(IHostnameResolver)
class NoNames:
    """A resolver that knows no host, whatever the network around the tests does with such questions."""

    def resolveHostName(self, receiver: Any, hostName: str, *_: object, **__: object) -> Any:
        receiver.resolutionBegan(self)
        receiver.resolutionComplete()
        return self


async def test_an_unknown_host_is_named_so(client: Client) -> None:
    usual = reactor.installNameResolver(NoNames())
    try:
        outcome = await client.at("http://api.example.test:5000").post(PAYLOAD)
    finally:
        reactor.installNameResolver(usual)
    assert (outcome.verdict, outcome.reason) == (
        Verdict.UNAVAILABLE,
        "the host name could not be resolved",
    )


async def test_a_body_that_stalls_does_not_undo_a_success(client: Client) -> None:
    server = RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    outcome = await client.at(server.url, deadline=2.0).post(PAYLOAD)
    assert outcome.verdict is Verdict.SENT
    await server.stop()


@pytest.mark.parametrize(
    ("head", "more", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 8192, Verdict.SENT),
        (b"HTTP/1.1 500 No\r\n\r\n", b"x" * 8192, Verdict.UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: and more of it\r\n" * 100, Verdict.UNAVAILABLE),
    ],
    ids=["body of a success", "body of a failure", "head"],
)
async def test_an_endless_answer_is_cut(client: Client, head: bytes, more: bytes, verdict: Verdict) -> None:
    server = RawServer(head, more)
    outcome = await client.at(server.url).post(PAYLOAD)
    assert outcome.verdict is verdict
    await server.stop()
    # What the sockets' buffers hold was written, but never read by us
    assert server.made[0].written < ANSWER_LIMIT + 16 * 1024 * 1024


async def test_each_answer_has_the_limit_to_itself(api: Api, client: Client) -> None:
    api.answer = lambda _: b"x" * (ANSWER_LIMIT - 1024)
    endpoint = client.at(api.url)
    for _ in range(3):
        assert (await endpoint.post(PAYLOAD)).verdict is Verdict.SENT
    assert api.connections == 1


async def test_packed_answers_stay_packed(api: Api, client: Client) -> None:
    def bomb(received: Received) -> bytes:
        received.request.setHeader("Content-Encoding", "gzip")
        return gzip.compress(bytes(16 * 1024 * 1024))

    api.answer = bomb
    outcome = await client.at(api.url).post(PAYLOAD)
    assert outcome.verdict is Verdict.SENT
    assert b"Accept-Encoding" not in api.requests[0].headers


async def test_what_is_not_http_is_a_failure(client: Client) -> None:
    server = RawServer(b"220 mail.example.test ESMTP\r\n")
    outcome = await client.at(server.url, deadline=60).post(PAYLOAD)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNAVAILABLE, "no proper answer (ParseError)")
    await server.stop()


async def test_a_cancelled_request_closes_its_connection(api: Api, client: Client) -> None:
    api.answer = silence
    attempt = Deferred.fromCoroutine(client.at(api.url).post(PAYLOAD))
    await until(lambda: api.requests)
    attempt.cancel()
    assert (await attempt).verdict is Verdict.UNAVAILABLE
    await until(lambda: api.connections == 0)


def certificate(host: str) -> PrivateCertificate:
    """A self-signed certificate for ``host``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(pem)
    return loaded


def trusting(authority: PrivateCertificate) -> Client:
    """A client whose only authority this is."""
    root = trustRootFromCertificates([Certificate(authority.original)])
    return Client(BrowserLikePolicyForHTTPS(root))


async def test_https_reaches_a_host_whose_certificate_is_good() -> None:
    good = certificate("localhost")
    server, client = Api(good.options()), trusting(good)
    endpoint = client.at(f"https://localhost:{server.port}")
    assert [(await endpoint.post(PAYLOAD)).verdict for _ in range(2)] == [Verdict.SENT, Verdict.SENT]
    assert server.connections == 1
    await client.connections.close()
    await server.stop()


async def test_https_refuses_an_unknown_authority(client: Client) -> None:
    server = Api(certificate("localhost").options())
    outcome = await client.at(f"https://localhost:{server.port}").post(PAYLOAD)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNAVAILABLE, "TLS: certificate verify failed")
    assert server.requests == []
    await server.stop()


async def test_https_refuses_a_certificate_of_another_host() -> None:
    other = certificate("other.example.test")
    server, client = Api(other.options()), trusting(other)
    outcome = await client.at(f"https://localhost:{server.port}").post(PAYLOAD)
    assert (outcome.verdict, outcome.reason) == (
        Verdict.UNAVAILABLE,
        "TLS: the certificate is not for this host",
    )
    assert server.requests == []
    await server.stop()
