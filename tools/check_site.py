"""Builds the documentation site strictly, and looks at what came out.

    python tools/check_site.py                 build, and check its links
    python tools/check_site.py --browser       and open each page in Chromium
    python tools/check_site.py --pictures DIR  and take pictures of the pages

A link within the site leads to a page and a place that exist, and nothing is
loaded from another host.  In the browser no page has an error on its console
or is wider than a telephone, and the search finds a name of the reference.
Without --browser the browser is used if it is there.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

TOP = Path(__file__).resolve().parent.parent
SITE = TOP / "build" / "site"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: What is searched, and the end of an address that has to be found.
SEARCH = ("start_tls", "reference.html#fastloop.Loop.start_tls")
#: Seconds that a page, or an answer of the browser, may take.
PATIENCE = 60
DESKTOP, TELEPHONE = (1280, 800), (390, 844)


def build() -> None:
    """Build the site; mkdocs says what is wrong with it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    # mkdocs-material advertises its successor at each build.
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=TOP, env=env, check=True)


# -- links --------------------------------------------------------------------


class Page(HTMLParser):
    """The places of a page, its links, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = {""}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        of = dict(attrs)
        self.places.update(of[n] for n in ("id", "name") if of.get(n))
        if tag == "a" and of.get("href"):
            self.links.append(of["href"])
        elif tag == "link" and of.get("rel") not in ("canonical", None):
            self.loads.append(of["href"])
        elif of.get("src"):
            self.loads.append(of["src"])


def broken_links(site: Path) -> list[str]:
    """What is wrong with the links of a built site, a sentence each."""
    pages = {p.relative_to(site): Page(p) for p in site.rglob("*.html")}
    wrong = []
    for name, page in pages.items():
        if name.name == "404.html":
            continue  # its links begin at the root of a host
        wrong += [
            f"{name} loads {target} from elsewhere"
            for target in page.loads
            if urlsplit(target).netloc
        ]
        for target in page.links + page.loads:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = urlsplit(urljoin(f"/{name}", parts.path)).path.lstrip("/")
            there = Path(unquote(path) or "index.html")
            if not (site / there).is_file():
                wrong.append(f"{name}: there is no {target}")
            elif there in pages and parts.fragment:
                if unquote(parts.fragment) not in pages[there].places:
                    wrong.append(f"{name}: no such place as {target}")
    return wrong


# -- the browser --------------------------------------------------------------


class Browser:
    """Chromium without a window, driven by its protocol over two pipes."""

    def __init__(self, program: str, profile: str) -> None:
        asked, self._out = os.pipe()
        self._in, answers = os.pipe()
        flags = "--headless --remote-debugging-pipe --disable-gpu".split()
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        redirect = f'exec "$@" 3<&{asked} 4>&{answers}'
        self._child = subprocess.Popen(
            ["sh", "-c", redirect, "sh", program, *flags]
            + [f"--user-data-dir={profile}", "--disable-dev-shm-usage"],
            pass_fds=(asked, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(asked)
        os.close(answers)
        self._answers = open(self._in, "rb", buffering=0)
        self._left = b""
        self._number = 0
        self._session: dict[str, str] = {}
        self.events: list[dict] = []
        made = self.call("Target.createTarget", url="about:blank")
        attached = self.call(
            "Target.attachToTarget", targetId=made["targetId"], flatten=True
        )
        self._session = {"sessionId": attached["sessionId"]}
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def close(self) -> None:
        """End it."""
        self._child.terminate()
        self._child.wait(PATIENCE)
        self._answers.close()
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict:
        """Ask for something; return the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        text = json.dumps(message | self._session).encode() + b"\0"
        os.write(self._out, text)
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict:
        while b"\0" not in self._left:
            data = self._answers.read(1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._left += data
        text, _, self._left = self._left.partition(b"\0")
        return json.loads(text)

    def show(self, address: str, size: tuple[int, int], scheme: str) -> None:
        """Open a page in a window of a size, in light or dark colours."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until("location.href != 'about:blank'")
        self.until("document.readyState == 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true in the page, and return it."""
        last = time.monotonic() + PATIENCE
        while time.monotonic() < last:
            if found := self.value(expression):
                return found
            time.sleep(0.05)
        raise RuntimeError(f"never true: {expression}")

    def complaints(self, base: str) -> list[str]:
        """What the page has complained of, or loaded from elsewhere."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled":
                if params["type"] in ("error", "warning", "assert"):
                    found.append(str(params["args"]))
            elif method == "Log.entryAdded":
                if params["entry"]["level"] in ("error", "warning"):
                    found.append(str(params["entry"]))
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith((base, "data:", "blob:", "about:")):
                    found.append(f"loads {url}")
        return found

    def picture(self, path: Path) -> None:
        """Take a picture of what is shown."""
        taken = self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(taken["data"]))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and does not tell of each."""

    def log_message(self, *args: Any) -> None: ...


#: Keeps the greatest width that the page had while it loaded.
WATCH = """window.widest = 0; (function look() {
    const page = document.documentElement;
    window.widest = Math.max(window.widest, page ? page.scrollWidth : 0);
    requestAnimationFrame(look);
})()"""
FOUND = """Array.from(document.querySelectorAll('.md-search-result__link'))
    .map(link => link.href.replace(/[?]h=[^#]*/, ''))
    .find(href => href.endsWith('%s'))"""


def look(site: Path, program: str, pictures: Path | None) -> list[str]:
    """What is wrong with the pages in a browser, a sentence each."""
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    pages = sorted(p.relative_to(site) for p in site.rglob("*.html"))
    pages = [page for page in pages if page.name != "404.html"]
    profile = tempfile.mkdtemp(prefix="fastloop-browser-")
    browser = Browser(program, profile)
    wrong = []
    try:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        for page in pages:
            for size in (DESKTOP, TELEPHONE):
                for scheme in ("light", "dark"):
                    browser.show(f"{base}{page}", size, scheme)
                    name = f"{page} at {size[0]} pixels, {scheme}"
                    wrong += [
                        f"{name}: {text}" for text in browser.complaints(base)
                    ]
                    if (more := browser.value("widest") - size[0]) > 0:
                        wrong.append(f"{name}: {more} pixels too wide")
                    if pictures:
                        file = f"{page.stem}-{size[0]}-{scheme}.png"
                        browser.picture(pictures / file)
        words, address = SEARCH
        for size in (TELEPHONE, DESKTOP):
            browser.show(f"{base}index.html?q={words}", size, "light")
            browser.until(FOUND % address)
            wrong += browser.complaints(base)
            if (more := browser.value("widest") - size[0]) > 0:
                wrong.append(f"the search is {more} pixels too wide")
        if pictures:
            browser.picture(pictures / "search.png")
    except RuntimeError as exc:
        wrong.append(str(exc))
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)
        server.shutdown()
    return wrong


def main() -> int:
    """Build, check, and say what is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None and (options.browser or options.pictures):
        parser.error(f"there is none of {', '.join(BROWSERS)}")
    build()
    wrong = broken_links(SITE)
    if program:
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
        wrong += look(SITE, program, options.pictures)
    for sentence in wrong:
        print(f"site: {sentence}", file=sys.stderr)
    if not wrong:
        seen = "links, and each page in Chromium" if program else "links"
        print(f"site: {SITE / 'index.html'} is built; {seen}: nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
