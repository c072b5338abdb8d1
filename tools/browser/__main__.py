"""Check the landing page in headless Chromium, in each of its states.

In light and dark and at several widths, the page has to show the true state, fit the window, and
leave the console without errors. The program stops at the first failed check with exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import anyio

from handlers import create_app
from tests.support.client import fetch
from tests.support.components import settings_for
from tests.support.misbehaving import misbehaving
from tests.support.serving import ROOT, ServiceProcess, serving_app

from .chromium import Page, Scheme, chromium, new_page
from .states import STATES, TOKEN, State, whole

WIDTHS = (320, 768, 1600)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

# True when the page has loaded its picture and its metrics.
LOADED = "document.querySelector('#sample.whole') && !document.querySelector('#metrics').hidden"
VISIBLE = "!!document.querySelector('{}')?.checkVisibility()"


async def look_at(page: Page, url: str, state: State, keep: Path | None) -> None:
    """Bring the page into a state and check it at each width, light and dark."""
    await page.open(url)
    await page.wait_for(f"document.querySelector('#title')?.textContent === '{state.title}'")
    detail = await page.evaluate("document.querySelector('#detail').textContent")
    assert state.detail in detail, (state.name, detail)
    assert await page.evaluate(VISIBLE.format("#picture")) == (state.name == "whole"), state.name
    assert await page.evaluate(VISIBLE.format("#access")) == state.guarded, state.name
    if state.name == "loading":
        await page.wait_for("document.querySelector('#bar').value.toFixed(2) === '0.50'")
    for width, scheme in product(WIDTHS, SCHEMES):
        await page.show(width, 900, scheme)
        needed = await page.evaluate("document.documentElement.scrollWidth")
        assert needed <= width, (state.name, width, needed)
        if keep:
            picture = await page.picture(whole=True)
            (keep / f"{state.name.replace(' ', '-')}-{width}-{scheme}.png").write_bytes(picture)


async def enter_token(page: Page) -> None:
    """Enter a wrong and the right token; the page keeps the token in memory only."""
    for token, expected in (
        ("wrong", "#sample.wrong #access:not([hidden])"),
        (TOKEN, "#sample.whole"),
    ):
        await page.evaluate(f"document.querySelector('#token').value = '{token}'")
        await page.evaluate("document.querySelector('#access').requestSubmit()")
        await page.wait_for(f"document.querySelector('{expected}')")
    await page.wait_for(LOADED)
    kept = "localStorage.length + sessionStorage.length + document.cookie.length"
    assert await page.evaluate(kept) == 0
    assert TOKEN not in await page.evaluate("document.documentElement.outerHTML + location")


async def copy_by_keyboard(page: Page) -> None:
    """Copy each command by keyboard; the button confirms it."""
    await page.evaluate("document.querySelector('#go').focus()")
    for _ in range(3):
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
    with misbehaving() as store:
        settings = settings_for(store.url, max_resumes=2, first_byte_timeout=2.0)
        app = create_app(settings)
        closed = create_app(replace(settings, access_tokens=(TOKEN,), metrics_tokens=(TOKEN,)))
        with serving_app(app) as port, serving_app(closed) as closed_port:
            for state in STATES:
                store.behaviour = state.store
                url = f"http://127.0.0.1:{closed_port if state.guarded else port}/"
                async with new_page(browser) as page:
                    await look_at(page, url, state, keep)
                    if state.guarded:
                        await enter_token(page)
                    if state.name == "whole":
                        await copy_by_keyboard(page)
                    if state.name == "loading":
                        await stop_and_load_again(page)
                    assert not page.complaints, (state.name, page.complaints)
                say(f"{state.name}: fine")
            store.behaviour = whole
            async with new_page(browser) as page:
                await without_scripts(page, f"http://127.0.0.1:{port}/")
                if keep:
                    (keep / "without-scripts.png").write_bytes(await page.picture(whole=True))
            say("without scripts: fine")


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
