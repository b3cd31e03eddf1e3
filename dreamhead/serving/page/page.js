// Join the page's parts: the key, the form, the list of recent dubs, and the one that is open.

import { DubForm } from "./form.js";
import { JobPanel } from "./job.js";
import { RecentDubs } from "./recent.js";
import { key } from "./service.js";

const $ = (id) => document.getElementById(id);
const ID = /^#([0-9a-f]{43})$/;
const NAMES = "dreamhead-names";

/** The inputs' names of this tab's jobs: the service doesn't keep what files were called. */
const names = {
  of: (id) => JSON.parse(sessionStorage.getItem(NAMES) ?? "{}")[id],
  add: (id, given) => {
    const known = JSON.parse(sessionStorage.getItem(NAMES) ?? "{}");
    sessionStorage.setItem(NAMES, JSON.stringify({ ...known, [id]: given }));
  },
};

const stem = (name) => name.replace(/\.[^.]*$/, "");
const nameOf = (id) => (names.of(id) ? `${stem(names.of(id).video)} + ${stem(names.of(id).audio)}` : `Dub ${id.slice(-8)}`);
const fileName = (id) => (names.of(id) ? `${stem(names.of(id).video)}.${stem(names.of(id).audio)}.mp4` : `dub-${id.slice(-8)}.mp4`);

const recent = new RecentDubs({ nameOf });
const form = new DubForm({ onMade: made, onError: askForKey });
const panel = new JobPanel({ nameOf, fileName, onChange: changed, onRetry: retry, onError: askForKey });
/** The job whose inputs are what the form still holds. */
let lastMade = "";

async function made(job, given) {
  names.add(job.id, given);
  lastMade = job.id;
  location.hash = job.id;
  await refresh();
}

function changed(job) {
  if (!recent.update(job)) refresh();
}

/** The service keeps no way to ask again; as long as the form holds the inputs, it does. */
function retry(id) {
  if (id === lastMade && form.isReady) form.send();
  else form.focus();
}

async function refresh(...more) {
  try {
    await Promise.all([recent.refresh(), ...more]);
    return true;
  } catch (error) {
    if (!askForKey(error)) recent.say(error.message);
    return false;
  }
}

async function start() {
  if (await refresh(form.offerSamples())) showKeyForm(false);
  openHash();
}

function openHash() {
  const id = ID.exec(location.hash)?.[1] ?? "";
  recent.mark(id);
  if (!id) {
    panel.close();
    return;
  }
  panel.open(id);
  $("job").focus({ preventScroll: true });
  $("job").scrollIntoView({ block: "nearest" });
}

/** Whether what went wrong is that a key is needed, or another one. */
function askForKey(error) {
  if (error.status !== 401) return false;
  showKeyForm(true, key.get() ? "This key isn’t known to the service." : "This service needs an API key.");
  return true;
}

function showKeyForm(isShown, text = "") {
  const wasShown = !$("key-form").hidden;
  $("key-form").hidden = !isShown;
  $("key-toggle").setAttribute("aria-expanded", String(isShown));
  $("key-error").textContent = text;
  $("key-error").hidden = !text;
  $("key-forget").hidden = !key.get();
  if (isShown && !wasShown) $("key").focus();
}

function useKey(value) {
  key.set(value);
  $("key").value = "";
  recent.clear();
  start();
}

$("key-toggle").addEventListener("click", () => showKeyForm($("key-form").hidden));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("key").value.trim()) useKey($("key").value.trim());
});
$("key-forget").addEventListener("click", () => useKey(""));
window.addEventListener("hashchange", openHash);
document.addEventListener("visibilitychange", () => document.hidden || refresh());

start();
