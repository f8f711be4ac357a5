"""The messages of the corpus and what is expected of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

MESSAGES: Final = Path(__file__).parent / "messages"
BOB: Final = "bob@example.test"
"""The one recipient of the envelope."""


class Email(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """A row of ``Emails``; what is not here follows from the record that is stored."""

    message_id: str | None
    """``None``: the message has no usable one, and one is generated."""
    from_address: str
    from_display_name: str | None
    subject: str
    text_body: str | None
    html_body: str | None
    in_reply_to: str | None
    references: str | None


class Recipient(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """A row of ``EmailRecipients``."""

    type: Literal["To", "Cc", "Bcc"]
    address: str
    display_name: str | None = None
    user_id: Literal["bob"] | None = None


class Attachment(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """A row of ``EmailAttachments``."""

    file_name: str
    content_type: str
    size_bytes: int
    content: str | dict[Literal["base64"], str]
    """As text where it is some."""

    @property
    def octets(self) -> bytes:
        """The content itself."""
        if isinstance(self.content, str):
            return self.content.encode()
        return base64.b64decode(self.content["base64"], validate=True)

    @classmethod
    def of(cls, name: str, content_type: str, octets: bytes) -> Attachment:
        """The row of an attachment that holds ``octets``."""
        return cls(name, content_type, len(octets), {"base64": base64.b64encode(octets).decode()})


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    """All rows a message becomes, as far as they depend on its content."""

    email: Email = msgspec.field(name="Emails")
    recipients: list[Recipient] = msgspec.field(name="EmailRecipients")
    attachments: list[Attachment] = msgspec.field(name="EmailAttachments")
    parse_status: str


class Case(msgspec.Struct):
    """A message and what is expected of it."""

    raw: bytes
    expected: Expected


def small() -> dict[str, Callable[[], Case]]:
    """The messages that are files, by name."""
    return {path.stem: _reader(path) for path in sorted(MESSAGES.glob("*.eml"))}


def _reader(path: Path) -> Callable[[], Case]:
    def read() -> Case:
        return Case(
            path.read_bytes(), msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Expected)
        )

    return read


def ordinary(name: str, **columns: str | None) -> Email:
    """The row of a message whose header is :func:`header`'s, but for ``columns``."""
    row: dict[str, str | None] = {
        "message_id": f"{name}@example.org",
        "from_address": "alice@example.org",
        "from_display_name": "Alice",
        "subject": "Hello",
        "text_body": "text\r\n",
        "html_body": None,
        "in_reply_to": None,
        "references": None,
    }
    return msgspec.convert({_pascal(key): value for key, value in (row | columns).items()}, Email)


def header(name: str) -> bytes:
    """An ordinary header, to which more lines can be added."""
    return (
        b"From: Alice <alice@example.org>\r\nTo: Bob <bob@example.test>\r\nSubject: Hello\r\n"
        + f"Message-ID: <{name}@example.org>\r\n".encode()
    )


def _pascal(name: str) -> str:
    return "".join(word.title() for word in name.split("_"))
