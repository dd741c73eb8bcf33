"""Markers are documented, and a mistake on one is a collection error that says where and what instead."""

from __future__ import annotations

import pytest


def test_the_markers_and_their_arguments_are_listed(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.smoke_training(devices=None, seed=None, max_steps=None, *",
            "@pytest.mark.budget(wall_clock_s, *",
            "@pytest.mark.gpu(count=1, memory_gb=0, name=''): *",
            "@pytest.mark.profile_capture(wait=1, warmup=1, active=3, max_mb=50, keep=5): *",
        ],
        consecutive=False,
    )


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        (
            "smoke_training(device=['cpu'])",
            "*smoke_training on test_it.py::test_it: *no argument 'device' (did you mean 'devices'[?])*",
        ),
        ("smoke_training(seed='0')", "*seed='0' must be a whole number of at least 0*"),
        ("smoke_training(max_steps=0)", "*max_steps=0 must be a whole number of at least 1*"),
        ("smoke_training(devices='cpu')", '*devices=\'cpu\' must be a list of "cpu" and "cuda"*'),
        ("budget(wall_clock=50)", "*budget on test_it.py::test_it: wall_clock=50 is a tolerance of 5000%*"),
        ("budget()", "*budget() sets nothing*"),
        ("gpu(2)", "*@pytest.mark.gpu on test_it.py::test_it takes keyword arguments only, got (2,)*"),
        ("profile_capture(active=0)", "*active=0 must be a whole number of at least 1*"),
    ],
)
def test_a_mistake_on_a_marker_ends_the_collection_with_its_source(
    project: pytest.Pytester, marker: str, told: str
) -> None:
    project.makepyfile(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_it(): pass")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([told, "*Next: *"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_mistake_on_a_class_names_the_test_it_reaches(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="import pytest\n@pytest.mark.budget(wallclock_s=3)\nclass TestIt:\n    def test_it(self): pass"
    )
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["*budget on test_it.py::TestIt::test_it: *(did you mean 'wall_clock_s'[?])*"]
    )


def test_the_marker_nearest_to_the_test_wins_over_its_class(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.smoke_training(seed=1, loss="ce")
        class TestIt:
            @pytest.mark.smoke_training(seed=2)
            def test_it(self, request):
                from harness.fixtures import STATE
                training = request.node.stash[STATE].training
                assert (training.seed, training.loss) == (2, "ce")
        """
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "test",
    [
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.budget(wall=1))])\ndef test_it(x): pass",
        "class TestIt(unittest.TestCase):\n    @pytest.mark.budget(wall=1)\n    def test_it(self): pass",
    ],
    ids=["parameter", "unittest"],
)
def test_a_mistake_seen_after_collection_is_a_usage_error(project: pytest.Pytester, test: str) -> None:
    project.makepyfile(test_it=f"import pytest, unittest\n{test}")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: @pytest.mark.budget on test_it.py::*budget has no argument 'wall'*"])


def test_a_budget_and_a_capture_on_one_test_are_a_mistake(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.budget(wall_clock_s=3)
        class TestIt:
            @pytest.mark.profile_capture
            def test_it(self): pass
        """
    )
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*TestIt::test_it has both a budget and a profile_capture*"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--accept-baselines"], "*--accept-baselines needs a reason*"),
        (["--accept-baselines", "--reason", "  "], "*--accept-baselines needs a reason*"),
        (["--reason", "why"], "*--reason is the reason of --accept-baselines, which is not given*"),
        (["--harness-threads=0"], "*--harness-threads='0' must be a number of at least 1*"),
        (["--harness-profile=on"], "*--harness-profile='on' must be one of auto, always, never*"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_usage_error(
    project: pytest.Pytester, arguments: list[str], told: str
) -> None:
    result = project.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])


def test_braces_in_the_name_of_a_test_are_no_placeholders(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from trainings import train_timed

        @pytest.mark.smoke_training(seed=0)
        @pytest.mark.parametrize("name", ["{}", "{'a': 1}"])
        def test_it(smoke_training, name):
            smoke_training(train_timed)
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=2)
