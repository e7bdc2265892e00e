"""Computed tables in, matplotlib figures out: one small function a plot, no shared state, no file written."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskfast.score.metrics import Floats, Metrics, find_wilson

if TYPE_CHECKING:
    import pandas as pd

INK, FAINT, GRID, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
BLUE, ORANGE, TEAL = "#2a6fdb", "#d1701f", "#16867a"
"""Blue is mask, orange is no mask, teal the rest: told apart with any common colour blindness, on light and dark."""

HISTORY_PANELS = {
    "loss": {"train_loss": ORANGE, "valid_loss": BLUE},
    "score": {"accuracy": BLUE, "auc": TEAL, "roc_auc_score": TEAL},
    "learning rate": {"lr": TEAL},
}
"""The columns of a training history that each panel draws."""


def plot_history(history: "pd.DataFrame", *, panels: Sequence[str] = tuple(HISTORY_PANELS)) -> Any:
    """Plot losses, scores and learning rate over the epochs of a training run; a panel without its columns is left out.

    `history` has a row an epoch: `train_loss`, `valid_loss`, `accuracy`, `auc`, `lr`, and `fold` where several ran;
    a dotted line parts the phases where `phase` says there were two.
    """
    known = [title for title in panels if find_history_columns(history, title)]
    figure = make_figure(4.4 * max(1, len(known)), 3.2)
    for index, title in enumerate(known):
        axes = figure.add_subplot(1, len(known), index + 1)
        style_axes(axes, x="epoch", y=title)
        _draw_history(axes, history, find_history_columns(history, title))
        if title == "learning rate":
            axes.set_yscale("log")
    return figure


def find_history_columns(history: "pd.DataFrame", title: str) -> dict[str, str]:
    """Return the columns of the panel `title` that `history` has, with their colours."""
    return {column: colour for column, colour in HISTORY_PANELS[title].items() if column in history}


def _draw_history(axes: Any, history: "pd.DataFrame", columns: Mapping[str, str]) -> None:
    runs = [run for _, run in history.groupby("fold")] if "fold" in history else [history]
    for column, colour in columns.items():
        for index, run in enumerate(runs):
            label = column.replace("_", " ") if index == 0 else None
            epochs = np.arange(1, len(run) + 1)
            marker = "o" if len(run) < 40 else ""
            axes.plot(epochs, run[column], color=colour, marker=marker, markersize=3, label=label, alpha=0.9)
    if "phase" in history and (change := _find_phase_change(runs[0])):
        axes.axvline(change, color=FAINT, linestyle=":", linewidth=1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    style_legend(axes)


def _find_phase_change(run: "pd.DataFrame") -> float | None:
    """Return where, between two epochs, the second phase (the body unfrozen) begins."""
    later = np.flatnonzero((run["phase"] != run["phase"].iloc[0]).to_numpy())
    return float(later[0]) + 0.5 if len(later) else None


def plot_confusion(confusion: NDArray[np.int64]) -> Any:
    """Plot [[true none, false alarm], [missed mask, true mask]] with counts, and shares of each row."""
    figure = make_figure(4.4, 3.6)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    for row in range(2):
        for column in range(2):
            _draw_cell(axes, row, column, int(confusion[row, column]), float(shares[row, column]))
    axes.set(xlim=(0, 2), ylim=(2, 0), xticks=(0.5, 1.5), yticks=(0.5, 1.5))
    axes.set_xticklabels(["no mask", "mask"], color=FAINT)
    axes.set_yticklabels(["no mask", "mask"], color=FAINT, rotation=90, va="center")
    axes.set_xlabel("answered", color=FAINT)
    axes.set_ylabel("labelled", color=FAINT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")
    return figure


def _draw_cell(axes: Any, row: int, column: int, count: int, share: float) -> None:
    from matplotlib.patches import Rectangle

    colour = BLUE if row == column else ORANGE
    axes.add_patch(Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, color=colour, alpha=0.1 + 0.35 * share, lw=0))
    axes.text(column + 0.5, row + 0.45, f"{count}", ha="center", va="center", fontsize=19, color=INK)
    axes.text(column + 0.5, row + 0.7, f"{share:.1%} of the row", ha="center", va="center", fontsize=8.5, color=INK)


def plot_roc(roc: Mapping[str, Floats], *, auc: float | None, operating: tuple[float, float] | None = None) -> Any:
    """Plot the ROC curve; `operating` is the false alarm rate and recall at the threshold in use."""
    figure = make_figure(4.4, 3.8)
    axes = figure.add_subplot()
    style_axes(axes, x="false alarms, share of pictures without a mask", y="masks found, share")
    axes.plot((0, 1), (0, 1), color=GRID, linestyle="--")
    axes.plot(roc["false_positive_rate"], roc["true_positive_rate"], color=BLUE, linewidth=2, label=_name("AUC", auc))
    if operating is not None:
        axes.plot(*operating, "o", color=ORANGE, markersize=8, label="at the threshold")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    style_legend(axes)
    return figure


def plot_precision_recall(curve: Mapping[str, Floats], *, average_precision: float | None, share: float) -> Any:
    """Plot precision over recall; `share` of masks among the pictures is what guessing would reach."""
    figure = make_figure(4.4, 3.8)
    axes = figure.add_subplot()
    style_axes(axes, x="masks found, share (recall)", y="right where it says mask (precision)")
    axes.axhline(share, color=GRID, linestyle="--")
    label = _name("average precision", average_precision)
    axes.step(
        np.r_[0, curve["recall"]], np.r_[1, curve["precision"]], where="pre", color=BLUE, linewidth=2, label=label
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    style_legend(axes)
    return figure


def plot_reliability(bins: Mapping[str, Floats], *, ece: float | None) -> Any:
    """Plot the observed share of masks over the mean probability of each bin, with 95 % Wilson intervals and counts."""
    figure = make_figure(4.4, 4.4)
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4, 1)})
    style_axes(top, y="observed share of masks")
    style_axes(bottom, x="stated probability of a mask", y="pictures")
    full = bins["count"] > 0
    predicted, observed, count = bins["predicted"][full], bins["observed"][full], bins["count"][full]
    low, high = find_wilson(observed, count)
    top.plot((0, 1), (0, 1), color=GRID, linestyle="--")
    top.vlines(predicted, low, high, color=BLUE, alpha=0.45, linewidth=2)
    top.plot(predicted, observed, "o", color=BLUE, markersize=6, label=_name("calibration error", ece))
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    width = 1 / len(bins["count"])
    bottom.bar((np.arange(len(full)) + 0.5) * width, bins["count"], width=width * 0.9, color=BLUE, alpha=0.6)
    scale_counts(bottom, count)
    style_legend(top)
    return figure


def plot_probabilities(labels: NDArray[np.int64], probs: Floats, *, threshold: float) -> Any:
    """Plot how many pictures of each label got which probability, on a logarithmic count."""
    figure = make_figure(4.4, 4.0)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, label, colour, name in zip(panels, (1, 0), (BLUE, ORANGE), ("mask", "no mask"), strict=True):
        chosen = probs[labels == label]
        style_axes(axes, title=f"labelled {name}: {len(chosen)}", y="pictures")
        counts, _, _ = axes.hist(chosen, bins=np.linspace(0, 1, 26), color=colour, alpha=0.75, rwidth=0.9)
        axes.axvline(threshold, color=FAINT, linestyle="--", linewidth=1)
        scale_counts(axes, counts)
    panels[1].set_xlabel(f"stated probability of a mask (dashed: the threshold, {threshold:.3g})")
    return figure


def scale_counts(axes: Any, counts: Floats) -> None:
    """Put counts on a scale that is linear up to 1 and logarithmic above, with a tick a power of ten."""
    powers = int(np.log10(max(1.0, float(np.max(counts, initial=1))))) + 1
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks([0, *(10**power for power in range(powers))])
    axes.yaxis.set_major_formatter("{x:g}")


def plot_sources(by_source: Mapping[str, Metrics], *, name: str = "log_loss") -> Any:
    """Plot one metric of each source as a dot with its interval, the best at the top."""
    known = sorted(((metrics[name], source) for source, metrics in by_source.items() if metrics[name] is not None))
    figure = make_figure(6.4, 0.9 + 0.45 * max(1, len(known)))
    axes = figure.add_subplot()
    style_axes(axes, x=name.replace("_", " "))
    for row, (value, source) in enumerate(known):
        low, high = by_source[source].get(f"{name}_low"), by_source[source].get(f"{name}_high")
        if low is not None and high is not None:
            axes.hlines(row, low, high, color=BLUE, alpha=0.45, linewidth=3)
        axes.plot(value, row, "o", color=BLUE)
    axes.set(ylim=(len(known) - 0.5, -0.5), yticks=range(len(known)))
    axes.set_yticklabels([shorten(source) for _, source in known])
    axes.set_xlim(left=0)
    return figure


def shorten(name: str, *, most: int = 32) -> str:
    """Cut a name in the middle so that at most `most` characters stay."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def make_figure(width: float, height: float) -> Any:
    """Make an empty figure of so many inches that belongs to no window and no shared state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER, dpi=144)


def style_axes(axes: Any, *, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes the report's look: no box, a faint grid, titles at the left."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=FAINT, fontsize=9)
    axes.set_ylabel(y, color=FAINT, fontsize=9)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=0)
    axes.grid(color=GRID, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def style_legend(axes: Any) -> None:
    """Draw the legend as a line above the plot, where it covers nothing."""
    options = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "borderaxespad": 0.1, "handlelength": 1.5}
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, **options)


def render_png(figure: Any) -> bytes:
    """Render a figure as a PNG with a white background."""
    return _render(figure, "png", facecolor=PAPER)


def render_svg(figure: Any) -> bytes:
    """Render a figure as an SVG that follows the reader's light or dark mode, with text kept as text."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "maskfast", "font.family": ["DejaVu Sans"]}):
        svg = _render(figure, "svg", facecolor="none", metadata={"Date": None, "Creator": None}).decode()
    for name, (light, _) in THEME.items():
        svg = svg.replace(light, f"var(--{name})")
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', system-ui, sans-serif")
    end = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:end]}\n<style>{_write_theme()}</style>{svg[end:]}".encode()


THEME = {
    "ink": (INK, "#f0f6fc"),
    "faint": (FAINT, "#a5afba"),
    "grid": (GRID, "#3d444d"),
    "blue": (BLUE, "#5a9bff"),
    "orange": (ORANGE, "#f0964a"),
    "teal": (TEAL, "#3fc1b0"),
}
"""Each colour of the plots in light and in dark mode."""


def _write_theme() -> str:
    light, dark = ("".join(f"--{name}:{pair[side]};" for name, pair in THEME.items()) for side in (0, 1))
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _render(figure: Any, kind: str, **options: Any) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _name(title: str, value: float | None) -> str:
    return title if value is None else f"{title} {value:.4f}"
