"""Check the landing page in headless Chromium, in each of its states.

In light and dark and at several widths, the page has to show the true state, fit the window, and
leave the console without errors. The program stops at the first failed check with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from handlers import create_app, sign_url
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import misbehaving, not_there
from tests.support.serving import ROOT, ServiceProcess, serving_app, wait_until

from .chromium import Page, Scheme, chromium, new_page
from .states import COOKIE, DOCUMENT, KEY, SIGNING_KEY, STATES, TOKEN, State, whole

WIDTHS = (320, 768, 1600)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

# True when the page has loaded its picture and its metrics.
LOADED = "document.querySelector('#sample.whole') && !document.querySelector('#metrics').hidden"
VISIBLE = "!!document.querySelector('{}')?.checkVisibility()"


async def look_at(page: Page, url: str, state: State, keep: Path | None) -> None:
    """Bring the page into a state and check it at each width, light and dark."""
    await page.open(url)
    if state.key:
        await page.wait_for(VISIBLE.format("#kind"))
        await ask_for_object(page, state.key)
    await page.wait_for(f"document.querySelector('#title')?.textContent === '{state.title}'")
    if state.has_metrics:
        await page.wait_for(VISIBLE.format("#metrics"))
    if state.resumes:
        await page.wait_for("document.querySelector('#resumes').textContent")
    await check_texts(page, state)
    if state.name == "loading":
        await page.wait_for("document.querySelector('#bar').value.toFixed(2) === '0.50'")
    for width, scheme in product(WIDTHS, SCHEMES):
        await page.show(width, 900, scheme)
        needed = await page.evaluate("document.documentElement.scrollWidth")
        assert needed <= width, (state.name, width, needed)
        if keep:
            picture = await page.picture(whole=True)
            (keep / f"{state.name.replace(' ', '-')}-{width}-{scheme}.png").write_bytes(picture)


async def check_texts(page: Page, state: State) -> None:
    """Check that the page shows the texts of the state, and nothing of any other state."""
    detail = await page.evaluate("document.querySelector('#detail').textContent")
    assert state.detail in detail, (state.name, detail)
    resumes = await page.evaluate("document.querySelector('#resumes').textContent")
    assert resumes == state.resumes, (state.name, resumes)
    has_picture = await page.evaluate(VISIBLE.format("#picture"))
    assert has_picture == state.has_picture, state.name
    assert await page.evaluate(VISIBLE.format("#access")) == bool(state.form), state.name
    if state.form:
        assert await page.evaluate("document.querySelector('#needed').textContent") == state.form
    for link in ("save", "open"):
        assert await page.evaluate(VISIBLE.format(f"#{link}")) == (state.link == link), state.name
    has_objects = bool(state.settings.get("s3_objects"))
    assert await page.evaluate(VISIBLE.format("#kind")) == has_objects, state.name


async def ask_for_object(page: Page, key: str) -> None:
    """Ask for an object; the page rejects a key that a URL can't have."""
    await page.evaluate("document.querySelector('#kind').value = 'Object'")
    await page.evaluate("document.querySelector('#kind').dispatchEvent(new Event('change'))")
    assert not await page.evaluate(VISIBLE.format("#task"))
    for text, is_valid in (("", False), ("a/../b", False), ("..", False), (key, True)):
        await page.evaluate(f"document.querySelector('#key').value = {json.dumps(text)}")
        assert await page.evaluate("document.querySelector('#ask').checkValidity()") == is_valid
    await page.evaluate("document.querySelector('#ask').requestSubmit()")


async def enter_credential(page: Page, text: str, expected: str) -> None:
    """Enter a token or a signed URL, and wait for an element."""
    await page.evaluate(f"document.querySelector('#token').value = {json.dumps(text)}")
    await page.evaluate("document.querySelector('#access').requestSubmit()")
    await page.wait_for(f"document.querySelector('{expected}')")


async def enter_token(page: Page) -> None:
    """Enter a wrong and the right token; the page keeps the token in memory only."""
    await enter_credential(page, "wrong", "#sample.wrong #access:not([hidden])")
    await enter_credential(page, TOKEN, "#sample.whole")
    await page.wait_for(LOADED)
    kept = "localStorage.length + sessionStorage.length + document.cookie.length"
    assert await page.evaluate(kept) == 0
    assert TOKEN not in await page.evaluate("document.documentElement.outerHTML + location")


async def enter_signed_url(page: Page, url: str) -> None:
    """Enter a URL of another service, then a signed URL of this service."""
    await enter_credential(page, "http://127.0.0.1:1/", "#sample.wrong")
    title = await page.evaluate("document.querySelector('#title').textContent")
    assert title == "Not loaded"
    signed = sign_url(f"{url}tasks/1/image", SIGNING_KEY, lifetime=60)
    await enter_credential(page, signed, "#sample.whole")
    await page.wait_for(LOADED)


async def log_in(page: Page, url: str) -> None:
    """Log in to the application, whose cookie scripts can't read, and load again."""
    name, _, value = COOKIE.partition("=")
    await page.call("Network.setCookie", url=url, name=name, value=value, httpOnly=True)
    await page.evaluate("document.querySelector('#go').click()")
    await page.wait_for(LOADED)


async def save(page: Page) -> None:
    """Save the object that has arrived, under the name in its key."""
    with TemporaryDirectory() as folder:
        await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)
        await page.evaluate("document.querySelector('#save').click()")
        path = Path(folder, KEY.rpartition("/")[2])
        await anyio.to_thread.run_sync(wait_until, path.exists)
        assert await anyio.Path(path).read_bytes() == DOCUMENT


async def open_at_store(page: Page, store_url: str) -> None:
    """Follow the link; the browser shows the picture from the store."""
    await page.evaluate("document.querySelector('#open').click()")
    await page.wait_for(f"location.href.startsWith('{store_url}')")
    await page.wait_for("document.querySelector('img')?.naturalWidth > 0")


async def copy_by_keyboard(page: Page) -> None:
    """Copy each command by keyboard; the button confirms it."""
    await page.evaluate("document.querySelector('#go').focus()")
    for _ in range(4):
        await page.press("Tab", 9)
        await page.press("Enter", 13, "\r")
        await page.wait_for("document.activeElement.textContent === 'Copied'", seconds=2)
    text = await page.evaluate("document.querySelector('#copied').textContent")
    assert text == "Copied"


async def stop_and_load_again(page: Page) -> None:
    """Stop the download and start it again; the page shows both."""
    await page.evaluate("document.querySelector('#go').click()")
    await page.wait_for("document.querySelector('#title').textContent === 'Stopped'")
    assert not await page.evaluate(VISIBLE.format("#picture"))
    await page.evaluate("document.querySelector('#go').click()")
    await page.wait_for("document.querySelector('#title').textContent === 'Loading'")


async def without_scripts(page: Page, url: str) -> None:
    """Check that without scripts the page has picture and commands, and no dead buttons."""
    await page.show(768, 900, "light")
    await page.open(url, scripts=False)
    await page.wait_for("document.querySelector('noscript img')?.naturalWidth > 0")
    assert await page.evaluate("document.querySelectorAll('li code').length") == 3
    assert not await page.evaluate(VISIBLE.format("button"))
    assert not await page.evaluate(VISIBLE.format("#bar"))


async def look(browser: int, keep: Path | None) -> None:
    """Check all states."""
    with misbehaving() as store, misbehaving() as application:
        for state in STATES:
            settings = settings_for(
                store.url,
                max_resumes=2,
                first_byte_timeout=2.0,
                auth_url=application.url if state.application else None,
                **state.settings,
            )
            store.behaviour = state.store
            application.behaviour = state.application or not_there
            with serving_app(create_app(settings)) as port:
                async with new_page(browser) as page:
                    url = f"http://127.0.0.1:{port}/"
                    await look_at(page, url, state, keep)
                    await use(page, url, store.url, state)
                    assert not page.complaints, (state.name, page.complaints)
            say(f"{state.name}: fine")
        store.behaviour = whole
        settings = settings_for(store.url)
        with serving_app(create_app(settings)) as port:
            async with new_page(browser) as page:
                await without_scripts(page, f"http://127.0.0.1:{port}/")
                if keep:
                    (keep / "without-scripts.png").write_bytes(await page.picture(whole=True))
        say("without scripts: fine")


async def use(page: Page, url: str, store_url: str, state: State) -> None:
    """Do what a visitor can do in a state."""
    if state.name == "whole":
        await copy_by_keyboard(page)
    elif state.name == "loading":
        await stop_and_load_again(page)
    elif state.name == "object":
        await save(page)
    elif state.name == "redirect":
        await open_at_store(page, store_url)
    elif state.name == "redirect token":
        await enter_credential(page, TOKEN, "#sample.redirected")
        assert not await page.evaluate(VISIBLE.format("#open"))
    elif state.name == "token":
        await enter_token(page)
    elif state.name == "signature":
        await enter_signed_url(page, url)
    elif state.name == "application":
        await log_in(page, url)


async def write(browser: int, folder: Path) -> None:
    """Make the README's pictures of the demo, started as by scripts/run."""
    with ServiceProcess({}, "scripts/demo") as process:
        url = process.url()
        for _ in range(20):
            fetch(int(url.rpartition(":")[2]), "/tasks/1/image")
        async with new_page(browser) as page:
            for scheme in SCHEMES:
                await page.show(1280, 750, scheme, scale=1.5)
                await page.open(url)
                await page.wait_for(LOADED)
                picture = await page.picture(format="webp", quality=80)
                (folder / f"landing-{scheme}.webp").write_bytes(picture)
                say(f"docs/landing-{scheme}.webp: {len(picture)} bytes")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    """Check all states, and write the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(prog="scripts/look", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="write the README's pictures to docs/"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="write a picture of each state to DIR"
    )
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        anyio.run(look, browser, options.keep)
        if options.write:
            anyio.run(write, browser, ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
