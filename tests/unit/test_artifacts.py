from __future__ import annotations

import gzip
import json
import zipfile
from typing import TYPE_CHECKING

import pytest

from harness.errors import UsageError
from harness.record.artifacts import find_artifacts, find_defect

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20 + b"\0\0\0\0IEND\xaeB`\x82"


def pack_safetensors(num_bytes: int = 8) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * num_bytes


def pack_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"some bytes of a checkpoint")
    return path.read_bytes()


def test_globs_cross_directories_and_find_files_only_in_order(tmp_path: Path) -> None:
    for name in ("b/2.pt", "a/1.pt", "3.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.pt").mkdir()
    assert [path.name for path in find_artifacts(tmp_path, "**/*.pt")] == ["3.pt", "1.pt", "2.pt"]
    assert find_artifacts(tmp_path, "*.pt") == [tmp_path / "3.pt"]


@pytest.mark.parametrize("pattern", ["", "/a", "../a", "a/../b"])
def test_a_pattern_outside_the_run_directory_is_misuse(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="not a glob inside the run directory"):
        find_artifacts(tmp_path, pattern)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"step,loss\n0,1\n"),
        ("a.json", b'{"a": 1}'),
        ("a.jsonl", '{"a": "\u2028"}\n\n{"a": 2}\n'.encode()),
        ("a.json.gz", gzip.compress(b"{}", mtime=0)),
        ("a.png", PNG),
        ("a.safetensors", pack_safetensors()),
        ("a.pt", b"\x80\x02the old format of torch.save"),
        ("a.bin", b""),
        ("a.txt", b"anything"),
    ],
)
def test_a_whole_file_has_no_defect(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert find_defect(path) is None


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"step,loss\n", "a header and no row"),
        ("a.csv", b"step,loss\n0,1\n1\n", "line 3 has 1 cells, the header has 2"),
        ("a.csv", b"a\n\xff\n", "utf-8"),
        ("a.json", b'{"a": ', "Expecting value"),
        ("a.jsonl", b'{"a": 1}\n{"a"\n', "line 2:"),
        ("a.json.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-6], "end-of-stream|ended before"),
        ("a.json.gz", gzip.compress(b"{}" * 99, mtime=0)[:15] + b"\xff" * 20, ""),
        ("a.png", PNG[:-12], "not a whole PNG"),
        ("a.PNG", b"\x89PNG", "not a whole PNG"),
        ("a.safetensors", pack_safetensors(4), "tensors end at byte 8 of 4"),
        ("a.safetensors", (2**60).to_bytes(8, "little"), "the file ends before"),
        ("a.safetensors", b"\x02\0\0\0\0\0\0\0[]", "list"),
        ("a.pt", b"not a checkpoint", "not a zip container"),
        ("a.npz", b"", "the file is empty"),
    ],
)
def test_a_broken_file_of_a_known_kind_is_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    defect = find_defect(path)
    assert defect
    assert any(part in defect for part in told.split("|"))


def test_a_checkpoint_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = bytearray(pack_zip(path))
    assert find_defect(path) is None
    content[content.index(b"checkpoint")] ^= 1
    path.write_bytes(content)
    assert find_defect(path) == "member data.pkl is damaged"


def test_a_checkpoint_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(pack_zip(path)[:-30])
    assert find_defect(path) == "not a zip container: truncated or another format"
