"""``docs/report.png``: the top of the demo's report, as a browser shows it.

``python -m tests.report_picture build/digits/report.html docs/report.png`` takes the picture.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from tests import browser as browsers

WIDTH, HEIGHT = 1000, 1100


def take(report: Path, picture: Path) -> None:
    """Open a report and keep a picture of its top."""
    with (
        tempfile.TemporaryDirectory() as profile,
        browsers.chromium(Path(profile), WIDTH, HEIGHT) as browser,
    ):
        browsers.dark(browser, False)
        browser.get(report.resolve().as_uri())
        area = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
        taken = browser.execute_cdp_cmd(
            "Page.captureScreenshot",
            {"format": "png", "clip": area, "captureBeyondViewport": True},
        )
    picture.write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    if browsers.missing():
        sys.exit(f"no picture: this machine lacks {browsers.missing()}")
    take(Path(sys.argv[1]), Path(sys.argv[2]))
