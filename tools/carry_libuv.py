"""Readies a tree for wheels that carry libuv; cibuildwheel calls it.

    python tools/carry_libuv.py --pinned LICENSE
    python tools/carry_libuv.py --source ADDRESS SHA256 LICENSE

LICENSE is the file of libuv's licences.  The wheels that are built afterwards
have it, and name those licences beside fastloop's own.  With --pinned the
libuv is the one that tools/build-libuv builds, with --source the one of that
archive, and the wheels have a bill of materials that says so (CycloneDX 1.6,
where PEP 770 wants it).
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


def pinned_source() -> tuple[str, str]:
    """The address and the hash of the archive that tools/build-libuv has."""
    version = pinned("version")
    folder = f"https://dist.libuv.org/dist/v{version}"
    return f"{folder}/libuv-v{version}.tar.gz", pinned("sha256")


def libuv(address: str, digest: str) -> dict:
    version = re.findall(r"\d+\.\d+\.\d+", address)[-1]
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


def bill(address: str, digest: str) -> dict:
    """The bill of materials; the same sources give the same."""
    own, library = fastloop(), libuv(address, digest)
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
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pinned", action="store_true")
    which.add_argument("--source", nargs=2, metavar=("ADDRESS", "SHA256"))
    parser.add_argument("license", type=Path, metavar="LICENSE")
    options = parser.parse_args()
    name_licences()
    shutil.copy(options.license, TOP / "LICENSE.libuv")
    source = pinned_source() if options.pinned else options.source
    text = json.dumps(bill(*source), indent=2)
    (TOP / "libuv.cdx.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
