"""The page in a real Chromium: keys and buttons choose, what was voted is kept, and who was who comes last."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dreamhead.evaluation.blind.ballot import order_for
from tests.serving.browsing import CONTRASTS, SMALL_TARGETS, WAIT_MS, Visit

Hall = Any  # The fixture's own class; conftest modules can't be imported.

JUDGE = "Anna & Béla"
# Mean brightness of what a video shows.
SHOWN = """id => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [8, 8];
  const context = canvas.getContext('2d');
  context.drawImage(document.getElementById(id), 0, 0, 8, 8);
  return context.getImageData(4, 4, 1, 1).data[0];
}"""
APART = "Math.abs(document.getElementById('left').currentTime - document.getElementById('right').currentTime)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's own Chromium."""
    path = shutil.which("chromium")
    if path is None:
        assert os.environ.get("FAIL_WITHOUT_CHROMIUM") != "1", "there is no chromium on PATH"
        pytest.skip("there is no chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, hall: Hall) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield Visit(context.new_page(), hall.url)
    context.close()


def enter(page: Page, name: str = JUDGE) -> None:
    page.fill("#name", name)
    page.click("#welcome button")


def may_vote(page: Page) -> None:
    """Wait until enough of the pair was seen."""
    expect(page.locator("#choose-left")).to_be_enabled(timeout=WAIT_MS)


def test_keys_choose_and_the_result_comes_last(visit: Visit, hall: Hall, tmp_path: Path) -> None:
    page = visit.page
    expect(page.locator("#name")).to_be_focused()
    enter(page, " ")
    expect(page.locator("#name-error")).to_have_text("a name of 1 to 60 printable characters is needed")
    enter(page)
    order = order_for(JUDGE, [one.clip for one in hall.dubs], 1)
    expect(page.locator("#progress-words")).to_have_text("0 of 3 pairs judged")
    expect(page.locator("#choose-left")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    for number, (shown, key) in enumerate(zip(order, ("ArrowLeft", "ArrowDown", "ArrowRight"), strict=True)):
        may_vote(page)
        assert len(hall.book.votes()) == number
        # a is dark, b is bright.
        assert (page.evaluate(SHOWN, "left") < page.evaluate(SHOWN, "right")) == (shown.left == "a")
        assert not any(word in page.content() for word in ("dubs/dark", "dubs/bright", shown.clip))
        if number == 0:
            page.screenshot(path=os.environ.get("JUDGE_PICTURE", str(tmp_path / "pair.png")))
        page.keyboard.press(key)
        expect(page.locator("#progress-words")).to_have_text(f"{number + 1} of 3 pairs judged")
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#pair")).to_be_hidden()
    assert [vote.preferred for vote in hall.book.votes()] == [order[0].left, "equal", order[2].on("right")]
    votes = [vote.preferred for vote in hall.book.votes()]
    expect(page.locator("#count-a")).to_have_text(str(votes.count("a")))
    expect(page.locator("#count-equal")).to_have_text("1")
    expect(page.locator("#name-b")).to_have_text("dubs/bright")
    assert "95 % confidence" in page.locator("#result-share").inner_text()
    page.click("#another")
    expect(page.locator("#name")).to_be_visible()
    (refused,) = visit.errors
    assert "status of 422" in refused
    assert len(visit.hosts) == 1


def test_what_was_voted_is_kept_and_may_be_changed(visit: Visit, hall: Hall) -> None:
    page = visit.page
    enter(page)
    may_vote(page)
    page.click("#choose-equal")
    expect(page.locator("#progress-words")).to_have_text("1 of 3 pairs judged")
    page.reload()
    expect(page.locator("#progress-words")).to_have_text("1 of 3 pairs judged")
    page.keyboard.press("Backspace")
    expect(page.locator("#back")).to_be_disabled()
    page.keyboard.press("r")
    may_vote(page)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#back")).to_be_enabled()
    (vote,) = hall.book.votes()
    assert vote.preferred == order_for(JUDGE, [one.clip for one in hall.dubs], 1)[0].on("right")
    assert visit.errors == []


def test_both_play_as_one_at_any_speed(visit: Visit) -> None:
    page = visit.page
    enter(page)
    may_vote(page)
    page.keyboard.press("s")
    assert page.evaluate("document.getElementById('left').playbackRate") == pytest.approx(0.33)
    expect(page.locator("#slow")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("r")
    visit.until("document.getElementById('left').currentTime > 0.2 && !document.getElementById('left').paused")
    assert page.evaluate(APART) < 0.1
    page.keyboard.press(" ")
    assert page.evaluate("document.getElementById('left').paused && document.getElementById('right').paused")
    page.keyboard.press("z")
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")
    assert visit.errors == []


def test_it_says_when_its_command_is_gone(visit: Visit) -> None:
    page = visit.page
    enter(page)
    may_vote(page)
    page.route("**/votes", lambda route: route.abort())
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#pair-error")).to_contain_text("doesn’t answer. Is it still running?")
    page.unroute("**/votes")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#progress-words")).to_have_text("1 of 3 pairs judged")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_touched(browser: Browser, hall: Hall, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    here = Visit(context.new_page(), hall.url)
    for _ in range(2):
        contrasts = here.page.evaluate(CONTRASTS)
        assert [found for found in contrasts if found[0] < 4.5] == []
        assert here.page.evaluate(SMALL_TARGETS) == []
        assert here.overflow() == 0
        if here.page.locator("#welcome").is_visible():
            enter(here.page)
            may_vote(here.page)
    context.close()
