"""The page in a real Chromium: one server for all browser tests, and a page that remembers what went wrong in it.

Run: `python -m pytest tests/browser`; CHROMIUM names another browser. Screenshots go to screenshots/ in the repository.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from page import backend
from persona_bot.replies.local import LocalModel
from tests.models import batched_model

SCREENSHOTS = Path(__file__).parent.parent.parent / "screenshots"
LEAVING = (
    "AbortError",
    "Connection errored out",
)  # Gradio's console when a page that listens is left
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def missing(what: str) -> None:
    """Skips, and says why; where everything must be there (CI=true) it fails."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@pytest.fixture(scope="session")
def browser():
    names = (
        os.environ.get("CHROMIUM"),
        *"chromium-headless-shell chromium chromium-browser google-chrome".split(),
    )
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None:
        missing(
            "No Chromium was found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path."
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def tiny(chat_model, chat_tokenizer) -> LocalModel:
    """A model that writes what a browser shows as it is: no control characters, no halves of letters."""
    model = replace(batched_model(chat_model, chat_tokenizer), name="a tiny model")
    words = {i: chat_tokenizer.decode([i]) for i in chat_tokenizer.get_vocab().values()}
    model.layout.control_ids |= {
        i for i, word in words.items() if not word.isprintable() or "\ufffd" in word
    } - model.layout.stop_ids
    return model


@pytest.fixture(scope="session")
def real() -> LocalModel:
    from persona_bot import load_model
    from persona_bot.errors import UserError

    try:
        return load_model(None, "cpu")
    except UserError as error:
        missing(f"The default weights are not there: {error}")


@pytest.fixture
def open_page(browser, page_url):
    """open_page(model, query="", ignore=(), url=page_url, requests=None, **context options) -> a page with that model.

    At the end nothing may have gone wrong in it, but for console errors that hold a text of `ignore`. To the list
    `requests` goes what it asks for, with what it sends.
    """
    contexts, problems = [], []

    def open_one(
        model: LocalModel,
        query: str = "",
        ignore: tuple[str, ...] = (),
        url: str = page_url,
        requests: list[str] | None = None,
        **options,
    ):
        backend.use(model)
        contexts.append(browser.new_context(**(options or DESKTOP)))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type == "error"
                and not any(text in message.text for text in (*LEAVING, *ignore))
                else None
            ),
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: problems.append(request.url) if is_foreign(request.url, url) else None,
        )
        if requests is not None:
            page.on("request", lambda asked: requests.append(asked.url + (asked.post_data or "")))
        page.goto(url + query)
        page.get_by_text(model.name).wait_for()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


def is_foreign(address: str, url: str) -> bool:
    return not address.startswith((url, "data:", "blob:"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A page that a busy machine drew too late is tried once more; what fails twice has failed."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.flaky(reruns=1))
