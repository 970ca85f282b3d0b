"""The plan of the house is a test: imports go downwards only."""

import subprocess
import sys
from pathlib import Path


def test_imports_go_downwards_only():
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
