"""The training program that a benchmark is about: the reference model, or one of others.

A program of others is the words after `--`, as they follow `python` in `--folder`; `{out}` among them becomes a folder
of its own for each process. Records know it by `--of`, as a path means nothing to who reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.trial_records import ROOT, digest_value

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


@dataclass(frozen=True)
class Subject:
    """A program, and where it runs.

    Attributes:
        words: As they follow `python`.
        folder: Where it runs.
        of: What it is, such as owner/name@commit; None where the words say it.
    """

    words: Sequence[str]
    folder: Path = ROOT
    of: str | None = None

    def fill_in(self, out: str) -> list[str]:
        """The words, with a folder for what the program writes."""
        return [word.replace("{out}", out) for word in self.words]

    def tell(self) -> str:
        """A name that only these words of this program have."""
        return f"{self.of} {digest_value(self.words)}"


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A benchmark's own words, and those of the program behind `--`."""
    words = list(words)
    return (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the program is, and where it runs."""
    parser.add_argument("--of", metavar="NAME", help="what the program is, such as owner/name@commit")
    parser.add_argument("--folder", type=Path, default=ROOT, help="where the program runs")


def read_subject(
    parser: argparse.ArgumentParser, options: argparse.Namespace, words: Sequence[str]
) -> Subject:
    """The program that is asked for; ends this one with an error where records could not tell what it is."""
    if options.folder != ROOT and not options.of:
        parser.error(
            "--folder: a path means nothing in the records.\nNext: say what is there, --of owner/name@commit"
        )
    folder = options.folder if options.folder == ROOT else options.folder.resolve()
    return Subject(tuple(words), folder, options.of)
