// Ask for a new dub: two inputs, each a file of this device or a sample of the service, and options.

import { getBlob, getJson, key, mediaUrl, newKey, submit } from "./service.js";
import { sentence } from "./words.js";

const $ = (id) => document.getElementById(id);
const SAMPLES = "/v1/samples";
const samplePath = (name) => `${SAMPLES}/${encodeURIComponent(name)}`;

/** One of the two inputs. */
class Input {
  constructor(name, missing) {
    Object.assign(this, { name, missing });
    this.file = $(`${name}-file`);
    this.sample = $(`${name}-sample`);
    this.file.addEventListener("change", () => {
      if (this.file.files.length) this.sample.value = "";
      this.#chosen();
    });
    this.sample.addEventListener("change", () => {
      if (this.sample.value) this.file.value = "";
      this.#chosen();
    });
    for (const preview of this.#previews()) preview.addEventListener("error", () => (preview.hidden = true));
  }

  offer(names) {
    this.sample.replaceChildren(new Option("none", ""), ...names.map((name) => new Option(name, name)));
    this.sample.closest(".sample").hidden = !names.length;
  }

  /** What is chosen: `{file}`, `{sample}` or null. */
  get choice() {
    if (this.file.files.length) return { file: this.file.files[0] };
    return this.sample.value ? { sample: this.sample.value } : null;
  }

  /** Whether there is a choice; if not, it is said and the focus goes there. */
  check() {
    this.say(this.choice ? "" : this.missing);
    if (!this.choice) this.file.focus();
    return Boolean(this.choice);
  }

  say(text) {
    const line = $(`${this.name}-error`);
    line.textContent = text;
    line.hidden = !text;
    if (text) this.file.setAttribute("aria-invalid", "true");
    else this.file.removeAttribute("aria-invalid");
  }

  #previews() {
    return this.name === "video" ? [$("video-preview"), $("picture-preview")] : [$("audio-preview")];
  }

  async #chosen() {
    this.say("");
    const previews = this.#previews();
    for (const preview of previews) {
      if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
      preview.hidden = true;
      preview.removeAttribute("src");
    }
    const { choice } = this;
    if (!choice) return;
    const isPicture = /^image\//.test(choice.file?.type ?? "") || /\.(png|jpe?g|webp|bmp)$/i.test(choice.sample ?? "");
    const preview = previews[isPicture ? 1 : 0] ?? previews[0];
    try {
      preview.src = choice.file ? URL.createObjectURL(choice.file) : await mediaUrl(samplePath(choice.sample));
      preview.hidden = false;
    } catch (error) {
      this.say(error.message);
    }
  }
}

export class DubForm {
  /** `onMade` is called with a job and the names of its inputs, `onError` with what went wrong; true: it was told. */
  constructor({ onMade, onError }) {
    Object.assign(this, { onMade, onError });
    this.form = $("new-dub");
    this.inputs = {
      video: new Input("video", "Choose a video or a picture."),
      audio: new Input("audio", "Choose the new speech."),
    };
    this.sent = null;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("upload-stop").addEventListener("click", () => this.abort?.());
  }

  async offerSamples() {
    const { videos, speeches } = await getJson(SAMPLES);
    this.inputs.video.offer(videos);
    this.inputs.audio.offer(speeches);
  }

  focus() {
    this.inputs.video.file.focus();
    this.form.scrollIntoView({ block: "start" });
  }

  /** Whether both inputs are still chosen. */
  get isReady() {
    return Object.values(this.inputs).every((input) => input.choice);
  }

  async send() {
    // The last one first, so that the focus ends on the first that is missing.
    const complete = [this.inputs.audio.check(), this.inputs.video.check()].every(Boolean);
    if (!complete || this.abort) return;
    this.#say("");
    this.#busy(true, "Preparing.");
    try {
      const body = await this.#body();
      const call = submit(body, this.#idempotencyKey(), (share) => this.#progress(share));
      this.abort = call.stop;
      const job = await call.done;
      this.sent = null;
      this.onMade(job, this.names);
    } catch (error) {
      if (error.name !== "AbortError") {
        const again = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
        if (!this.onError(error)) this.#say(sentence(error.message) + again);
      }
    } finally {
      this.abort = null;
      this.#busy(false);
    }
  }

  get names() {
    const nameOf = ({ choice }) => choice?.file?.name ?? choice?.sample ?? "";
    return { video: nameOf(this.inputs.video), audio: nameOf(this.inputs.audio) };
  }

  #options() {
    const named = [...this.form.querySelectorAll("[name]")].filter((field) => field.value !== "");
    return Object.fromEntries(named.map((field) => [field.name, field.value]));
  }

  /** Two samples are named; with a file among the two, both are uploaded. */
  async #body() {
    const { video, audio } = { video: this.inputs.video.choice, audio: this.inputs.audio.choice };
    if (video.sample && audio.sample) {
      return { video_uri: `sample:${video.sample}`, audio_uri: `sample:${audio.sample}`, ...this.#options() };
    }
    const form = new FormData();
    for (const [name, choice] of Object.entries({ video, audio })) {
      form.append(name, choice.file ?? (await getBlob(samplePath(choice.sample))), choice.file?.name ?? choice.sample);
    }
    for (const [name, value] of Object.entries(this.#options())) form.append(name, value);
    return form;
  }

  /** The same for the same request, so that one whose answer was lost may be sent again. */
  #idempotencyKey() {
    const files = Object.values(this.inputs).map(({ choice }) =>
      choice.file ? [choice.file.name, choice.file.size, choice.file.lastModified] : choice.sample,
    );
    const content = JSON.stringify([files, this.#options(), key.get()]);
    if (this.sent?.content !== content) this.sent = { content, key: newKey() };
    return this.sent.key;
  }

  #progress(share) {
    $("upload-bar").value = share;
    $("upload-words").textContent =
      share < 1 ? `Uploading: ${Math.round(100 * share)} %.` : "Uploaded; the service looks at the files.";
  }

  #busy(isBusy, words = "") {
    $("submit").disabled = isBusy;
    $("upload").hidden = !isBusy;
    $("upload-bar").value = 0;
    $("upload-words").textContent = words;
  }

  #say(text) {
    $("form-error").textContent = text;
    $("form-error").hidden = !text;
  }
}
