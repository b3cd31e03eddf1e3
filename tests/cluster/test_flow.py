"""How the graph is told to Ray Data, and how an actor begins."""

import pytest

from dreamhead.cluster import actors
from dreamhead.cluster.flow import LEAST_DEATHS, data_context, leave_cpus_to_finishing
from dreamhead.cluster.pools import FINALIZE_CPUS, Pools
from dreamhead.config import PoolSettings
from dreamhead.errors import CheckpointError, ConfigError, StorageError

# Ray Data warns of its own settings when it makes its own context.
pytestmark = pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning")


def pool(least: int, most: int) -> PoolSettings:
    return PoolSettings(min_size=least, max_size=most, num_cpus=1.0)


@pytest.mark.ray
def test_pools_that_grow_leave_cpus_to_finishing(ray_session: None) -> None:
    left: list[float] = []
    for least in (1, 4):
        context = data_context(3, 60.0, [pool(least, 4)])
        leave_cpus_to_finishing(context, Pools(analyse=pool(1, 1), landmarks=pool(1, 1), render=pool(least, 4)))
        left.append(context.execution_options.exclude_resources.cpu or 0.0)
    # A twentieth of the tests' eight CPUs, and nothing where no pool grows.
    assert left == [0.4, 0.0]
    assert left[0] > FINALIZE_CPUS


def test_as_many_actors_may_die_at_their_start_as_a_pool_has() -> None:
    assert data_context(3, 60.0, [pool(1, 1), pool(40, 40)]).max_consecutive_actor_init_deaths == 40
    assert data_context(3, 60.0, [pool(1, 1)]).max_consecutive_actor_init_deaths == LEAST_DEATHS


@pytest.mark.parametrize(
    "error",
    [StorageError("connection refused"), CheckpointError("config.json: stale handle"), RuntimeError("CUDA: no memory")],
)
def test_an_actor_waits_for_its_weights_and_its_gpu(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    slept: list[float] = []
    monkeypatch.setattr(actors.time, "sleep", slept.append)
    left = [error] * len(actors.PAUSES_S)

    def make() -> str:
        if left:
            raise left.pop()
        return "made"

    assert actors.patiently(make) == "made"
    assert slept == list(actors.PAUSES_S)
    left.extend([error] * (len(actors.PAUSES_S) + 1))
    with pytest.raises(type(error)):
        actors.patiently(make)


def test_an_actor_does_not_wait_for_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.time, "sleep", lambda pause_s: pytest.fail("nothing is to wait for"))

    def make() -> None:
        raise ConfigError("device: cuda was asked for")

    with pytest.raises(ConfigError):
        actors.patiently(make)
