"""Debian's Chromium without a window, driven over the DevTools protocol on a pair of pipes.

Pipes need neither a port nor a library for WebSockets, and end with the process.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "chromium"
_SECONDS = 60  # for one answer: two busy cores start a browser in twenty
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which Chromium insists on where root runs it
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class NoBrowserError(Exception):
    """There is no Chromium here; the text says why."""


def installed() -> str:
    """The path of Chromium, which is installed first if it is missing: 60 s with its packages.

    Raises NoBrowserError.
    """
    if (path := shutil.which(PACKAGE)) is not None:
        return path
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoBrowserError(f"installing it needs root and Debian: apt-get install {PACKAGE}")
    words = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
    words += ["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120", PACKAGE]
    if _said(words).returncode:
        _said(["apt-get", "update", "-q", "-o", "DPkg::Lock::Timeout=120"])
        done = _said(words)
        if done.returncode:
            raise NoBrowserError(f"apt-get install {PACKAGE} failed: {done.stdout[-2000:]}")
    path = shutil.which(PACKAGE)
    if path is None:
        raise NoBrowserError(f"{PACKAGE} was installed, and is not on PATH")
    return path


def _said(words: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


class Page:
    """One page of a running browser; `errors` is what its console has complained about."""

    def __init__(self, to: int, come: int) -> None:
        self._to, self._come = to, come
        self._rest = b""
        self._last = 0
        self._session = ""
        self._seen: set[str] = set()
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _SECONDS
        while (answer := self._next(until)).get("id") != self._last:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._come], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self._come, 1 << 20)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        self._note(str(found.get("method", "")), found.get("params", {}))
        return found

    def _note(self, event: str, said: dict[str, Any]) -> None:
        self._seen.add(event)
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(said["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.errors.append(f"{said['entry']['level']}: {said['entry']['text']}")
        elif event == "Runtime.consoleAPICalled":
            self.errors.append(f"{said['type']}: {said['args']}")
        elif event == "Network.requestWillBeSent":
            self.requests.append(str(said["request"]["url"]))

    def open(self, path: Path) -> None:
        """Go to a file and wait until it is loaded."""
        self._seen.discard("Page.loadEventFired")
        self.send("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + _SECONDS
        while "Page.loadEventFired" not in self._seen:
            self._next(until)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to, as JSON would have it."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def width(self, pixels: int, height: int = 900) -> None:
        """Be a screen of so many CSS pixels."""
        size = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key: str, code: int) -> None:
        """Type one key, such as `Tab` or `Enter`, on what has the focus."""
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", type=kind, **pressed, **more)

    def click(self, selector: str) -> None:
        """Click with the mouse in the middle of the first element that is found."""
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])


@contextlib.contextmanager
def page() -> Iterator[Page]:
    """A page of a browser of its own, which ends with it. Raises NoBrowserError."""
    program = installed()
    commands, to = os.pipe()
    come, answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The protocol is spoken on descriptors 3 and 4, which only a shell can put in place.
        shell = f'exec "$@" 3<&{commands} 4>&{answers}'
        words = [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        running = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Page(to, come)
        finally:
            os.close(to)  # at the end of its commands the browser leaves
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            os.close(come)
