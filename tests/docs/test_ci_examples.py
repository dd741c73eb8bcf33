"""The pipelines that docs/ci.md offers for pasting pass the checks that our own pass."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = dict(
    re.findall(r"(?ms)^```yaml\n# (\S+\.yml)\n(.*?)^```$", (ROOT / "docs/ci.md").read_text(encoding="utf-8"))
)
WORKFLOWS = [path for path in EXAMPLES if path.startswith(".github/")]


def run_tool(tool: str, *arguments: str, cwd: Path) -> None:
    """Fails with the tool's own words unless it exits with 0."""
    command = shutil.which(tool)
    if command is None:
        pytest.skip(f"{tool} is not installed; the dependency group `lint` has it")
    done = subprocess.run([command, *arguments], cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def paste(tmp_path: Path) -> Path:
    """A folder into which every example was pasted under its own name."""
    for path, text in EXAMPLES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_page_offers_three_workflows_and_a_gitlab_pipeline() -> None:
    assert sorted(EXAMPLES) == [
        ".github/workflows/training-baselines.yml",
        ".github/workflows/training-gpu.yml",
        ".github/workflows/training.yml",
        ".gitlab-ci.yml",
    ]


def test_examples_pin_the_actions_that_our_own_workflows_pin() -> None:
    own = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml"))
    for path in WORKFLOWS:
        pins = re.findall(r"uses: (\S+@[0-9a-f]{40} # v\S+)", EXAMPLES[path])
        assert len(pins) == EXAMPLES[path].count("uses:")
        assert [pin for pin in pins if pin not in own] == []


def test_actionlint_passes_the_workflows(paste: Path) -> None:
    config = str(ROOT / ".github/actionlint.yaml")
    run_tool("actionlint", "-config-file", config, *WORKFLOWS, cwd=paste)


def test_zizmor_passes_the_workflows(paste: Path) -> None:
    run_tool("zizmor", "--offline", "--no-progress", "--persona=pedantic", *WORKFLOWS, cwd=paste)


def test_workflows_fit_their_schema(paste: Path) -> None:
    run_tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS, cwd=paste)


def test_gitlab_pipeline_fits_its_schema(paste: Path) -> None:
    schema = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    run_tool("check-jsonschema", *schema, ".gitlab-ci.yml", cwd=paste)
