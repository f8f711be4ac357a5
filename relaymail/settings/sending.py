"""What follows from the settings for mail to other hosts; the host and the doctor must say the same."""

from __future__ import annotations

from relaymail.settings.model import Settings


def why_off(settings: Settings) -> str | None:
    """Why nothing is taken for other hosts and sent on, as a sentence; ``None``: it is."""
    if not settings.outbound_mail.enabled:
        return "OutboundMail:Enabled is false"
    name = own_name(settings)
    if "." not in name.strip(".") or name.replace(".", "").isdigit():
        return (
            f'"{name}" (OutboundMail:SenderDomain, else Smtp:ServerName) is no full name: other hosts refuse'
            " mail from a host without one; set one such as mail.example.com"
        )
    return None


def own_name(settings: Settings) -> str:
    """What is said in EHLO to other hosts."""
    return settings.outbound_mail.sender_domain or settings.smtp.server_name
