"""The Helm chart, rendered with the values that people give."""

from __future__ import annotations

import configparser
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import (
    CONNECTION,
    DEPLOY,
    Manifest,
    check_pod,
    documents,
    loaded,
    of_kind,
    ports,
    validate,
)
from tests.interop.programs import Done, run

CHART = DEPLOY / "helm" / "relaymail"
LEAST = {"serverName": "mail.example.com"}
USUAL = {**LEAST, "hostedDomains": ["example.com", "example.net"], "postmaster": "hans@example.com"}
SMARTHOST = {
    **USUAL,
    "smtp": {"host": "smtp.example.org", "port": 465, "useSsl": True, "existingSecret": "smarthost"},
}
EVERYTHING = {
    **SMARTHOST,
    "fullnameOverride": "post",
    "replicaCount": 3,
    "image": {"repository": "registry.example.com/relaymail", "tag": "1.2.3", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"Smtp:MaxMessageSizeBytes": 52428800, "Smtp:Scram": True, "Dns:Servers:0": "10.0.0.53"},
    "extraEnv": [
        {
            "name": "Security__AuthenticationSalt",
            "valueFrom": {"secretKeyRef": {"name": "more", "key": "salt"}},
        }
    ],
    "service": {
        "annotations": {"example.com/internal": "false"},
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "loadBalancerClass": "example.com/lb",
    },
    "serviceAccount": {"name": "post-office", "annotations": {"example.com/role": "mail"}},
    "podAnnotations": {"example.com/note": "a"},
    "podLabels": {"team": "mail"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "mail", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "mail", "operator": "Exists"}]}]
            }
        }
    },
    "priorityClassName": "high",
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "extraVolumes": [{"name": "dkim", "secret": {"secretName": "dkim"}}],
    "extraVolumeMounts": [{"name": "dkim", "mountPath": "/dkim", "readOnly": True}],
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Mail"}},
    },
}
INSIDE = {
    **LEAST,
    "certificate": {"existingSecret": ""},
    "api": {"existingSecret": ""},
    "service": {"type": "ClusterIP"},
    "serviceAccount": {"create": False},
    "podDisruptionBudget": {"enabled": False},
    "settings": {"Smtp:RequireAuthentication": False},
}
COMBINATIONS = {
    "least": LEAST,
    "usual": USUAL,
    "smarthost": SMARTHOST,
    "everything": EVERYTHING,
    "inside": INSIDE,
}


def helm(*arguments: str) -> Done:
    """Run helm, which is no package of Debian's."""
    found = os.environ.get("HELM") or shutil.which("helm")
    if found is None:
        pytest.skip("helm is not on the PATH, and HELM does not name it")
    return run(found, *arguments)


def render(folder: Path, values: dict[str, Any], name: str = "relaymail") -> list[Manifest]:
    """What would be installed."""
    file = folder / "values.yaml"
    # As a person writes it; helm reads numbers of JSON and YAML alike
    file.write_text(yaml.safe_dump(values))
    done = helm("template", name, str(CHART), "--values", str(file))
    assert done.code == 0, done.text
    return documents(done.out)


def pod_of(manifests: list[Manifest]) -> Manifest:
    """The specification of the host's pod."""
    spec: Manifest = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    """The environment of the host, with what secrets would give it."""
    name = pod_of(manifests)["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    environment = dict(of_kind(manifests, "ConfigMap", name)["data"])
    for variable in pod_of(manifests)["containers"][0]["env"]:
        secret = CONNECTION if variable["name"].startswith("ConnectionStrings") else "secret"
        environment[variable["name"]] = secret
    return environment


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_lint_has_no_complaint(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("lint", "--strict", str(CHART), "--values", str(tmp_path / "values.yaml"))
    assert done.code == 0, done.text
    assert "[WARNING]" not in done.text
    assert "[ERROR]" not in done.text


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_what_is_rendered_is_valid_and_the_host_starts_with_it(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    manifests = render(tmp_path, values)
    validate(manifests)
    check_pod(pod_of(manifests))
    settings = loaded(settings_of(manifests))
    assert settings.smtp.server_name == "mail.example.com"
    assert list(settings.smtp.mx.hosted_domains) == values.get("hostedDomains", [])
    named = ports(pod_of(manifests))
    for service in (manifest for manifest in manifests if manifest["kind"] == "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(named)
    assert [manifest for manifest in manifests if manifest["kind"] == "Secret"] == []


def test_it_is_the_same_as_the_plain_manifests(tmp_path: Path) -> None:
    values = {"serverName": "mail.example.com", "hostedDomains": ["example.com"]}
    rendered = render(tmp_path, values)
    plain = documents((DEPLOY / "kubernetes.yaml").read_text())
    assert of_kind(rendered, "ConfigMap")["data"] == of_kind(plain, "ConfigMap")["data"]

    def without_labels(spec: Manifest) -> Manifest:
        (container,) = spec["containers"]
        for key in ("env", "envFrom", "imagePullPolicy"):
            container.pop(key, None)
        for constraint in spec["topologySpreadConstraints"]:
            constraint.pop("labelSelector")
        return spec

    assert without_labels(pod_of(rendered)) == without_labels(pod_of(plain))
    for name in ("relaymail", "relaymail-health"):
        ours, theirs = of_kind(rendered, "Service", name)["spec"], of_kind(plain, "Service", name)["spec"]
        assert {**ours, "selector": None} == {**theirs, "selector": None}


def test_the_smarthost_is_what_smtp_names(tmp_path: Path) -> None:
    manifests = render(tmp_path, SMARTHOST)
    outbound = loaded(settings_of(manifests)).outbound_mail
    assert (outbound.relay_host, outbound.relay_port, outbound.relay_use_tls) == (
        "smtp.example.org",
        465,
        True,
    )
    logins = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in pod_of(manifests)["containers"][0]["env"]
        if variable["name"].startswith("OutboundMail__")
    }
    assert logins == {
        "OutboundMail__RelayUsername": {"name": "smarthost", "key": "username"},
        "OutboundMail__RelayPassword": {"name": "smarthost", "key": "password"},
    }
    in_clear = render(tmp_path, {**USUAL, "smtp": {"host": "smtp.example.org", "useSsl": False}})
    assert loaded(settings_of(in_clear)).outbound_mail.relay_use_tls is False
    assert loaded(settings_of(render(tmp_path, USUAL))).outbound_mail.relay_host is None


def test_further_settings_keep_their_values(tmp_path: Path) -> None:
    settings = loaded(settings_of(render(tmp_path, EVERYTHING)))
    assert settings.smtp.max_message_size_bytes == 52428800
    assert settings.smtp.scram is True


def test_monitoring_brings_the_files_of_this_folder(tmp_path: Path) -> None:
    manifests = render(tmp_path, EVERYTHING)
    rules = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())
    assert of_kind(manifests, "PrometheusRule")["spec"] == rules
    shown = of_kind(manifests, "ConfigMap", "post-dashboard")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    text = (DEPLOY / "grafana-dashboard.json").read_text()
    assert json.loads(shown["data"]["relaymail.json"]) == json.loads(text)
    monitor = of_kind(manifests, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints"]
    # The alerts go by this
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "relaymail"}]
    watched = [
        manifest
        for manifest in manifests
        if manifest["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= manifest["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in manifest["spec"]["ports"]}
    ]
    assert [service["metadata"]["name"] for service in watched] == ["post-health"]


def test_two_releases_do_not_meet(tmp_path: Path) -> None:
    one, other = render(tmp_path, USUAL, "blue"), render(tmp_path, USUAL, "green")
    names = [{(each["kind"], each["metadata"]["name"]) for each in manifests} for manifests in (one, other)]
    assert names[0].isdisjoint(names[1])
    selectors = [
        of_kind(manifests, "Service", f"{name}-relaymail")["spec"]["selector"]
        for name, manifests in (("blue", one), ("green", other))
    ]
    assert selectors[0] != selectors[1]


def test_other_settings_make_other_pods(tmp_path: Path) -> None:
    def mark(values: dict[str, Any]) -> str:
        template = of_kind(render(tmp_path, values), "Deployment")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/settings"]
        return found

    assert mark(USUAL) == mark(USUAL)
    assert mark(USUAL) != mark({**USUAL, "settings": {"Smtp:Scram": True}})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "serverName"),
        ({**LEAST, "smtp": {"hots": "a"}}, "hots"),
        ({**LEAST, "smtp": {"existingSecret": "a"}}, "smtp.host"),
        ({**LEAST, "smtp": {"host": "a", "port": 70000}}, "/smtp/port"),
        ({**LEAST, "service": {"type": "LoadBalanser"}}, "/service/type"),
        ({**LEAST, "settings": {"ServerName": "a"}}, "ServerName"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(wrong))
    done = helm("template", "relaymail", str(CHART), "--values", str(tmp_path / "values.yaml"))
    assert done.code != 0
    assert told in done.err


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(given: dict[str, Any], known: dict[str, Any], path: str) -> None:
        assert set(given) == set(known) - {"global"}, path
        for key, value in given.items():
            if isinstance(value, dict) and "properties" in known[key]:
                compare(value, known[key]["properties"], f"{path}.{key}")

    compare(values, schema["properties"], "")


def test_the_chart_has_the_version_of_the_package() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(DEPLOY.parents[1] / "setup.cfg")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == metadata["metadata"]["version"]
    assert of_kind(documents((DEPLOY / "kubernetes.yaml").read_text()), "Deployment")["spec"]["template"][
        "spec"
    ]["containers"][0]["image"].endswith(f":{chart['appVersion']}")
