"""Every way to run this project's checks; CI files and people call these sessions, and nothing else."""

from __future__ import annotations

from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = "constraints/ci.txt"
MINIMUMS = "constraints/minimums.txt"
REPORT = "harness-report"
DEFAULT_LAUNCHES = 20
# Fixtures of a file are made once, so a file stays in one process.
PARTS = {
    "tests": ("-n", "2", "--dist", "loadfile", "-m", "not serial"),
    "tests-serial": ("-m", "serial"),
}
# Steps of the small training without evaluations between them, in a folder of each process's own.
REFERENCE_STEPS = (
    *("python", "-m", "reference_model", "--device", "cpu", "--batch_size", "16", "--max_steps", "2000"),
    *("--eval_every", "100000", "--checkpoint_every", "100000", "--out", "{out}"),
)
PEERS = ("apache-otava==0.8.0", "asv==0.6.6")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole test suite in two processes, and then alone what judges time.

    With arguments after --, which go to pytest, it is one call in one process.
    """
    install(session, "--group", "test", "--group", "lint")
    run_suite(session)


@nox.session
def frameworks(session: nox.Session) -> None:
    """Watch trainings of Lightning, Hugging Face's Trainer and Accelerate; arguments after -- go to pytest."""
    install(session, "--group", "test", "--group", "frameworks")
    session.run(
        "pytest",
        "tests/integration/watch/test_frameworks.py",
        f"--junitxml={REPORT}/junit-frameworks.xml",
        *session.posargs,
        env={"HARNESS_TEST_FRAMEWORKS": "required"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, CI workflows and the GitLab file; arguments after -- go to ruff check."""
    session.install("-c", CONSTRAINTS, "--group", "lint")
    workflows = [str(path) for path in sorted(Path(".github/workflows").glob("*.yml"))]
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", "--check", ".")
    session.run("actionlint", "-config-file", ".github/actionlint.yaml", *workflows)
    session.run("zizmor", "--offline", "--no-progress", "--persona=pedantic", ".github")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")
    session.run(
        "check-jsonschema",
        *("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", ".gitlab-ci.yml"),
    )


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types with mypy --strict; arguments after -- go to mypy."""
    install(session, "--group", "test", "--group", "typecheck", "nox")
    session.run("mypy", *session.posargs, "harness", "reference_model", "tests", "benchmarks", "noxfile.py")


@nox.session
def ci_cpu(session: nox.Session) -> None:
    """Train the reference model on the CPU, check it and compare it with its baselines."""
    install(session, "--group", "test")
    smoke(session, "-m", "smoke_training and not gpu")


@nox.session
def ci_gpu(session: nox.Session) -> None:
    """Train the reference model on a GPU and capture a trace; a machine without a GPU fails."""
    install(session, "--group", "test")
    smoke(session, "-m", "gpu", "--harness-require-gpu")


@nox.session
def refresh_baselines(session: nox.Session) -> None:
    """Measure the smoke trainings in fresh processes and store the baselines of this machine's classes.

    A trajectory is stored by the first launch where it moved, and stays as it is otherwise.

    Arguments after --: the number of launches (20 by default), then the reason.
    """
    launches = session.posargs[:1]
    if launches and not launches[0].isdigit():
        session.error(f"{launches[0]!r} is no number of launches: nox -s refresh_baselines -- 20 'reason'")
    reason = " ".join(session.posargs[1:]) or "scheduled refresh"
    install(session, "--group", "test")
    marks = ("-m", "smoke_training and budget and not gpu")
    for _ in range(int(launches[0]) if launches else DEFAULT_LAUNCHES):
        smoke(session, *marks, "--accept-baselines", "--reason", reason, "--harness-track")


@nox.session
def trend(session: nox.Session) -> None:
    """Judge the history that refresh_baselines records every night; arguments after -- go to harness trend.

    A young history passes: it is judged from its 31st night on.
    """
    install(session)
    session.run("harness", "trend", "--allow-too-few", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Prove the budgets: how often they are wrong, what they find beside their peers, and what watching costs.

    It tells what it will take, and goes on where it was cut off. Arguments after -- choose a benchmark, and what it is
    to do: `gate`, `ab --trials 300`. The peers have an environment of their own: they want older versions of numpy and
    scipy than ours.
    """
    install(session)
    folder = session.cache_dir.resolve() / "peers"
    peers = folder / "bin" / "python"
    if not peers.exists():
        session.run("python", "-m", "venv", str(folder))
    session.run(str(peers), "-m", "pip", "install", "--quiet", *PEERS, external=True)
    session.run("python", "-m", "benchmarks.proof", "--peers", str(peers), *session.posargs)


@nox.session
def ab(session: nox.Session) -> None:
    """Compare the step time of the reference model with that of a base revision, in turns on one core.

    Arguments after -- go to harness ab: --base origin/main by default; after a further -- another program.
    """
    install(session)
    words = list(session.posargs)
    own, program = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    if "--base" not in own:
        own = ["--base", "origin/main", *own]
    session.run("harness", "ab", *own, "--", *(program or REFERENCE_STEPS))


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated parts of the docs; with -- --check only tell whether they are up to date."""
    install(session)
    session.run("python", "docs/generate.py", *session.posargs)


@nox.session
def detection(session: nox.Session) -> None:
    """Put faults into little programs, count what the rules and other checks find, and write docs/detection.md.

    Arguments after -- take the place of `all`: `judge --verbose --faults T4`, say.
    """
    install(session, "accelerate", "lightning", "pytest-torch==1.1.1", "transformers")
    session.run("python", "-m", "benchmarks.detection.run", *(session.posargs or ["all"]))


@nox.session
def divergence(session: nox.Session) -> None:
    """Change little programs, count how often a baseline's comparison names the right phase first, and tell it in docs.

    Arguments after -- take the place of `all`: `judge --verbose --changes gallery`, say.
    """
    install(session, "accelerate", "lightning", "transformers")
    session.run("python", "-m", "benchmarks.divergence.run", *(session.posargs or ["all"]))


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest allowed version of every direct dependency."""
    session.install("-c", MINIMUMS, "-e", ".[frames,mlflow,plots,reference]", "--group", "test")
    run_suite(session, "--ignore=tests/docs")


def install(session: nox.Session, *extra: str) -> None:
    """Installs the project as it stands, with its extras, at the versions CI pins."""
    session.install("-c", CONSTRAINTS, "-e", ".[frames,mlflow,plots,reference]", *extra)


def run_suite(session: nox.Session, *arguments: str) -> None:
    """Runs the test suite in two parts, the second also where the first fails; fails where either does."""
    if session.posargs:
        session.run("pytest", f"--junitxml={REPORT}/junit-tests.xml", *arguments, *session.posargs)
        return
    failed = []
    for part, options in PARTS.items():
        try:
            session.run("pytest", *options, f"--junitxml={REPORT}/junit-{part}.xml", *arguments)
        except CommandFailed:
            failed.append(part)
    if failed:
        session.error(f"failed: {', '.join(failed)}")


def smoke(session: nox.Session, *arguments: str) -> None:
    """Runs the smoke trainings with a report, a JUnit file and the slowest tests named."""
    session.run(
        "pytest",
        "tests/training",
        *arguments,
        f"--junitxml={REPORT}/junit.xml",
        f"--harness-report={REPORT}",
        "--durations=3",
        *(session.posargs if "--accept-baselines" not in arguments else ()),
    )
