"""The manifests for Kubernetes."""

from __future__ import annotations

import re

import pytest

from tests.deploy.manifests import CONNECTION, DEPLOY, check_pod, documents, loaded, of_kind, ports, validate

MANIFESTS = documents((DEPLOY / "kubernetes.yaml").read_text())
POD = of_kind(MANIFESTS, "Deployment")["spec"]["template"]


def test_kubernetes_knows_every_field() -> None:
    validate(MANIFESTS)


def test_a_field_that_does_not_exist_would_be_found() -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    text = (DEPLOY / "kubernetes.yaml").read_text()
    wrong = documents(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    with pytest.raises(checker.ValidationError):
        validate(wrong)


def test_the_pod_is_shut_in_probed_and_given_time() -> None:
    check_pod(POD["spec"])
    assert ports(POD["spec"]) == {"submission": 587, "smtps": 465, "mx": 25, "health": 8081}


def test_what_belongs_together_finds_each_other() -> None:
    labels = POD["metadata"]["labels"]
    assert of_kind(MANIFESTS, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert of_kind(MANIFESTS, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    named = ports(POD["spec"])
    served = {}
    for name in ("relaymail", "relaymail-health"):
        service = of_kind(MANIFESTS, "Service", name)["spec"]
        assert service["selector"] == labels
        assert all(named[port["targetPort"]] == port["port"] for port in service["ports"])
        served[name] = {port["port"] for port in service["ports"]}
    # The status page is not for everybody
    assert served == {"relaymail": {587, 465, 25}, "relaymail-health": {8081}}
    assert of_kind(MANIFESTS, "Service", "relaymail-health")["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_one_pod_may_always_go_and_one_is_always_there() -> None:
    deployment = of_kind(MANIFESTS, "Deployment")["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert of_kind(MANIFESTS, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_secrets_are_named_and_not_told() -> None:
    assert [manifest for manifest in MANIFESTS if manifest["kind"] == "Secret"] == []
    (container,) = POD["spec"]["containers"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "relaymail"}},
        {"secretRef": {"name": "relaymail"}},
    ]
    for key in of_kind(MANIFESTS, "ConfigMap")["data"]:
        assert not re.search("(?i)password|apikey|salt|connection", key)


def test_the_host_starts_with_these_settings() -> None:
    public = of_kind(MANIFESTS, "ConfigMap")["data"]
    settings = loaded({**public, "ConnectionStrings__DefaultConnection": CONNECTION})
    (tls,) = [volume for volume in POD["spec"]["volumes"] if volume["name"] == "tls"]
    files = {f"/tls/{item['path']}" for item in tls["secret"]["items"]}
    assert {str(settings.smtp.certificate_path), str(settings.smtp.certificate_key_path)} == files
    assert settings.smtp.mx.enabled
