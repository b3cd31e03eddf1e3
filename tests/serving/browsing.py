"""A visit to the page in a real browser: what a person does, and what is measured on the way."""

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

Studio = Any  # A fixture's own class; conftest modules can't be imported.

WAIT_MS = 60_000
"""For whatever comes; a dub of the clip takes a few seconds on two slow cores."""

TIMES = "['result-video', 'source-video'].map(id => document.getElementById(id).currentTime)"
SETTLED = """['result-video', 'source-video'].every(id => {
  const video = document.getElementById(id);
  return video.readyState >= 2 && !video.seeking;
})"""
# Mean difference, in levels of 255, of the upper halves of what the two videos show: no dub touches those.
DIFFERENCE = """() => {
  const [ours, theirs] = ['result-video', 'source-video'].map(id => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [64, 64];
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(document.getElementById(id), 0, 0, 64, 64);
    return context.getImageData(0, 0, 64, 32).data;
  });
  return ours.reduce((sum, value, at) => sum + Math.abs(value - theirs[at]), 0) / ours.length;
}"""
CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => channels(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.querySelectorAll('body *')].filter(element =>
    element.checkVisibility() && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return texts.map(element => {
    const style = getComputedStyle(element);
    const colour = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [low, high] = [light(colour), light(ground(element))].sort((one, other) => one - other);
    return [(high + 0.05) / (low + 0.05), element.textContent.trim().slice(0, 40)];
  });
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll('button, a, select, summary, input, .sound label')]
  .filter(element => element.checkVisibility() && !element.matches('[type=radio]'))
  .filter(element => element.getBoundingClientRect().height < 43.9)
  .map(element => element.outerHTML)"""


@dataclass
class Visit:
    """A page in the browser, and what went wrong on it."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    """Hosts that were asked for anything."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(host_of(request.url)))
        self.page.goto(self.url)

    def choose(self, studio: Studio, audio_uri: str = "") -> None:
        """Give the form the studio's files."""
        self.page.set_input_files("#video-file", studio.video_uri)
        self.page.set_input_files("#audio-file", audio_uri or studio.audio_uri)

    def submit(self, studio: Studio, audio_uri: str = "") -> None:
        """Choose the studio's files and send them."""
        self.choose(studio, audio_uri)
        self.page.click("#submit")

    def until_state(self, state: str) -> None:
        """Wait for the open job's state."""
        expect(self.page.locator("#job-state")).to_have_text(state, timeout=WAIT_MS)

    def until(self, condition: str) -> None:
        """Wait for what JavaScript says; Playwright's own way is evaluated in the page, whose headers forbid that."""
        end = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"it didn't come about within {WAIT_MS} ms: {condition}"
            self.page.wait_for_timeout(20)

    def until_settled(self) -> tuple[float, float]:
        """Wait until both videos show what was asked for; their times."""
        self.until(SETTLED)
        ours, theirs = self.page.evaluate(TIMES)
        return ours, theirs

    def tab_to(self, name: str) -> None:
        """Press Tab until the element with this id has the focus."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"Tab doesn't reach #{name}")

    def job_id(self) -> str:
        """The job that is open."""
        return urlsplit(self.page.url).fragment

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return width


def host_of(url: str) -> str:
    """The host that a request goes to; a blob is asked of nobody, and is the page's own."""
    return urlsplit(url.removeprefix("blob:")).netloc
