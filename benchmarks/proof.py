"""Makes the proof of the budgets table by table, what is quick first, and prints them all.

    python -m benchmarks.proof                      # the whole
    python -m benchmarks.proof gate                 # the tables of one benchmark
    python -m benchmarks.proof ab --trials 300      # with arguments of its own
    python -m benchmarks.proof --plan               # only what it will take, of the whole or of what is named
    python -m benchmarks.proof --anew               # also what is kept

A run that was cut off is begun again by the same command. What a benchmark has computed is kept in
`harness-report/benchmarks`, and printed from there for as long as the code, the stored launches and the records that it
reads, the installed packages and the machine are the same. What it has timed is never kept. Comparisons of head and
base are kept one by one, and count for good.

Peers that want versions of packages which are not ours stand in an environment of their own: `--peers PYTHON` is its
interpreter (`nox -s benchmarks` makes one). Without it, they are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks import ab
from benchmarks.rejudging import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "harness-report" / "benchmarks"
PEER_OPTIONS = {"creep": "--otava", "peers": "--asv"}
"""The option by which a benchmark is told the interpreter of its peers."""
COMMON = ("harness", "pyproject.toml", "constraints/ci.txt")
"""What every table depends on, beside its benchmark's file and what it names."""
READ_SUFFIXES = (".py", ".json", ".jsonl")
"""What counts in a folder; Python leaves other files there, also while they are listed."""
FLAGS = ("--plan", "--anew")
"""Options that mean the same before and behind the name of a benchmark."""
LIST_PACKAGES = (
    "import sys; from importlib.metadata import distributions; "
    "print(sys.version, sorted((one.name, one.version) for one in distributions()))"
)


@dataclass(frozen=True)
class Table:
    """What one command prints: a table, or several.

    Attributes:
        benchmark: The module of this folder that makes it.
        words: Its arguments.
        takes: How long it takes on a machine of its own; empty where that depends on what is recorded.
        reads: Files and folders that decide what it says. Empty where it is timed, or that is unknown: it is not kept.
    """

    benchmark: str
    words: tuple[str, ...] = ()
    takes: str = ""
    reads: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether its output is."""
        return bool(self.reads)

    @property
    def title(self) -> str:
        """What a reader types to make it."""
        return " ".join((self.benchmark, *self.words))


def make_ab(num_equal: int, num_slower: int) -> list[Table]:
    """Comparisons of equal programs, and of such with one made slower, up to so many of each kind."""
    slower = ("--slower", "0.02", "0.03", "0.05", "0.1", "0.2")
    tolerances = ("--tolerance", *(f"{tolerance:g}" for tolerance in TOLERANCES))
    return [
        Table("ab", ("--trials", str(num_equal), *tolerances)),
        Table("ab", ("--trials", str(num_slower), *slower, *tolerances)),
    ]


BUDGETS = "baselines/budgets"
PEERS = Table(
    "peers",
    takes="1 min",
    reads=(
        *(BUDGETS, "benchmarks/records", "benchmarks/trial_records.py", "benchmarks/rejudging.py"),
        *("benchmarks/ab.py", "benchmarks/gate.py", "benchmarks/peers_asv.py"),
    ),
)
TABLES = [
    Table("gate", takes="1 min", reads=(BUDGETS,)),
    Table("occasions", takes="3 min", reads=("benchmarks/gate.py",)),
    Table(
        "later",
        takes="1 min",
        reads=("benchmarks/records", "benchmarks/gate.py", "benchmarks/trial_records.py"),
    ),
    PEERS,
    *make_ab(10, 2),
    Table("hooks", takes="1 min"),
    Table("overhead", ("--sizes", "5"), takes="15 min"),
    Table("overhead", ("--sizes", "1"), takes="7 min"),
    Table("overhead", ("--sizes", "20", "--rounds", "4"), takes="16 min"),
    *(
        Table("creep", ("--tables", table), takes="3 min", reads=(BUDGETS, "benchmarks/creep_otava.py"))
        for table in ("one-percent", "as-measured", "slow", "nights", "launches", "correlation")
    ),
    *make_ab(50, 10),
    *make_ab(300, 40),
    # Once more, over all comparisons.
    PEERS,
]


def find_key(table: Table, peers: str | None) -> str:
    """Tells apart what a table would say: by arguments, packages, machine, and the contents of all that it reads."""
    words = find_words(table.benchmark, table.words, peers)
    pythons = [sys.executable, *([peers] if peers and peers in words else [])]
    digest = hashlib.sha256(repr((words, platform.uname(), *map(list_packages, pythons))).encode())
    for name in (*COMMON, f"benchmarks/{table.benchmark}.py", *table.reads):
        for file in list_files(ROOT / name):
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def list_files(place: Path) -> list[Path]:
    """The file itself, or the code and the data of a folder."""
    if place.is_file():
        return [place]
    return sorted(file for file in place.rglob("*") if file.suffix in READ_SUFFIXES)


@cache
def list_packages(python: str) -> str:
    """An interpreter's version, and those of the packages that it has."""
    return subprocess.run([python, "-c", LIST_PACKAGES], capture_output=True, text=True, check=True).stdout


def find_words(benchmark: str, words: Sequence[str], peers: str | None) -> list[str]:
    """The arguments of a benchmark, with the interpreter of its peers where it takes one."""
    option = PEER_OPTIONS.get(benchmark)
    return [option, peers, *words] if option and peers else list(words)


def make_table(table: Table, peers: str | None, *, anew: bool = False) -> None:
    """Prints a table, from an earlier run where it would be the same and is not wanted anew.

    Raises:
        CalledProcessError: The benchmark failed; what it printed is not kept.
    """
    print(f"\n## {table.title}\n", flush=True)
    path = find_kept(table, peers)
    if table.is_kept and path.exists() and not anew:
        print(path.read_text(encoding="utf-8"), end="", flush=True)
        return
    told = run(table.benchmark, find_words(table.benchmark, table.words, peers))
    if table.is_kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(told, encoding="utf-8")


def run(benchmark: str, words: Sequence[str]) -> str:
    """Runs a benchmark, and returns what it printed. One that is interrupted is waited for: it has processes to end.

    Raises:
        CalledProcessError: It failed.
        KeyboardInterrupt: Ctrl-C, of which the terminal tells the benchmark too; or SIGTERM, which is handed on to it.
    """
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *words]
    told = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:

        def hand_on(*_: object) -> NoReturn:
            process.terminate()
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGTERM, hand_on)
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                told.append(line)
        except KeyboardInterrupt:
            process.communicate()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(told)


def find_kept(table: Table, peers: str | None) -> Path:
    """The file that holds a table."""
    return KEPT / f"{table.benchmark}-{find_key(table, peers)}.md"


def tell_plan(tables: Sequence[Table], peers: str | None, *, anew: bool = False) -> None:
    """Prints what each table will take."""
    print(
        "What this will take, in this order, on a machine where nothing else runs; ab goes on with what there is:\n"
    )
    ahead: list[tuple[float, float]] = []
    for table in tables:
        if table.benchmark == "ab":
            options = ab.parse_arguments(table.words)
            missing = ab.plan_missing(options, ahead)
            takes = ab.tell_missing(options, missing)
            ahead += [(slower, tolerance) for slower, tolerance, _ in missing]
        elif table.is_kept and find_kept(table, peers).exists() and not anew:
            takes = "nothing, it is kept"
        else:
            takes = table.takes or "not known"
        print(f"- {table.title}: {takes}")
    sys.stdout.flush()


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The arguments, with those of a benchmark as words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the peers")
    parser.add_argument("--plan", action="store_true", help="tell what it will take, and make nothing")
    parser.add_argument("--anew", action="store_true", help="make also what is kept")
    parser.add_argument(
        "benchmark",
        nargs="?",
        choices=list(dict.fromkeys(table.benchmark for table in TABLES)),
        help="all by default",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help="arguments of the benchmark")
    # What follows a -- is a program's.
    end = words.index("--") if "--" in words else len(words)
    ahead = [word for word in words[:end] if word in FLAGS]
    others = [word for word in words[:end] if word not in FLAGS]
    options = parser.parse_args([*ahead, *others])
    if words[end:] and not options.benchmark:
        parser.error("what follows -- is of a benchmark: name it before, as in ab -- train.py")
    options.words += words[end:]
    return options


def list_tables(benchmark: str | None, words: Sequence[str]) -> list[Table]:
    """The whole; or the tables of one benchmark, each once; or what it prints by arguments of its own."""
    if benchmark and words:
        return [Table(benchmark, tuple(words))]
    return (
        list(dict.fromkeys(table for table in TABLES if table.benchmark == benchmark))
        if benchmark
        else TABLES
    )


def main() -> None:
    """Makes the whole, or the tables of one benchmark."""
    options = parse_arguments(sys.argv[1:])
    tables = list_tables(options.benchmark, options.words)
    try:
        if options.plan or not options.words:
            tell_plan(tables, options.peers, anew=options.anew)
        for table in [] if options.plan else tables:
            make_table(table, options.peers, anew=options.anew)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd[2:])} failed.\nNext: correct it; the same command goes on there.")
    except KeyboardInterrupt:
        sys.exit("stopped.\nNext: the same command goes on from here.")


if __name__ == "__main__":
    main()
