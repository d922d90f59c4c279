"""The files of a bundle, held against the digests in its manifest."""

import hashlib
import json
import os
import sys

MANIFEST = "manifest.json"


def digest_of(path):
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def load_manifest(bundle):
    """The manifest of the folder ``bundle``, after a look at every file that it lists."""
    with open(os.path.join(bundle, MANIFEST), encoding="utf-8") as file:
        manifest = json.load(file)
    changed = [
        name
        for name, expected in manifest["files"].items()
        if not os.path.isfile(os.path.join(bundle, name))
        or digest_of(os.path.join(bundle, name)) != expected
    ]
    if changed:
        sys.exit(f"the bundle is damaged; missing or changed: {', '.join(changed)}")
    return manifest
