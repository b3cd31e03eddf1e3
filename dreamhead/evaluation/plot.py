"""Curves as a picture, for validation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Curves = Mapping[str, NDArray[np.floating]]


def plot(panels: Mapping[str, Curves], along: str, value: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB picture, one panel under another.

    Args:
        panels: title to curves, each with its name.
        along: name of the horizontal axis.
        value: name of the vertical one.
    """
    figure = Figure(figsize=(9, 1.9 * max(len(panels), 1)), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for place, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(len(panels), 1, place)
        for name, curve in curves.items():
            axes.plot(curve, label=name, linewidth=1)
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, loc="upper right", frameon=False)
    figure.supxlabel(along, fontsize=8)
    figure.supylabel(value, fontsize=8)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
