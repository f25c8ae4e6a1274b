"""Fixtures of the report's tests: a browser and its pages, JavaScript without one, "Try it" on a server."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading

import pytest

from kp2d.report import tryit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
# Typed arrays become lists.
PLAIN = "(key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)"


@pytest.fixture(scope="module")
def browser():
    """Started for the tests of one module: while it runs, no other test could start an event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("neither Chromium nor Chrome is installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """A function (address, options of the context) -> page; any complaint of the browser fails the test."""
    complaints, contexts = [], []

    def open_page(address, **options):
        folder = address.rpartition("/")[0]
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        context.set_default_timeout(20000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("requestfailed", lambda request: _is_loaded(request, complaints))
        page.on("request", lambda request: _stays(request, folder, complaints))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _is_loaded(request, complaints):
    """What is still loading when its page is closed or left is given up: no fault of the page."""
    if request.failure != "net::ERR_ABORTED":
        complaints.append(f"not loaded ({request.failure}): {request.url}")


def _stays(request, folder, complaints):
    if not request.url.startswith((f"{folder}/", "blob:")):
        complaints.append(f"leaves its folder: {request.url}")


@pytest.fixture(scope="module")
def javascript(request):
    """A function (scripts, expression, values by name) -> its value: in Node.js, else in Chromium."""
    node = shutil.which("node")
    page = None if node else request.getfixturevalue("browser").new_page()

    def run(modules, expression, **values):
        program = "".join((tryit.ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in modules)
        names = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
        text = f"{program}\n{names}JSON.stringify({expression}, {PLAIN})"
        if page:
            return json.loads(page.evaluate(text))
        text = text.replace("JSON.stringify(", "process.stdout.write(JSON.stringify(", 1) + ")"
        done = subprocess.run([node, "-"], input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield run
    if page:
        page.close()


@pytest.fixture(scope="session")
def trial_site(tmp_path_factory):
    """The page "Try it" alone, below a path of a folder that is served; skips where there is no LiteRT.js."""
    from kp2d import checks
    from kp2d.report import site

    folder = tmp_path_factory.mktemp("trial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KP2D_HOME", str(folder / "home"))
        try:
            return site.build_trial(folder / "served" / "below" / "a path")
        except checks.InputError as error:
            pytest.skip(f"no LiteRT.js: {error}")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def trial_address(trial_site):
    """Where a plain server of static files has that page."""
    handler = functools.partial(_Quiet, directory=trial_site.folder.parents[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/below/a%20path/"
    server.shutdown()
    server.server_close()
