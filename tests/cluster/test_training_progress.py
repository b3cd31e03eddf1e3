"""Progress: plain lines now and then off a terminal, a bar on one."""

import io

from rich.console import Console

from dreamhead.cluster.training_progress import TrainingProgress


def line(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1.23456, "samples_per_s": 45.678, "data_wait": 0.031}


def test_off_a_terminal_the_first_and_the_last_line_are_told_and_every_validation() -> None:
    said = io.StringIO()
    with TrainingProgress(Console(file=said, width=200), "autoencoder", 30) as progress:
        for step in (10, 20, 30):
            progress.step(step)
            progress.note(line(step))
        progress.note({"step": 30, "validation": {"psnr": 31.25, "worst_psnr": 28.0}})
    assert said.getvalue().splitlines() == [
        "autoencoder: step 10/30: loss 1.235, 45.7 samples/s, 3% of the time waiting for data",
        "autoencoder: step 30/30: loss 1.235, 45.7 samples/s, 3% of the time waiting for data",
        "autoencoder: step 30: validation: psnr 31.25, worst_psnr 28",
    ]


def test_on_a_terminal_there_is_a_bar() -> None:
    said = io.StringIO()
    with TrainingProgress(Console(file=said, width=150, force_terminal=True), "autoencoder", 30) as progress:
        progress.note(line(20))
        progress.note({"step": 20, "validation": {"psnr": 31.25}})
        progress.step(30)
    assert "autoencoder loss 1.235, 45.7 samples/s" in said.getvalue()
    assert "30/30" in said.getvalue()
    assert "autoencoder: step 20: validation: psnr 31.25" in said.getvalue()
    assert "waiting for data" not in said.getvalue()
