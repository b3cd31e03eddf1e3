// Talk to the service: its API key, its errors, its events, and media that need the key.

const KEY = "dreamhead-key";

/** An answer that isn't the one that was asked for; `message` is for people. */
export class ServiceError extends Error {
  constructor(message, status = 0, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

function headers(more = {}) {
  return key.get() ? { Authorization: `Bearer ${key.get()}`, ...more } : more;
}

const UNREACHABLE = "The service can’t be reached. Check the connection and try again.";

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(UNREACHABLE);
  }
  if (!response.ok) throw problem(response.status, await response.text(), response.headers.get("Retry-After"));
  return response;
}

function problem(status, text, retryAfter) {
  let detail = `The service answered ${status}.`;
  try {
    detail = JSON.parse(text).detail || detail;
  } catch {
    // A proxy in between answers in its own words, which say less than the status.
  }
  return new ServiceError(detail, status, Number(retryAfter) || 0);
}

export const getJson = async (path) => (await request(path)).json();

export const cancelJob = async (job) => (await request(job.links.self, { method: "DELETE" })).json();

/** Content type of a file, without the file. */
export const typeOf = async (path) => (await request(path, { method: "HEAD" })).headers.get("Content-Type") ?? "";

/** A whole file. `onProgress` gets the share that has come, where its size is known. */
export async function getBlob(path, { signal, onProgress = () => {} } = {}) {
  const response = await request(path, { signal });
  const all = Number(response.headers.get("Content-Length"));
  const blocks = [];
  let got = 0;
  for await (const block of read(response.body)) {
    blocks.push(block);
    got += block.length;
    if (all) onProgress(got / all);
  }
  return new Blob(blocks, { type: response.headers.get("Content-Type") ?? "" });
}

/** Blocks of a body; Safari has no loop over a stream itself. */
export async function* read(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** What a media element can play: the address itself, or the bytes where a key must be sent, which an element can't. */
export async function mediaUrl(path, options) {
  return key.get() ? URL.createObjectURL(await getBlob(path, options)) : path;
}

export const open = (path, options) => request(path, options);

/** Queue a dub; returns `{done, stop}`. `body` is FormData or a plain object, sent as JSON. */
export function submit(body, idempotencyKey, onProgress) {
  // fetch doesn't tell how much of an upload has gone out.
  const call = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    call.onload = () => {
      if (call.status === 202) resolve(JSON.parse(call.responseText));
      else reject(problem(call.status, call.responseText, call.getResponseHeader("Retry-After")));
    };
    call.onerror = () => reject(new ServiceError(UNREACHABLE));
    call.onabort = () => reject(new DOMException("stopped", "AbortError"));
    call.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    call.open("POST", "/v1/dubs");
    for (const [name, value] of Object.entries(headers({ "Idempotency-Key": idempotencyKey }))) {
      call.setRequestHeader(name, value);
    }
    if (body instanceof FormData) {
      call.send(body);
    } else {
      call.setRequestHeader("Content-Type", "application/json");
      call.send(JSON.stringify(body));
    }
  });
  return { done, stop: () => call.abort() };
}

/** Random, also where the page came over plain HTTP, in which crypto.randomUUID doesn't exist. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
/** Longest silence: the service sends a comment every 15 s, where there is nothing else to send. */
const SILENCE_MS = 50_000;

/**
 * Call `onJob` with the job each time it changes, until it is over; a connection that breaks is made again where it was.
 * `onConnection` gets whether there is one.
 */
export async function follow(path, { signal, onJob, onConnection }) {
  let lastId = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    const silence = new AbortController();
    const either = AbortSignal.any([signal, silence.signal]);
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      const response = await request(path, { signal: either, headers: lastId ? { "Last-Event-ID": lastId } : {} });
      onConnection(true);
      for await (const event of events(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        wait = FIRST_WAIT_MS;
        if (event.id) lastId = event.id;
        if (event.name !== "job") continue;
        const job = JSON.parse(event.data);
        onJob(job);
        if (isOver(job)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // A job that isn't there, or isn't ours, won't be there the next time.
      if (error.status && error.status < 500 && error.status !== 429) throw error;
    } finally {
      clearTimeout(timer);
    }
    onConnection(false);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

export const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

/** Server-sent events of a body, as the HTML standard has them, comments too: they show that somebody is there. */
async function* events(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const block of read(body)) {
    const parts = (rest + decoder.decode(block, { stream: true })).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) yield parsed(part);
  }
}

function parsed(text) {
  const event = { id: "", name: "message", data: "" };
  for (const line of text.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "id") event.id = value;
    else if (field === "event") event.name = value;
    else if (field === "data") event.data += (event.data && "\n") + value;
  }
  return event;
}
