"""What a type checker says of programs; of the package `make lint` asks."""

import re
import sys

from .conftest import TOP


def test_an_unknown_name_of_the_package_is_an_error(tool, tmp_path):
    program = tmp_path / "program.py"
    lines = ["import fastloop", "fastloop.run", "fastloop.nope"]
    program.write_text("\n".join(lines), encoding="utf-8")
    done = tool([sys.executable, "-m", "mypy", str(program)])
    assert 'Module has no attribute "nope"' in done.stdout, done.stdout
    assert "Found 1 error" in done.stdout


def test_the_programs_that_look_inside_are_right_under_strict(tool, tmp_path):
    """As the page has them, but for the types of their functions."""
    page = (TOP / "docs" / "seeing-inside.md").read_text(encoding="utf-8")
    files = []
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        if "import prometheus" in block:  # which few have
            continue
        block = block.replace("():", "() -> None:")
        block = block.replace("(slow):", "(slow: SlowCallback) -> None:")
        files.append(tmp_path / f"program_{len(files)}.py")
        files[-1].write_text(
            f"from fastloop.metrics import SlowCallback\n{block}", "utf-8"
        )
    assert len(files) == 3
    done = tool([sys.executable, "-m", "mypy", "--strict", *map(str, files)])
    assert done.returncode == 0, done.stdout
