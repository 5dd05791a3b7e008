"""Readies a tree for wheels that carry libuv; cibuildwheel calls it.

    python tools/carry_libuv.py LICENSE
    python tools/carry_libuv.py --pinned LICENSE

LICENSE is the file of libuv's licences.  The wheels that are built afterwards
have it, and name those licences beside fastloop's own.  With --pinned the
libuv is the one that tools/build-libuv builds, and the wheels have a bill of
materials that says so (CycloneDX 1.6, where PEP 770 wants it).  auditwheel
writes one itself where a package of the system has the library.
"""

import argparse
import json
import re
import shutil
import sys
import tomllib
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
OWN = "MIT OR Apache-2.0"
#: Its own, tree.h's, and that of inet.c and a few more files.
LIBUV = "MIT AND BSD-2-Clause AND ISC"


def pinned(name: str) -> str:
    """A variable of tools/build-libuv."""
    text = (TOP / "tools" / "build-libuv").read_text(encoding="utf-8")
    return re.search(rf"^{name}=(\S+)$", text, re.M)[1]


def fastloop() -> dict:
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))
    text = (TOP / "fastloop" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', text, re.M)[1]
    return {
        "type": "library",
        "bom-ref": "fastloop",
        "name": "asyncio-fastloop",
        "version": version,
        "description": project["project"]["description"],
        "licenses": [{"expression": OWN}],
        "purl": f"pkg:pypi/asyncio-fastloop@{version}",
    }


def libuv() -> dict:
    version, digest = pinned("version"), pinned("sha256")
    address = f"https://dist.libuv.org/dist/v{version}/libuv-v{version}.tar.gz"
    return {
        "type": "library",
        "bom-ref": "libuv",
        "name": "libuv",
        "version": version,
        "licenses": [{"expression": LIBUV}],
        "purl": f"pkg:github/libuv/libuv@v{version}",
        "externalReferences": [
            {
                "type": "distribution",
                "url": address,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        ],
    }


def bill() -> dict:
    """The bill of materials; the same sources give the same."""
    own, library = fastloop(), libuv()
    seed = f"{own['purl']} {library['purl']}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, seed).urn,
        "version": 1,
        "metadata": {"component": own},
        "components": [library],
        "dependencies": [
            {"ref": "fastloop", "dependsOn": ["libuv"]},
            {"ref": "libuv"},
        ],
    }


def name_licences() -> None:
    """Write libuv's licences into pyproject.toml, once."""
    path = TOP / "pyproject.toml"
    old, new = f'license = "{OWN}"', f'license = "({OWN}) AND {LIBUV}"'
    text = path.read_text("utf-8").replace(old, new)
    if new not in text:
        sys.exit(f"carry_libuv: {path} has no line {old}")
    path.write_text(text, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pinned", action="store_true")
    parser.add_argument("license", type=Path, metavar="LICENSE")
    options = parser.parse_args()
    name_licences()
    shutil.copy(options.license, TOP / "LICENSE.libuv")
    if options.pinned:
        text = json.dumps(bill(), indent=2)
        (TOP / "libuv.cdx.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
