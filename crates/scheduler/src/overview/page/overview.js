// The page about a scheduler: what waits for somebody, what goes on, what was done, and what happens.
// It asks three lists and one stream of the address it came from; see overview.rs and overview/view.rs for what is in them.
"use strict";

// Most of one kind that are shown: what a browser lays out at once without a pause. The filter finds the others.
const ROWS_MAX = 200;
// Most events that are shown and kept.
const EVENTS_MAX = 300;
// Most phases of one operation that its bar shows: the last ones.
const PHASES_MAX = 60;
// How often the page is drawn at most, and how often without news, since time goes by.
const DRAW_MS = 250;
const TICK_MS = 1000;
// Twice the time after which the scheduler says that nothing has happened.
const SILENCE_MS = 12000;
const RECONNECT_MS = 2000;
const INSTANCES_MS = 5000;

// What the bar of a state looks like, and how the legend calls it.
const PHASES = {
  prepare: ["prepares", "PENDING", "PREPARING"],
  stop: ["stops", "STOPPING", "STOPPED"],
  wait: ["waits for the next attempt", "BACKING_OFF"],
  force: ["kills", "FORCING"],
  start: ["starts, finishes", "STARTING", "FINALIZING"],
  bad: ["goes back, or waits for somebody", "CANCELLING", "ROLLING_BACK", "DEGRADED"],
};
const PHASE_OF = Object.fromEntries(Object.entries(PHASES).flatMap(([phase, [, ...states]]) => states.map((state) => [state, phase])));
const GOOD = ["SUCCEEDED", "CANCELLED", "ROLLED_BACK"];
const BAD_EVENTS = ["TIMEOUT", "EXTENSION_DENIED", "ATTEMPT_FAILED", "OVERRIDE"];

const $ = (selector, within = document) => within.querySelector(selector);
const operations = new Map(); // by name: the operation, its phases
const shutdowns = new Map(); // by operation: what was heard last of its instances
let instances = [];
let events = [];
let opened = null; // name of the operation whose details are shown
let details = null; // those, once they are there
let cut = false; // there is more than is listed
let ahead = 0; // by how much the scheduler's clock is ahead of this one, in ms
let token = sessionStorage.getItem("token") ?? "";

const now = () => Date.now() + ahead;
const short = (name) => (name ?? "").replace(/^(operations|applications|clusters)\//, "");
const instanceOf = (name) => name.replace(/^.*\/instances\//, "");

function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
}
const clock = (time) => (time === undefined || time === null ? "" : new Date(time).toLocaleTimeString(undefined, { hour12: false }));

// An element with these properties and children. Texts stay texts, whatever somebody has put into them.
function make(tag, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

class Refused extends Error {
  constructor(status, refusal) {
    super(refusal.message || `the scheduler answers ${status}`);
    this.status = status;
    this.reason = refusal.reason;
  }
}

async function ask(path, signal) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => ({})));
}

// The JSON texts of an answer, one a line; many at a time when many are there.
async function* linesOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (lines.length) yield lines.map((line) => JSON.parse(line));
  }
}

// Takes over what is newer of an operation, and notes when it changed its state.
function take(operation, time, previous) {
  const known = operations.get(operation.name);
  const phases = known?.phases ?? [{ state: "PENDING", from: operation.created }];
  const last = phases.at(-1);
  if (previous && time && last.state !== operation.state && (last.from ?? 0) <= time) {
    phases.push({ state: operation.state, from: time });
    if (phases.length > PHASES_MAX) phases.shift();
  }
  if (known && known.revision > operation.revision) return;
  operations.set(operation.name, Object.assign(operation, { phases }));
}

// The phases of an operation from its times alone, where its events are not known any more.
function phasesOf(operation) {
  const heard = operation.phases;
  const end = operation.ended ?? null;
  if (heard.length > 1) return heard;
  const known = [{ state: "PREPARING", from: operation.created }];
  if (operation.begun) known.push({ state: "STOPPING", from: operation.begun });
  if (!end && operation.state !== known.at(-1).state) known.push({ state: operation.state, from: operation.updated });
  return known;
}

async function list() {
  for await (const page of linesOf(await ask("overview/operations"))) {
    for (const line of page) {
      if (line.type === "ENDED") throw new Error(line.message);
      if (line.type === "CUT") cut = true;
      else take(line);
    }
    draw();
  }
}

async function follow() {
  let resume = "";
  let listed = false;
  for (;;) {
    const stop = new AbortController();
    let heard = performance.now();
    const watchdog = setInterval(() => performance.now() - heard > SILENCE_MS && stop.abort(), 1000);
    try {
      const answer = await ask(`overview/events${resume ? `?resume=${encodeURIComponent(resume)}` : ""}`, stop.signal);
      admit();
      if (!listed) {
        // Behind the beginning of the stream, so that nothing falls between the two.
        await list();
        listed = true;
      }
      for await (const batch of linesOf(answer)) {
        heard = performance.now();
        for (const event of batch) {
          if (event.type === "ENDED") {
            if (["RESUME_TOKEN_EXPIRED", "WATCH_TOO_SLOW"].includes(event.reason)) resume = "";
            continue;
          }
          if (event.resume) resume = event.resume;
          if (event.type === "BOOKMARK") {
            ahead = event.time - Date.now();
            continue;
          }
          happened(event);
        }
        say(null);
        draw();
      }
    } catch (problem) {
      if (problem instanceof Refused && [401, 403].includes(problem.status)) {
        await asked(problem);
        continue;
      }
      if (problem instanceof Refused && problem.status === 410) {
        // The history does not reach back that far any more.
        [resume, listed] = ["", false];
        operations.clear();
        continue;
      }
      say(`not connected: ${problem.name === "AbortError" ? "nothing heard" : problem.message}; trying again`);
      await new Promise((done) => setTimeout(done, RECONNECT_MS));
    } finally {
      clearInterval(watchdog);
      stop.abort();
    }
  }
}

function happened(event) {
  if (event.operation) take(event.operation, event.time, event.previous);
  if (event.operation && event.instance) {
    const heard = shutdowns.get(event.operation.name) ?? new Map();
    heard.set(event.instance.instance, event.instance);
    shutdowns.set(event.operation.name, heard);
  }
  if (event.operation?.done) shutdowns.delete(event.operation.name);
  events.push(event);
  if (events.length > EVENTS_MAX) events = events.slice(-EVENTS_MAX);
  if (event.operation?.name === opened) look(opened);
}

// Shows the form until there is a token to try.
function asked(problem) {
  $("main").hidden = true;
  $("#credential").hidden = false;
  $("#refused").textContent = token ? problem.message : "";
  $("#status").textContent = "not let in yet";
  $("#token").focus();
  return new Promise((done) => {
    $("#credential").onsubmit = (submitted) => {
      submitted.preventDefault();
      token = $("#token").value.trim();
      sessionStorage.setItem("token", token);
      done();
    };
  });
}

function admit() {
  $("#credential").hidden = true;
  $("#token").value = "";
  $("main").hidden = false;
  say(null);
}

let trouble = null;
function say(what) {
  trouble = what;
  draw();
}

async function lookAtInstances() {
  try {
    const found = [];
    if (!$("main").hidden && !document.hidden) {
      for await (const page of linesOf(await ask("overview/instances"))) found.push(...page.filter((line) => line.name));
      instances = found;
      draw();
    }
  } catch (problem) {
    // The stream of events says what is wrong.
    console.debug(problem);
  }
  setTimeout(lookAtInstances, INSTANCES_MS);
}

async function look(name) {
  try {
    const found = await (await ask(`overview/${name}`)).json();
    if (opened === name) details = found;
  } catch (problem) {
    if (opened === name) details = { name, trouble: problem.message, instances: [], starts: [] };
  }
  draw();
}

let due = null;
function draw() {
  due ??= setTimeout(() => {
    due = null;
    render();
  }, DRAW_MS);
}

function render() {
  if (document.hidden) return;
  const wanted = $("#filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (...texts) => wanted.every((word) => texts.some((text) => text?.toLowerCase().includes(word)));
  const groups = { waiting: [], open: [], done: [] };
  for (const one of operations.values()) {
    const group = one.done ? "done" : one.state === "DEGRADED" || one.awaits ? "waiting" : "open";
    if (matches(one.name, one.application, one.source, one.target, one.state, one.kind)) groups[group].push(one);
  }
  groups.waiting.sort((a, b) => (a.updated ?? 0) - (b.updated ?? 0));
  groups.open.sort((a, b) => (a.deadline ?? a.created) - (b.deadline ?? b.created));
  groups.done.sort((a, b) => (b.ended ?? 0) - (a.ended ?? 0));
  const until = Math.max(now(), ...groups.open.slice(0, ROWS_MAX).map((one) => Math.min(one.deadline ?? 0, now() + Number($("#span").value) / 4)));
  const from = now() - Number($("#span").value);
  for (const [group, found] of Object.entries(groups)) section(group, found, from, until);
  table(instances.filter((one) => matches(one.name, one.cluster, one.state, one.app)));
  log(events.filter((event) => matches(event.operation?.application, event.operation?.name, event.type, event.message, event.instance?.instance)));
  const status = $("#status");
  status.classList.toggle("lost", trouble !== null);
  if (!$("main").hidden) {
    const counts = `${groups.waiting.length} wait for somebody, ${groups.open.length} in progress, ${groups.done.length} done`;
    status.textContent = trouble ?? `${counts}${wanted.length ? " (filtered)" : ""}${cut ? "; older ones: quiesce get operations" : ""}`;
  }
  document.title = `${groups.waiting.length ? `(${groups.waiting.length}!) ` : ""}Quiesce`;
}

// Puts `rows` where they belong; those that are there already stay, so that the focus does.
function section(group, found, from, until) {
  const place = $(`#${group}`);
  $(".count", place).textContent = found.length ? String(found.length) : "";
  $(".none", place).hidden = found.length > 0;
  const shown = found.slice(0, ROWS_MAX);
  const rows = $(".operations", place);
  const there = new Map([...rows.children].map((row) => [row.dataset.name, row]));
  let before = rows.firstChild;
  for (const one of shown) {
    let row = there.get(one.name);
    there.delete(one.name);
    if (!row) row = make("li", { className: "operation", data: { name: one.name } }, make("button", { className: "row", type: "button" }));
    fill(row, one, from, until);
    if (row !== before) rows.insertBefore(row, before);
    else before = before.nextSibling;
  }
  for (const gone of there.values()) gone.remove();
  if (found.length > shown.length) {
    rows.append(make("li", { className: "more", data: { name: "" } }, `and ${found.length - shown.length} more; filter to see them`));
  }
}

function fill(row, one, from, until) {
  const button = row.firstChild;
  const states = { good: GOOD.includes(one.state), bad: one.state === "DEGRADED" || one.state === "ABANDONED", wait: one.awaits };
  const state = make("span", { className: "state" }, one.state + (one.attempt > 1 ? ` · attempt ${one.attempt}${one.attempts ? ` of ${one.attempts}` : ""}` : ""));
  for (const [name, on] of Object.entries(states)) state.classList.toggle(name, Boolean(on));
  const where = one.target ? `${short(one.source)} → ${short(one.target)}` : `deleted from ${short(one.source)}`;
  button.replaceChildren(
    make("span", { className: "name", title: one.name }, short(one.application)),
    make("span", { className: "where" }, where),
    state,
    bar(one, from, until),
    make("span", { className: "left" }, left(one)),
  );
  button.setAttribute("aria-expanded", String(opened === one.name));
  button.setAttribute("aria-label", `${short(one.application)}, ${where}, ${one.state}, ${one.message}`);
  const help = one.done ? null : helpFor(one);
  const wantedParts = [help, opened === one.name ? detailsOf(one) : null].filter(Boolean);
  while (row.children.length > 1) row.lastChild.remove();
  row.append(...wantedParts);
}

function left(one) {
  if (one.done) return `took ${span((one.ended ?? one.updated) - one.created)}`;
  if (one.next) return `next attempt in ${span(one.next - now())}`;
  if (one.state === "DEGRADED") return `since ${span(now() - one.updated)}`;
  if (one.deadline && ["STOPPING", "FORCING"].includes(one.state)) {
    return one.deadline > now() ? `${span(one.deadline - now())} of grace left` : "grace is over";
  }
  return `for ${span(now() - one.created)}`;
}

function bar(one, from, until) {
  const place = make("span", { className: "bar", role: "img" });
  const at = (time) => Math.max(0, Math.min(100, ((time - from) / (until - from)) * 100));
  const end = one.ended ?? now();
  const phases = phasesOf(one);
  const piece = (name, begin, stop, title) => {
    if (stop <= from || begin >= until) return;
    const part = make("i", { className: name, title });
    part.style.left = `${at(begin)}%`;
    part.style.width = `${Math.max(0, at(stop) - at(begin))}%`;
    place.append(part);
  };
  phases.forEach((phase, index) => {
    if (!PHASE_OF[phase.state] || phase.from === undefined) return;
    const stop = phases[index + 1]?.from ?? end;
    piece(PHASE_OF[phase.state], phase.from, stop, `${phase.state} for ${span(stop - phase.from)}`);
  });
  if (one.done) piece(GOOD.includes(one.state) ? "good" : "bad", end, end + (until - from) / 300, one.state);
  else if (one.deadline > now() && one.state === "STOPPING") piece("stop ahead", now(), one.deadline, `grace ends in ${span(one.deadline - now())}`);
  place.setAttribute("aria-label", phases.map((phase) => phase.state).join(", "));
  return place;
}

// Why it waits, and what the scheduler advises, its commands ready to be copied.
function helpFor(one) {
  if (one.state !== "DEGRADED" && !one.awaits) return null;
  const help = make("div", { className: "help" });
  if (one.failure) help.append(make("p", { className: "why" }, `${one.failure.reason}: ${one.failure.message}`));
  const advice = (one.advice ?? "").split(/(quiesce [a-z]+ op-\w+(?: --[a-z-]+)*)/);
  help.append(make("p", {}, ...advice.map((part, index) => (index % 2 ? make("code", {}, part) : part))));
  help.append(make("p", {}, "To look closer: ", make("code", {}, `quiesce describe ${short(one.name)}`)));
  return help;
}

function detailsOf(one) {
  const whole = details?.name === one.name ? details : null;
  const place = make("div", { className: "details" });
  const says = [
    ["operation", short(one.name)], ["says", one.message], ["asked for by", one.requester], ["because", one.reason],
    ["accepted", one.created && new Date(one.created).toLocaleString()],
    ["grace", `${span(one.grace)}, extensible by ${span(one.extensible)}`], ["epoch", String(one.epoch)], ["round", String(one.round)],
  ].filter(([, text]) => text);
  place.append(make("p", {}, ...says.flatMap(([what, text]) => [`${what}: `, make("b", {}, text), "  ·  "]).slice(0, -1)));
  for (const given of one.overrides) {
    place.append(make("p", { className: "why" }, `${given.kind} by ${given.requester}: ${given.reason} ${given.instance ? instanceOf(given.instance) : ""}`));
  }
  if (!whole) return place.append(make("p", {}, "…")), place;
  if (whole.trouble) place.append(make("p", { className: "why" }, whole.trouble));
  if (whole.instances?.length) {
    const rows = whole.instances.slice(0, ROWS_MAX).map((stopped) => {
      const fresh = shutdowns.get(one.name)?.get(stopped.instance);
      const it = fresh && (fresh.heard ?? 0) > (stopped.heard ?? 0) ? fresh : stopped;
      const total = it.deadline - it.accepted;
      const over = it.outcome || one.done;
      const used = over || !it.accepted || !(total > 0) ? "" : make("progress", { max: total, value: Math.min(total, now() - it.accepted), title: "grace used" });
      const timing = over || !it.deadline ? "" : ` ${span(now() - it.accepted)} used, ${span(it.deadline - now())} left`;
      const proof = it.outcome ? `${it.outcome}, ${it.evidence}${it.verified ? ", verified" : ", not verified"}` : "";
      const why = it.failure ? `${it.failure.reason}: ${it.failure.message}` : [it.step, it.message].filter(Boolean).join(": ");
      return make("tr", {}, make("td", {}, instanceOf(it.instance)), make("td", {}, it.phase ?? "not asked yet"), make("td", {}, String(it.attempt)),
        make("td", {}, used, timing), make("td", {}, it.extension ? span(it.extension) : ""), make("td", {}, proof), make("td", {}, why));
    });
    place.append(make("table", {}, headings("Stopped", "Phase", "Attempt", "Grace", "Extended", "Evidence", "Says"), make("tbody", {}, ...rows)));
  }
  if (whole.starts?.length) {
    const rows = whole.starts.slice(0, ROWS_MAX).map((it) =>
      make("tr", {}, make("td", {}, instanceOf(it.instance)), make("td", {}, it.ready ? "READY" : (it.phase ?? "ordered")), make("td", {}, String(it.epoch)),
        make("td", {}, it.rollback ? "back at the source" : "at the target"), make("td", {}, it.failure ? `${it.failure.reason}: ${it.failure.message}` : it.message ?? "")));
    place.append(make("table", {}, headings("Started", "Phase", "Epoch", "Where", "Says"), make("tbody", {}, ...rows)));
  }
  return place;
}

const headings = (...texts) => make("thead", {}, make("tr", {}, ...texts.map((text) => make("th", {}, text))));

function table(found) {
  const place = $("#instances");
  $(".count", place).textContent = found.length ? String(found.length) : "";
  $(".none", place).hidden = found.length > 0;
  $("table", place).hidden = found.length === 0;
  const troubled = (one) => (one.state === "UNREACHABLE" || one.state === "NOT_READY" ? 0 : 1);
  found.sort((a, b) => troubled(a) - troubled(b) || a.name.localeCompare(b.name));
  const rows = found.slice(0, ROWS_MAX).map((one) => {
    const state = make("td", { className: "state" }, one.state);
    state.classList.toggle("bad", troubled(one) === 0);
    state.classList.toggle("good", one.state === "READY");
    return make("tr", {}, make("td", {}, one.name.replace("applications/", "").replace("/instances/", "/")), make("td", {}, short(one.cluster)), state,
      make("td", {}, one.app ?? ""), make("td", {}, String(one.epoch)), make("td", {}, one.heard ? `${span(now() - one.heard)} ago` : ""), make("td", {}, one.why ?? ""));
  });
  if (found.length > ROWS_MAX) rows.push(make("tr", {}, make("td", { colSpan: 7, className: "more" }, `and ${found.length - ROWS_MAX} more; filter to see them`)));
  $("tbody", place).replaceChildren(...rows);
}

let logged = "";
function log(found) {
  const last = found.slice(-EVENTS_MAX).reverse();
  // Only what is new is worth laying out.
  const mark = `${last.length} ${last[0]?.resume} ${$("#filter").value}`;
  if (mark === logged) return;
  logged = mark;
  $("#events .none").hidden = last.length > 0;
  $("#events ol").replaceChildren(...last.map((event) =>
    make("li", { className: BAD_EVENTS.includes(event.type) || event.operation?.state === "DEGRADED" ? "bad" : "" },
      make("time", {}, clock(event.time)),
      make("span", {}, event.type === "STATE_CHANGED" ? event.operation.state : event.type),
      make("span", {}, short(event.operation?.application) + (event.instance ? `/${instanceOf(event.instance.instance)}` : "")),
      make("span", { title: event.message ?? "" }, event.message ?? ""))));
}

function toggle(name) {
  opened = opened === name ? null : name;
  details = null;
  if (opened) look(opened);
  render();
}

document.addEventListener("click", (clicked) => {
  const row = clicked.target.closest?.(".row");
  if (row) toggle(row.parentElement.dataset.name);
});
document.addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
  const typing = ["INPUT", "SELECT"].includes(document.activeElement?.tagName);
  if (pressed.key === "Escape") {
    if (typing) document.activeElement.blur();
    else if (opened) toggle(opened);
  } else if (!typing && pressed.key === "/") {
    pressed.preventDefault();
    $("#filter").focus();
  } else if (!typing && ["j", "k", "ArrowDown", "ArrowUp"].includes(pressed.key)) {
    const rows = [...document.querySelectorAll(".row")];
    const at = rows.indexOf(document.activeElement);
    const next = at < 0 ? 0 : at + (["j", "ArrowDown"].includes(pressed.key) ? 1 : -1);
    if (rows[next]) {
      pressed.preventDefault();
      rows[next].focus();
      rows[next].scrollIntoView({ block: "nearest" });
    }
  }
});
$("#filter").addEventListener("input", draw);
$("#span").addEventListener("change", draw);
document.addEventListener("visibilitychange", draw);
for (const [name, [title]] of Object.entries(PHASES)) $("#legend").append(make("span", {}, make("i", { className: name }), title));
$("#legend").append(make("span", {}, make("i", { className: "good" }), "over, well"));
setInterval(draw, TICK_MS);
follow();
setTimeout(lookAtInstances, 500);
