"""A real browser for tests (Debian's chromium, driven by Playwright), an MLflow server to look at, pages offline."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 120
"""To wait for a server or a page: 10 s on two idle cores, many times that where others work on them."""

TRACES = """() => [...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot._fullData).map(plot => ({
    title: plot._fullLayout.title?.text ?? '',
    axes: [plot._fullLayout.xaxis?.title?.text, plot._fullLayout.yaxis?.title?.text],
    drawn: plot.querySelectorAll('.scatterlayer .point').length,
    traces: plot._fullData.map(trace => ({
        type: trace.type,
        name: trace.name ?? '',
        colors: [trace.marker?.color ?? []].flat(),
        x: Array.from(trace.x ?? []), y: Array.from(trace.y ?? []), z: Array.from(trace.z ?? []),
    })),
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium without a window. Skips where it is not installed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium; install it with `make chromium` (as root, on Debian)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def mlflow_server(uri: str, folder: Path) -> Iterator[str]:
    """A server on a free port of this machine, in a process group that ends with the block. Yields ``host:port``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    where = ["--backend-store-uri", uri, "--host", "127.0.0.1", "--port", host.partition(":")[2], "--workers", "1"]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where],
            cwd=folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://{host}/health", process, log)
        yield host
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no answer from {url} in {SECONDS} s: {log.read_text()}")


def plots(
    page: "Page", ready: Callable[[list[dict[str, Any]]], bool], seconds: float = SECONDS
) -> list[dict[str, Any]]:
    """The page's plotly charts once they satisfy ``ready``: title, axes, traces with their points, points drawn."""
    deadline = time.monotonic() + seconds
    while True:
        found: list[dict[str, Any]] = page.evaluate(TRACES)
        if ready(found):
            return found
        assert time.monotonic() < deadline, f"the charts did not come in {seconds} s; there are {found}"
        page.wait_for_timeout(200)


def offline_plots(browser: "Browser", file: Path, charts: int = 1, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """The plotly charts of an HTML file opened without a network, once there are ``charts`` of them."""
    context = browser.new_context(offline=True)
    try:
        page = context.new_page()
        page.route("**/*", lambda route: route.continue_() if route.request.url == file.as_uri() else route.abort())
        page.goto(file.as_uri())
        return plots(page, lambda found: len(found) >= charts, seconds)
    finally:
        context.close()
