"""Who sees a message, and who learns of whom (the invariants the API and the IMAP host rely on)."""

from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from relaymail.hosting.mailboxes import emails_for, header_only
from relaymail.message.envelope import Envelope, EnvelopeRecipient
from relaymail.message.record import MailboxEmail
from relaymail.message.summary import Summary, summarize

ANN, BOB, CID, SENDER = (uuid4() for _ in range(4))


def headers(**fields: str) -> Summary:
    text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return summarize(text.encode() + b"\r\ntext\r\n")


def envelope(**users: UUID | None) -> Envelope:
    """``ann=ANN`` is ann@example.test."""
    return Envelope(
        "s@example.org", tuple(EnvelopeRecipient(f"{n}@example.test", u) for n, u in users.items())
    )


def rows(email: MailboxEmail) -> list[tuple[str, str, UUID | None]]:
    return [(r.address, r.type, r.user_id) for r in email.recipients]


def test_to_and_cc_share_a_row_and_each_is_told() -> None:
    (email,) = emails_for(
        envelope(ann=ANN, bob=BOB), headers(To="Ann <ann@example.test>", Cc="BOB@example.test"), None, {}
    )
    assert rows(email) == [("ann@example.test", "To", ANN), ("BOB@example.test", "Cc", BOB)]
    assert email.recipients[0].display_name == "Ann"
    assert email.notify == (ANN, BOB)
    assert email.sent_by is None


def test_each_bcc_has_a_row_of_their_own_that_names_nobody_else() -> None:
    shared, bob, cid = emails_for(
        envelope(ann=ANN, bob=BOB, cid=CID), headers(To="ann@example.test"), SENDER, {}
    )
    assert rows(shared) == [("ann@example.test", "To", ANN)]
    assert shared.sent_by == SENDER
    assert rows(bob) == [("bob@example.test", "Bcc", BOB)]
    assert rows(cid) == [("cid@example.test", "Bcc", CID)]
    assert bob.sent_by is None
    assert [email.notify for email in (shared, bob, cid)] == [(ANN,), (BOB,), (CID,)]


def test_list_mail_reaches_exactly_the_envelope() -> None:
    emails = emails_for(envelope(ann=ANN, bob=BOB), headers(To="list@lists.example.org"), None, {})
    assert [rows(email) for email in emails] == [
        [("ann@example.test", "Bcc", ANN)],
        [("bob@example.test", "Bcc", BOB)],
    ]


def test_a_forged_to_reaches_nobody() -> None:
    """A row without a user would be handed to the owner of its address at the next login."""
    summary = headers(To="ann@example.test, bob@example.test, other@example.org")
    reached = envelope(ann=ANN)
    assert header_only(reached, summary) == ["bob@example.test", "other@example.org"]
    (email,) = emails_for(reached, summary, None, {"bob@example.test": BOB})
    assert rows(email) == [("ann@example.test", "To", ANN), ("other@example.org", "To", None)]
    assert email.notify == (ANN,)


def test_two_addresses_of_one_user_are_one_row() -> None:
    (email,) = emails_for(
        envelope(ann=ANN, alias=ANN), headers(To="ann@example.test, alias@example.test"), None, {}
    )
    assert rows(email) == [("ann@example.test", "To", ANN)]
    assert email.notify == (ANN,)


def test_an_alias_in_the_envelope_counts_as_the_header_address_of_the_same_user() -> None:
    (email,) = emails_for(
        envelope(alias=ANN), headers(To="ann@example.test"), None, {"ann@example.test": ANN}
    )
    assert rows(email) == [("ann@example.test", "To", ANN)]


def test_a_sender_sees_mail_that_has_only_bcc_recipients() -> None:
    sent, ann = emails_for(envelope(ann=ANN), headers(Subject="x"), SENDER, {})
    assert (rows(sent), sent.sent_by, sent.notify) == ([], SENDER, ())
    assert rows(ann) == [("ann@example.test", "Bcc", ANN)]


def test_mail_to_oneself_is_one_row() -> None:
    (email,) = emails_for(envelope(ann=ANN), headers(To="ann@example.test"), ANN, {})
    assert (email.sent_by, rows(email)) == (ANN, [("ann@example.test", "To", ANN)])


def test_an_address_without_an_owner_is_kept_for_later() -> None:
    (named,) = emails_for(envelope(postmaster=None), headers(To="postmaster@example.test"), None, {})
    assert (rows(named), named.notify) == ([("postmaster@example.test", "To", None)], ())
    (unnamed,) = emails_for(envelope(postmaster=None), headers(Subject="x"), None, {})
    assert rows(unnamed) == [("postmaster@example.test", "Bcc", None)]


USERS = st.sampled_from([ANN, BOB, CID, None])
NAMES = [f"n{n}" for n in range(6)]


@given(
    st.dictionaries(st.sampled_from(NAMES), USERS, min_size=1),
    st.lists(st.sampled_from(NAMES), unique=True),
    st.dictionaries(st.sampled_from(NAMES), USERS),
    st.sampled_from([None, ANN, SENDER]),
)
def test_everybody_in_the_envelope_and_nobody_else_gets_the_message_once(
    reached: dict[str, UUID | None], named: list[str], others: dict[str, UUID | None], sender: UUID | None
) -> None:
    summary = (
        headers(To=", ".join(f"{name}@example.test" for name in named)) if named else headers(Subject="x")
    )
    owners = {f"{n}@example.test": u for n, u in others.items() if n not in reached and u is not None}
    emails = emails_for(envelope(**reached), summary, sender, owners)
    users = [r.user_id for email in emails for r in email.recipients if r.user_id is not None]
    assert sorted(users) == sorted({u for u in reached.values() if u is not None})
    assert sorted(u for email in emails for u in email.notify) == sorted(users)
    assert sum(email.sent_by is not None for email in emails) == (sender is not None)
    for email in emails:
        assert email.id.version == 4
        claimable = {r.address for r in email.recipients if r.user_id is None}
        assert not claimable & owners.keys()
        if any(r.type == "Bcc" for r in email.recipients):
            assert len(email.recipients) == 1
