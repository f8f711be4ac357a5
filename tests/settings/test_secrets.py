"""Secrets never show."""

from __future__ import annotations

import json
import pickle

import pytest

from relaymail.settings import Secret, describe
from tests.settings.conftest import Load, Refused

PASSWORD = "hunter2-Sesame"
VARIABLES = {
    "ConnectionStrings__DefaultConnection": f"Host=db;Database=mail;Username=u;Password={PASSWORD}",
    "Internal__ApiKey": PASSWORD + "\n",
    "Smtp__CertificatePath": "/etc/cert.pfx",
    "Smtp__CertificatePassword": PASSWORD,
    "OutboundMail__RelayPassword": PASSWORD,
    "Security__AuthenticationSalt": PASSWORD,
}


def test_settings_hold_them_and_do_not_show_them(load_text: Load) -> None:
    loaded = load_text(None, VARIABLES)
    settings = loaded.settings
    assert settings.connection is not None
    assert settings.connection.parameters()["password"] == PASSWORD
    for secret in (
        settings.internal.api_key,
        settings.smtp.certificate_password,
        settings.outbound_mail.relay_password,
        settings.security.authentication_salt,
    ):
        assert secret is not None
        assert secret.reveal() == PASSWORD
    for text in (
        repr(loaded),
        str(settings),
        f"{settings}",
        repr(settings.connection),
        str(settings.connection),
    ):
        assert PASSWORD not in text
    shown = json.dumps(describe(loaded))
    assert PASSWORD not in shown
    assert json.loads(shown).count(["Internal:ApiKey", "***", "environment Internal__ApiKey"]) == 1
    assert "host=db" in shown


@pytest.mark.parametrize(
    "text",
    [
        f"Host=db;Password={PASSWORD};Prot=1",
        f"Host=db;Password='{PASSWORD}",
        f"Password={PASSWORD}",
        f"Host=db;Password=x;{PASSWORD};Port=1",
        f"postgresql://u:{PASSWORD}@db:port/x",
        f"postgresql://u:x/{PASSWORD}@db/x?y=1",
        f"postgresql://u:{PASSWORD}%zz@db/x",
        f"postgresql://u:x?{PASSWORD}@db/x",
        f"mysql://u:{PASSWORD}@db/x",
        f"host=db dbname=x password={PASSWORD}",
        PASSWORD,
    ],
)
def test_a_wrong_connection_string_is_refused_without_showing_it(refused: Refused, text: str) -> None:
    (error,) = refused(None, {"ConnectionStrings__DefaultConnection": text})
    assert error.startswith("ConnectionStrings:DefaultConnection is *** (")
    assert PASSWORD not in error


def test_other_wrong_values_do_not_show_logins(refused: Refused) -> None:
    errors = refused(
        None,
        {
            "Internal__ApiKey": f"{PASSWORD}\x01",
            "Api__BaseUrl": f"http://u:{PASSWORD}@api/",
            "Otel__Endpoint": f"https://u:{PASSWORD}@x/?token={PASSWORD}",
            # a connection string in the wrong variable
            "Smtp__ServerName": f"Host=db;Password={PASSWORD}",
        },
    )
    assert len(errors) == 4
    assert PASSWORD not in "\n".join(errors)


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret(PASSWORD)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret:>5}", "%s" % secret, repr([secret])]  # noqa: UP031
    assert not any(PASSWORD in text for text in texts)
    assert secret == Secret(PASSWORD)
    assert secret != Secret("other")
    assert secret != PASSWORD
    assert hash(secret) == hash(Secret(PASSWORD))
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_blank_secrets_are_not_set(load_text: Load) -> None:
    assert load_text(None, {"Internal__ApiKey": "  "}).settings.internal.api_key is None
