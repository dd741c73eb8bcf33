"""Draws a run against its baseline: loss, gradient norm and learning rate, with the first difference marked."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from harness.report.trajectory_document import DRAWN, summarize_trajectory

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

INSTALL = "pip install 'pytest-training-harness[plots]'"
SIZE_INCHES = (8.0, 7.2)
OBSERVED, BASELINE, MARK = "#c2410c", "#2563eb", "#6b7280"
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "harness",  # the same data gives the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
LOG_RANGE = 50.0
"""A curve whose largest value is so many times its smallest is drawn on a logarithmic scale."""
MANY_POINTS = 80


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  an optional library, and slow
    except ImportError:
        return False
    return bool(mpl)


def draw_trajectory(described: dict[str, Any], path: Path) -> None:
    """Draws a comparison, as `describe_trajectory` describes it, into an SVG or PNG file.

    The same data gives the same bytes. Values that are not finite leave a gap.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: The file can't be written.
    """
    import matplotlib as mpl  # noqa: PLC0415  an optional library, and slow
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    # A user's own style, or a warning that pytest makes an error, must not reach the picture.
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        parameters: Any = mpl.rcParams
        parameters.update(SETTINGS)
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        metrics = [name for name in DRAWN if any(described["curves"].get(name, {}).values())]
        rows: Any = figure.subplots(len(metrics) or 1, 1, sharex=True, squeeze=False)
        for metric, (axes,) in zip(metrics, rows, strict=False):
            _draw_curve(axes, metric, described)
        rows[-1][0].set_xlabel("step")
        rows[-1][0].xaxis.set_major_locator(MaxNLocator(integer=True))
        rows[0][0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2)
        figure.suptitle(_title(described), fontsize=10, x=0.01, horizontalalignment="left")
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata, dpi=110)


def _draw_curve(axes: Axes, metric: str, described: dict[str, Any]) -> None:
    curves = described["curves"][metric]
    baseline, observed = (_read(curves.get(name, [])) for name in ("baseline", "observed"))
    band = _read_band(described, metric)
    if band is not None:
        steps, low, high = band
        axes.fill_between(steps, low, high, color=BASELINE, alpha=0.15, linewidth=0, label="allowed")
    if baseline[0]:
        axes.plot(
            *baseline, color=BASELINE, linewidth=3.2, alpha=0.45, label="baseline", solid_capstyle="round"
        )
    marker = "." if len(observed[0]) <= MANY_POINTS else ""
    axes.plot(*observed, color=OBSERVED, linewidth=1.2, marker=marker, markersize=4, label="observed")
    values = [value for _, found in (baseline, observed) for value in found if value == value]  # noqa: PLR0124  no NaN
    if values and min(values) > 0 and max(values) > LOG_RANGE * min(values):
        axes.set_yscale("log")
    axes.set_ylabel(metric)
    divergence = described["divergence"]
    if divergence is not None:
        label = "first difference" if metric == DRAWN[0] else None
        axes.axvline(divergence["step"], color=MARK, linestyle=(0, (4, 3)), linewidth=1, label=label)


def _read(points: list[list[Any]]) -> tuple[list[int], list[float]]:
    """Steps and values; what is not finite, which the document holds as text, becomes a gap."""
    finite = [value if isinstance(value, (int, float)) else float("nan") for _, value in points]
    return [step for step, _ in points], finite


def _read_band(described: dict[str, Any], metric: str) -> tuple[list[int], list[float], list[float]] | None:
    """The steps of a tolerance band with its lower and upper edge; None where every bit is compared."""
    band = described.get("band", {}).get(metric)
    if not band:
        return None
    steps, low, high = zip(*band, strict=True)
    return list(steps), list(low), list(high)


def _title(described: dict[str, Any]) -> str:
    baseline = described["baseline"]
    accepted = f", baseline of {baseline['accepted_at'].partition('T')[0]}" if baseline else ""
    # A dollar sign would begin a formula.
    name = described["test"].replace("$", r"\$")
    return f"{name}\n{summarize_trajectory(described)}{accepted} ({described['numerics_class']})"
