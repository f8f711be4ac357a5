"""Check of the certificate's chain: do clients trust it."""

from __future__ import annotations

from relaymail.doctor.certificates import certificate, usable, verify
from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.smtp.certificate import CertificateMaterial


async def look(context: Context) -> Finding:
    """Follow it to an authority that this machine trusts."""
    material = await usable(context)
    if (await certificate(context)).development:
        raise Skipped("the certificate is the self-signed one for development, which nobody is to trust")
    facts = material.leaf
    chain = [facts.subject, *[f"signed by {one.subject.rfc4514_string()}" for one in material.chain]]
    if material.certificate.issuer == material.certificate.subject:
        return failed("The certificate signs itself: mail programs refuse it", facts.subject)
    problem = await context.aside(verify, material)
    if problem:
        return failed(f"The certificate is not trusted: {problem}", *chain, f"last issuer: {_last(material)}")
    return passed("The chain leads to an authority that this machine trusts", *chain)


def _last(material: CertificateMaterial) -> str:
    """Who signed the last certificate that is there."""
    return (material.certificate, *material.chain)[-1].issuer.rfc4514_string()


CHECK = Check(
    "check.tls.chain",
    "Certificate's chain is trusted",
    Severity.WARN,
    ("tls",),
    Page(
        what="Follows the certificate, by the intermediate ones that come with it, to an authority that this "
        "machine "
        "trusts (its package `ca-certificates`, or `SSL_CERT_FILE`).",
        why="Mail programs refuse a certificate they cannot trust, and so do hosts that check it (DANE, "
        "MTA-STS). An "
        "intermediate certificate that is missing is forgiven by browsers, and by nobody else.",
        causes=(
            "`cert.pem` was configured, where `fullchain.pem` is right",
            "A self-signed certificate, or one of a company's own authority",
            "A staging certificate of the authority, made for trying out",
        ),
        fix=Remedy(
            "cat cert.pem chain.pem > tls/fullchain.pem\n"
            "printf '%s\\n' 'Smtp__CertificatePath=/tls/fullchain.pem' >> relaymail.env\n"
            "docker compose up -d relaymail",
            "cat cert.pem chain.pem > /etc/relaymail/tls/fullchain.pem\n"
            "printf '%s\\n' 'Smtp__CertificatePath=/etc/relaymail/tls/fullchain.pem' >> "
            "/etc/relaymail/environment\n"
            "systemctl restart relaymail",
            "cat cert.pem chain.pem > fullchain.pem\n"
            "kubectl create secret tls relaymail-tls --cert=fullchain.pem --key=privkey.pem "
            "--dry-run=client -o yaml | kubectl apply -f -",
        ),
        verify="openssl s_client -connect mail.example.com:587 -starttls smtp -verify_return_error "
        "</dev/null",
        related=("check.tls.certificate", "check.tls.names", "check.dns.mta-sts"),
    ),
    look,
)
