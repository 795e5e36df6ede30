"""Pages in a real browser: Debian's Chromium, headless, if it is on PATH."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH: apt-get install chromium")


class Browser:
    """A page in a headless Chromium, driven by its debugging protocol over two pipes."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.buffer, self.number = b"", 0
        self.errors: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = ""
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        session = {"sessionId": self.session} if self.number > 2 else {}
        command = {"id": self.number, "method": method, "params": params, **session}
        os.write(self.to, json.dumps(command).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            data = os.read(self.back, 1 << 20)
            assert data, "chromium has ended"
            self.buffer += data
        raw, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.errors.append(raw.decode())
        return message

    def open(self, path: Path, width: int, *, dark: bool = False) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=path.as_uri())
        while self.run("document.readyState == 'complete' && location.protocol") != "file:":
            pass

    def run(self, script: str) -> Any:
        return self.send("Runtime.evaluate", expression=script)["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key of that name and that virtual key code."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if kind == "keyDown" and text else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Until a condition of the page holds: scrolling by keys is drawn out."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"not in {seconds} s: {condition}"

    def picture(self, *, whole: bool = False) -> Image.Image:
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


WITHOUT_GRAPHICS = ("disable-gpu",)
WEBGPU_IN_SOFTWARE = (
    "enable-unsafe-webgpu",
    "enable-unsafe-swiftshader",
    "use-webgpu-adapter=swiftshader",
    "enable-features=Vulkan",
    "use-vulkan=swiftshader",
)


@contextmanager
def browser(profile: Path, graphics: Sequence[str] = WITHOUT_GRAPHICS) -> Iterator[Browser]:
    assert CHROMIUM is not None
    quiet = [*graphics, "disable-quic", "no-first-run", "disable-background-networking"]
    flags = [
        "headless",
        "no-sandbox",
        *quiet,
        "disable-component-update",
        "disable-sync",
        "remote-debugging-pipe",
    ]
    command = [CHROMIUM, *(f"--{flag}" for flag in flags), f"--user-data-dir={profile}"]
    (read, to), (back, write) = os.pipe(), os.pipe()
    start = f"import os, sys; os.dup2({read}, 3); os.dup2({write}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    launcher = [sys.executable, "-c", start, *command]
    # In a group of its own, which is killed as a whole: what it leaves behind may take all of a machine, for hours.
    with subprocess.Popen(
        launcher, pass_fds=(read, write), stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        os.close(read)
        os.close(write)
        try:
            yield Browser(to, back)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            os.close(to)
            os.close(back)
