"""Judged histories in words, and as JSON data."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.budgets.metrics import METRICS, Metric
from harness.budgets.onset import CONFIDENCE, Onset
from harness.budgets.trend import TrendVerdict
from harness.report.curve import draw_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.pools import Anchor
    from harness.budgets.trend import Trend

RECENT_NIGHTS = 5
MAX_COMMITS = 12
HEADER = ("test", "nights", "metric", "anchor", "last night", "change", "verdict")


@dataclass(frozen=True, slots=True)
class JudgedHistory:
    """One judged history with what belongs to its telling.

    Attributes:
        test: Node id.
        metric: Name of the measurement.
        runner_class: Class of the machine; its history is its own.
        trend: What it came to.
        commits: One line for each commit the change may have come with, newest first; None where git has no answer.
        former: Other class on which the test was measured before this one, and its last night; None without one.
        release: The pinned release of its pool; None without one.
    """

    test: str
    metric: str
    runner_class: str
    trend: Trend
    commits: list[str] | None = field(default=None)
    former: tuple[str, str] | None = None
    release: Anchor | None = None


def find_metric(name: str) -> Metric:
    """The metric of a name; one we do not know is a custom one, and higher is worse unless it is a rate."""
    known = next((metric for metric in METRICS if metric.name == name), None)
    return known or Metric(name, "", "", is_lower_better=not name.endswith("_per_s"))


def find_suspects(trend: Trend) -> tuple[str, str] | None:
    """The commits `a..b` between which a change began: after a, up to b; None where nights have no commits."""
    if trend.onset is None or trend.onset.earliest == 0:
        return None
    before, last = trend.nights[trend.onset.earliest - 1].commit, trend.nights[trend.onset.latest].commit
    return (before, last) if before and last and before != last else None


def build_trend_rows(histories: Sequence[JudgedHistory]) -> list[tuple[str, ...]]:
    """One row a history, under `HEADER`."""
    rows: list[tuple[str, ...]] = []
    for history in histories:
        trend, metric = history.trend, find_metric(history.metric)
        last = metric.show(trend.nights[-1].value) if trend.nights else ""
        has_level = math.isfinite(trend.level)
        change = f"{math.expm1(_measure_recent(trend)):+.1%}" if has_level else ""
        level = metric.show(trend.level) if has_level else ""
        nights = str(len(trend.nights))
        rows.append((history.test, nights, history.metric, level, last, change, str(trend.verdict)))
    return rows


def tell_history(history: JudgedHistory) -> list[str]:
    """A history's verdict in words, with a curve where something changed."""
    trend, metric = history.trend, find_metric(history.metric)
    lines = [f"{history.test} {history.metric} on {history.runner_class}: {_tell_verdict(history, metric)}"]
    if trend.onset is not None:
        is_time = metric.name.endswith("_s")
        points = [
            (number, night.value * (1e3 if is_time else 1)) for number, night in enumerate(trend.nights)
        ]
        curve = draw_curve(points, axis="night")
        lines += ["  in ms:"] if is_time else []
        lines += [f"  {line}" for line in curve.splitlines()]
    lines += [f"  {line}" for line in _tell_commits(history)]
    if history.former is not None:
        other, night = history.former
        lines.append(
            f"  The machine changed: until {night} it was {other}. Clocks of two classes are not compared, so this "
            "history starts anew."
        )
    if history.release is not None:
        lines += _tell_release(history, history.release)
    if trend.is_anchor_rising:
        lines.append(
            "  The nights of the anchor itself get worse one after another, which hides what follows. Next: find "
            "that change, then harness trend pin NAME --reason WHY."
        )
    if trend.first_alarm is not None and not trend.is_failing:
        lines.append(
            f"  It was worse for a while, seen on {trend.nights[trend.first_alarm].name}; that is over."
        )
    return lines


def describe_history(history: JudgedHistory) -> dict[str, Any]:
    """A history as JSON data; numbers that are not known are null."""
    trend, onset = history.trend, history.trend.onset
    return {
        "test": history.test,
        "metric": history.metric,
        "runner_class": history.runner_class,
        "verdict": str(trend.verdict),
        "message": "\n".join(tell_history(history)),
        "num_missing": trend.num_missing,
        "anchor": {
            "first": trend.anchor[0],
            "end": trend.anchor[1],
            "level": trend.level if math.isfinite(trend.level) else None,
            "noise": trend.noise if math.isfinite(trend.noise) else None,
        },
        "threshold": trend.threshold if math.isfinite(trend.threshold) else None,
        "cusum": list(trend.cusum),
        "onset": None if onset is None else _describe_onset(trend, onset, history),
        "nights": [
            {
                "date": night.date,
                "commit": night.commit,
                "value": night.value,
                "num_launches": night.num_launches,
            }
            for night in trend.nights
        ],
    }


def _describe_onset(trend: Trend, onset: Onset, history: JudgedHistory) -> dict[str, Any]:
    low, high = _find_interval(history, onset)
    return {
        "shape": str(onset.shape),
        "night": onset.index,
        "earliest": onset.earliest,
        "latest": onset.latest,
        "change": _find_change(history, onset),
        "low": low,
        "high": high,
        "suspects": find_suspects(trend),
        "commits": history.commits,
    }


def _tell_verdict(history: JudgedHistory, metric: Metric) -> str:
    trend, onset = history.trend, history.trend.onset
    if trend.verdict is TrendVerdict.TOO_FEW:
        start, end = trend.anchor
        return (
            f"too few nights: {len(trend.nights)}, of which {end - start} are the anchor's; {trend.num_missing} more "
            f"{'is' if trend.num_missing == 1 else 'are'} needed for a first verdict."
        )
    judged = len(trend.nights) - trend.anchor[1]
    anchor = _tell_anchor(trend, metric)
    if onset is None:
        return f"steady: {judged} nights around {anchor} (last CUSUM {trend.cusum[-1]:.1f} of {trend.threshold:.1f})."
    low, high = _find_interval(history, onset)
    size = f"{_find_change(history, onset):+.1%} by now ({CONFIDENCE:.0%}: {low:+.1%} to {high:+.1%})"
    began = trend.nights[onset.index].name
    if onset.earliest != onset.latest:
        first, last = trend.nights[onset.earliest], trend.nights[onset.latest]
        began += f" (it may be any night from {first.name} to {last.name})"
    rate = math.expm1(onset.per_night * (1 if metric.is_lower_better else -1))
    match trend.verdict:
        case TrendVerdict.CREEPING:
            return f"creeping since {began}: {rate:+.1%} a night, {size}, against {anchor}."
        case TrendVerdict.STEPPED:
            return f"stepped on {began}: {size}, against {anchor}."
        case _:
            return (
                f"improved since {began}: {size}, against {anchor}. Next: to hold the gain, accept new baselines and "
                "pin them: harness trend pin NAME --reason WHY."
            )


def _tell_anchor(trend: Trend, metric: Metric) -> str:
    first, last = trend.nights[trend.anchor[0]], trend.nights[trend.anchor[1] - 1]
    return (
        f"{metric.show(trend.level)} of the anchor ({trend.anchor[1] - trend.anchor[0]} nights from {first.date} to "
        f"{last.date}, which differ by {trend.noise:.1%})"
    )


def _tell_commits(history: JudgedHistory) -> list[str]:
    if not history.trend.is_failing:
        return []
    suspects = find_suspects(history.trend)
    if suspects is None:
        told = "No commit to look at: the nights before and after it measured the same one, or have none."
        return [f"{told} A machine that was changed or is busy looks like this."]
    span = f"{suspects[0][:10]}..{suspects[1][:10]}"
    if history.commits is None:
        return [
            f"Commits {span}, which this clone does not have. Next: git fetch --unshallow, git log {span}"
        ]
    lines = [f"{len(history.commits)} commits it may have come with, {span}:"]
    lines += [f"  {line}" for line in history.commits[:MAX_COMMITS]]
    if len(history.commits) > MAX_COMMITS:
        lines.append(f"  and {len(history.commits) - MAX_COMMITS} more")
    lines.append(
        "Next: look at these, or have base and head measured in one run on one core: harness ab. If it is "
        "intended, accept new baselines and pin them: harness trend pin NAME --reason WHY."
    )
    return lines


def _tell_release(history: JudgedHistory, release: Anchor) -> list[str]:
    """The drift since the pinned release: shown, not judged, as its launches may all be of one night."""
    values, metric = release.values(history.metric), find_metric(history.metric)
    recent = [night.log for night in history.trend.nights[-RECENT_NIGHTS:]]
    if not recent or not values or min(values) <= 0:
        return []
    level = statistics.fmean(math.log(value) for value in values)
    drift = math.expm1(statistics.fmean(recent) - level)
    name = f"{release.name} ({len(values)} launches around {metric.show(math.exp(level))})"
    return [f"  Since {name}: {drift:+.1%} on average of the last {len(recent)} nights."]


def _measure_recent(trend: Trend) -> float:
    recent = trend.nights[trend.anchor[1] :][-RECENT_NIGHTS:]
    return statistics.fmean(night.log for night in recent) - math.log(trend.level)


def _find_change(history: JudgedHistory, onset: Onset) -> float:
    return math.expm1(onset.change * _sign(history))


def _find_interval(history: JudgedHistory, onset: Onset) -> tuple[float, float]:
    middle = onset.change * _sign(history)
    return math.expm1(middle - onset.half_width), math.expm1(middle + onset.half_width)


def _sign(history: JudgedHistory) -> int:
    # An onset counts worse as positive; people read the change of the measurement itself.
    return 1 if find_metric(history.metric).is_lower_better else -1
