from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import UsageError
from harness.settings import OPTIONS, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class FakeConfig:
    """The two methods of `pytest.Config` that settings are read through."""

    def __init__(self, flags: Mapping[str, object], ini: Mapping[str, str]) -> None:
        self._flags = flags
        self._ini = ini

    def getoption(self, name: str) -> object:
        return self._flags.get(name.removeprefix("harness_"))

    def getini(self, name: str) -> str | None:
        return self._ini.get(name)


def read_settings(
    *, flags: Mapping[str, object] | None = None, ini: Mapping[str, str] | None = None
) -> Settings:
    config: Any = FakeConfig(flags or {}, ini or {})
    return Settings(config)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        if option.env:
            monkeypatch.delenv(option.env, raising=False)


def test_defaults_hold_when_nobody_sets_anything() -> None:
    settings = read_settings()
    assert {option.name: settings[option.name] for option in OPTIONS} == {
        option.name: option.default for option in OPTIONS
    }
    assert settings.source("threads") == "default"


def test_the_command_line_beats_the_environment_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    ini = {"harness_profile": "never"}
    assert read_settings(ini=ini)["profile"] == "never"
    monkeypatch.setenv("HARNESS_PROFILE", "auto")
    settings = read_settings(ini=ini)
    assert (settings["profile"], settings.source("profile")) == ("auto", "$HARNESS_PROFILE")
    settings = read_settings(flags={"profile": "always"}, ini=ini)
    assert (settings["profile"], settings.source("profile")) == ("always", "--harness-profile")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        if option.env:
            monkeypatch.setenv(option.env, "")
    settings = read_settings(ini={"harness_threads": "2"})
    assert (settings["threads"], settings["baselines"], settings["report"]) == (
        2,
        "baselines",
        "harness-report",
    )


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("Yes", True), ("true", True), ("0", False), ("no", False)]
)
def test_a_switch_is_read_from_words(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("HARNESS_REQUIRE_GPU", text)
    assert read_settings()["require_gpu"] is value


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("program", None)])
def test_threads_are_a_number_or_the_programs_own(text: str, value: int | None) -> None:
    assert read_settings(flags={"threads": text})["threads"] == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("threads", "0"),
        ("threads", "two"),
        ("threads", "²"),
        ("profile", "sometimes"),
        ("inconclusive", ""),
        ("baselines", ""),
        ("report", ""),
        ("runner_class", "../up"),
        ("runner_class", "a b"),
        ("runner_class", ".hidden"),
        ("runner_class", ""),
    ],
)
def test_a_value_an_option_can_not_use_is_misuse_with_its_source(name: str, text: str) -> None:
    flag = next(option.flag for option in OPTIONS if option.name == name)
    with pytest.raises(UsageError, match=rf"^{flag}='.*' must be .*\.\nNext:"):
        read_settings(flags={name: text})


def test_a_bad_value_of_a_file_or_the_environment_names_its_home(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="^ini harness_threads='x' must be a number"):
        read_settings(ini={"harness_threads": "x"})
    monkeypatch.setenv("HARNESS_REQUIRE_GPU", "maybe")
    with pytest.raises(UsageError, match=r"^\$HARNESS_REQUIRE_GPU='maybe' must be one of 1, true"):
        read_settings()


def test_names_flags_and_homes_of_options_are_unique() -> None:
    for attribute in ("name", "flag", "ini", "env"):
        values = [value for option in OPTIONS if (value := getattr(option, attribute))]
        assert len(set(values)) == len(values)
