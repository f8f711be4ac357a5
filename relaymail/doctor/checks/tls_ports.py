"""Check of the running host: does it present the certificate on every port."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from relaymail.doctor.certificates import certificate
from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.listeners import Seen
from relaymail.doctor.page import Page, Remedy
from relaymail.smtp.certificate import facts_of


async def look(context: Context) -> Finding:
    """Connect to each, with STARTTLS or TLS at once, and compare."""
    mail = [seen for seen in await context.listeners() if seen.ours and seen.listener.name != "health"]
    if not mail:
        raise Skipped("the host does not run, or its ports have no numbers of their own")
    mail = [seen for seen in mail if not seen.said.startswith("421")]
    if not mail:
        raise Skipped("the host sends clients away, see check.ports.listeners")
    without = [seen for seen in mail if seen.certificate is None]
    if without:
        return failed(
            f"No TLS on {', '.join(str(seen.listener) for seen in without)}",
            *[f"{seen.listener}: {seen.tls_problem}" for seen in without],
        )
    lines = [f"{seen.listener}: {_named(seen)}" for seen in mail]
    if len({seen.certificate for seen in mail}) > 1:
        return failed("The ports present different certificates", *lines)
    try:
        loaded = await certificate(context)
    except Skipped:
        return failed("The host presents a certificate, but the settings name none", *lines)
    if loaded.material is not None:
        ours = loaded.material.certificate.public_bytes(Encoding.DER)
        if mail[0].certificate != ours:
            return failed(
                "The host presents another certificate than that of the file", *lines, f"{loaded.path}"
            )
    return passed("All ports present the same certificate, that of the file", *lines)


def _named(seen: Seen) -> str:
    assert seen.certificate is not None
    try:
        facts = facts_of(x509.load_der_x509_certificate(seen.certificate))
    except ValueError:
        return "a certificate that cannot be read"
    return f"{facts.subject}, until {facts.not_after:%Y-%m-%d}, {facts.thumbprint}"


CHECK = Check(
    "check.tls.ports",
    "Every port presents the certificate",
    Severity.WARN,
    ("tls", "ports"),
    Page(
        what="Connects to the ports of the running host, with STARTTLS on submission and MX and TLS at once "
        "on SMTPS, and "
        "compares the certificates with each other and with the file.",
        why="A host that does not take a renewed certificate goes on with the old one until it expires. "
        "Another "
        "certificate on one port is a proxy or another service in between.",
        causes=(
            "The renewed file cannot be loaded, so that the old one stays in use; the log says why",
            "A proxy in front of a port ends TLS itself",
            "The settings were changed, and the host not restarted",
        ),
        fix=Remedy(
            "docker compose logs relaymail | grep -i certificate\ndocker compose restart relaymail",
            "journalctl -u relaymail | grep -i certificate\nsystemctl restart relaymail",
            "kubectl logs deployment/relaymail | grep -i certificate\nkubectl rollout restart "
            "deployment/relaymail",
        ),
        verify="for port in 25 587; do openssl s_client -connect localhost:$port -starttls smtp </dev/null "
        "| openssl x509 -noout -fingerprint; done\n"
        "openssl s_client -connect localhost:465 </dev/null | openssl x509 -noout -fingerprint",
        related=("check.tls.certificate", "check.tls.expiry", "check.ports.listeners"),
    ),
    look,
    limit=12.0,
)
