"""The reference model's smoke training, as a program of the proof."""

from __future__ import annotations

import argparse
from pathlib import Path

from reference_model import build_config, train


def main() -> None:
    """Trains it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    arguments = parser.parse_args()
    train(build_config({"mode": "ci", "out": arguments.out, "run_id": "ci", "seed": arguments.seed}))


if __name__ == "__main__":
    main()
