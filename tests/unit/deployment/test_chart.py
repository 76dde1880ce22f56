"""The Helm chart: its values against the settings of the service, and what Helm makes of it, where Helm is installed.

`make checks` installs it, with the schemas of Kubernetes. No cluster was there to install the chart on.
"""

import importlib.util
import json
import shlex
from typing import Any

import jsonschema
import pytest
import yaml

from medmoe.server.settings import Settings
from tests.unit.deployment.conftest import DOCKER, read, rules

CHART = DOCKER / "helm" / "medmoe"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
CHARTS_OWN = {
    "host", "port", "model", "api_keys", "insecure", "admin_socket", "tls_certificate", "tls_key", "tls_client_ca",
    "audit_dir", "audit_key", "model_public_key",
}  # fmt: skip
"""Settings that follow from other values."""
OPEN: dict[str, Any] = {"auth": {"insecure": True}}
GPU: dict[str, Any] = {
    "auth": {"keys": f"ward-7 {'a' * 64}\n", "metricsKey": {"secret": "metrics"}},
    "model": {"existingClaim": "weights", "subPath": "phi", "publicKeySecret": "signer"},
    "gpu": {"count": 2},
    "settings": {"tensor_parallel_size": 2, "expert_parallel": True, "drain_seconds": 12.5, "max_body_bytes": 16777216},
    "autoscaling": {"mode": "hpa", "minReplicas": 2},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "audit": {"existingClaim": "trails", "keySecret": "audit"},
}
TLS: dict[str, Any] = {
    "settings": {
        "oidc_issuer": "https://login.example/ward",
        "oidc_audience": "medmoe",
        "oidc_ca_file": "/etc/oidc/ca",
    },
    "tls": {"secret": "ward-tls"},
    "networkPolicy": {"egress": [{"ports": [{"port": 443}]}]},
    "extraVolumes": [{"name": "oidc", "configMap": {"name": "oidc"}}],
    "extraVolumeMounts": [{"name": "oidc", "mountPath": "/etc/oidc"}],
}
ONE_GPU: dict[str, Any] = OPEN | read(CHART / "values-gpu.yaml")
MUTUAL: dict[str, Any] = {"tls": {"secret": "ward-tls", "clientCertificates": True}}
BATCH: dict[str, Any] = GPU | {
    "batch": {
        "enabled": True,
        "arguments": ["/data/in", "/data/out", "--question", "Is that the patient's lung?", "--concurrency", 16],
        "existingClaim": "archive",
    },
    "networkPolicy": {"enabled": False},
    "audit": {},
}
KUBERNETES = "1.34"


def test_the_schema_is_as_the_program_would_write_it() -> None:
    spec = importlib.util.spec_from_file_location("values_schema", DOCKER / "helm" / "values_schema.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    current = (CHART / "values.schema.json").read_text() == program.schema()
    assert current, "the settings have changed: python docker/helm/values_schema.py"


def test_the_schema_knows_every_setting_and_no_other() -> None:
    assert set(SCHEMA["properties"]["settings"]["properties"]) == set(Settings.model_fields) - CHARTS_OWN


def test_the_schema_has_the_settings_own_bounds() -> None:
    theirs = Settings.model_json_schema()["properties"]
    for name, mine in SCHEMA["properties"]["settings"]["properties"].items():
        (one,) = [kind for kind in theirs[name].get("anyOf", [theirs[name]]) if kind.get("type") != "null"]
        if "$ref" in one or one["type"] == "array":
            continue
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"):
            assert mine.get(bound) == one.get(bound), name


def test_the_schema_knows_every_value_and_takes_the_defaults() -> None:
    values = read(CHART / "values.yaml")
    assert set(SCHEMA["properties"]) - {"global"} == set(values)
    jsonschema.validate(values, SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"replica": 2},
        {"settings": {"drain_secondz": 1}},
        {"settings": {"max_concurrent": 0}},
        {"settings": {"port": 80}},
        {"auth": {"keys": "mm-a-key-itself"}},
        {"image": {"digest": "sha256:1"}},
        {"autoscaling": {"mode": "vpa"}},
    ],
    ids=str,
)
def test_the_schema_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Objects by kind. Raises helm_python.HelmError."""
    helm = pytest.importorskip("helm_python", reason="Helm's library is not installed: make checks")
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values=values, name="ward", namespace="imaging")
    documents = [
        one for name, text in texts.items() if not name.endswith(".txt") for one in yaml.safe_load_all(text) if one
    ]
    by_kind = {one["kind"]: one for one in documents}
    assert len(by_kind) == len(documents)
    return by_kind


def pod(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered(values)["Deployment"]["spec"]["template"]["spec"]
    return found


def environment(values: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod(values)["containers"][0]["env"] if "value" in one}


@pytest.mark.parametrize(
    "values",
    [OPEN, GPU, ONE_GPU, GPU | {"autoscaling": {"mode": "keda"}}, TLS, MUTUAL],
    ids=["cpu", "gpu", "values-gpu", "keda", "tls", "mutual"],
)
def test_kubernetes_takes_what_helm_makes(values: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="Kubernetes' schemas are not installed: make checks")
    for kind, one in rendered(values).items():
        # Of other projects; no schema at hand.
        if kind not in ("ServiceMonitor", "PrometheusRule", "ScaledObject", "RayJob"):
            kubernetes.validate(one, KUBERNETES, strict=True)


def ray_pods() -> list[dict[str, Any]]:
    """Pod templates of the head and of the workers."""
    cluster = rendered(BATCH)["RayJob"]["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_kubernetes_takes_the_pods_of_ray_and_holds_them() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="Kubernetes' schemas are not installed: make checks")
    for template in ray_pods():
        one = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": template["metadata"] | {"name": "ray"}}
        kubernetes.validate(one, KUBERNETES, strict=True)
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_batch_is_one_command_on_a_cluster_with_the_models_settings() -> None:
    job = rendered(BATCH)["RayJob"]["spec"]
    command = shlex.split(job["entrypoint"])
    assert command[:5] == ["/opt/medmoe/bin/python", "-m", "medmoe.model.cli", "batch", "--ray"]
    assert command[5:] == [str(argument) for argument in BATCH["batch"]["arguments"]]
    head, worker = (template["spec"]["containers"][0] for template in ray_pods())
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 2
    given = {one["name"]: one["value"] for one in worker["env"]}
    assert given["MEDMOE_MODEL"] == "/model"
    assert given["MEDMOE_MAX_BODY_BYTES"] == "16777216"
    for container in (head, worker):
        assert {"/data", "/run/medmoe-model-key"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    # An engine of a batch takes no checkpoint that the service would refuse.
    assert given["MEDMOE_MODEL_PUBLIC_KEY"] == environment(GPU)["MEDMOE_MODEL_PUBLIC_KEY"]
    assert "RayJob" not in rendered(GPU)


def test_a_batch_that_asks_a_service_with_an_audit_trail_renders() -> None:
    asked = BATCH["batch"] | {"arguments": [*BATCH["batch"]["arguments"], "--url", "http://ward-medmoe:8000"]}
    assert "RayJob" in rendered(BATCH | {"audit": GPU["audit"], "batch": asked})


def test_the_chart_names_the_pinned_ray() -> None:
    version = read(CHART / "values.yaml")["batch"]["rayVersion"]
    assert f"ray[data,default]=={version}" in (DOCKER / "requirements" / "ray.txt").read_text().splitlines()


def test_only_rays_pods_and_the_operator_reach_ray() -> None:
    policy = rendered(BATCH)["NetworkPolicy"]["spec"]
    labels = ray_pods()[0]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    own, operator = policy["ingress"]
    assert own["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for port in operator["ports"]] == [8265]
    # The service's pods are selected by other labels.
    assert not rendered(OPEN)["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_helm_finds_nothing_to_complain_about() -> None:
    helm = pytest.importorskip("helm_python", reason="Helm's library is not installed: make checks")
    report = helm.lint(CHART, OPEN, strict=True)
    assert not report["errors"]
    assert not [message for message in report["messages"] if message["severity"] > 1]


@pytest.mark.parametrize("values", [OPEN, GPU], ids=["cpu", "gpu"])
def test_a_pod_is_held(values: dict[str, Any]) -> None:
    spec = pod(values)
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    # MEDMOE_PORT=tcp://... of a Service called medmoe would be refused as a port.
    assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize("values", [OPEN, GPU, ONE_GPU, TLS, MUTUAL], ids=["cpu", "gpu", "values-gpu", "tls", "mutual"])
def test_the_environment_is_one_that_the_service_takes(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(values)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    assert settings.drain_seconds == values.get("settings", {}).get("drain_seconds", 30)
    assert settings.max_body_bytes == values.get("settings", {}).get("max_body_bytes", 64 * 2**20)
    assert settings.insecure is not settings.authenticates
    assert settings.url.startswith("https" if "tls" in values else "http:")


def test_a_cluster_of_ipv6_is_served() -> None:
    values = OPEN | {"listenAddress": "::", "service": {"ipFamilyPolicy": "PreferDualStack"}}
    assert environment(values)["MEDMOE_HOST"] == "::"
    assert rendered(values)["Service"]["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert "ipFamilyPolicy" not in rendered(OPEN)["Service"]["spec"]


@pytest.mark.parametrize(("values", "grace"), [(OPEN, 5 + 30 + 30), (GPU, 5 + 13 + 30)], ids=["cpu", "gpu"])
def test_a_pod_has_time_to_drain(values: dict[str, Any], grace: int) -> None:
    spec = pod(values)
    assert spec["terminationGracePeriodSeconds"] == grace
    assert spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_probes_ask_for_what_they_decide() -> None:
    (container,) = pod(OPEN)["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/health/ready", "liveness": "/health/live", "readiness": "/health/ready"}
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] == 900


def test_probes_of_a_service_with_tls_need_no_certificate() -> None:
    (container,) = pod(TLS)["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http", "scheme": "HTTPS"}
    (container,) = pod(MUTUAL)["containers"]
    assert container["readinessProbe"]["exec"]["command"] == ["python3", "-m", "medmoe.server.healthcheck", "ready"]
    assert "MEDMOE_ADMIN_SOCKET" in environment(MUTUAL)
    # No subPath, which would not follow a renewal.
    assert {"name": "tls", "mountPath": "/run/medmoe-tls", "readOnly": True} in container["volumeMounts"]


def test_gpus_are_asked_for_and_keys_are_mounted() -> None:
    (container,) = pod(GPU)["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/model"]["readOnly"] is True
    given = environment(GPU)
    for variable in ("MEDMOE_API_KEYS", "MEDMOE_MODEL_PUBLIC_KEY"):
        assert mounts[given[variable].rpartition("/")[0]]["readOnly"] is True


def test_the_values_for_a_gpu_choose_its_image_and_its_nodes() -> None:
    spec = pod(ONE_GPU)
    (container,) = spec["containers"]
    assert container["image"].endswith(":gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    # Where the image keeps compiled kernels, and it can write nowhere else.
    assert "HOME=/var/cache/medmoe " in (DOCKER / "gpu.Dockerfile").read_text()
    assert "/var/cache/medmoe" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert spec["tolerations"]
    # The pod that goes holds the GPU that the pod that comes needs.
    assert rendered(ONE_GPU)["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_every_pod_has_an_audit_trail_of_its_own() -> None:
    (container,) = pod(GPU)["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["audit"]["subPathExpr"] == "$(POD_NAME)"
    given = environment(GPU)
    assert given["MEDMOE_AUDIT_DIR"] == mounts["audit"]["mountPath"]
    assert given["MEDMOE_AUDIT_KEY"].startswith(mounts["audit-key"]["mountPath"])


def test_a_cluster_gets_the_rules_and_dashboards_of_compose() -> None:
    made = rendered(GPU)
    got = [rule for group in made["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    assert got == rules("recording", "alerts")
    boards = {path.name: json.loads(path.read_text()) for path in (DOCKER / "grafana" / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in made["ConfigMap"]["data"].items()} == {
        f"medmoe-{name}": board for name, board in boards.items()
    }
    (endpoint,) = made["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "medmoe"}]
    assert endpoint["authorization"]["credentials"] == {"name": "metrics", "key": "key"}


def test_the_network_is_closed_but_for_who_is_named() -> None:
    policy = rendered(OPEN | {"networkPolicy": {"from": [], "metricsFrom": []}})["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not policy["ingress"]
    assert policy["egress"] == []


def test_one_replica_has_no_budget_that_would_block_a_drain() -> None:
    assert "PodDisruptionBudget" not in rendered(OPEN)
    assert rendered(OPEN | {"replicas": 2})["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "set one of auth"),
        ({"tls": {"secret": "tls"}}, "set one of auth"),
        (OPEN | {"tls": {"clientCertificates": True}}, "needs tls.secret"),
        (GPU | {"tls": {"secret": "tls"}}, "tlsConfig"),
        (TLS | {"networkPolicy": {}}, "oidc_issuer needs a rule"),
        ({"auth": {"insecure": True, "keys": f"a {'0' * 64}"}}, "set one of auth"),
        (OPEN | {"terminationGracePeriodSeconds": 44}, "drain_seconds + 10 = 45"),
        (OPEN | {"terminationGracePeriodSeconds": 60, "settings": {"drain_seconds": 50}}, "= 65"),
        (GPU | {"auth": {"existingSecret": "keys"}}, "metricsKey"),
        (GPU | {"gpu": {"count": 4}}, "each rank computes on one GPU"),
        (GPU | {"model": {"existingClaim": ""}}, "not worth a GPU"),
        (OPEN | {"settings": {"expert_parallel": True}}, "vLLM's CPU kernel"),
        (GPU | {"gpu": {"count": 1}, "settings": {"expert_parallel": True}}, "there is one"),
        (OPEN | {"autoscaling": {"mode": "keda", "targetInFlight": 96}}, "never exceeded"),
        (OPEN | {"autoscaling": {"mode": "hpa", "minReplicas": 5}}, "more than maxReplicas"),
        (OPEN | {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}, "cannot both be 0"),
        (BATCH | {"batch": {"enabled": True}}, "batch.existingClaim"),
        (BATCH | {"batch": {"enabled": True, "existingClaim": "archive"}}, "batch.arguments"),
        (BATCH | {"audit": GPU["audit"]}, "keep no audit trail"),
        (OPEN | {"audit": {"existingClaim": "trails"}}, "audit.existingClaim needs audit.keySecret"),
        (OPEN | {"settings": {"otlp_endpoint": "http://collector:4318"}}, "otlp_endpoint needs a rule"),
        (OPEN | {"settings": {"dicomweb_sources": "/etc/medmoe/sources.toml"}}, "dicomweb_sources needs a rule"),
        (OPEN | {"settings": {"image_url_hosts": "images.example.org"}}, "image_url_hosts needs a rule"),
    ],
)
def test_values_that_would_fail_later_fail_at_once(values: dict[str, Any], reason: str) -> None:
    helm = pytest.importorskip("helm_python", reason="Helm's library is not installed: make checks")
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert reason in str(refused.value)
