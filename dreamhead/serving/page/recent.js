// The list of recent dubs, the newest first, a page at a time.

import { getJson } from "./service.js";
import { STATES, when } from "./words.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 8;

export class RecentDubs {
  /** `nameOf` gives the name of a job. */
  constructor({ nameOf }) {
    this.nameOf = nameOf;
    this.current = "";
    this.jobs = [];
    this.next = null;
    $("more").addEventListener("click", () => this.#more());
  }

  /** Fetch the list anew, as long as it was; what goes wrong is raised. */
  async refresh() {
    const page = await getJson(`/v1/dubs?limit=${Math.min(100, Math.max(AT_ONCE, this.jobs.length))}`);
    this.jobs = page.jobs;
    this.next = page.next;
    this.#draw();
  }

  /** Take note of a job's news without asking for them. */
  update(job) {
    const place = this.jobs.findIndex(({ id }) => id === job.id);
    if (place >= 0) this.jobs[place] = job;
    this.#draw();
    return place >= 0;
  }

  mark(id) {
    this.current = id;
    this.#draw();
  }

  clear() {
    this.jobs = [];
    this.next = null;
    this.#draw();
  }

  async #more() {
    try {
      const page = await getJson(`/v1/dubs?limit=${AT_ONCE}&after=${this.next}`);
      const first = this.jobs.length;
      this.jobs.push(...page.jobs);
      this.next = page.next;
      this.#draw();
      // The button may be gone, and with it the place of the keyboard.
      $("recent").querySelectorAll("a")[first]?.focus();
    } catch (error) {
      this.say(error.message);
    }
  }

  say(text) {
    $("recent-error").textContent = text;
    $("recent-error").hidden = !text;
  }

  #draw() {
    const focused = document.activeElement?.closest?.("#recent a")?.getAttribute("href");
    $("recent").replaceChildren(...this.jobs.map((job) => this.#item(job)));
    if (focused) $("recent").querySelector(`a[href="${focused}"]`)?.focus();
    $("recent-none").hidden = this.jobs.length > 0;
    $("more").hidden = !this.next;
    this.say("");
  }

  #item(job) {
    const link = document.createElement("a");
    link.href = `#${job.id}`;
    if (job.id === this.current) link.setAttribute("aria-current", "true");
    link.append(span("name", this.nameOf(job.id)), span("state", STATES[job.status]), span("when", when(job.created_at)));
    link.querySelector(".state").dataset.state = job.status;
    const item = document.createElement("li");
    item.append(link);
    return item;
  }
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}
