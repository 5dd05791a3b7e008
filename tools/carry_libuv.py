"""The libuv that wheels carry, which libuv.cdx.json pins.

    python tools/carry_libuv.py PREFIX

This builds it into PREFIX.  cibuildwheel calls it once in each image, and
auditwheel (delocate on macOS) then bundles the library.  tools/wheels, which
links libuv in, uses the functions.

The wheels that are built afterwards in this tree have libuv's licences beside
fastloop's own, and libuv.cdx.json as their bill of materials, where PEP 770
wants it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
BILL = TOP / "tools" / "libuv.cdx.json"
DEBIAN = "http://deb.debian.org/debian"
MIRROR = os.environ.get("DEBIAN_MIRROR", DEBIAN)
OWN = "MIT OR Apache-2.0"
#: They have notices of their own; libuv's LICENSE-extra only names them.
NOTICES = ("include/uv/tree.h", "src/inet.c", "src/heap-inl.h", "src/idna.c")


def fetched(path: str, sha256: str = "") -> bytes:
    """Return a file of Debian's mirror, after checking its hash."""
    with urllib.request.urlopen(f"{MIRROR}/{path}", timeout=120) as answer:
        data: bytes = answer.read()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        sys.exit(f"{MIRROR}/{path} is not the pinned file")
    return data


def fetch_source(folder: Path) -> None:
    """Unpack libuv's source into a folder that is not there yet."""
    (libuv,) = json.loads(BILL.read_text("utf-8"))["components"]
    (pinned,) = libuv["externalReferences"]
    path = pinned["url"].removeprefix(f"{DEBIAN}/")
    data = fetched(path, pinned["hashes"][0]["content"])
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        file = Path(work, "libuv.tar.gz")
        file.write_bytes(data)
        shutil.unpack_archive(file, work)  # its hash is pinned
        (unpacked,) = Path(work).glob("libuv*/")
        unpacked.rename(folder)


def ready(tree: Path, source: Path) -> None:
    """Let the wheels of a tree have libuv's licences and the bill."""
    terms = [
        (source / name).read_text("utf-8")
        for name in ("LICENSE", "LICENSE-extra")
    ]
    for name in NOTICES:
        notice, end, _ = (source / name).read_text("utf-8").partition("*/\n")
        terms.append(f"{name}:\n\n{notice}{end}")
    (tree / "LICENSE.libuv").write_text("\n".join(terms), "utf-8")
    shutil.copy(BILL, tree)
    (libuv,) = json.loads(BILL.read_text("utf-8"))["components"]
    (licence,) = libuv["licenses"]
    old = f'license = "{OWN}"'
    new = f'license = "({OWN}) AND {licence["expression"]}"'
    project = tree / "pyproject.toml"
    text = project.read_text("utf-8").replace(old, new)
    if new not in text:
        sys.exit(f"{project} has no line {old}")
    project.write_text(text, "utf-8")


def main(prefix: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        source, built = Path(work, "source"), Path(work, "build")
        fetch_source(source)
        # On macOS the library is named by its path (elsewhere that says
        # nothing): delocate finds it by that.
        for command in (
            [
                *("cmake", "-S", source, "-B", built),
                "-DCMAKE_BUILD_TYPE=Release",
                "-DBUILD_TESTING=OFF",
                f"-DCMAKE_INSTALL_PREFIX={prefix}",
                "-DCMAKE_INSTALL_LIBDIR=lib",
                f"-DCMAKE_INSTALL_NAME_DIR={prefix}/lib",
            ],
            ["cmake", "--build", built, "-j", "4"],
            ["cmake", "--install", built],
        ):
            subprocess.run(command, check=True)
        ready(TOP, source)


if __name__ == "__main__":
    main(*sys.argv[1:])
