"""Messages about a sweep: it is done, a stage failed, nothing is left that can run.

They are best effort and never in the way: a thread with a time limit, and failures are logged. The
address is a secret: it lies in a file that its owner alone reads, and is never printed.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from orchestrator.store import Store, read_json, unwritable
from sweeps.errors import GrowpointError
from sweeps.notify import Event, Notify

logger = logging.getLogger(__name__)

VARIABLE = "GROWPOINT_NOTIFY_URL"
SECONDS = 5.0
# Of many failures one message in so long a time; it counts the others.
FAILED_SECONDS = 600
ADDRESS = re.compile(r"[A-Za-z0-9_.+%][A-Za-z0-9_.+%-]*@[A-Za-z0-9.-]+")


def ask(store: Store, sweep: str, asked: Notify) -> None:
    """Note whom to tell, before a launch; what was told before may be told again from now on.

    One that says nothing leaves what was asked. Raises GrowpointError for what cannot work.
    """
    url = asked.url or os.environ.get(VARIABLE)
    # Without the address in the evidence.
    if url and not url.startswith(("http://", "https://")):
        raise GrowpointError("notify.url is no address of the web", [], "notify.url=https://...")
    if asked.mail and not ADDRESS.fullmatch(asked.mail):
        raise GrowpointError("notify.mail is no mail address", [], "notify.mail=me@example.org")
    if asked.mail and _mailer() is None:
        raise GrowpointError(
            "this machine has neither `sendmail` nor `mail`, which send messages",
            [("notify.mail", asked.mail)],
            "notify.url=https://..., or cluster.additional={mail-type: FAIL}",
        )
    folder = store.plan_folder(sweep)
    shutil.rmtree(folder / "told", ignore_errors=True)
    if asked != Notify():
        _write_privately(folder / "notify.json", asked.model_dump_json().encode())


def _write_privately(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def done(store: Store, plan: Mapping[str, Any]) -> None:
    """Tell that a sweep is done, if it is: once for each set of stages, whoever ends the last."""
    asked = _asked(store, str(plan["sweep"]), "done")
    # The last ones first: most often one of them is missing, and the others need no look.
    if asked is None or not all(store.done(stage) for stage in reversed(list(plan["stages"]))):
        return
    stages = hashlib.sha256(" ".join(sorted(plan["stages"])).encode()).hexdigest()[:10]
    if _first(store, plan["sweep"], f"done-{stages}"):
        said = f"all {len(plan['stages'])} stages are done"
        _send(asked, str(plan["sweep"]), "done", said, {"stages": len(plan["stages"])})


def failed(store: Store, sweep: str, stage: str, error: str) -> None:
    """Tell that a stage failed: once, and of many in a short time only of the first."""
    asked = _asked(store, sweep, "failed")
    if asked is None or not _first(store, sweep, f"failed-{stage}"):
        return
    if not _first(store, sweep, f"window-{int(time.time() // FAILED_SECONDS)}"):
        return
    count = len(list((store.plan_folder(sweep) / "told").glob("failed-*")))
    first = (error.splitlines() or [""])[0]
    said = f"{stage} failed: {first}" + f" ({count} stages failed so far)" * (count > 1)
    _send(asked, sweep, "failed", said, {"stage": stage, "failed": count})


def stuck(store: Store, sweep: str, why: str) -> None:
    """Tell that nothing is left that can run, or that somebody has to look."""
    asked = _asked(store, sweep, "stuck")
    if asked and _first(store, sweep, "stuck"):
        _send(asked, sweep, "stuck", why, {})


def _asked(store: Store, sweep: str, event: Event) -> Notify | None:
    """Whom to tell of such an event; None for nobody, or who is not ours to know."""
    try:
        known = Notify.model_validate(read_json(store.plan_folder(sweep) / "notify.json") or {})
    except (GrowpointError, ValueError):
        return None
    asked = known.model_copy(update={"url": known.url or os.environ.get(VARIABLE)})
    return asked if event in asked.events and (asked.url or asked.mail) else None


def _first(store: Store, sweep: str, name: str) -> bool:
    """Whether nobody has told this before: of several who ask, one."""
    path = store.plan_folder(sweep) / "told" / name
    try:
        path.parent.mkdir(exist_ok=True)
        path.open("x").close()
    except OSError:
        return False
    return True


def _send(asked: Notify, sweep: str, event: Event, said: str, fields: Mapping[str, object]) -> None:
    """Send it, for some seconds at most."""
    line = f"growpoint {sweep}: {said}"
    data = {"text": line, "sweep": sweep, "event": event, **fields}
    ways = [lambda: _post(asked.url or "", data)] if asked.url else []
    ways += [lambda: _mail(asked.mail or "", line)] if asked.mail else []
    threads = [threading.Thread(target=_quietly, args=(way,), daemon=True) for way in ways]
    for thread in threads:
        thread.start()
    until = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            logger.warning("a message was not sent within %.0f s", SECONDS)


def _quietly(way: Any) -> None:
    try:
        way()
    except urllib.error.HTTPError as error:
        logger.warning("a message was refused: HTTP %d", error.code)
    except Exception as error:
        # Texts of errors may hold the address.
        logger.warning("a message was not sent: %s", type(error).__name__)


def _post(url: str, data: Mapping[str, object]) -> None:
    body, headers = json.dumps(data).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        answer.read(1024)


def _mailer() -> list[str] | None:
    """The command that sends mail from here, as far as its recipient."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib"])
    if sendmail := shutil.which("sendmail", path=places):
        return [sendmail, "-t"]
    return [mail, "-s"] if (mail := shutil.which("mail", path=places)) else None


def _mail(address: str, line: str) -> None:
    mailer = _mailer()
    if mailer is None:
        logger.warning("no mail: this machine has neither `sendmail` nor `mail`")
        return
    message = EmailMessage()
    message["To"], message["Subject"] = address, line[:120].replace("\n", " ")
    message.set_content(line)
    direct = mailer[-1] == "-t"
    words = mailer if direct else [*mailer, message["Subject"], address]
    sent = message.as_bytes() if direct else line.encode()
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(words, input=sent, timeout=SECONDS, capture_output=True, check=True)
