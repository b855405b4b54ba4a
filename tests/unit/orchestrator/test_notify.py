"""Messages: sent once, in nobody's way, and the address is kept."""

import json
import logging
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator import notify
from orchestrator.store import Store
from sweeps import config
from sweeps.errors import GrowpointError
from sweeps.notify import Notify

PLAN = {"sweep": "small", "stages": {"a": {}, "b": {}}}


class Hook:
    """A server that keeps what it is told, answers with a code, or never does."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.code, self.hang = 200, threading.Event()
        self.hang.set()
        hook = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                hook.told.append(json.loads(self.rfile.read(size)))
                hook.hang.wait(30)
                self.send_response(hook.code)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> "Hook":
        return self

    def __exit__(self, *_: object) -> None:
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as hook:
        yield hook


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "plans" / "small").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    return Store(tmp_path).open()


def test_a_sweep_is_done_once_and_only_when_it_is(hook: Hook, store: Store) -> None:
    notify.ask(store, "small", Notify(url=hook.url))
    store.finish("a", {})
    notify.done(store, PLAN)
    assert hook.told == []
    store.finish("b", {})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: notify.done(store, PLAN), range(8)))
    [said] = hook.told
    assert said["text"] == "growpoint small: all 2 stages are done"
    assert (said["sweep"], said["event"]) == ("small", "done")


def test_many_failures_are_few_messages_until_the_next_launch(
    hook: Hook, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify.time, "time", lambda: 600_001.0)
    notify.ask(store, "small", Notify(url=hook.url))
    for number in range(50):
        notify.failed(store, "small", f"train-{number}", "out of memory\nmore")
    assert [said["text"] for said in hook.told] == [
        "growpoint small: train-0 failed: out of memory"
    ]
    monkeypatch.setattr(notify.time, "time", lambda: 601_000.0)
    notify.failed(store, "small", "train-0", "told already")
    notify.failed(store, "small", "train-50", "again")
    assert hook.told[1]["failed"] == 51
    notify.ask(store, "small", Notify())
    notify.failed(store, "small", "train-0", "once more")
    assert hook.told[2]["stage"] == "train-0"


def test_a_server_that_hangs_holds_nobody_up_and_the_address_is_not_logged(
    hook: Hook, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(notify, "SECONDS", 0.3)
    hook.hang.clear()
    notify.ask(store, "small", Notify(url=hook.url))
    began = time.monotonic()
    notify.stuck(store, "small", "nothing is left")
    assert time.monotonic() - began < 15  # the server would hang for 30
    for broken in ("http://127.0.0.1:1/secret", "http://[secret", "http://a b/secret"):
        notify.ask(store, "small", Notify(url=broken))
        notify.stuck(store, "small", "nothing is left")
    assert "not sent" in caplog.text
    assert "secret" not in caplog.text


def test_a_refusal_is_logged(hook: Hook, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    hook.code = 404
    notify.ask(store, "small", Notify(url=hook.url))
    notify.stuck(store, "small", "nothing is left")
    assert "refused: HTTP 404" in caplog.text


def test_the_address_is_for_its_owner_and_in_no_record(hook: Hook, store: Store) -> None:
    notify.ask(store, "small", Notify(url=hook.url))
    path = store.plan_folder("small") / "notify.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    request = config.load("demo", [f"notify.url={hook.url}"])
    assert request.notify.url == hook.url
    assert "notify" not in request.config
    assert not any("notify" in sweep.model_dump() for sweep, _ in request.sweeps)


def test_the_environment_may_hold_the_address_and_no_event_may_be_wanted(
    hook: Hook, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(notify.VARIABLE, hook.url)
    notify.ask(store, "small", Notify())
    assert not (store.plan_folder("small") / "notify.json").exists()
    notify.stuck(store, "small", "first")
    notify.ask(store, "small", Notify(events=()))
    notify.stuck(store, "small", "second")
    assert [said["text"] for said in hook.told] == ["growpoint small: first"]


def test_mail_goes_by_the_program_that_is_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_mailer", lambda: None)
    with pytest.raises(GrowpointError, match="neither `sendmail` nor `mail`"):
        notify.ask(store, "small", Notify(mail="me@example.org"))
    program = tmp_path / "sendmail"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/sent\n")
    program.chmod(0o700)
    monkeypatch.setattr(notify, "_mailer", lambda: [str(program), "-t"])
    notify.ask(store, "small", Notify(mail="me@example.org"))
    notify.stuck(store, "small", "nothing is left")
    sent = (tmp_path / "sent").read_text()
    assert "To: me@example.org" in sent
    assert "Subject: growpoint small: nothing is left" in sent


@pytest.mark.parametrize(
    "asked", [Notify(url="file:///etc/passwd"), Notify(mail="-oQ/tmp@x"), Notify(mail="a b@c")]
)
def test_what_is_no_address_is_refused_without_repeating_it(asked: Notify, store: Store) -> None:
    with pytest.raises(GrowpointError, match="is no") as caught:
        notify.ask(store, "small", asked)
    assert not caught.value.evidence
