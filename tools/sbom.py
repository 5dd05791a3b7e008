"""Prints the bill of materials of the wheels, as CycloneDX 1.6 in JSON.

    python tools/sbom.py >sbom.cdx.json

A wheel holds fastloop and one library, the libuv that tools/build-libuv pins
by its hash; an sdist holds fastloop alone.  The same sources give the same
bytes.
"""

import json
import re
import tomllib
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


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
        "name": "fastloop",
        "version": version,
        "description": project["project"]["description"],
        "licenses": [{"expression": project["project"]["license"]}],
        "purl": f"pkg:pypi/fastloop@{version}",
    }


def libuv() -> dict:
    version, digest = pinned("version"), pinned("sha256")
    address = f"https://dist.libuv.org/dist/v{version}/libuv-v{version}.tar.gz"
    return {
        "type": "library",
        "bom-ref": "libuv",
        "name": "libuv",
        "version": version,
        "licenses": [{"license": {"id": "MIT"}}],
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


if __name__ == "__main__":
    print(json.dumps(bill(), indent=2))
