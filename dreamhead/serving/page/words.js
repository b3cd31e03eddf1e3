// Say things as people do: times, states, reasons.

/** Time of a video, as players write it: 1:02.4. */
export function clock(seconds, digits = 1) {
  const rounded = Number(seconds.toFixed(digits));
  const minutes = Math.floor(rounded / 60);
  return `${minutes}:${(rounded - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

/** A guess at a length of time, no more exact than a guess is. */
export function about(seconds) {
  if (seconds < 5) return "a few seconds";
  if (seconds < 55) return `about ${5 * Math.round(seconds / 5)} seconds`;
  const minutes = Math.max(1, Math.round(seconds / 60));
  if (minutes < 60) return minutes === 1 ? "about a minute" : `about ${minutes} minutes`;
  const hours = Math.round(minutes / 30) / 2;
  return hours === 1 ? "about an hour" : `about ${hours} hours`;
}

export const STATES = {
  queued: "waiting",
  running: "running",
  succeeded: "done",
  failed: "failed",
  cancelled: "cancelled",
};

const REASONS = {
  NO_FACE: "no face found",
  FACE_TOO_SMALL: "face too small",
  TURNED_AWAY: "face turned away",
  OUTSIDE_SEGMENTS: "outside the chosen segments",
};

/** How far a job is, in one sentence. */
export function progressOf(job) {
  const { frames_done: done, frames, eta_s: eta } = job.progress;
  if (job.status === "queued") return "Waiting for a worker.";
  if (job.status === "running") {
    if (!frames) return "Looking at the video.";
    const share = `${done} of ${frames} frames`;
    if (done === frames) return `${share}; joining and checking the result.`;
    return eta === null ? `${share}.` : `${share}, ${about(eta)} left.`;
  }
  if (job.status === "succeeded") return `Done: ${frames} frames, ${job.dubbed_frames} of them dubbed.`;
  return job.status === "failed" ? "This dub failed." : "This dub was cancelled.";
}

/** Frames that weren't dubbed, and why; empty when all were. */
export function passedThrough(job) {
  return Object.entries(job.passed_through)
    .filter(([, count]) => count)
    .map(([reason, count]) => `${count} (${REASONS[reason] ?? reason.toLowerCase().replaceAll("_", " ")})`)
    .join(", ");
}

/** When something was, in the reader's own way of writing it. */
export function when(text) {
  const date = new Date(text);
  const isToday = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return isToday ? `today, ${time}` : `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

/** The service's one line as a sentence, without the field that it begins with where it is a request's. */
export function sentence(line) {
  const plain = line.replace(/^(body\.|form\.)?[a-z]+_[a-z_]+: /, "");
  return plain.charAt(0).toUpperCase() + plain.slice(1) + (/[.!?…]$/.test(plain) ? "" : ".");
}
