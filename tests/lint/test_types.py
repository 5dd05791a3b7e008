"""What a type checker says of programs; of the package `make lint` asks."""

import sys


def test_an_unknown_name_of_the_package_is_an_error(tool, tmp_path):
    program = tmp_path / "program.py"
    lines = ["import fastloop", "fastloop.run", "fastloop.nope"]
    program.write_text("\n".join(lines), encoding="utf-8")
    done = tool([sys.executable, "-m", "mypy", str(program)])
    assert 'Module has no attribute "nope"' in done.stdout, done.stdout
    assert "Found 1 error" in done.stdout
