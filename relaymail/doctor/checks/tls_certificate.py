"""Check of the certificate's file: can it be loaded, with its key."""

from __future__ import annotations

from relaymail.doctor.certificates import certificate
from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, setting


async def look(context: Context) -> Finding:
    """Load it as the host does."""
    smtp = context.settings.smtp
    if smtp.certificate_path is None and not context.development:
        return failed(
            "Smtp:CertificatePath is not set",
            "Without a certificate there is no STARTTLS, no SMTPS, and nobody can log in.",
        )
    loaded = await certificate(context)
    if loaded.material is None:
        return failed("The certificate cannot be used", loaded.problem)
    facts = loaded.material.leaf
    chain = [f"signed by {facts.issuer}", f"{len(loaded.material.chain)} issuers come with it"]
    if loaded.development:
        return passed("The self-signed development certificate and its key can be loaded", f"{loaded.path}")
    return passed(
        f"The certificate {facts.subject} and its key can be loaded and belong together",
        f"{loaded.path}",
        *chain,
        thumbprint=facts.thumbprint,
    )


CHECK = Check(
    "check.tls.certificate",
    "Certificate and key can be loaded and belong together",
    Severity.ERROR,
    ("tls",),
    Page(
        what="Reads `Smtp:CertificatePath` (with `Smtp:CertificateKeyPath` and `Smtp:CertificatePassword`) "
        "as the host "
        "does: format, password, and whether the key is that of the certificate. Run the doctor as the user "
        "the "
        "host runs as.",
        why="Without a certificate there is no STARTTLS, no SMTPS and no login. With one that cannot be "
        "loaded the host "
        "does not start, or goes on with the one it read before until that expires.",
        causes=(
            "The file is readable for root only, as certbot makes it",
            "Certificate and key are of different issues; half of a renewal was copied",
            "The password of the PFX file is wrong or missing",
            "The path is that outside of the container",
        ),
        fix=Remedy(
            "install -m 640 -g 10025 /etc/letsencrypt/live/mail.example.com/*.pem tls/\n"
            "docker compose exec relaymail ls -l /tls",
            "RENEWED_LINEAGE=/etc/letsencrypt/live/mail.example.com "
            "/etc/letsencrypt/renewal-hooks/deploy/relaymail\nls -l /etc/relaymail/tls",
            "kubectl create secret tls relaymail-tls --cert=fullchain.pem --key=privkey.pem "
            "--dry-run=client -o yaml | kubectl apply -f -",
        )
        + setting("Smtp__CertificatePath=/tls/fullchain.pem", "Smtp__CertificateKeyPath=/tls/privkey.pem"),
        verify="openssl s_client -connect localhost:587 -starttls smtp </dev/null | openssl x509 -noout "
        "-subject -dates",
        related=("check.tls.expiry", "check.tls.chain", "check.tls.names", "check.tls.ports"),
    ),
    look,
)
