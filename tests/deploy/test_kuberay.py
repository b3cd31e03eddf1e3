"""`deploy/`: the fields of KubeRay and Kubernetes, Ray's autoscaler for KubeRay, `ray start`, and Serve's schema."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config

from dreamhead.serving.settings import ServingSettings
from tests.deploy.documents import ROOT, Document, keys, misspelt, read_yaml, spoken, wrong_start_options

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
"""Ray Serve's own classes still say `Field(..., update_type=...)`."""

FIELDS = json.loads((Path(__file__).parent / "kuberay.schema.json").read_text())
NAMES = ("rayjob", "rayservice")
DOCUMENTS = {name: read_yaml(f"deploy/{name}.yaml") for name in NAMES}
SERVE_CONFIG = ROOT / "serve_config.yaml"
FREE_NAMES = ("labels",)
"""Mappings whose keys are ours to choose."""


@pytest.mark.parametrize("name", NAMES)
def test_kuberay_and_ray_accept_it(name: str) -> None:
    assert problems(DOCUMENTS[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_key_can_be_misspelt(name: str) -> None:
    document = DOCUMENTS[name]
    typed = [path for path in keys(document) if not set(FREE_NAMES) & set(path[:-1])]
    assert len(typed) > 100
    assert [spoken(path) for path in typed if not problems(misspelt(document, path))] == [], "nothing notices these"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("import_path", "import_paths"),
        ("route_prefix", "route_prefixes"),
        ("deployments", "deployment"),
        ("applications", "application"),
        ("max_ongoing_requests", "max_running_requests"),
        ("target_ongoing_requests", "target_running_requests"),
        ("num_gpus", "num_gpu"),
    ],
)
def test_no_key_of_the_serve_part_can_be_misspelt(right: str, wrong: str) -> None:
    spoilt = copy.deepcopy(DOCUMENTS["rayservice"])
    assert f"{right}:" in spoilt["spec"]["serveConfigV2"]
    spoilt["spec"]["serveConfigV2"] = spoilt["spec"]["serveConfigV2"].replace(f"{right}:", f"{wrong}:")
    found = "; ".join(problems(spoilt))
    assert wrong in found or f"{right}\n  Field required" in found


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("Memory", "memory", "'memory' is not one of"),
        ("26Gi", "26GB", "'26GB' does not match"),
        ("NoSchedule", "NoSheduling", "'NoSheduling' is not one of"),
        ("2.60.0", "2.59.0", "Ray 2.59.0 runs in an image of 2.60.0"),
        ('"num-cpus": "0"', '"num-cpus": "none"', "invalid literal for int"),
        ('"pool": "gpu"', '"pool": "g p u"', "Invalid label"),
        ('"name": "shared-memory", "mountPath"', '"name": "shm", "mountPath"', "no volume is called shm"),
        ("secretRef", "secretReference", "'secretReference' was unexpected"),
    ],
)
def test_no_value_can_be_misspelt(right: str, wrong: str, problem: str) -> None:
    text = json.dumps(DOCUMENTS["rayjob"])
    assert right in text
    assert problem in "; ".join(problems(json.loads(text.replace(right, wrong))))


@pytest.mark.parametrize("name", NAMES)
def test_the_autoscaler_reads_the_groups_as_meant(name: str) -> None:
    groups = autoscaled(cluster_of(DOCUMENTS[name]))["available_node_types"]
    assert groups["headgroup"]["resources"]["CPU"] == 0
    assert groups["headgroup"]["max_workers"] == 0
    assert "GPU" not in groups["cpu"]["resources"]
    assert groups["gpu"]["resources"]["GPU"] == 1
    for pool in ("cpu", "gpu"):
        assert groups[pool]["labels"] == {"pool": pool}
        assert 0 < groups[pool]["idle_timeout_s"] <= 600
        assert groups[pool]["max_workers"] > groups[pool]["min_workers"]


def test_a_job_scales_from_zero_and_frees_its_cluster() -> None:
    spec = DOCUMENTS["rayjob"]["spec"]
    groups = autoscaled(spec["rayClusterSpec"])["available_node_types"]
    assert {group["min_workers"] for group in groups.values()} == {0}
    assert spec["shutdownAfterJobFinishes"]
    assert spec["backoffLimit"] > 0
    assert 0 < spec["ttlSecondsAfterFinished"] < spec["activeDeadlineSeconds"]


@pytest.mark.parametrize("name", NAMES)
def test_the_object_store_fits_shared_memory(name: str) -> None:
    cluster = cluster_of(DOCUMENTS[name])
    for group in groups_of(cluster):
        assert int(group["rayStartParams"]["object-store-memory"]) == 1 << 30
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
        mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
        assert {"name": "shared-memory", "mountPath": "/dev/shm"} in mounts


@pytest.mark.parametrize("name", NAMES)
def test_spot_may_take_workers_but_never_the_head(name: str) -> None:
    cluster = cluster_of(DOCUMENTS[name])
    assert "tolerations" not in cluster["headGroupSpec"]["template"]["spec"]
    gpu = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu")
    assert {"spot", "nvidia.com/gpu"} <= {toleration["key"] for toleration in gpu["template"]["spec"]["tolerations"]}


@pytest.mark.parametrize("name", NAMES)
def test_no_credential_stands_in_the_file(name: str) -> None:
    text = (ROOT / "deploy" / f"{name}.yaml").read_text()
    assert not re.search(r"(?i)AWS_(SECRET_)?ACCESS_KEY|AKIA|password:|auth_token:", text)
    for group in groups_of(cluster_of(DOCUMENTS[name])):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "dreamhead"
        first, *others = pod["containers"][0]["envFrom"]
        assert first == {"secretRef": {"name": "dreamhead-s3", "optional": True}}
        # Not optional: a service without keys is open to whoever reaches it.
        assert others == [{"secretRef": {"name": "dreamhead-keys"}}] * (name == "rayservice")


def test_the_service_runs_what_serve_config_says() -> None:
    """The same application and deployments; replicas, what they run on, and where jobs lie, are each one's own."""
    (ours,) = yaml.safe_load(DOCUMENTS["rayservice"]["spec"]["serveConfigV2"])["applications"]
    (other,) = yaml.safe_load(SERVE_CONFIG.read_text())["applications"]
    for key in ("name", "route_prefix", "import_path"):
        assert ours[key] == other[key]
    assert [one["name"] for one in ours["deployments"]] == [one["name"] for one in other["deployments"]]
    assert ServingSettings.model_validate(ours["args"]).storage.startswith("s3://")
    assert wrong_serve(SERVE_CONFIG.read_text()) == []


def problems(document: Document) -> list[str]:
    """All that KubeRay, Kubernetes or Ray would have against a document."""
    kind = str(document.get("kind"))
    if kind not in FIELDS["$defs"]:
        return [f"kind {kind} is no kind of KubeRay"]
    validator = jsonschema.Draft202012Validator({**FIELDS, "$ref": f"#/$defs/{kind}"})
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    if found:
        return found
    cluster = cluster_of(document)
    if kind == "RayService":
        found += wrong_serve(document["spec"]["serveConfigV2"])
    return [*found, *wrong_cluster(cluster), *(fault for group in groups_of(cluster) for fault in wrong_group(group))]


def cluster_of(document: Document) -> Document:
    """The RayCluster within a RayJob or RayService."""
    spec = document["spec"]
    cluster: Document = spec["rayClusterSpec" if document["kind"] == "RayJob" else "rayClusterConfig"]
    return cluster


def groups_of(cluster: Document) -> list[Document]:
    """The head's group first."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def autoscaled(cluster: Document) -> Document:
    """What Ray's autoscaler makes of a cluster; it checks that by its own schema."""
    resource = {"metadata": {"name": "dreamhead", "namespace": "default"}, "spec": cluster}
    config: Document = autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)
    return config


def wrong_cluster(cluster: Document) -> Iterator[str]:
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups_of(cluster)}
    if len(images) > 1:
        yield f"head and workers run different images: {images}"
    base = re.search(r"rayproject/ray:([\d.]+)-", (ROOT / "docker" / "Dockerfile").read_text())
    if base and cluster["rayVersion"] != base[1]:
        yield f"Ray {cluster['rayVersion']} runs in an image of {base[1]}"
    try:
        autoscaled(cluster)
    except (ValueError, KeyError, jsonschema.ValidationError) as error:
        yield f"autoscaler: {error}"


def wrong_group(group: Document) -> Iterator[str]:
    pod = group["template"]["spec"]
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield f"no volume is called {mount['name']}"
    parameters = group.get("rayStartParams", {})
    yield from wrong_start_options([word for item in parameters.items() for word in start_words(*item)])


def start_words(name: str, value: str) -> list[str]:
    # KubeRay turns "true" into a bare flag.
    return [f"--{name}"] if value == "true" else [f"--{name}", value]


def wrong_serve(text: str) -> list[str]:
    # Here, because the warning above comes with the import.
    from ray.serve.schema import ServeDeploySchema

    config: Any = yaml.safe_load(text)
    try:
        parsed = ServeDeploySchema.model_validate(config)
    except pydantic.ValidationError as error:
        return [f"serve: {error}"]
    return [f"serve: {key} is no key" for key in unknown_to(config, parsed)]


def unknown_to(given: object, parsed: object) -> Iterator[str]:
    """Keys that Serve's models pass over in silence."""
    if isinstance(given, list) and isinstance(parsed, list):
        for item, model in zip(given, parsed, strict=True):
            yield from unknown_to(item, model)
    elif isinstance(given, dict) and isinstance(parsed, pydantic.BaseModel):
        for key, value in given.items():
            if key not in type(parsed).model_fields:
                yield key
            elif key == "autoscaling_config":
                yield from unknown_to(value, autoscaling_model()(**value))
            else:
                yield from unknown_to(value, getattr(parsed, key))


def autoscaling_model() -> type[pydantic.BaseModel]:
    # A deployment's model keeps this part as a plain mapping.
    from ray.serve.config import AutoscalingConfig

    model: type[pydantic.BaseModel] = AutoscalingConfig
    return model
