"""Dashboard and alerts on a real Prometheus that watches a real host with mail."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.deploy.dashboard import dashboard
from tests.deploy.metrics import named
from tests.deploy.prometheus import Prometheus, watching
from tests.end_to_end.host import Host, User
from tests.end_to_end.wire import Wire
from tests.interop.programs import program
from tests.support.dns_server import ThreadedDNSServer, Zones
from tests.support.polling import until
from tests.support.ports import free_port

RULES = Path(__file__).parents[2] / "docs" / "deploy" / "prometheus-rules.yaml"
MAY_BE_ABSENT = frozenset(
    {
        # No alert fires
        "ALERTS",
        # Nothing failed, nobody waited
        "relaymail_db_client_operation_failures_total",
        "relaymail_db_client_connection_wait_time_seconds_bucket",
        # No mail for other hosts
        "relaymail_queue_rows",
        "relaymail_queue_oldest_age_seconds",
        "relaymail_delivery_recipients_total",
        "relaymail_delivery_duration_seconds_bucket",
        "relaymail_delivery_connections_total",
        "relaymail_delivery_reports_total",
        "relaymail_delivery_tls_policies_total",
        "relaymail_delivery_mta_sts_fetches_total",
    }
)
"""What a host may have no numbers of; and there is no quantile of nothing."""


@pytest.fixture
def host() -> Iterator[Host]:
    """A demo host that was started before, so that its database is there from the first moment on."""
    program("prometheus")
    zones = Zones()
    zones.mx("gmail.com", "5 mx.example.test")
    resolver = ThreadedDNSServer(zones)
    resolver.start()
    with TemporaryDirectory(prefix="relaymail-live-") as folder:
        settings = {
            "Dns__Servers__0": resolver.address,
            "Api__BaseUrl": f"http://localhost:{free_port()}",
        }
        host = Host(Path(folder), settings)
        try:
            host.start()
            host.restart()
            yield host
        finally:
            host.remove()
            resolver.stop()


@pytest.fixture
def prometheus(host: Host, tmp_path: Path) -> Iterator[Prometheus]:
    """Watches the host, which has had some mail."""
    target = f"localhost:{host.ports.health}"
    with watching(target, RULES, tmp_path) as prometheus:
        user = host.user()
        for times in (1, 2):
            some_mail(host, user)
            until(partial(has_seen, prometheus, times * 2), 20.0)
        yield prometheus


def has_seen(prometheus: Prometheus, messages: int) -> bool:
    """Whether Prometheus knows that so many messages came."""
    return prometheus.now("sum(relaymail_smtp_messages_received_total)") == messages


def some_mail(host: Host, user: User) -> None:
    """Two messages, a recipient that does not exist, and a login that fails."""
    host.deliver(letter("friend@example.org"), user.address)
    host.submit(letter(user.address), user, user.address)
    with host.mx() as wire:
        wire.command("MAIL FROM:<friend@example.org>")
        assert wire.command("RCPT TO:<nobody@example.test>").code == 550
        wire.command("QUIT")
    with Wire(host.ports.submission) as wire:
        wire.hello()
        wire.starttls()
        assert wire.login(user.address, "not the key").code == 535


def letter(sender: str) -> bytes:
    """A message."""
    return f"From: {sender}\r\nSubject: Hello\r\n\r\nHello\r\n".encode()


def filled_in(expression: str) -> str:
    """A query of the dashboard with its variables as Grafana fills them in, for all hosts."""
    for variable, value in (("$job", ".+"), ("$instance", ".+"), ("$__rate_interval", "1m")):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def check_every_query(prometheus: Prometheus) -> None:
    """Every query of the dashboard works, and has data unless it may be without."""
    empty: list[str] = []
    asked = 0
    for panel in dashboard()["panels"]:
        for query in panel.get("targets", ()):
            expression = filled_in(query["expr"])
            series = prometheus.over_time(expression)
            names = named(query["expr"])
            asked += 1
            if not series and not names <= MAY_BE_ABSENT:
                empty.append(expression)
            # What the legend tells series apart by, they have
            label = query["legendFormat"].partition("{{")[2].partition("}}")[0]
            assert all(label in labels for labels, _ in series if label), expression
    assert asked >= 60
    assert empty == []


def check_what_is_shown(prometheus: Prometheus) -> None:
    """The numbers are those of what happened."""
    assert prometheus.now('relaymail_smtp_messages_received_total{listener="mx"}') == 2
    assert prometheus.now('relaymail_smtp_refusals_total{reason="no such mailbox"}') == 2
    assert prometheus.now("sum(relaymail_smtp_auth_failures_total)") == 2
    for check in ("database", "smtp", "dns-mx", "certificate"):
        assert prometheus.now(f'relaymail_health_check_status{{check="{check}"}}') == 0, check
    assert prometheus.now('relaymail_outbox_rows{state="pending"}') is not None


def check_hosts_are_found(host: Host, prometheus: Prometheus) -> None:
    """The dashboard's variables find the host."""
    assert prometheus.ask("label/job/values", **{"match[]": "relaymail_build_info"}) == ["relaymail"]
    found = prometheus.ask("label/instance/values", **{"match[]": 'relaymail_build_info{job=~".+"}'})
    assert found == [f"localhost:{host.ports.health}"]


def check_alerts_are_evaluated(prometheus: Prometheus) -> None:
    """Every alert can be evaluated, and none fires."""

    def rules() -> list[dict[str, str]]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()), 20.0)
    assert [(rule["name"], rule["lastError"]) for rule in rules() if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []


def check_an_alert_comes(host: Host, prometheus: Prometheus) -> None:
    """An alert becomes pending when the host is away; the host is stopped for it."""
    host.stop()
    until(lambda: prometheus.now('ALERTS{alertname="RelaymailDown", alertstate="pending"}') == 1, 20.0)


def test_dashboard_and_alerts_work_on_a_host_with_mail(host: Host, prometheus: Prometheus) -> None:
    # One test: in several processes each of several would start a host and a Prometheus of its own
    check_every_query(prometheus)
    check_what_is_shown(prometheus)
    check_hosts_are_found(host, prometheus)
    check_alerts_are_evaluated(prometheus)
    check_an_alert_comes(host, prometheus)
