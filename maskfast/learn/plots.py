"""The finder's rates and losses flow in, a PNG flows out."""

from collections.abc import Sequence

import numpy as np

from maskfast.score.plots import BLUE, ORANGE, make_figure, render_png, style_axes


def draw_lr_find(rates: Sequence[float], losses: Sequence[float], chosen: float) -> bytes:
    """Draw the smoothed losses over the rates tried, with the chosen rate, as a PNG."""
    figure = make_figure(4.4, 3.2)
    axes = figure.add_subplot()
    style_axes(axes, title=f"learning rate {chosen:.2g}", x="learning rate", y="loss")
    axes.plot(rates, losses, color=BLUE)
    axes.axvline(chosen, color=ORANGE, linestyle="--")
    axes.set_xscale("log")
    finite = np.asarray(losses)[np.isfinite(losses)]
    if len(finite):
        axes.set_ylim(0.9 * finite.min(), 1.1 * min(finite.max(), 4 * finite.min()))
    return render_png(figure)
