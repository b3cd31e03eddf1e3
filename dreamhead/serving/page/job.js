// One job on the page: its progress while it runs, and its result beside the source.

import { attachLive } from "./live.js";
import { Player } from "./player.js";
import { cancelJob, follow, getJson, isOver, mediaUrl, typeOf } from "./service.js";
import { passedThrough, progressOf, sentence, STATES, when } from "./words.js";

/** Steps at which the progress is said aloud: each frame would be too much to listen to. */
const SAID_STEPS = 4;

const $ = (id) => document.getElementById(id);

export class JobPanel {
  /**
   * `nameOf` gives the name of a job and `fileName` that of its result; `onChange` is called when a job's state has
   * changed, `onRetry` with the id of one that is wanted again, `onError` with what went wrong; true: it was told.
   */
  constructor({ nameOf, fileName, onChange, onRetry, onError }) {
    Object.assign(this, { nameOf, fileName, onChange, onError });
    this.player = new Player($("player"));
    this.job = null;
    this.urls = [];
    $("cancel").addEventListener("click", () => this.#cancel());
    $("again").addEventListener("click", () => onRetry(this.job.id));
  }

  /** Show a job, and follow it until it is over or another one is shown. */
  async open(id) {
    const signal = this.#restart();
    $("no-job").hidden = true;
    $("job-content").hidden = false;
    $("job-title").textContent = this.nameOf(id);
    try {
      await follow(`/v1/dubs/${id}/events`, {
        signal,
        onJob: (job) => this.#show(job, signal),
        onConnection: (isThere) => tell("job-connection", isThere ? "" : "The connection is lost; trying again."),
      });
    } catch (error) {
      if (signal.aborted) return;
      if (!this.onError(error)) tell("job-error", sentence(error.message));
    }
  }

  close() {
    this.#restart();
    $("no-job").hidden = false;
    $("job-content").hidden = true;
  }

  #restart() {
    this.abort?.abort();
    this.abort = new AbortController();
    this.job = null;
    this.said = "";
    this.isLive = false;
    this.isCancelling = false;
    this.player.unload();
    for (const url of this.urls.splice(0)) URL.revokeObjectURL(url);
    for (const id of ["cancel", "again", "download", "job-progress"]) $(id).hidden = true;
    for (const id of ["job-state", "job-words", "job-made"]) $(id).textContent = "";
    $("facts").replaceChildren();
    tell("job-error", "");
    tell("job-connection", "");
    return this.abort.signal;
  }

  #show(job, signal) {
    const before = this.job?.status;
    this.job = job;
    $("job-state").textContent = STATES[job.status];
    $("job-state").dataset.state = job.status;
    $("job-made").textContent = `Submitted ${when(job.created_at)}`;
    this.#showProgress();
    $("cancel").hidden = isOver(job);
    $("cancel").disabled = this.isCancelling;
    $("again").hidden = !["failed", "cancelled"].includes(job.status);
    tell("job-error", job.error ? sentence(job.error.detail) : "");
    // Before its frames are counted there is nothing to stream, and it is asked for only once.
    if (job.status === "running" && job.progress.frames && !this.isLive) this.#showLive(signal);
    if (job.status === before) return;
    this.onChange(job);
    if (job.status === "succeeded") this.#showResult(signal);
    else if (isOver(job)) this.player.unload();
  }

  #showProgress() {
    const { progress } = this.job;
    const words = this.isCancelling && !isOver(this.job) ? "Being cancelled." : progressOf(this.job);
    $("job-progress").hidden = false;
    $("job-words").textContent = words;
    $("bar").hidden = isOver(this.job);
    $("bar").max = progress.frames || 1;
    // Without a value the bar says that it isn't known how long this takes.
    if (progress.frames) $("bar").value = progress.frames_done;
    else $("bar").removeAttribute("value");
    const step = progress.frames ? Math.floor((SAID_STEPS * progress.frames_done) / progress.frames) : 0;
    const said = `${this.job.status} ${step} ${this.isCancelling}`;
    if (said !== this.said) $("announcer").textContent = words;
    this.said = said;
  }

  async #showLive(signal) {
    this.isLive = true;
    const { links } = this.job;
    try {
      const source = await this.#source(links, signal);
      await this.player.loadLive({ ...source, attach: (video) => attachLive(video, links.stream, signal) });
    } catch (error) {
      // Only a preview: the result comes when the job is over.
      if (!signal.aborted && this.job.status === "running") this.player.unload();
      console.info(error.message);
    }
  }

  async #showResult(signal) {
    const { links, progress } = this.job;
    this.#showFacts();
    try {
      const [resultUrl, source, curve] = await Promise.all([
        this.#media(links.video, signal, "The result is being fetched"),
        this.#source(links, signal),
        getJson(links.curve).catch(() => null),
      ]);
      if (signal.aborted) return;
      tell("job-connection", "");
      this.player.load({ resultUrl, ...source, curve, frames: progress.frames });
      if (!source.sourceUrl) this.player.say("source", "The source isn’t there any more.");
      $("download").href = resultUrl;
      $("download").download = this.fileName(this.job.id);
      $("download").hidden = false;
    } catch (error) {
      if (!signal.aborted) tell("job-error", `The result can’t be shown: ${error.message}`);
    }
  }

  /** The source as far as it is there. */
  async #source(links, signal) {
    try {
      const isPicture = (await typeOf(links.source)).startsWith("image/");
      return { sourceUrl: await this.#media(links.source, signal, "The source is being fetched"), isPicture };
    } catch (error) {
      if (error.status !== 404) throw error;
      return { sourceUrl: "", isPicture: false };
    }
  }

  async #media(path, signal, doing) {
    const onProgress = (share) => tell("job-connection", `${doing}: ${Math.round(100 * share)} %.`);
    const url = await mediaUrl(path, { signal, onProgress });
    if (url.startsWith("blob:")) this.urls.push(url);
    return url;
  }

  #showFacts() {
    const { job } = this;
    const facts = {
      "Not dubbed": passedThrough(job) && `${passedThrough(job)} frames`,
      "To know": job.warnings && sentence(job.warnings),
      Job: job.id,
    };
    for (const [name, value] of Object.entries(facts)) {
      if (value) $("facts").append(element("dt", name), element("dd", value));
    }
  }

  async #cancel() {
    this.isCancelling = true;
    $("cancel").disabled = true;
    this.#showProgress();
    try {
      await cancelJob(this.job);
    } catch (error) {
      this.isCancelling = false;
      $("cancel").disabled = false;
      this.#showProgress();
      tell("job-error", sentence(error.message));
    }
  }
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function tell(id, text) {
  $(id).textContent = text;
  $(id).hidden = !text;
}
