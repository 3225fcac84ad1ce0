// Keeps the part of the page that changes (#live) up to date, without a reload.
//
// It asks the server for that part again and again. An unchanged one is answered with 304, and the
// header Poll-After says when to ask again. It rests while the page is not visible or paused. The
// server makes all HTML; here the new part is laid over the old one, so that whoever types, reads
// or has opened something is not disturbed. Without this script the page works, and is reloaded.
"use strict";

const live = document.getElementById("live");
const connection = document.getElementById("connection");
const pauseButton = document.getElementById("pause");
const said = document.getElementById("said");
const trouble = document.getElementById("trouble");

const TIMEOUT = 8000; // milliseconds
const LONGEST_WAIT = 15; // seconds between two tries while the connection is lost

let etag = "";
let timer = 0;
let asking = null;
let failures = 0;
let paused = false;
let finished = false;
let clockSkew = 0; // milliseconds by which the server's clock is ahead of ours

// --- Asking -------------------------------------------------------------------------------------

function schedule(seconds) {
  clearTimeout(timer);
  if (!finished && !paused && !document.hidden) {
    timer = setTimeout(ask, seconds * 1000);
  }
}

// So that many open pages do not all ask at the same moment.
function spread() {
  return 0.75 + Math.random() / 2;
}

async function ask() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const limit = setTimeout(() => mine.abort("slow"), TIMEOUT);
  try {
    const response = await fetch(live.dataset.live, {
      cache: "no-store",
      headers: { "If-None-Match": etag, Accept: "text/html" },
      signal: mine.signal,
    });
    if (response.status === 401 || response.status === 403) {
      finished = true;
      show("lost", "You are not signed in any more. Load the page again.");
      return;
    }
    if (response.status === 404) {
      finished = true;
      show("lost", "This is not known any more. Load the page again.");
      return;
    }
    if (response.status !== 304) {
      if (!response.ok) {
        throw new Error(`status ${response.status}`);
      }
      update(await response.text());
      etag = response.headers.get("ETag") ?? "";
    }
    clockSkew = Date.parse(response.headers.get("Date")) - Date.now() || 0;
    failures = 0;
    if (live.querySelector('[data-key="away"]')) {
      show("lost", "Redis is away. Trying again …"); // the server answers, and knows nothing
    } else {
      show("live", finished ? "The task has ended" : "Live");
    }
    schedule((Number(response.headers.get("Poll-After")) || 2) * spread());
  } catch (error) {
    if (mine !== asking) {
      return; // a newer question has taken over
    }
    failures += 1;
    show("lost", "Connection lost. Trying again …");
    schedule(Math.min(2 ** (failures - 1), LONGEST_WAIT) * spread());
  } finally {
    clearTimeout(limit);
  }
}

function show(state, words) {
  if (connection.textContent !== words) {
    connection.textContent = words; // it is a live region: screen readers say a change
  }
  connection.dataset.state = state;
}

pauseButton.hidden = false;
pauseButton.addEventListener("click", () => {
  paused = !paused;
  pauseButton.setAttribute("aria-pressed", String(paused));
  if (paused) {
    clearTimeout(timer);
    asking?.abort();
    show("paused", "Paused");
  } else {
    ask();
  }
});

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && !paused && !finished) {
    ask();
  }
});

addEventListener("online", () => schedule(0));

// --- Laying the new part over the old one -------------------------------------------------------

function update(html) {
  const fresh = new DOMParser().parseFromString(`<div>${html}</div>`, "text/html").body.firstChild;
  putTimesInWords(fresh);
  tellWhatEnded(fresh);
  const section = document.activeElement?.closest("#live section");
  lay(live, fresh);
  if (section && document.activeElement === document.body) {
    // The focused button went away with its task: go on where it was, not at the top.
    (section.isConnected ? section.querySelector("h2") : live.querySelector("h2"))?.focus();
  }
  if (live.querySelector("[data-final]")) {
    finished = true;
    pauseButton.hidden = true;
  }
}

const keyOf = (node) => node.dataset?.key ?? "";
const alike = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function lay(old, fresh) {
  const wanted = new Set([...fresh.children].map(keyOf));
  for (const child of [...old.children]) {
    if (keyOf(child) && !wanted.has(keyOf(child))) {
      child.remove();
    }
  }
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const match =
      at && alike(at, child) ? at : key && [...old.children].find((one) => alike(one, child));
    if (!match) {
      old.insertBefore(child, at);
      continue;
    }
    if (match === at) {
      at = at.nextSibling;
    } else {
      old.insertBefore(match, at);
    }
    if (!match.isEqualNode(child)) {
      copyAttributes(match, child);
      if (match.nodeType === Node.ELEMENT_NODE) {
        lay(match, child);
      } else {
        match.data = child.data;
      }
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function copyAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes ?? []) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
  for (const { name } of [...(old.attributes ?? [])]) {
    // What the reader has opened stays open.
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "aria-disabled") {
      old.removeAttribute(name);
    }
  }
}

function tellWhatEnded(fresh) {
  const ended = [];
  for (const task of fresh.querySelectorAll("[data-task]")) {
    const before = live.querySelector(`[data-key="${CSS.escape(task.dataset.key)}"]`);
    const [was, is] = [before?.dataset.state, task.dataset.state];
    if (was && was !== is && ["finished", "failed", "cancelled"].includes(is)) {
      ended.push(`${task.dataset.task} ${is === "cancelled" ? "was cancelled" : is}.`);
    }
  }
  if (ended.length) {
    said.textContent = ended.length > 3 ? `${ended.length} tasks ended.` : ended.join(" ");
  }
}

// --- Times --------------------------------------------------------------------------------------

function inUnits(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) {
      return `${Math.round(seconds / size)} ${unit}`;
    }
  }
  return `${Math.round(seconds)} s`;
}

function exactly(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours) {
    return `${hours} h ${minutes} min`;
  }
  return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

function putTimesInWords(root) {
  const now = Date.now() + clockSkew;
  for (const time of root.querySelectorAll("time")) {
    const past = (now - Date.parse(time.dateTime)) / 1000;
    let words = "now";
    if ("since" in time.dataset) {
      words = exactly(past);
    } else if (Math.abs(past) >= 1) {
      words = past > 0 ? `${inUnits(past)} ago` : `in ${inUnits(-past)}`;
    }
    if (time.textContent !== words) {
      time.textContent = words;
    }
    time.title ||= new Date(time.dateTime).toLocaleString();
  }
}

setInterval(() => {
  if (!document.hidden && !paused) {
    putTimesInWords(document);
  }
}, 1000);

// --- Forms --------------------------------------------------------------------------------------

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const button = event.submitter;
  if (!form.dataset.live) {
    return;
  }
  event.preventDefault();
  if (button?.getAttribute("aria-disabled") === "true") {
    return;
  }
  button?.setAttribute("aria-disabled", "true");
  trouble.hidden = true;
  try {
    const response = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form, button)),
      headers: { Accept: "application/json" },
      redirect: "manual",
    });
    // The answer leads to another page, for browsers without this script. We stay.
    if (response.type !== "opaqueredirect" && !response.ok) {
      throw new Error((await response.json()).detail);
    }
    said.textContent = form.dataset.live;
  } catch (error) {
    trouble.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    trouble.hidden = false;
  }
  button?.removeAttribute("aria-disabled");
  if (!paused && !finished) {
    ask();
    setTimeout(() => schedule(0), 1100); // another process may know of it a second later
  }
});

putTimesInWords(document);
ask();
