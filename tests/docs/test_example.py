"""The example project's price lists are those of the tutorial, and its own tests pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of
from tests.docs.project import ROOT

EXAMPLE = ROOT / "example_project"
TUTORIAL = ROOT / "docs" / "tutorial" / "pipeline.md"


def test_the_tutorial_shows_the_example_projects_code() -> None:
    shown = [block for block in blocks_of(TUTORIAL) if block.file is not None and block.file.parts[0] == "suppliers"]
    assert len(shown) == 4
    for block in shown:
        assert block.file is not None
        code = block.text.partition("\n")[2] if block.text.startswith("# suppliers/") else block.text
        assert code.strip() == (EXAMPLE / block.file).read_text().strip()


@pytest.mark.parametrize("what", ["suppliers", "shop/tests/test_page.py", "shop/tests/test_tasks.py"])
def test_the_example_projects_own_tests_pass(tmp_path: Path, what: str) -> None:
    command = [sys.executable, "-m", "pytest", what, "-q", "-p", "no:cacheprovider", "--ds=corner_shop.settings"]
    environ = {**os.environ, "CORNER_SHOP_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=EXAMPLE, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
