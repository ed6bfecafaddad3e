// Lists of calls and deliveries: a click that calls, ticks, "/" to search. htmx does the rest.
"use strict";

const remembered = {
  get: () => { try { return localStorage.getItem("vochid.extension"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("vochid.extension", value); } catch { /* a private window forgets */ } },
};

// One click to call. Which phone rings first is asked once per browser; with Shift it is asked again.
async function dial(button, extension) {
  const words = document.getElementById("dial-words").dataset;
  button.disabled = true;
  try {
    const token = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];
    const answer = await fetch(`/api/enterprises/${encodeURIComponent(button.dataset.enterprise)}/calls`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
      body: JSON.stringify({ extension, phone: button.dataset.dial }),
    });
    const body = await answer.json().catch(() => ({}));
    if (answer.status === 202) toast(words.unknown, "bad");
    else if (answer.ok) toast(words.sent);
    else toast(body.said ?? body.detail ?? `${answer.status}`, "bad");
  } catch {
    toast(words.unknown, "bad");
  } finally {
    button.disabled = false;
  }
}

let dialling = null;
on("click", "[data-dial]", (button, event) => {
  const dialog = document.getElementById("dial"), select = document.getElementById("dial-extension");
  const known = remembered.get();
  const fits = known && [...select.options].some((option) => option.value === known);
  if (fits && !event.shiftKey) return dial(button, known);
  if (fits) select.value = known;
  dialling = button;
  document.getElementById("dial-phone").textContent = button.dataset.dial;
  dialog.returnValue = "";
  dialog.showModal();
});
document.getElementById("dial")?.addEventListener("close", (event) => {
  const extension = document.getElementById("dial-extension").value;
  if (event.target.returnValue !== "call" || !dialling || !extension) return;
  remembered.set(extension);
  dial(dialling, extension);
});

// A missed call is done with: the list is asked for anew, so that it can say that nobody waits.
document.addEventListener("htmx:afterRequest", (event) => event.target.matches("[data-done]") && event.detail.successful && htmx.trigger("#found", "done"));

// Ticks: all at once, how many, and the bar that acts on them.
function countTicks(form) {
  const ticks = [...form.querySelectorAll('input[name="id"]')], ticked = ticks.filter((tick) => tick.checked);
  const bar = form.querySelector("[data-tickbar]"), all = form.querySelector("[data-tick-all]");
  if (bar) { bar.hidden = !ticked.length; form.querySelector("[data-ticked]").textContent = ticked.length; }
  if (all) { all.checked = ticks.length > 0 && ticked.length === ticks.length; all.indeterminate = ticked.length > 0 && !all.checked; }
}
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-ticks]");
  if (!form) return;
  if (event.target.matches("[data-tick-all]")) form.querySelectorAll('input[name="id"]').forEach((tick) => (tick.checked = event.target.checked));
  countTicks(form);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-ask]");
  if (button && !confirm(button.dataset.ask)) { event.preventDefault(); event.stopPropagation(); }
}, true);

// "/" goes to the search; j and k from row to row.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll("#rows .over, #rows .c-who a")];
    const next = links[links.indexOf(document.activeElement) + (event.key === "j" ? 1 : -1)];
    if (next) next.focus();
  }
});

// A choice in the reports' filters shows at once.
on("change", 'form[action$="/reports"] select', (select) => select.form.requestSubmit());
