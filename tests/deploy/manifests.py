"""Reading the files of docs/deploy, and the rules that every pod of ours keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from relaymail.settings import Settings
from relaymail.settings.load import load

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
CONNECTION = "Host=db;Database=relate;Username=relaymail;Password=secret"
OLDEST = "1.25"
"""The oldest Kubernetes that the files are for."""

Manifest = dict[str, Any]


def documents(text: str) -> list[Manifest]:
    """The objects of a file with several documents."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def of_kind(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The only object of this kind (and name)."""
    (found,) = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and name in {"", manifest["metadata"]["name"]}
    ]
    return found


def validate(manifests: list[Manifest]) -> None:
    """Hold what Kubernetes itself knows against its schemas, of the oldest and the newest version."""
    checker = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    newest = checker.latest_version()
    for manifest in manifests:
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in (OLDEST, newest):
            checker.validate(manifest, version, strict=True)


def loaded(environment: dict[str, str]) -> Settings:
    """The settings that the host would have.

    :raises SettingsError: it would not start.
    """
    result = load(None, environment)
    assert result.warnings == []
    return result.settings


def check_pod(spec: Manifest) -> None:
    """What holds for the host's pod wherever it comes from."""
    assert spec["terminationGracePeriodSeconds"] >= 90
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert (context["runAsUser"], context["fsGroup"]) == (10025, 10025)
    assert {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"} in context["sysctls"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    live, ready = container["livenessProbe"], container["readinessProbe"]
    assert live["httpGet"] == {"path": "/healthz/live", "port": "health"}
    assert (live["initialDelaySeconds"], live["periodSeconds"]) == (10, 30)
    assert ready["httpGet"] == {"path": "/healthz/ready", "port": "health"}
    assert (ready["initialDelaySeconds"], ready["periodSeconds"]) == (5, 10)
    # Longer than the 6 s that an answer may take
    assert ready["timeoutSeconds"] == 7
    assert "memory" in container["resources"]["limits"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert set(mounted.values()) == set(volumes)
    for writable in ("/var/lib/relaymail", "/tmp"):
        assert "emptyDir" in volumes[mounted[writable]]


def ports(spec: Manifest) -> dict[str, int]:
    """The ports of the host's container, by name."""
    return {port["name"]: port["containerPort"] for port in spec["containers"][0]["ports"]}
