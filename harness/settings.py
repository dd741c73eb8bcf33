"""Every option, declared once: flag, ini key, environment variable, help and default."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("some text")
    return text


class Option(NamedTuple):
    """One option of the plugin.

    Attributes:
        name: Its name in code.
        flag: Command-line flag.
        help: What it does, in one sentence.
        default: Value when nobody sets it.
        parse: Makes a value of text; raises `ValueError` with what is wanted.
        ini: Key in pytest's configuration; None when a file must not set it.
        env: Environment variable; None when the environment must not set it.
        is_switch: Whether the flag takes no value.
        metavar: What the flag's value is called in help.
    """

    name: str
    flag: str
    help: str
    default: Any
    parse: Callable[[str], Any] = _parse_text
    ini: str | None = None
    env: str | None = None
    is_switch: bool = False
    metavar: str | None = None


class Value(NamedTuple):
    """The value of an option and where it came from: `--flag`, `$VARIABLE`, `ini key` or `default`."""

    value: Any
    source: str


def _parse_choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse


def _parse_switch(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError("one of 1, true, yes, 0, false, no")
    return known[text.lower()]


def _parse_folder_name(text: str) -> str:
    if not text[:1].isalnum() or not all(letter.isalnum() or letter in "._-" for letter in text):
        raise ValueError("a folder name of letters, digits, dots, dashes and underscores")
    return text


def _parse_threads(text: str) -> int | None:
    if text == "program":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a number of at least 1, or `program` to leave the program's own setting alone")
    return int(text)


OPTIONS = (
    Option(
        name="baselines",
        flag="--harness-baselines",
        help="Folder of the stored baselines, relative to the project's root.",
        default="baselines",
        ini="harness_baselines",
        env="HARNESS_BASELINES",
        metavar="DIR",
    ),
    Option(
        name="accept",
        flag="--accept-baselines",
        help="Store what this session measures as baselines, instead of judging by them; needs --reason.",
        default=False,
        parse=_parse_switch,
        is_switch=True,
    ),
    Option(
        name="reason",
        flag="--reason",
        help="Why baselines are accepted; kept with them.",
        default="",
        parse=str,
        metavar="TEXT",
    ),
    Option(
        name="accept_with_findings",
        flag="--accept-with-findings",
        help="Accept the trajectory of a run also where the rules find errors in it; refused otherwise.",
        default=False,
        parse=_parse_switch,
        is_switch=True,
    ),
    Option(
        name="require_baseline",
        flag="--harness-require-baseline",
        help="Fail when a time, memory or trajectory has a baseline, but none that it can be compared with here.",
        default=False,
        parse=_parse_switch,
        ini="harness_require_baseline",
        env="HARNESS_REQUIRE_BASELINE",
        is_switch=True,
    ),
    Option(
        name="inconclusive",
        flag="--harness-inconclusive",
        help="What an inconclusive budget does: `warn` shows it, `fail` fails the test.",
        default="warn",
        parse=_parse_choice("warn", "fail"),
        ini="harness_inconclusive",
        env="HARNESS_INCONCLUSIVE",
        metavar="warn|fail",
    ),
    Option(
        name="runner_class",
        flag="--harness-runner-class",
        help="Name of the class of machines whose clocks may be compared; derived from the hardware and the "
        "versions of torch, CUDA and Python when not given.",
        default="",
        parse=_parse_folder_name,
        ini="harness_runner_class",
        env="HARNESS_RUNNER_CLASS",
        metavar="NAME",
    ),
    Option(
        name="require_gpu",
        flag="--harness-require-gpu",
        help="Fail tests marked `gpu` where the GPU is missing, instead of skipping them.",
        default=False,
        parse=_parse_switch,
        ini="harness_require_gpu",
        env="HARNESS_REQUIRE_GPU",
        is_switch=True,
    ),
    Option(
        name="watch",
        flag="--harness-watch",
        help="How closely programs are watched: `light` (loss, learning rate, times), `norms` (and the gradient norm "
        "of every step), `deep` (and everything on a few sampled steps), or `off`.",
        default="deep",
        parse=_parse_choice("light", "norms", "deep", "off"),
        ini="harness_watch",
        env="HARNESS_WATCH_DEPTH",
        metavar="light|norms|deep|off",
    ),
    Option(
        name="profile",
        flag="--harness-profile",
        help="When `profile_capture` captures: `auto` on GPU runners, `always`, or `never`.",
        default="auto",
        parse=_parse_choice("auto", "always", "never"),
        ini="harness_profile",
        env="HARNESS_PROFILE",
        metavar="auto|always|never",
    ),
    Option(
        name="report",
        flag="--harness-report",
        help="Folder for the session's report, relative to the project's root; written when a training ran.",
        default="harness-report",
        ini="harness_report",
        env="HARNESS_REPORT",
        metavar="DIR",
    ),
    Option(
        name="threads",
        flag="--harness-threads",
        help="Threads torch may use in a smoke training; `program` leaves the program's own setting alone. "
        "Times are steady on one thread only.",
        default=1,
        parse=_parse_threads,
        ini="harness_threads",
        env="HARNESS_THREADS",
        metavar="N|program",
    ),
    Option(
        name="track",
        flag="--harness-track",
        help="Add what this session measures to the history in MLflow tracking, which `harness trend` judges; "
        "needs the extra `mlflow`.",
        default=False,
        parse=_parse_switch,
        ini="harness_track",
        env="HARNESS_TRACK",
        is_switch=True,
    ),
    Option(
        name="tracking_uri",
        flag="--harness-tracking-uri",
        help="MLflow tracking store of the history: a server, or a database; `sqlite:///mlflow.db` in the project's "
        "root when not given.",
        default="",
        ini="harness_tracking_uri",
        env="MLFLOW_TRACKING_URI",
        metavar="URI",
    ),
)


class Settings:
    """The options of a pytest session: command line over environment over ini file over default."""

    def __init__(self, config: pytest.Config) -> None:
        self._values = {option.name: _resolve(option, config) for option in OPTIONS}

    def __getitem__(self, name: str) -> Any:
        return self._values[name].value

    def source(self, name: str) -> str:
        """Where an option's value came from."""
        return self._values[name].source


def add_options(parser: pytest.Parser) -> None:
    """Declares every option to pytest, as a flag and as an ini key."""
    group = parser.getgroup("harness", "training harness")
    for option in OPTIONS:
        homes = {"ini": option.ini, "env": option.env}
        origin = ", ".join(f"{kind}: {name}" for kind, name in homes.items() if name)
        text = f"{option.help} Default: {option.default or 'none'}{f' ({origin})' if origin else ''}."
        text = text.replace("%", "%%")
        if option.is_switch:
            group.addoption(option.flag, dest=_dest(option), action="store_true", default=None, help=text)
        else:
            group.addoption(option.flag, dest=_dest(option), default=None, metavar=option.metavar, help=text)
        if option.ini:
            parser.addini(option.ini, option.help, default=None)


def _resolve(option: Option, config: pytest.Config) -> Value:
    flag = config.getoption(_dest(option))
    if flag is not None:
        return Value(flag if option.is_switch else _parse(option, flag, option.flag), option.flag)
    # CI systems set a variable without a value to nothing: that is as good as not set.
    if option.env and (text := os.environ.get(option.env)):
        return Value(_parse(option, text, f"${option.env}"), f"${option.env}")
    if option.ini and (text := str(config.getini(option.ini) or "")):
        return Value(_parse(option, text, f"ini {option.ini}"), f"ini {option.ini}")
    return Value(option.default, "default")


def _parse(option: Option, text: str, source: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as error:
        raise UsageError(f"{source}={text!r} must be {error}.\nNext: correct it, or leave it out.") from error


def _dest(option: Option) -> str:
    return f"harness_{option.name}"
