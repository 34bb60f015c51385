"""The page of a report in a real Chromium: it draws, says nothing on the console, runs nothing, and axe finds no fault.

`make browser` installs Debian's Chromium where it can; without one these tests are left out, with one they may not be.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from semtel_batch.page import page_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
PATIENCE_S = 100
LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: make browser, as root, or install one"),
    pytest.mark.xdist_group("browser"),
]

# Runs in a copy of the page without its policy, which would rightly forbid it; what axe finds is left in the document.
_PROBE = """
<script>{axe}</script>
<script>
for (const one of document.querySelectorAll("details")) one.open = true;
axe.run(document, {{resultTypes: ["violations"]}}).then(found => {{
  const said = found.violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html.slice(0, 160))]);
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  const box = document.querySelector("svg").getBoundingClientRect();
  const told = document.createElement("pre");
  told.id = "found";
  told.textContent = JSON.stringify({{violations: said, passes: found.passes.length, wide: wide, svg: box.width}});
  document.body.append(told);
}});
</script>
</body>"""


def _page_cases() -> ModuleType:
    """The stories of the page's unit tests: an ordinary one, and one with an attack wherever text can stand."""
    folder = Path(__file__).resolve().parents[1] / "unit"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    spec = importlib.util.spec_from_file_location("page_cases", folder / "test_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, cases = tmp_path_factory.mktemp("pages"), _page_cases()
    found, made = cases.reported(folder / "project")
    written = {}
    for name, report in (("ordinary", found), ("hostile", cases.hostile(found))):
        written[name] = folder / f"{name}.html"
        written[name].write_text(page_of(cases.story(report, made)), encoding="utf-8")
    written["compared"] = folder / "compared.html"
    written["compared"].write_text(cases.compared(), encoding="utf-8")
    return written


def chromium(page: Path, *how: str) -> tuple[str, list[str]]:
    """Open a page; returns what it dumped and what stood on the console."""
    assert CHROMIUM is not None
    profile = page.parent / "profile"
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", *how, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed(page: Path, *how: str) -> dict[str, Any]:
    """What axe finds in a page, all its details open."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    axe = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    copy = page.with_name(f"probe-{page.name}")
    copy.write_text(text.replace("</body>", _PROBE.format(axe=axe.replace("</script", "<\\/script"))), encoding="utf-8")
    dumped, console = chromium(copy, "--dump-dom", "--virtual-time-budget=20000", *how)
    assert console == []
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found is not None, "axe did not come to an end"
    told: dict[str, Any] = json.loads(unescape(found[1]))
    return told


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_axe_finds_no_fault(pages: dict[str, Path], scheme: str) -> None:
    found = probed(pages["ordinary"], scheme, "--window-size=1100,900")
    assert found["violations"] == []
    assert found["svg"] > 500


def test_axe_finds_no_fault_with_two_runs_side_by_side(pages: dict[str, Path]) -> None:
    assert probed(pages["compared"], DARK, "--window-size=1100,900")["violations"] == []


def test_a_page_fits_a_telephone(pages: dict[str, Path]) -> None:
    found = probed(pages["hostile"], LIGHT, "--window-size=500,900")  # narrower than that Chromium's window can't be
    assert found["violations"] == []
    assert found["wide"] <= 0


def test_a_hostile_page_runs_nothing_and_is_drawn(pages: dict[str, Path]) -> None:
    picture = pages["hostile"].with_suffix(".png")
    _, console = chromium(pages["hostile"], f"--screenshot={picture}", "--window-size=1100,3000")
    assert console == [], "the policy had to stop something, or something is broken"
    assert picture.stat().st_size > 50_000


def test_what_these_tests_look_for_would_be_found(pages: dict[str, Path]) -> None:
    bad = pages["ordinary"].with_name("bad.html")
    text = pages["ordinary"].read_text(encoding="utf-8")
    bad.write_text(text.replace("<footer>", '<footer><img src="x"><script>alert(1)</script>'), encoding="utf-8")
    _, console = chromium(bad, "--dump-dom")
    assert any("Content Security Policy" in line for line in console)
    bad.write_text(text.replace("<footer>", '<footer style="color: #ddd"><img src="data:,">'), encoding="utf-8")
    assert {violation[0] for violation in probed(bad, LIGHT)["violations"]} >= {"image-alt", "color-contrast"}
