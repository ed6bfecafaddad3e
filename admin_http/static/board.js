// The live board: begins with …/live/now, goes on with the stream, and begins anew whenever the stream was cut.
"use strict";

const board = document.getElementById("board"), number = board.dataset.number;
const { words, lines, desk } = JSON.parse(document.getElementById("island").textContent);
const LANES = ["waiting", "ringing", "talking"];
const LATE_S = 30, SHOW_ENDED_MS = 6000, SILENT_MS = 45_000, LOOK_AGAIN_MS = 30_000, MOST_RECORDS = 2;
const tickets = new Map(); // by customer: what they wrote or called about and is not closed
const calls = new Map(), phones = new Map(), pbxs = new Map();
let skew = 0, heard = Date.now(), buffered = null, drawing = false;

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds)), rest = String(whole % 60).padStart(2, "0"), minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
};
const now = () => Date.now() + skew;
const up = (leg) => leg.answered_at && !leg.ended_at, rings = (leg) => !leg.answered_at && !leg.ended_at;
const ours = (call) => call.legs.filter((leg) => leg.kind !== "customer" && leg.number);

// waiting: the customer is in a queue or a menu and nobody's phone rings; talking: somebody of ours was reached.
function laneOf(call) {
  if (call.answered_at) return "talking";
  if (call.direction !== "in") return "ringing";
  return ours(call).some(rings) ? "ringing" : "waiting";
}

function stateOf(phone) {
  let state = phones.get(phone)?.device === "away" ? "away" : "free", call = null;
  for (const one of calls.values()) {
    if (one.ended_at) continue;
    for (const leg of one.legs) {
      if (leg.kind === "customer" || leg.number !== phone) continue;
      if (up(leg)) return ["talking", one];
      if (rings(leg)) [state, call] = ["ringing", one];
    }
  }
  return [state, call];
}

// +375 29 625-40-70, as the other pages show it; a country with other groups stays as it is.
const phone = (text) => (text ?? "").replace(/^(\+375)(\d\d)(\d{3})(\d\d)(\d\d)$/, "$1 $2 $3-$4-$5").replace(/^(\+7)(\d{3})(\d{3})(\d\d)(\d\d)$/, "$1 $2 $3-$4-$5");
const party = (call) => call.customer_name || phone(call.customer_number) || words.unknown;

function fill(card, call) {
  card.className = `live-call ${call.direction}${call.ended_at ? " ended" : ""}`;
  card.querySelector("strong").textContent = party(call);
  drawRecords(card, call);
  const who = call.ended_at ? words.results[call.result]?.[0] ?? ""
    : call.answered_at ? (call.last_talked ?? call.answered_by ?? "") : ours(call).filter(rings).map((leg) => leg.number).join(", ") || (call.queue ? "" : words.menu);
  const owner = phones.get(who)?.owner;
  const told = [words.directions[call.direction], call.line ? lines[call.line] || phone(call.line) : "", call.queue ? `${words.queue} ${call.queue}` : ""];
  card.querySelector("small").replaceChildren(element("b", "", owner ? `${who} ${owner}` : who), `${who ? " · " : ""}${told.filter(Boolean).join(" · ")}`);
}

// The users and companies of our own records that the number belongs to.
function drawRecords(card, call) {
  const told = (call.records ?? []).map((one) => `${one.kind}/${one.id} ${one.name}`).join("\n");
  if ((card.dataset.records ?? "") === told) return;
  card.dataset.records = told;
  card.querySelector(".records")?.remove();
  if (!told) return;
  const line = element("span", "records");
  for (const one of call.records.slice(0, MOST_RECORDS)) {
    const link = element("a", "known", one.name);
    link.href = `/e/${number}/records/${one.kind}/${one.id}`;
    line.append(link);
  }
  card.append(line);
}

// Asked once per call; a board that is open all day forgets who has gone.
async function lookForTickets(customer) {
  if (tickets.size > 500) tickets.clear();
  tickets.set(customer, []);
  try {
    const answer = await fetch(`/api/enterprises/${encodeURIComponent(number)}/tickets?status=unclosed&limit=3&phone=${encodeURIComponent(customer)}`);
    if (answer.ok) tickets.set(customer, (await answer.json()).items);
    draw();
  } catch { tickets.delete(customer); }
}

// A badge per ticket, each a link of its own above the card's.
function drawTickets(card, call) {
  const open = tickets.get(call.customer_number) ?? [], told = JSON.stringify(open.map((ticket) => [ticket.id, ticket.subject, ticket.status]));
  let line = card.querySelector(".tickets");
  if (!open.length) return line?.remove();
  if (!line) card.append(line = element("span", "tickets"));
  if (line.dataset.told === told) return;
  line.dataset.told = told;
  line.replaceChildren(...open.map((ticket) => {
    const link = element("a", `badge ${ticket.status === "open" ? "info" : "warn"}`, `№ ${ticket.id} ${ticket.subject}`);
    link.href = `/e/${number}/tickets/${ticket.id}`;
    link.title = `${words.ticket}: ${ticket.subject}`;
    return link;
  }));
}

function drawCalls() {
  const shown = Object.fromEntries(LANES.map((lane) => [lane, []]));
  for (const call of calls.values()) shown[laneOf(call)].push(call);
  for (const lane of LANES) {
    const home = board.querySelector(`[data-lane="${lane}"]`);
    home.querySelectorAll(".loading, .nobody").forEach((part) => part.remove());
    const keep = new Set();
    shown[lane].sort((a, b) => (a.started_at < b.started_at ? -1 : 1)).forEach((call, place) => {
      let card = home.querySelector(`[data-call="${call.id}"]`);
      if (!card) {
        card = element("div");
        card.dataset.call = call.id;
        const link = element("a", "over");
        link.href = `/e/${number}/calls/${call.id}`;
        link.append(element("strong"));
        card.append(link, element("time"), element("small"));
      }
      fill(card, call);
      if (desk && call.customer_number && call.direction !== "internal") {
        if (!tickets.has(call.customer_number)) lookForTickets(call.customer_number);
        drawTickets(card, call);
      }
      keep.add(card);
      if (home.children[place] !== card) home.insertBefore(card, home.children[place] ?? null);
    });
    [...home.children].forEach((child) => keep.has(child) || child.remove());
    if (!home.children.length) home.append(element("p", "nobody", words[`empty_${lane}`]));
    board.querySelector(`[data-count="${lane}"]`).textContent = shown[lane].filter((call) => !call.ended_at).length;
  }
}

function drawPhones() {
  const home = document.getElementById("extensions");
  document.getElementById("no-extensions").hidden = phones.size > 0;
  for (const [phone, { owner }] of phones) {
    let tile = home.querySelector(`[data-phone="${CSS.escape(phone)}"]`);
    if (!tile) {
      tile = element("div");
      tile.dataset.phone = phone;
      tile.append(element("b"), element("i"), element("small"));
      home.append(tile);
    }
    const [state, call] = stateOf(phone);
    tile.className = `extension ${state}`;
    tile.querySelector("b").textContent = phone;
    tile.querySelector("i").textContent = words[state];
    tile.querySelector("small").textContent = call ? party(call) : owner;
    tile.title = owner;
  }
  [...home.children].forEach((tile) => phones.has(tile.dataset.phone) || tile.remove());
}

function drawTimes() {
  for (const card of board.querySelectorAll("[data-call]")) {
    const call = calls.get(card.dataset.call);
    if (!call) continue;
    const end = call.ended_at ? Date.parse(call.ended_at) : now();
    const seconds = (end - Date.parse(call.answered_at ?? call.started_at)) / 1000, time = card.querySelector("time");
    time.textContent = clock(seconds);
    time.className = !call.answered_at && !call.ended_at && seconds > LATE_S ? "late" : "";
  }
}

function drawPbxs() {
  const down = [...pbxs].filter(([, state]) => state !== "ready" && state !== "up").map(([name]) => name);
  document.getElementById("pbx-down").hidden = !down.length;
  document.getElementById("pbx-names").textContent = down.join(", ");
}

// However many events come at once, the page is drawn once per frame.
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawCalls();
    drawPhones();
    drawTimes();
    drawPbxs();
    board.dataset.drawn = String(Date.now());
  });
}

function take(call) {
  const before = calls.get(call.id);
  calls.set(call.id, call);
  if (call.ended_at && !before?.leaving) setTimeout(() => { calls.delete(call.id); draw(); }, SHOW_ENDED_MS);
  if (call.ended_at) call.leaving = true;
}

function pulse(state) {
  const badge = document.getElementById("pulse");
  badge.textContent = badge.dataset[state];
  badge.className = `badge ${{ live: "good", connecting: "info", cut: "warn" }[state]}`;
  document.getElementById("cut").hidden = state !== "cut";
  if (state === "cut") document.getElementById("cut-at").textContent = new Date(heard).toLocaleTimeString(document.documentElement.lang);
  board.classList.toggle("cut-off", state === "cut");
}

// What comes while the beginning is fetched waits, so that nothing older overwrites it.
async function begin() {
  buffered = [];
  try {
    const answer = await fetch(`/api/enterprises/${encodeURIComponent(number)}/live/now`, { headers: { Accept: "application/json" } });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = await answer.json();
    skew = Date.parse(fresh.at) - Date.now();
    calls.clear();
    phones.clear();
    pbxs.clear();
    fresh.calls.forEach((call) => calls.set(call.id, call));
    fresh.extensions.forEach((phone) => phones.set(phone.number, phone));
    fresh.pbxs.forEach((pbx) => pbxs.set(pbx.id, pbx.state));
    buffered.forEach(take);
    board.setAttribute("aria-busy", "false");
    pulse("live");
    draw();
  } catch {
    pulse("cut");
    setTimeout(begin, 3000);
  } finally {
    buffered = null;
  }
}

const stream = new EventSource(`/api/enterprises/${encodeURIComponent(number)}/live`);
stream.addEventListener("open", () => { heard = Date.now(); begin(); });
stream.addEventListener("error", () => pulse(board.getAttribute("aria-busy") === "true" && stream.readyState === EventSource.CONNECTING ? "connecting" : "cut"));
stream.addEventListener("call", (event) => {
  heard = Date.now();
  const call = JSON.parse(event.data);
  if (buffered) buffered.push(call);
  else { take(call); draw(); }
});
stream.addEventListener("ticket", () => { tickets.clear(); draw(); });
stream.addEventListener("pbx", (event) => {
  heard = Date.now();
  const pbx = JSON.parse(event.data);
  pbxs.set(pbx.id, pbx.state);
  if (pbx.state === "up") begin();
  draw();
});
setInterval(drawTimes, 1000);
setInterval(() => document.hidden || buffered || stream.readyState !== EventSource.OPEN || begin(), LOOK_AGAIN_MS); // which phones can be reached
// A browser that slept is told late that its stream is gone.
document.addEventListener("visibilitychange", () => document.hidden || Date.now() - heard < SILENT_MS || begin());
