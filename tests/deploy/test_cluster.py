"""`cluster.yaml` by Ray's schema, the options of `ray start` and Amazon's description of its own call."""

import copy
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
from botocore.model import Shape
from botocore.session import get_session
from botocore.validate import ParamValidator
from moto import mock_aws
from ray._private.label_utils import validate_node_label_syntax
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

from dreamhead.config import DubSettings, load_yaml
from tests.deploy.documents import ROOT, Document, keys, misspelt, read_yaml, spoken, wrong_start_options

CLUSTER = read_yaml("cluster.yaml")
TYPES = CLUSTER["available_node_types"]
WORKERS = {name: kind for name, kind in TYPES.items() if name != CLUSTER["head_node_type"]}
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
RUN_INSTANCES: Shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
RESOURCES = {"CPU", "GPU", "memory"}
FREE_NAMES = ("labels", "file_mounts")
"""Mappings whose keys are ours to choose."""


def test_ray_accepts_it() -> None:
    assert problems(CLUSTER) == []


def test_no_key_can_be_misspelt() -> None:
    ours = [("available_node_types", name) for name in WORKERS]
    typed = [path for path in keys(CLUSTER) if path not in ours and not set(FREE_NAMES) & set(path[:-1])]
    assert len(typed) > 50
    assert [spoken(path) for path in typed if not problems(misspelt(CLUSTER, path))] == [], "nothing notices these"


@pytest.mark.parametrize("option", ["--metrics-export-port", "--object-store-memory", "--autoscaling-config", "--head"])
def test_no_option_of_ray_start_can_be_misspelt(option: str) -> None:
    spoilt = json.loads(json.dumps(CLUSTER).replace(option, f"{option}s"))
    assert any(f"{option}s" in problem for problem in problems(spoilt))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("gpu-spot", "node_config", "InstanceType"), "g6.2xbig"),
        (("gpu-spot", "node_config", "InstanceMarketOptions", "MarketType"), "cheap"),
        (("cpu-spot", "labels", "pool"), "c p u"),
        (("cpu-spot", "max_workers"), "many"),
    ],
    ids=str,
)
def test_no_value_can_be_misspelt(path: tuple[str, ...], value: object) -> None:
    spoilt = copy.deepcopy(CLUSTER)
    inner: Any = spoilt["available_node_types"]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert problems(spoilt)


def test_the_head_offers_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # As `ray up` hands them to `ray start`.
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps(TYPES[CLUSTER["head_node_type"]]["resources"]))
    offered = ResourceAndLabelSpec(object_store_memory=1 << 30).resolve(is_head=True, node_ip_address="127.0.0.1")
    assert offered.num_cpus == 0
    assert "MarketType" not in json.dumps(TYPES["head"]), "a head on spot takes the whole run with it"


@pytest.mark.parametrize("name", WORKERS)
def test_workers_come_with_the_work_and_cost_what_spot_costs(name: str) -> None:
    kind = WORKERS[name]
    assert kind["min_workers"] == 0
    assert 0 < kind["idle_timeout_s"] <= 600
    assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert kind["labels"] == {"pool": name.removesuffix("-spot")}


def test_the_bounds_of_the_types_are_the_clusters() -> None:
    assert CLUSTER["max_workers"] == sum(kind["max_workers"] for kind in WORKERS.values())


def test_what_a_worker_offers_is_what_its_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    bare = copy.deepcopy(CLUSTER)
    for kind in bare["available_node_types"].values():
        kind["resources"] = {}
    with mock_aws():
        detected = AWSNodeProvider.fillout_available_node_types_resources(bare)["available_node_types"]
    for name, kind in WORKERS.items():
        found = detected[name]["resources"]
        assert kind["resources"] == {unit: found[unit] for unit in ("CPU", "GPU") if unit in found}, name


def test_the_object_store_fits_shared_memory_and_files_suffice() -> None:
    options = " ".join(CLUSTER["docker"]["run_options"])
    assert "--shm-size=2g" in options
    assert len(starts(CLUSTER)) == 2
    for command in starts(CLUSTER):
        assert "--object-store-memory=1073741824" in command
        assert "ulimit -n 65536" in command
    assert "nofile=65536:65536" in options


def test_every_node_asks_for_the_token_that_is_brought_to_it() -> None:
    assert CLUSTER["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    # In the container's environment, so that `ray exec` and `ray attach` have it too.
    assert "--env RAY_AUTH_MODE=token" in CLUSTER["docker"]["run_options"]


def test_the_farms_pools_fit_the_largest_cluster() -> None:
    pools = load_yaml(ROOT / "configs" / "dub_farm.yaml", DubSettings).pools
    most = {name: kind["max_workers"] * kind["resources"].get("GPU", 0) for name, kind in WORKERS.items()}
    assert pools.analyse
    assert pools.landmarks
    assert pools.render
    assert pools.analyse.max_size * pools.analyse.num_cpus <= WORKERS["cpu-spot"]["max_workers"] * 16
    assert pools.render.max_size == most["gpu-spot"]
    assert pools.render.num_gpus + pools.landmarks.num_gpus <= 1, "one GPU has room for an actor of each"


def problems(cluster: Document) -> list[str]:
    """All that Ray or Amazon would have against a cluster file."""
    try:
        prepared = prepare_config(copy.deepcopy(cluster))
        validate_config(prepared)
    except (jsonschema.ValidationError, ValueError, KeyError, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]
    found = [f"provider: {key}" for key in cluster["provider"] if key not in known_to_amazons_provider()]
    for command in starts(cluster):
        words = shlex.split(command.partition(" ray start ")[2])
        found += wrong_start_options([word.replace("$RAY_HEAD_IP", "127.0.0.1") for word in words])
    for name, kind in prepared["available_node_types"].items():
        found += [f"{name}: {key} is no resource" for key in kind["resources"] if key not in RESOURCES]
        found += wrong_labels(kind.get("labels", {})) + wrong_launch(kind["node_config"], name)
    return found


def starts(cluster: Document) -> list[str]:
    """The lines that start Ray."""
    lines = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    return [line for line in lines if " ray start " in line]


def known_to_amazons_provider() -> set[str]:
    # The schema leaves this mapping open: what it names is what there is.
    return set(SCHEMA["properties"]["provider"]["properties"])


def wrong_labels(labels: dict[str, str]) -> list[str]:
    try:
        validate_node_label_syntax(labels)
    except ValueError as error:
        return [str(error)]
    return []


def wrong_launch(node_config: Document, name: str) -> list[str]:
    """What is wrong with a call of RunInstances: unknown or missing keys, types, values that aren't among the named."""
    call = {**node_config, "MinCount": 1, "MaxCount": 1}
    report = ParamValidator().validate(call, RUN_INSTANCES)
    found = [f"{name}: {report.generate_report()}"] if report.has_errors() else []
    found += [f"{name}: {key} is missing" for key in ("InstanceType", "ImageId") if key not in node_config]
    return found + [f"{name}: {fault}" for fault in unnamed_values(call, RUN_INSTANCES)]


def unnamed_values(value: Any, shape: Any) -> Iterator[str]:
    if isinstance(value, dict) and shape.type_name == "structure":
        for key in value.keys() & shape.members.keys():
            yield from unnamed_values(value[key], shape.members[key])
    elif isinstance(value, list):
        for item in value:
            yield from unnamed_values(item, shape.member)
    elif isinstance(value, str) and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{value} is no {shape.name}"
