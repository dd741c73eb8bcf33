"""Makes the proof of the budgets piece by piece, what is quick first, and prints every table of it.

    python -m benchmarks.proof                      # the whole
    python -m benchmarks.proof gate                 # one part of it
    python -m benchmarks.proof ab --trials 300      # a part with arguments of its own
    python -m benchmarks.proof --plan               # only what it will take

A run that was cut off is begun again by the same command. What a piece has printed is kept in
`harness-report/benchmarks`, and printed from there for as long as the code, the stored launches and the records that it
reads are the same. Comparisons of head and base are kept one by one, and count for good.

Peers that want versions of packages which are not ours stand in an environment of their own: `--peers PYTHON` is its
interpreter (`nox -s benchmarks` makes one). Without it, they are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import ab

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "harness-report" / "benchmarks"
PEER_OPTIONS = {"creep": "--otava", "peers": "--asv"}
"""The option by which a part is told the interpreter of its peers."""
COMMON = ("harness", "pyproject.toml")
"""What every piece depends on, beside its own file and what it names."""


@dataclass(frozen=True)
class Piece:
    """What one command makes.

    Attributes:
        part: The benchmark, a module of this folder.
        words: Its arguments.
        takes: How long it takes on a machine of its own; empty where that depends on what is recorded.
        reads: Files and folders that decide what it prints.
    """

    part: str
    words: tuple[str, ...] = ()
    takes: str = ""
    reads: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether its output is; comparisons of head and base have records of their own instead."""
        return self.part != "ab"

    @property
    def title(self) -> str:
        """What a reader types to make it."""
        return " ".join((self.part, *self.words))


def make_ab(num_equal: int, num_slower: int) -> list[Piece]:
    """Comparisons of equal programs, and of such with one made slower, up to so many of each kind."""
    slower = ("--slower", "0.02", "0.03", "0.05", "0.1", "0.2", "--tolerance", "0", "0.02")
    return [
        Piece("ab", ("--trials", str(num_equal))),
        Piece("ab", ("--trials", str(num_slower), *slower)),
    ]


BUDGETS = "baselines/budgets"
PEERS = Piece(
    "peers",
    takes="1 min",
    reads=(BUDGETS, "benchmarks/records", "benchmarks/gate.py", "benchmarks/peers_asv.py"),
)
PIECES = [
    Piece("gate", takes="1 min", reads=(BUDGETS,)),
    PEERS,
    *make_ab(10, 2),
    Piece("overhead", ("--sizes", "5"), takes="5 min"),
    Piece("overhead", ("--sizes", "1"), takes="3 min"),
    Piece("overhead", ("--sizes", "20"), takes="16 min"),
    *(
        Piece("creep", ("--tables", table), takes="3 min", reads=(BUDGETS, "benchmarks/creep_otava.py"))
        for table in ("one-percent", "as-measured", "slow", "nights", "launches", "correlation")
    ),
    *make_ab(50, 10),
    *make_ab(300, 40),
    # Once more, over all comparisons.
    PEERS,
]


def find_key(piece: Piece, words: Sequence[str]) -> str:
    """Tells apart what a piece would print: its arguments, and the contents of all that it reads."""
    digest = hashlib.sha256(repr((sys.version, *words)).encode())
    for name in (*COMMON, f"benchmarks/{piece.part}.py", *piece.reads):
        place = ROOT / name
        files = [place] if place.is_file() else place.rglob("*")
        for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def find_words(part: str, words: Sequence[str], peers: str | None) -> list[str]:
    """The arguments of a part, with the interpreter of its peers where it takes one."""
    option = PEER_OPTIONS.get(part)
    return [option, peers, *words] if option and peers else list(words)


def make_piece(piece: Piece, peers: str | None) -> None:
    """Prints what a piece has to say, from an earlier run where it would be the same.

    Raises:
        CalledProcessError: The piece failed; what it printed is not kept.
    """
    print(f"\n## {piece.title}\n", flush=True)
    path = find_kept(piece, peers)
    if piece.is_kept and path.exists():
        print(path.read_text(encoding="utf-8"), end="", flush=True)
        return
    told = run(piece.part, find_words(piece.part, piece.words, peers))
    if piece.is_kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(told, encoding="utf-8")


def run(part: str, words: Sequence[str]) -> str:
    """Runs a benchmark, and returns what it printed.

    Raises:
        CalledProcessError: It failed.
    """
    command = [sys.executable, "-m", f"benchmarks.{part}", *words]
    told = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                told.append(line)
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(told)


def find_kept(piece: Piece, peers: str | None) -> Path:
    """The file that holds what a piece has printed."""
    return KEPT / f"{piece.part}-{find_key(piece, find_words(piece.part, piece.words, peers))}.md"


def tell_plan(pieces: Sequence[Piece], peers: str | None) -> None:
    """Prints what each piece will take."""
    print(
        "What this will take, in this order, on a machine where nothing else runs; ab goes on with what there is:\n"
    )
    for piece in pieces:
        if piece.is_kept:
            takes = "nothing, it is kept" if find_kept(piece, peers).exists() else piece.takes
        else:
            takes = ab.tell_missing(ab.parse_arguments(piece.words))
        print(f"- {piece.title}: {takes}")
    sys.stdout.flush()


def main() -> None:
    """Makes the whole, or a part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the peers")
    parser.add_argument("--plan", action="store_true", help="tell what it will take, and make nothing")
    parser.add_argument(
        "part", nargs="?", choices=list(dict.fromkeys(piece.part for piece in PIECES)), help="all by default"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help="arguments of the part")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.words:
            run(options.part, find_words(options.part, options.words, options.peers))
            return
        pieces = [piece for piece in PIECES if options.part in (None, piece.part)]
        pieces = list(dict.fromkeys(pieces)) if options.part else pieces
        tell_plan(pieces, options.peers)
        for piece in [] if options.plan else pieces:
            make_piece(piece, options.peers)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd[2:])} failed.\nNext: correct it; the same command goes on there.")
    except KeyboardInterrupt:
        sys.exit("stopped.\nNext: the same command goes on from here.")


if __name__ == "__main__":
    main()
