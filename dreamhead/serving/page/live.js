// Give a video element what is rendered so far of a job that runs, while more of it comes in.

import { key, open, read } from "./service.js";

/** Resolves once the first bytes are there; raises where this browser can't, which is no loss but of the preview. */
export async function attachLive(video, path, signal) {
  if (!key.get()) {
    video.src = path;
    return;
  }
  // An element sends no key: the bytes are fetched here, and handed over as they come.
  const response = await open(path, { signal });
  const type = response.headers.get("Content-Type") ?? "";
  if (!("MediaSource" in window) || !MediaSource.isTypeSupported(type)) {
    await response.body.cancel();
    throw new Error(`no preview of ${type}`);
  }
  const media = new MediaSource();
  video.src = URL.createObjectURL(media);
  await happens(media, "sourceopen");
  URL.revokeObjectURL(video.src);
  feed(media, media.addSourceBuffer(type), response.body, signal);
}

async function feed(media, buffer, body, signal) {
  try {
    for await (const block of read(body)) {
      if (signal.aborted || media.readyState !== "open") return;
      buffer.appendBuffer(block);
      await happens(buffer, "updateend");
    }
    if (media.readyState === "open") media.endOfStream();
  } catch {
    // The stream broke, or the job is no longer shown: what came so far stays, and the result will follow.
  }
}

const happens = (target, name) => new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
