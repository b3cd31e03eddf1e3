// One pair after another: both videos play as one, a key or a button chooses, the server remembers.

const at = (id) => document.getElementById(id);
const videos = [at("left"), at("right")];
const CHOICES = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "equal" };
/** Further apart than this, the right video jumps to the left one's place; nearer, it runs a little faster or slower. */
const JUMP_S = 0.15;
const MOST_RATE_CHANGE = 0.1;
/** Of the pair must have been seen before it can be judged, or all of it where it is shorter. */
const SEEN_S = 1;
const SLOW = 0.33;

let judge = "";
let number = null;
let pairs = 0;
let appeared = 0;
let seen = false;
let sending = false;
let rate = 1;

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(path, options).catch(() => null);
  if (!reply) throw new Error("The command that serves this page doesn’t answer. Is it still running? Start it again: votes are kept.");
  const said = await reply.json().catch(() => ({}));
  if (reply.ok) return said;
  const detail = Array.isArray(said.detail) ? said.detail.map((one) => one.msg.replace("Value error, ", "")).join("; ") : said.detail;
  throw new Error(detail || `The command answered ${reply.status}.`);
}

const query = () => `judge=${encodeURIComponent(judge)}`;
const tell = (id, text) => { at(id).textContent = text; at(id).hidden = !text; };

async function begin(name) {
  judge = name.trim();
  tell("name-error", "");
  try {
    show(await ask(`state?${query()}`));
  } catch (error) {
    at("welcome").hidden = false;
    tell("name-error", error.message);
    return;
  }
  location.hash = encodeURIComponent(judge);
}

function show(state) {
  pairs = state.pairs;
  at("welcome").hidden = true;
  at("result").hidden = state.next !== null;
  at("pair").hidden = state.next === null;
  at("progress-words").textContent = `${state.done} of ${state.pairs} pairs judged`;
  at("bar").max = state.pairs;
  at("bar").value = state.done;
  if (state.next === null) showResult(state.result);
  else load(state.next);
}

function load(next) {
  number = next;
  seen = false;
  appeared = performance.now();
  tell("pair-error", "");
  at("back").disabled = number === 0;
  allow();
  at("left").src = `video/${number}/left?${query()}`;
  at("right").src = `video/${number}/right?${query()}`;
  play();
}

function play() {
  for (const video of videos) {
    video.playbackRate = rate;
    video.play().catch((error) => {
      // Without a click or a key before, browsers let no sound begin by itself: the button says what to do.
      if (error.name !== "AbortError") label();
    });
  }
  label();
}

function pause() {
  for (const video of videos) video.pause();
  label();
}

const playing = () => !at("left").paused && !at("left").ended;
const toggle = () => (playing() ? pause() : at("left").ended ? replay() : play());

function replay() {
  for (const video of videos) video.currentTime = 0;
  play();
}

function slow() {
  rate = rate === 1 ? SLOW : 1;
  at("slow").setAttribute("aria-pressed", rate !== 1);
  for (const video of videos) video.playbackRate = rate;
}

function closer() {
  const is = document.querySelector(".views").classList.toggle("closer");
  at("zoom").setAttribute("aria-pressed", is);
}

function label() {
  at("play").lastChild.data = playing() ? " Pause" : " Play";
}

function allow() {
  for (const side of ["left", "equal", "right"]) at(`choose-${side}`).disabled = !seen || sending;
}

async function choose(choice) {
  if (!seen || sending) return;
  sending = true;
  allow();
  try {
    const state = await ask("votes", { judge, number, choice, seconds: (performance.now() - appeared) / 1000 });
    sending = false;
    show(state);
  } catch (error) {
    sending = false;
    allow();
    tell("pair-error", error.message);
  }
}

function back() {
  if (number > 0) load(number - 1);
}

function showResult(result) {
  pause();
  const percent = (value) => `${Math.round(100 * value)} %`;
  const [a, b] = result.names;
  const total = result.a + result.b + result.equal;
  for (const [key, value] of Object.entries({ a: result.a, equal: result.equal, b: result.b })) {
    at(`count-${key}`).textContent = value;
    at(`bar-${key}`).style.width = `${(100 * value) / total}%`;
  }
  at("name-a").textContent = a;
  at("name-b").textContent = b;
  at("result-words").textContent = `You, ${judge}, judged ${total} ${total === 1 ? "pair" : "pairs"}. Thank you.`;
  at("result-share").textContent = result.share === null
    ? "You preferred neither anywhere."
    : `Where you preferred one, it was ${a} in ${percent(result.share)} (95 % confidence: ${percent(result.low)} to ${percent(result.high)}); chance alone would be as lopsided with p = ${result.p_value.toPrecision(2)}.`;
  at("result").focus();
}

function follow() {
  const [left, right] = videos;
  if (!at("pair").hidden && left.readyState && right.readyState) {
    const length = Math.min(left.duration, right.duration);
    at("clock").textContent = `${left.currentTime.toFixed(1)} of ${length.toFixed(1)} s`;
    if (!seen && (left.currentTime >= Math.min(SEEN_S, length - 0.1) || left.ended)) {
      seen = true;
      allow();
    }
    if (playing() && !right.ended && !right.seeking) {
      const late = left.currentTime - right.currentTime;
      if (Math.abs(late) > JUMP_S) right.currentTime = left.currentTime;
      else right.playbackRate = rate * (1 + Math.max(-MOST_RATE_CHANGE, Math.min(MOST_RATE_CHANGE, late)));
    }
  }
  requestAnimationFrame(follow);
}

const KEYS = { " ": toggle, r: replay, s: slow, z: closer, Backspace: back };

document.addEventListener("keydown", (event) => {
  if (at("pair").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = CHOICES[event.key] ? () => choose(CHOICES[event.key]) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  // A button that has the focus takes the space bar for itself.
  if (!act || (event.key === " " && event.target instanceof HTMLButtonElement)) return;
  event.preventDefault();
  act();
});
at("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  begin(at("name").value);
});
for (const side of ["left", "equal", "right"]) at(`choose-${side}`).addEventListener("click", () => choose(side));
for (const [id, act] of Object.entries({ play: toggle, replay, slow, zoom: closer, back })) at(id).addEventListener("click", act);
at("another").addEventListener("click", () => {
  location.hash = "";
  location.reload();
});
for (const video of videos) {
  for (const event of ["play", "pause", "ended"]) video.addEventListener(event, label);
  video.addEventListener("error", () => tell("pair-error", `Pair ${number + 1} of ${pairs}: the ${video.id} video can’t be played by this browser.`));
  video.addEventListener("click", toggle);
}
requestAnimationFrame(follow);

if (location.hash.length > 1) begin(decodeURIComponent(location.hash.slice(1)));
else at("name").focus();
