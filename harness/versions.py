"""Makes two programs of one command: as it runs at a base revision, and at a head revision or in the work tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.budgets.loaded_files import find_loaded_changes, find_shared_modules
from harness.errors import ObservationError, UsageError
from harness.watch.arms import Program
from harness.watch.child import THREAD_VARIABLES
from harness.worktrees import SHORT, Repository, checked_out, find_repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.watch.arms import ArmRecord
    from harness.watch.interleaving import PairRecord

BASE, HEAD = "base", "head"
ROOT_VARIABLE = "HARNESS_AB_ROOT"
"""Tells a --prepare command where the work tree is that the comparison was started in."""
OWN_PACKAGE = "harness"
MAX_LISTED = 3


@dataclass(slots=True)
class Revisions:
    """Two revisions, checked out, and their programs.

    Attributes:
        base: The base's program.
        head: The head's.
        base_name: The base in words.
        head_name: The head in words, with what is not committed.
        roots: Top folders of both trees.
        base_commit: The base's full commit.
        head_commit: The head's; None for the work tree.
        changed: Files that differ between them.
        notes: What a reader should know of them.
        loaded_changes: Which of the changed files a program was seen to load; filled by `check`.
    """

    base: Program
    head: Program
    base_name: str
    head_name: str
    roots: dict[str, Path]
    base_commit: str
    head_commit: str | None
    changed: set[str]
    notes: list[str]
    _repository: Repository
    loaded_changes: list[str] = field(default_factory=list)

    def check(self, record: PairRecord) -> None:
        """Refuses a pair in which both programs ran the same code although their revisions differ in it.

        Raises:
            ObservationError: They did.
        """
        loaded = {name: _leave_out_own(getattr(record, name)) for name in (BASE, HEAD)}
        roots = [*self.roots.values(), self._repository.root]
        shared = find_shared_modules(loaded[BASE], loaded[HEAD], roots=roots, changed=self.changed)
        if shared:
            told = "\n".join(
                f"  {module}: {file}, of {source}" for module, file, source in shared[:MAX_LISTED]
            )
            more = f"\n  and {len(shared) - MAX_LISTED} more" if len(shared) > MAX_LISTED else ""
            raise ObservationError(
                f"both programs ran the same code, so nothing was compared: base and head differ in these files, and "
                f"both loaded the same one:\n{told}{more}\n"
                "Next: name scripts by paths relative to this folder; a package that is installed as a copy, or lies "
                "neither at the top of the repository nor in src/, needs PYTHONPATH or --prepare 'pip install -e .' "
                "with an environment of its own."
            )
        found = {
            path
            for name in (BASE, HEAD)
            for path in find_loaded_changes(loaded[name], self.roots[name], self.changed)
        }
        self.loaded_changes = sorted(found)

    def tell_changes(self) -> list[str]:
        """In a line, that nothing which differs was loaded; none where something was."""
        if not self.changed:
            return ["base and head do not differ in any file: what is compared is the same program twice."]
        if not self.loaded_changes:
            return [
                (
                    f"of the {len(self.changed)} files in which base and head differ, neither program loaded one "
                    "as Python code: only data, settings or compiled code can make a difference."
                )
            ]
        return []


@contextlib.contextmanager
def prepared_revisions(
    words: Sequence[str],
    *,
    base: str,
    head: str | None = None,
    prepare: str | None = None,
    prepares_work_tree: bool = False,
    num_threads: int = 1,
) -> Iterator[Revisions]:
    """The command at two revisions, in work trees that are gone after the block.

    Args:
        words: The command, as it would be started in this folder.
        base: Revision of the base.
        head: Revision of the head; None is the work tree as it stands.
        prepare: Shell command run at the top of each checkout, to build what git does not hold.
        prepares_work_tree: Whether it also runs in the work tree, where that is the head.
        num_threads: Threads for libraries that read it from the environment, where that does not say.

    Raises:
        UsageError: This is no repository, or a revision does not exist.
        ObservationError: The command that prepares failed.
    """
    repository = find_repository(Path.cwd())
    commits = {BASE: repository.find_commit(base)}
    if head is not None:
        commits[HEAD] = repository.find_commit(head)
    changed = repository.find_changed_files(commits[BASE], commits.get(HEAD))
    with checked_out(repository, commits) as places:
        roots = {BASE: places[BASE], HEAD: places.get(HEAD, repository.root)}
        for name, root in roots.items():
            if prepare is not None and (name in places or prepares_work_tree):
                _prepare(prepare, name, root, repository.root)
        programs = {
            name: Program(
                name=name,
                words=_place_program(words, repository, root),
                cwd=_find_folder(root, repository, name),
                env=_build_environment(repository, root, num_threads),
            )
            for name, root in roots.items()
        }
        dirty = repository.find_dirty_files() if head is None else []
        yield Revisions(
            base=programs[BASE],
            head=programs[HEAD],
            base_name=f"{base} ({commits[BASE][:SHORT]})",
            head_name=_name_head(repository, head, commits.get(HEAD), dirty),
            roots=roots,
            base_commit=commits[BASE],
            head_commit=commits.get(HEAD),
            changed=changed,
            notes=_note_commits(repository, commits, base, head),
            _repository=repository,
        )


def _name_head(repository: Repository, head: str | None, commit: str | None, dirty: Sequence[str]) -> str:
    if commit is not None:
        return f"{head} ({commit[:SHORT]})"
    at = f"the work tree at {repository.find_commit('HEAD')[:SHORT]}"
    if not dirty:
        return at
    files = (
        "1 file that is not committed" if len(dirty) == 1 else f"{len(dirty)} files that are not committed"
    )
    return f"{at} with {files}"


def _note_commits(
    repository: Repository, commits: Mapping[str, str], base: str, head: str | None
) -> list[str]:
    missing = repository.count_commits(commits[BASE], commits.get(HEAD, "HEAD"))
    if not missing:
        return []
    ours = head or "HEAD"
    return [
        (
            f"base has {missing} commit{'s' if missing > 1 else ''} that head has not: a difference may be theirs. "
            f"For head's own: --base $(git merge-base {base} {ours})"
        )
    ]


def _prepare(command: str, name: str, root: Path, original: Path) -> None:
    env = {**os.environ, ROOT_VARIABLE: str(original)}
    done = subprocess.run(  # noqa: S602  a command line of the user's own, as in a CI file
        command, shell=True, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        output = done.stdout.decode(errors="replace").rstrip()
        raise ObservationError(
            f"--prepare {command!r} exited with code {done.returncode} in {name}.\n{output[-2000:]}\n"
            f"Next: run it by hand at the top of a fresh checkout of {name}; ${ROOT_VARIABLE} is {original}."
        )


def _place_program(words: Sequence[str], repository: Repository, root: Path) -> list[str]:
    """The command with its program where it is: `.venv/bin/python` is in no fresh checkout."""
    if not words:
        raise UsageError("no command to compare.\nNext: harness ab --base origin/main -- python train.py")
    program = words[0]
    if (
        os.sep in program
        and not Path(program).is_absolute()
        and not (root / repository.inner / program).exists()
    ):
        return [str(Path.cwd() / program), *words[1:]]
    return list(words)


def _find_folder(root: Path, repository: Repository, name: str) -> Path:
    folder = root / repository.inner
    if not folder.is_dir():
        raise UsageError(
            f"{name} has no folder {repository.inner}.\nNext: start it from a folder that both revisions have."
        )
    return folder


def _build_environment(repository: Repository, root: Path, num_threads: int) -> dict[str, str]:
    """This environment, with the tree's own packages before all others."""
    own = [root, *([root / "src"] if (root / "src").is_dir() else [])]
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    moved = [_move(Path(entry).absolute(), repository.root, root) for entry in given]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*own, *moved]))}
    for variable in THREAD_VARIABLES:
        env.setdefault(variable, str(num_threads))
    return env


def _move(path: Path, original: Path, root: Path) -> Path:
    """A path of the work tree as it is in another tree, where it is there; any other as it is."""
    moved = root / path.relative_to(original) if path.is_relative_to(original) else path
    return moved if moved.exists() else path


def _leave_out_own(record: ArmRecord) -> dict[str, str]:
    """The files a program loaded, without those of the watcher, which is the same for both on purpose."""
    return {
        module: file
        for module, file in record.loaded_files.items()
        if module.partition(".")[0] != OWN_PACKAGE and module != "sitecustomize"
    }
