"""Lets asv judge launches; run by peers.py with an interpreter that has it.

Reads a JSON list of pairs from the standard input, the values of head's launches and those of earlier ones, and writes
for each whether `asv compare` calls it worse, by the factor that is the argument.
"""

from __future__ import annotations

import json
import sys

from asv.commands.compare import _is_result_better
from asv_runner.statistics import compute_stats


def is_worse(head: list[float], earlier: list[float], factor: float) -> bool:
    """Whether the earlier result is better than head's by more than the factor, and differs as asv tests it."""
    (theirs, their_stats), (ours, our_stats) = compute_stats(earlier, 1), compute_stats(head, 1)
    return bool(_is_result_better(theirs, ours, (their_stats, earlier), (our_stats, head), factor))


if __name__ == "__main__":
    by = float(sys.argv[1])
    json.dump([is_worse(head, earlier, by) for head, earlier in json.load(sys.stdin)], sys.stdout)
