"""Two processes learn together: by copies or by pieces the same, and an interruption changes nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamhead.errors import TrainingError
from dreamhead.training.parallel import Crew
from dreamhead.training.settings import LoopSettings
from tests.training.lines import SETTINGS, LineTask, fit, log_lines, write_bare_data
from tests.training.pair import run_pair

UNEVEN = SETTINGS.model_copy(update={"batch_size": 7, "accumulate": 2})
"""Seven examples: one process takes four, the other three, each in two parts."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train_all_ways` left."""
    folder = tmp_path_factory.mktemp("pair")
    write_bare_data(folder / "data")
    run_pair(train_all_ways, folder)
    return folder


def train_all_ways(folder: Path) -> None:
    """In each of the two processes."""
    for kind in ("ddp", "fsdp2"):
        crew = Crew.joined(torch.device("cpu"), kind)  # type: ignore[arg-type]
        keep(folder, f"{kind}-straight", SETTINGS, crew, LineTask())
        keep(folder, f"{kind}-uneven", UNEVEN, crew, LineTask())
        with pytest.raises(KeyboardInterrupt):
            keep(folder, f"{kind}-broken", SETTINGS, crew, LineTask(breaks_at=6))
        again = LineTask()
        keep(folder, f"{kind}-broken", SETTINGS, crew, again)
        assert again.calls == 8
        bad = LineTask(nan_at=5 if crew.leads else -1)
        with pytest.raises(TrainingError) as caught:
            keep(folder, f"{kind}-bad", SETTINGS, crew, bad)
        (folder / f"{kind}-bad-{crew.rank}.txt").write_text(str(caught.value))
    crew = Crew.joined(torch.device("cpu"), "ddp")
    (folder / f"shares-{crew.rank}.txt").write_text(repr(crew.gather((crew.rank, crew.leads))))


def keep(folder: Path, name: str, settings: LoopSettings, crew: Crew, task: LineTask) -> None:
    network = fit(task, str(folder / "data"), folder / name, settings, crew)
    assert (network is not None) == crew.leads
    if network is not None:
        torch.save(network.state_dict(), folder / f"{name}.pt")


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / f"{name}.pt")
    return found


@pytest.mark.parametrize("settings", ["straight", "uneven"])
def test_pieces_learn_what_copies_learn(trained: Path, settings: str) -> None:
    copies, pieces = weights(trained, f"ddp-{settings}"), weights(trained, f"fsdp2-{settings}")
    for name, part in copies.items():
        torch.testing.assert_close(pieces[name], part, rtol=1e-5, atol=1e-6)
    logs = [log_lines(trained / f"{kind}-{settings}") for kind in ("ddp", "fsdp2")]
    losses = [[line["loss"] for line in log if "loss" in line] for log in logs]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_an_interrupted_pair_ends_where_an_uninterrupted_one_does(trained: Path, kind: str) -> None:
    straight, broken = weights(trained, f"{kind}-straight"), weights(trained, f"{kind}-broken")
    for name, part in straight.items():
        assert torch.equal(part, broken[name]), name
    assert log_lines(trained / f"{kind}-straight")[-1] == log_lines(trained / f"{kind}-broken")[-1]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_both_say_whose_loss_is_not_a_number(trained: Path, kind: str) -> None:
    told = [(trained / f"{kind}-bad-{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0].startswith("step 6: the loss isn't a number; its examples come from c")


def test_values_are_gathered_by_rank(trained: Path) -> None:
    told = [(trained / f"shares-{rank}.txt").read_text() for rank in (0, 1)]
    assert told == ["[(0, True), (1, False)]"] * 2


def test_every_example_counts_the_same_however_they_are_shared(tmp_path: Path) -> None:
    """Without noise and dropout, what two processes learn from seven examples is what one learns."""
    data = write_bare_data(tmp_path / "data")
    run_pair(train_quietly, tmp_path)
    network = fit(LineTask(dropout=0, noise=0), data, tmp_path / "alone", UNEVEN)
    assert network is not None
    for name, part in weights(tmp_path, "together").items():
        torch.testing.assert_close(network.state_dict()[name], part, rtol=1e-4, atol=1e-5)


def train_quietly(folder: Path) -> None:
    """In each of the two processes."""
    crew = Crew.joined(torch.device("cpu"), "ddp")
    keep(folder, "together", UNEVEN, crew, LineTask(dropout=0, noise=0))
