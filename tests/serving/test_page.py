"""The page in a real Chromium, in front of the real service and stages: from an upload to a finished video."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import pytest
from playwright.sync_api import Browser, Route, expect, sync_playwright

from dreamhead import storage
from dreamhead.media.mime import mp4_mime_type
from dreamhead.serving import dubber as dubber_module
from dreamhead.serving.keys import ApiKeys, new_key
from tests.serving.browsing import CONTRASTS, DIFFERENCE, SMALL_TARGETS, TIMES, WAIT_MS, Visit, host_of
from tests.serving.site import Site

Studio = Any  # The fixtures' own classes; conftest modules can't be imported.
LocalStages = Any

FRAMES = 48
RATE = 25
CHUNKS = 8
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
KEY = new_key("anna")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's own Chromium."""
    path = shutil.which("chromium")
    if path is None:
        assert os.environ.get("FAIL_WITHOUT_CHROMIUM") != "1", "there is no chromium on PATH"
        pytest.skip("there is no chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, timeout=WAIT_MS, args=["--autoplay-policy=user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def studio(studio_of: Callable[..., Studio], tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("page")
    studio = studio_of(folder, times=2)
    samples = folder / "samples"
    samples.mkdir()
    shutil.copy(studio.video_uri, samples / "portrait.mp4")
    shutil.copy(studio.audio_uri, samples / "tone.wav")
    # A browser beside it takes its share of two cores: the leases' time isn't what is tested here.
    studio.settings = studio.settings.model_copy(update={"samples": str(samples), "lease_s": 60.0})
    return studio


@pytest.fixture(scope="module")
def stages(studio: Studio, local_stages: Callable[..., LocalStages]) -> Iterator[LocalStages]:
    stages = local_stages(studio.settings)
    yield stages
    stages.close()


@pytest.fixture(scope="module")
def site(studio: Studio, stages: LocalStages) -> Iterator[Site]:
    name, digest = KEY.line.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dubber_module, "BEAT_S", 0.05)
        with Site(studio.settings, stages, ApiKeys({digest: name})) as site:
            yield site


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Visit]]:
    """Opens the page in a browser that knows nothing of the other tests."""
    contexts = []

    def open_page(url: str = "", **values: Any) -> Visit:
        contexts.append(browser.new_context(**{"viewport": DESK} | values))
        return Visit(contexts[-1].new_page(), url or site.url)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def finished(browser: Browser, site: Site, studio: Studio) -> str:
    """Address of a job that is done."""
    context = browser.new_context()
    visit = Visit(context.new_page(), site.url)
    visit.submit(studio)
    visit.until_state("done")
    url = visit.page.url
    context.close()
    return url


@pytest.fixture
def hold(site: Site, stages: LocalStages) -> Iterator[Callable[[int], None]]:
    """Lets only so many more chunks be rendered."""

    def allow(chunks: int) -> None:
        site.do(lambda: setattr(stages, "allowed", asyncio.Semaphore(chunks)))

    yield allow
    site.do(lambda: [stages.allowed.release() for _ in range(1000)] and None)


def allow_more(site: Site, stages: LocalStages, chunks: int) -> None:
    """Let chunks that wait be rendered."""
    site.do(lambda: [stages.allowed.release() for _ in range(chunks)] and None)


def test_an_upload_becomes_a_video_beside_its_source(
    visit: Callable[..., Visit],
    site: Site,
    studio: Studio,
    stages: LocalStages,
    hold: Callable[[int], None],
    tmp_path: Path,
) -> None:
    hold(0)
    here = visit()
    page = here.page
    expect(page.locator("#recent-title")).to_be_visible()
    expect(page.locator("#player")).to_be_hidden()
    here.submit(studio)
    here.until_state("running")
    expect(page.locator("#job-title")).to_have_text("clip + speech")
    expect(page.locator("#job-words")).to_have_text(f"0 of {FRAMES} frames.")
    allow_more(site, stages, 2)
    expect(page.locator("#job-words")).to_contain_text("left.")
    done, all_frames = page.evaluate("[document.getElementById('bar').value, document.getElementById('bar').max]")
    assert 0 < done < all_frames == FRAMES
    allow_more(site, stages, CHUNKS)
    here.until_state("done")
    expect(page.locator("#job-words")).to_have_text(f"Done: {FRAMES} frames, {FRAMES} of them dubbed.")
    expect(page.locator("#recent a[aria-current=true] .state")).to_have_text("done")
    ours, theirs = here.until_settled()
    assert ours == theirs == pytest.approx(0.5 / RATE)
    record = site.store.read("everybody", here.job_id())
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "clip.speech.mp4"
    download.value.save_as(tmp_path / "download.mp4")
    assert record.result is not None
    assert (tmp_path / "download.mp4").read_bytes() == storage.read_bytes(record.result.output_uri)
    named = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(named) > 8
    assert here.hosts | {host_of(name) for name in named} == {urlsplit(site.url).netloc}
    assert here.errors == []


def test_one_scrubber_moves_both_videos(visit: Callable[..., Visit], finished: str) -> None:
    here = visit(finished)
    page = here.page
    here.until_settled()
    assert page.get_attribute("#scrubber", "max") == str(FRAMES - 1)
    for frame in (30, 7, FRAMES - 1):
        page.locator("#scrubber").fill(str(frame))
        assert here.until_settled() == pytest.approx(((frame + 0.5) / RATE,) * 2, abs=1e-3)
        expect(page.locator("#clock")).to_contain_text(f"frame {frame + 1} of {FRAMES}")
        page.wait_for_timeout(200)
        in_step = page.evaluate(DIFFERENCE)
        page.evaluate(f"document.getElementById('source-video').currentTime = {(frame - 6.5) / RATE}")
        here.until_settled()
        page.wait_for_timeout(200)
        # The camera moves: other frames of the same clip are not alike.
        assert 2 * in_step < page.evaluate(DIFFERENCE)
    assert here.errors == []


def test_the_videos_stay_in_step_while_they_play(visit: Callable[..., Visit], finished: str) -> None:
    here = visit(finished)
    page = here.page
    here.until_settled()
    page.click("#play")
    expect(page.locator("#play")).to_have_text("Pause")
    here.until(f"{TIMES}[0] > 0.8")
    apart = []
    while page.evaluate("!document.getElementById('result-video').paused"):
        ours, theirs = page.evaluate(TIMES)
        apart.append(abs(ours - theirs))
        page.wait_for_timeout(20)
    assert len(apart) > 5
    assert sorted(apart)[len(apart) // 2] < 1 / RATE
    expect(page.locator("#play")).to_have_text("Play")
    assert here.until_settled() == pytest.approx(((FRAMES - 0.5) / RATE,) * 2, abs=1e-3)
    # The source was two seconds behind and catches up.
    page.evaluate("document.getElementById('source-video').currentTime = 0")
    page.locator("#scrubber").fill("20")
    here.until_settled()
    page.click("#play")
    page.evaluate("document.getElementById('source-video').currentTime = 0")
    here.until(f"Math.abs({TIMES}[0] - {TIMES}[1]) < {1 / RATE} && {TIMES}[0] > 1")
    assert here.errors == []


def test_the_sound_is_chosen(visit: Callable[..., Visit], finished: str) -> None:
    here = visit(finished)
    here.until_settled()
    muted = "['result-video', 'source-video'].map(id => document.getElementById(id).muted)"
    assert here.page.evaluate(muted) == [False, True]
    here.page.check("[name=sound][value=source]")
    assert here.page.evaluate(muted) == [True, False]
    here.page.focus("#play")
    here.page.keyboard.press("m")
    assert here.page.evaluate(muted) == [True, True]
    here.page.keyboard.press("m")
    assert here.page.evaluate(muted) == [False, True]


def test_the_curve_shows_every_frame_and_seeks(visit: Callable[..., Visit], finished: str) -> None:
    here = visit(finished)
    page = here.page
    here.until_settled()
    curves = page.evaluate("url => fetch(url).then(answer => answer.json())", f"/v1/dubs/{here.job_id()}/curve")
    assert len(curves["new"]) == FRAMES
    drawn = page.get_attribute("#curve-plot path.new", "d")
    assert drawn is not None
    assert drawn.count("M") + drawn.count("L") == FRAMES
    heights = [float(point.split()[1]) for point in drawn.replace("M", "L").split("L")[1:]]
    # Up is less on the screen: the highest point is the widest opening.
    assert heights.index(min(heights)) == curves["new"].index(max(curves["new"]))
    found = sum(value is not None for value in curves["found"])
    assert page.locator("#curve-plot circle").count() == found > 0
    assert "% of the distance between the eyes" in page.inner_text("#curve-summary")
    labels = page.locator("#curve-plot text").all_text_contents()
    assert {"Lip opening, % of the distance between the eyes", "Speech, dB of full scale", "min:s"} <= set(labels)
    page.locator("#curve-plot").scroll_into_view_if_needed()
    box = page.locator("#curve-plot").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 44 + 0.5 * (box["width"] - 54), box["y"] + 80)
    ours, theirs = here.until_settled()
    assert ours == theirs == pytest.approx(FRAMES / RATE / 2, abs=1.5 / RATE)
    said = page.get_attribute("#curve-plot", "aria-valuetext")
    frame = int(page.get_attribute("#curve-plot", "aria-valuenow") or -1)
    assert said == page.inner_text("#curve-now")
    assert f"new lips {100 * curves['new'][frame]:.0f} %" in (said or "")
    page.focus("#curve-plot")
    page.keyboard.press("ArrowLeft")
    assert here.until_settled()[0] == pytest.approx((frame - 0.5) / RATE, abs=1e-3)


def test_everything_can_be_done_by_keyboard(visit: Callable[..., Visit], site: Site) -> None:
    here = visit()
    page = here.page
    expect(page.locator("#video-sample")).to_be_visible()
    here.tab_to("video-sample")
    page.keyboard.type("portrait")
    here.tab_to("audio-sample")
    page.keyboard.type("tone")
    here.tab_to("submit")
    page.keyboard.press("Enter")
    here.until_state("done")
    record = site.store.read("everybody", here.job_id())
    assert record.video_uri.endswith("/samples/portrait.mp4")
    here.until_settled()
    here.tab_to("scrubber")
    for key, frame in (("ArrowRight", 1), ("PageDown", 26), ("ArrowLeft", 25), ("End", 47), ("Home", 0)):
        page.keyboard.press(key)
        expect(page.locator("#clock")).to_contain_text(f"frame {frame + 1} of {FRAMES}")
        assert here.until_settled() == pytest.approx(((frame + 0.5) / RATE,) * 2, abs=1e-3)
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Pause")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_text("Play")
    here.tab_to("play")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert here.errors == []


def test_what_is_missing_is_said_where_it_is_missing(visit: Callable[..., Visit], studio: Studio) -> None:
    here = visit()
    here.page.click("#submit")
    expect(here.page.locator("#video-error")).to_have_text("Choose a video or a picture.")
    expect(here.page.locator("#audio-error")).to_have_text("Choose the new speech.")
    assert here.page.evaluate("document.activeElement.id") == "video-file"
    assert here.page.get_attribute("#video-file", "aria-invalid") == "true"
    here.page.set_input_files("#video-file", studio.audio_uri)
    here.page.set_input_files("#audio-file", studio.audio_uri)
    here.page.click("#submit")
    expect(here.page.locator("#form-error")).to_have_text("Video: the upload: holds no picture.")


@pytest.mark.parametrize(("policy", "sources"), [("freeze", {50: 47, 70: 47}), ("pingpong", {47: 47, 50: 44, 70: 24})])
def test_a_result_longer_than_its_source_is_shown_with_the_frames_it_is_made_of(
    visit: Callable[..., Visit], studio: Studio, make_tone: Callable[..., str], policy: str, sources: dict[int, int]
) -> None:
    here = visit()
    here.page.click("summary")
    here.page.select_option("#on-longer-audio", policy)
    here.submit(studio, make_tone("long.wav", 3.0))
    here.until_state("done")
    here.until_settled()
    for frame, source in ({10: 10} | sources).items():
        here.page.locator("#scrubber").fill(str(frame))
        expected = ((frame + 0.5) / RATE, (source + 0.5) / RATE)
        assert here.until_settled() == pytest.approx(expected, abs=1e-3)
    here.page.locator("#scrubber").fill("40")
    here.until_settled()
    here.page.click("#play")
    here.until(f"{TIMES}[0] > 2.4")
    here.page.click("#play")
    expect(here.page.locator("#play")).to_have_text("Play")
    ours, theirs = here.until_settled()
    frame = int(here.page.input_value("#scrubber"))
    source = 47 if policy == "freeze" else 94 - frame
    assert (ours, theirs) == pytest.approx(((frame + 0.5) / RATE, (source + 0.5) / RATE), abs=1e-3)


def test_a_failure_is_told_and_tried_again(
    visit: Callable[..., Visit], studio: Studio, make_tone: Callable[..., str]
) -> None:
    here = visit()
    page = here.page
    page.click("summary")
    page.select_option("#on-longer-audio", "error")
    here.submit(studio, make_tone("long.wav", 3.0))
    here.until_state("failed")
    expect(page.locator("#job-error")).to_contain_text("the speech is 1.08 s longer than the video's")
    failed = here.job_id()
    page.select_option("#on-longer-audio", "trim")
    page.click("#again")
    here.until_state("done")
    assert here.job_id() != failed
    expect(page.locator("#job-error")).to_be_hidden()
    expect(page.locator("#facts")).to_contain_text("The last 1.08 s of the speech were cut")
    page.click(f"#recent a[href='#{failed}']")
    here.until_state("failed")
    page.click("#again")
    assert page.evaluate("document.activeElement.id") == "video-file"
    assert here.errors == []


def test_a_dub_is_cancelled(
    visit: Callable[..., Visit], studio: Studio, site: Site, hold: Callable[[int], None]
) -> None:
    hold(0)
    here = visit()
    here.submit(studio)
    here.until_state("running")
    here.page.click("#cancel")
    here.until_state("cancelled")
    expect(here.page.locator("#cancel")).to_be_hidden()
    assert site.store.read("everybody", here.job_id()).state == "cancelled"


def test_a_lost_connection_is_made_again_where_it_was(visit: Callable[..., Visit], finished: str) -> None:
    job = {"status": "running", "progress": {"frames_done": 12, "frames": 48, "eta_s": 100.0}, "error": None}
    sent: list[str | None] = []

    def answer(route: Route) -> None:
        sent.append(route.request.headers.get("last-event-id"))
        if len(sent) == 1:
            real = route.fetch().text().partition("data: ")[2].partition("\n")[0]
            text = f": comment\n\nid: 5\r\nevent: job\r\ndata: {json.dumps(json.loads(real) | job)}\r\n\r\n"
            route.fulfill(body=text, content_type="text/event-stream")
        elif len(sent) == 2:
            route.abort()
        else:
            route.continue_()

    here = visit("about:blank")
    here.page.route("**/events", answer)
    here.page.goto(finished)
    expect(here.page.locator("#job-words")).to_have_text("12 of 48 frames, about 2 minutes left.")
    expect(here.page.locator("#job-connection")).to_have_text("The connection is lost; trying again.")
    here.until_state("done")
    assert sent == [None, "5", "5"]
    expect(here.page.locator("#job-connection")).to_be_hidden()


def test_with_keys_the_page_asks_for_one_and_keeps_it_in_the_tab(
    visit: Callable[..., Visit], site: Site, studio: Studio, tmp_path: Path
) -> None:
    here = visit(site.locked_url)
    page = here.page
    expect(page.locator("#key-error")).to_have_text("This service needs an API key.")
    page.fill("#key", "dh_wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).to_have_text("This key isn’t known to the service.")
    page.fill("#key", KEY.key)
    page.keyboard.press("Enter")
    expect(page.locator("#key-form")).to_be_hidden()
    kept = page.evaluate("key => [Object.values(sessionStorage).includes(key), localStorage.length]", KEY.key)
    assert kept == [True, 0]
    assert all("401" in error for error in here.errors)
    here.errors.clear()
    here.submit(studio)
    here.until_state("done")
    here.until_settled()
    sources = page.evaluate("['result-video', 'source-video'].map(id => document.getElementById(id).src)")
    assert [source.partition(":")[0] for source in sources] == ["blob", "blob"]
    page.locator("#scrubber").fill("20")
    assert here.until_settled() == pytest.approx((20.5 / RATE,) * 2, abs=1e-3)
    expect(page.locator("#curve-plot path.new")).to_have_attribute("d", page.get_attribute("path.new", "d") or "-")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "download.mp4")
    record = site.store.read("anna", here.job_id())
    assert record.result is not None
    assert (tmp_path / "download.mp4").read_bytes() == storage.read_bytes(record.result.output_uri)
    assert KEY.key not in page.content()
    page.click("#key-toggle")
    page.click("#key-forget")
    expect(page.locator("#key-error")).to_have_text("This service needs an API key.")
    expect(page.locator("#recent a")).to_have_count(0)


@pytest.mark.parametrize("place", ["", "finished", "locked"])
def test_a_small_phone_shows_all_without_sideways_scrolling(
    visit: Callable[..., Visit], site: Site, finished: str, place: str
) -> None:
    url = {"": site.url, "finished": finished, "locked": site.locked_url}[place]
    here = visit(url, viewport=PHONE, is_mobile=True, has_touch=True)
    if place == "finished":
        here.until_settled()
        expect(here.page.locator("#curve-plot path.new")).to_be_visible()
        assert here.page.locator("#curve-plot").bounding_box()["width"] > 250
    elif place == "locked":
        expect(here.page.locator("#key")).to_be_visible()
    else:
        expect(here.page.locator("#recent a").first).to_be_visible()
        here.page.click("summary")
    assert here.overflow() == 0
    assert here.page.evaluate(SMALL_TARGETS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(visit: Callable[..., Visit], finished: str, scheme: Any) -> None:
    here = visit(finished, color_scheme=scheme)
    here.until_settled()
    here.page.click("summary")
    contrasts = here.page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [text for ratio, text in contrasts if ratio < 4.5] == []


@pytest.mark.parametrize("is_locked", [False, True])
def test_a_job_with_a_stream_shows_it_while_it_runs(
    visit: Callable[..., Visit], site: Site, finished: str, fragmented: bytes, is_locked: bool
) -> None:
    job_id = urlsplit(finished).fragment
    here = visit("about:blank")
    page = here.page
    real = json.loads(page.request.get(f"{site.url}/v1/dubs/{job_id}").text())
    running = real | {"status": "running", "links": real["links"] | {"stream": f"/v1/dubs/{job_id}/stream"}}
    event = f"id: 1\nevent: job\ndata: {json.dumps(running)}\n\n"
    page.route("**/events", lambda route: route.fulfill(body=event, content_type="text/event-stream"))
    kind = mp4_mime_type(fragmented)
    page.route("**/stream", lambda route: route.fulfill(body=fragmented, content_type=kind))
    page.route("**/source", lambda route: route.fulfill(status=404, body="{}"))
    if is_locked:
        page.add_init_script(f"sessionStorage.setItem('dreamhead-key', {json.dumps(KEY.key)})")
    page.goto(f"{site.url}/#{job_id}")
    here.until("document.getElementById('result-video').currentTime > 0.3")
    expect(page.locator("#controls")).to_be_hidden()
    source = page.evaluate("document.getElementById('result-video').src")
    assert source.startswith("blob:" if is_locked else site.url)
    expect(page.locator("#result-note")).to_contain_text("As it is being made")


@pytest.fixture
def fragmented(make_video: Callable[..., str]) -> bytes:
    """A video as it can be played while it is written."""
    options = {"profile": "baseline", "level": "1.0"}
    path = make_video("plain.mp4", 25, size=(96, 64), options=options)
    return fragments_of(path)


def fragments_of(path: str) -> bytes:
    """The same packets in fragments."""
    target = Path(path).with_name("fragmented.mp4")
    with (
        av.open(path) as source,
        av.open(
            str(target), "w", container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        ) as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return target.read_bytes()
