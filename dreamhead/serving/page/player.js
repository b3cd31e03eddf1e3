// Two videos under one scrubber: the result leads, the source follows to within a frame.

import { CurvePlot } from "./curve.js";
import { clock } from "./words.js";

/** Apart by more than this, the source jumps; by less, it runs a little faster or slower, which nobody sees. */
const JUMP_S = 0.3;
const MOST_RATE_CHANGE = 0.15;

/** A video whose seeks don't pile up: while one is under way, only the latest wish is kept. */
class Track {
  constructor(video) {
    this.video = video;
    this.wish = null;
    video.addEventListener("seeked", () => {
      if (this.wish === null) return;
      const wish = this.wish;
      this.wish = null;
      this.seek(wish);
    });
  }

  seek(time) {
    if (this.video.seeking) this.wish = time;
    else if (Math.abs(this.video.currentTime - time) > 1e-4) this.video.currentTime = time;
  }

  load(url) {
    this.wish = null;
    this.video.playbackRate = 1;
    if (url) {
      this.video.src = url;
    } else {
      this.video.removeAttribute("src");
      this.video.load();
    }
  }
}

export class Player {
  constructor(root) {
    this.root = root;
    const at = (id) => root.querySelector(`#${id}`);
    this.result = new Track(at("result-video"));
    this.source = new Track(at("source-video"));
    this.picture = at("source-picture");
    this.controls = at("controls");
    this.scrubber = at("scrubber");
    this.playButton = at("play");
    this.clock = at("clock");
    this.notes = { result: at("result-note"), source: at("source-note") };
    this.views = root.querySelector(".views");
    this.plot = new CurvePlot(at("curve"), (frame) => this.goTo(frame));
    this.#listen(at("back"), at("forward"));
  }

  /**
   * Show a result and its source. `curve` tells the frames' times, and which of the source's each is made of; without
   * it the `frames` are taken for evenly spaced, and the source's for the same.
   */
  load({ resultUrl, sourceUrl, isPicture, curve, frames }) {
    this.unload();
    this.root.hidden = false;
    this.controls.hidden = false;
    this.curve = curve;
    this.frames = frames;
    this.result.load(resultUrl);
    this.picture.hidden = !isPicture;
    this.source.video.hidden = isPicture;
    if (isPicture) this.picture.src = sourceUrl;
    else if (sourceUrl) this.source.load(sourceUrl);
    this.#setSound();
  }

  /** Show a result that is still being made, as far as it is; `attach` gives its video element a source. */
  async loadLive({ attach, sourceUrl, isPicture }) {
    this.load({ resultUrl: "", sourceUrl, isPicture, curve: null, frames: 0 });
    this.controls.hidden = true;
    const { video } = this.result;
    // Nobody has asked for sound, and a browser lets nothing else begin by itself.
    video.muted = true;
    this.notes.result.textContent = "As it is being made; sound and scrubber come with the finished result.";
    await attach(video);
    video.play().catch(() => {});
  }

  unload() {
    this.root.hidden = true;
    this.frame = 0;
    this.frames = 0;
    this.times = [];
    this.curve = null;
    this.result.load("");
    this.source.load("");
    this.picture.removeAttribute("src");
    this.plot.show(null);
    for (const note of Object.values(this.notes)) note.textContent = "";
  }

  say(which, text) {
    this.notes[which].textContent = text;
  }

  goTo(frame) {
    if (!this.times.length) return;
    this.#show(Math.min(this.times.length - 1, Math.max(0, frame)));
    this.result.seek(this.#middle(this.frame));
    if (!this.#leads) this.#seekSource();
    this.#follow();
  }

  toggle() {
    const { video } = this.result;
    if (!video.paused) {
      video.pause();
      return;
    }
    if (video.ended || this.frame === this.times.length - 1) this.goTo(0);
    video.play().catch((error) => {
      if (error.name !== "AbortError") this.say("result", `It can’t be played: ${error.message}`);
    });
  }

  /** Whether the result is playing; the source then follows by itself. */
  get #leads() {
    return !this.result.video.paused && !this.result.video.ended;
  }

  #listen(back, forward) {
    const { video } = this.result;
    video.addEventListener("loadedmetadata", () => this.#measured());
    video.addEventListener("play", () => this.#played(true));
    video.addEventListener("pause", () => this.#played(false));
    for (const [name, track] of Object.entries({ result: this.result, source: this.source })) {
      track.video.addEventListener("error", () => {
        if (track.video.getAttribute("src")) this.say(name, "This browser can’t play this file; downloaded, it may play elsewhere.");
      });
      track.video.addEventListener("click", () => this.toggle());
    }
    this.#everyFrame();
    this.playButton.addEventListener("click", () => this.toggle());
    back.addEventListener("click", () => this.#step(-1));
    forward.addEventListener("click", () => this.#step(1));
    this.scrubber.addEventListener("input", () => this.goTo(Number(this.scrubber.value)));
    for (const radio of this.#radios()) radio.addEventListener("change", () => this.#setSound());
    this.root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Look after each frame that is shown, or as often as the screen is drawn where the browser doesn't tell. */
  #everyFrame() {
    const { video } = this.result;
    if ("requestVideoFrameCallback" in video) {
      const shown = (_, { mediaTime }) => {
        this.#follow(mediaTime);
        video.requestVideoFrameCallback(shown);
      };
      video.requestVideoFrameCallback(shown);
    } else {
      video.addEventListener("play", () => {
        const drawn = () => {
          this.#follow();
          if (this.#leads) requestAnimationFrame(drawn);
        };
        drawn();
      });
    }
  }

  #measured() {
    const { videoWidth, videoHeight, duration } = this.result.video;
    this.views.dataset.shape = videoWidth > 1.2 * videoHeight ? "wide" : "tall";
    this.views.style.setProperty("--aspect", `${videoWidth} / ${videoHeight}`);
    if (this.controls.hidden) return;
    this.times = this.curve?.times_s ?? Array.from({ length: this.frames }, (_, frame) => (frame * duration) / this.frames);
    this.end = this.curve?.duration_s ?? duration;
    this.scrubber.max = this.times.length - 1;
    this.plot.show(this.curve);
    this.goTo(0);
  }

  #played(isPlaying) {
    this.playButton.textContent = isPlaying ? "Pause" : "Play";
    if (isPlaying) {
      this.#follow();
      return;
    }
    this.source.video.pause();
    this.source.video.playbackRate = 1;
    // Both stop in the middle of the frame that is shown, and not wherever their clocks were.
    if (this.times.length) this.goTo(this.result.video.ended ? this.times.length - 1 : this.frame);
  }

  /** Bring the position and the source to where the result is. */
  #follow(shownTime = this.result.video.currentTime) {
    if (!this.#leads) return;
    if (this.times.length) this.#show(this.#frameAt(shownTime));
    const { video } = this.source;
    if (!video.getAttribute("src") || video.readyState < 1) return;
    const now = this.result.video.currentTime;
    const frame = this.#frameAt(now);
    if (this.#sourceRuns(frame)) {
      this.#pace(now - this.#timeOf(frame) + this.#sourceTime(frame), this.#length(frame));
    } else {
      // The source is held, or goes backwards, which no browser plays: it is set frame by frame.
      video.pause();
      this.#seekSource();
    }
  }

  /** Let the source run so that it is at `wanted`, to within a frame. */
  #pace(wanted, frameLength) {
    const { video } = this.source;
    if (video.paused && !video.ended) video.play().catch(() => {});
    const ahead = video.currentTime - wanted;
    if (Math.abs(ahead) > JUMP_S) {
      this.source.seek(wanted);
      video.playbackRate = 1;
    } else if (Math.abs(ahead) > frameLength) {
      video.playbackRate = 1 - Math.sign(ahead) * MOST_RATE_CHANGE;
    } else if (Math.abs(ahead) < frameLength / 4) {
      video.playbackRate = 1;
    }
  }

  #seekSource() {
    if (!this.source.video.getAttribute("src")) return;
    this.source.seek(this.#sourceTime(this.frame) + this.#length(this.frame) / 2);
  }

  #show(frame) {
    this.frame = frame;
    this.scrubber.value = frame;
    const said = `${clock(this.times[frame], 2)} of ${clock(this.end, 2)}`;
    this.clock.textContent = `${said} · frame ${frame + 1} of ${this.times.length}`;
    this.scrubber.setAttribute("aria-valuetext", `${said}, frame ${frame + 1}`);
    this.plot.moveTo(frame);
  }

  #step(frames) {
    this.result.video.pause();
    this.goTo(this.frame + frames);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || this.controls.hidden) return;
    const isSlider = event.target === this.scrubber || event.target === this.plot.plot;
    const isOther = !isSlider && event.target.closest("button, a, input, summary");
    const isRadio = event.target.matches("input[type=radio]");
    const second = Math.max(1, Math.round(this.times.length / this.end));
    const actions = {
      ArrowLeft: () => this.#step(-1),
      ArrowRight: () => this.#step(1),
      ArrowDown: isSlider && (() => this.#step(-1)),
      ArrowUp: isSlider && (() => this.#step(1)),
      PageDown: isSlider && (() => this.#step(second)),
      PageUp: isSlider && (() => this.#step(-second)),
      Home: isSlider && (() => this.#step(-Infinity)),
      End: isSlider && (() => this.#step(Infinity)),
      " ": !isOther && (() => this.toggle()),
      m: () => this.#turnSound(),
    };
    const action = actions[event.key];
    // A set of radio buttons has the arrows for itself.
    if (!action || (isRadio && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    action();
  }

  #radios() {
    return [...this.root.querySelectorAll("input[name=sound]")];
  }

  #turnSound() {
    const radios = this.#radios();
    const isOff = radios.find((radio) => radio.checked).value === "none";
    radios.find((radio) => radio.value === (isOff ? "result" : "none")).checked = true;
    this.#setSound();
  }

  #setSound() {
    const { value } = this.#radios().find((radio) => radio.checked);
    this.result.video.muted = value !== "result";
    this.source.video.muted = value !== "source";
  }

  /** The last frame that begins no later than this. */
  #frameAt(time) {
    let [low, high] = [0, this.times.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= time + 1e-4) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  #timeOf(frame) {
    return this.times[frame] ?? 0;
  }

  #length(frame) {
    return (this.times[frame + 1] ?? this.end ?? 0.04) - this.#timeOf(frame) || 0.04;
  }

  #middle(frame) {
    return this.#timeOf(frame) + this.#length(frame) / 2;
  }

  #sourceTime(frame) {
    return this.curve?.source_times_s[frame] ?? this.#timeOf(frame);
  }

  /** Whether the source's frames follow each other here as the result's do. */
  #sourceRuns(frame) {
    if (!this.curve) return true;
    const before = Math.min(frame, this.times.length - 2);
    return before < 0 || this.#sourceTime(before + 1) > this.#sourceTime(before);
  }
}
