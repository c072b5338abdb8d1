"""Control headless Chromium by its DevTools protocol."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import aiohttp
import anyio

from tests.support.serving import wait_until

Json = dict[str, Any]
Scheme = Literal["light", "dark"]

OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",  # which is small in containers
    # No request goes anywhere but to the service.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)


@contextmanager
def chromium() -> Generator[int]:
    """Run the browser; yield the port of its DevTools protocol."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "there is no chromium"
    with TemporaryDirectory(prefix="downspout-", ignore_cleanup_errors=True) as profile:
        # Chromium's sandbox does not run as root, the usual user of a container.
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        command = [program, *OPTIONS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        null = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as process:
            try:
                told = Path(profile, "DevToolsActivePort")
                port, _ = wait_until(lambda: told.exists() and told.read_text().split())
                yield int(port)
            finally:
                process.terminate()


class Page:
    """One page, and the errors of its console."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._calls = 0

    async def call(self, method: str, **parameters: Any) -> Json:
        """Call a method of the protocol; return its result."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            message: Json = await self._socket.receive_json(timeout=30)
            if message.get("id") == self._calls:
                assert "error" not in message, (method, message)
                result: Json = message["result"]
                return result
            self._listen(message)

    def _listen(self, event: Json) -> None:
        if event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"]))
        if event["method"] == "Log.entryAdded":
            entry = event["params"]["entry"]
            # The browser logs each error status; some states expect one.
            if entry["source"] != "network":
                self.complaints.append(entry["text"])

    async def open(self, url: str, *, scripts: bool = True) -> None:
        """Open a URL."""
        await self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        await self.call("Page.navigate", url=url)

    async def show(self, width: int, height: int, scheme: Scheme, *, scale: float = 1) -> None:
        """Set the size of the window and the colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, evaluated as if the user had clicked."""
        answer = await self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    async def wait_for(self, expression: str, *, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not await self.evaluate(f"!!({expression})"):
            text = "document.body?.innerText"
            assert time.monotonic() < end, (expression, await self.evaluate(text))
            await anyio.sleep(0.02)

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    async def picture(self, *, whole: bool = False, **how: Any) -> bytes:
        """Return a picture of the window, or of the whole page."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=whole, **how)
        return base64.b64decode(answer["data"])


@asynccontextmanager
async def new_page(port: int) -> AsyncGenerator[Page]:
    """Open an empty page of the browser that listens on `port`."""
    browser = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{browser}/json/new?about:blank") as answer:
            target = await answer.json()
        url = target["webSocketDebuggerUrl"]
        async with session.ws_connect(url, max_msg_size=0) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            yield page
        await session.get(f"{browser}/json/close/{target['id']}")
