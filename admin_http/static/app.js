// The little that pages do by themselves; everything else is htmx and the server. No state is kept here.
"use strict";

const on = (type, selector, act) =>
  document.addEventListener(type, (event) => {
    const target = event.target.closest?.(selector);
    if (target) act(target, event);
  });

function toast(text, kind = "good") {
  const box = document.createElement("div");
  box.className = `toast ${kind}`;
  box.textContent = text;
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), kind === "bad" ? 9000 : 4500);
}

// The server says it with the header HX-Trigger: {"toast": {"text", "kind"}}.
document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.kind));

on("click", "[data-menu]", (button) => {
  const open = document.getElementById("menu").classList.toggle("open");
  button.setAttribute("aria-expanded", String(open));
});

on("click", "[data-reveal]", (button) => {
  const input = document.getElementById(button.dataset.reveal);
  input.type = input.type === "password" ? "text" : "password";
  input.toggleAttribute("data-revealed", input.type === "text");
});

on("click", "[data-copy], [data-copy-of]", async (button) => {
  try {
    await navigator.clipboard.writeText(button.dataset.copy || document.getElementById(button.dataset.copyOf).textContent);
    button.classList.add("primary");
    setTimeout(() => button.classList.remove("primary"), 1200);
  } catch {
    const shown = document.getElementById(button.dataset.copyOf) ?? button.parentElement.querySelector("code, pre");
    if (shown) getSelection().selectAllChildren(shown);
  }
});

on("click", "[data-dialog]", (button) => document.getElementById(button.dataset.dialog)?.showModal());
on("click", "dialog [data-close]", (button) => button.closest("dialog").close());
on("click", "dialog", (dialog, event) => event.target === dialog && dialog.close());

// A day is typed as the page's language writes it; the calendar is the browser's own.
const isRussian = document.documentElement.lang === "ru";
const isoDay = (text) => text.trim().replace(/^(\d{1,2})[./](\d{1,2})[./](\d{4})$/, (_, day, month, year) => `${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}`);
on("click", "[data-calendar]", (button) => {
  const picker = button.parentElement.querySelector("[type=date]");
  picker.value = isoDay(button.parentElement.querySelector("[name]").value);
  picker.showPicker();
});
// While it goes down: a form that is sent by any change already finds the new day on its way up.
document.addEventListener("change", (event) => {
  if (!event.target.matches?.(".day > [type=date]")) return;
  const text = event.target.parentElement.querySelector("[name]");
  text.value = isRussian ? event.target.value.split("-").reverse().join(".") : event.target.value;
}, true);

// A question before a form goes off.
on("submit", "form[data-confirm]", (form, event) => {
  if (!confirm(form.dataset.confirm)) event.preventDefault();
});

// "Save appears on change": what is marked data-when-changed shows once its form differs from how it was sent.
const differs = (form) =>
  [...form.elements].some((field) =>
    field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
    : field.tagName === "SELECT" ? [...field.options].some((option) => option.selected !== option.defaultSelected)
    : field.name && field.type !== "hidden" && field.value !== field.defaultValue);
const showChanged = (form) => form.querySelectorAll("[data-when-changed]").forEach((part) => (part.hidden = !differs(form)));
for (const type of ["input", "change"]) on(type, "form", (field, event) => showChanged(event.target.form ?? field));
document.addEventListener("reset", (event) => setTimeout(() => showChanged(event.target)));

// A field that counts only beside another one's value: data-shown-by="name" data-shown-when="a b".
const showFitting = (root) =>
  root.querySelectorAll("[data-shown-by]").forEach((part) => {
    const field = part.closest("form")?.elements[part.dataset.shownBy];
    if (!field) return;
    part.hidden = !part.dataset.shownWhen.split(" ").includes(field.type === "checkbox" ? String(field.checked) : field.value);
    part.querySelectorAll("input, select, textarea").forEach((inner) => (inner.disabled = part.hidden)); // what does not count is not sent
  });
document.addEventListener("change", () => showFitting(document));
document.addEventListener("DOMContentLoaded", () => showFitting(document));
document.addEventListener("htmx:afterSwap", () => showFitting(document));

// News come in bursts. A region that asks anew at each of them says with data-pause="ms" how often it may; the last of a burst is never lost.
const resting = new Map();
const ration = (event) => {
  const region = event.target, pause = Number(region.dataset?.pause);
  if (!pause) return;
  if (resting.has(region)) {
    resting.set(region, event.type);
    return event.stopImmediatePropagation();
  }
  resting.set(region, null);
  setTimeout(() => {
    const missed = resting.get(region);
    resting.delete(region);
    if (missed && region.isConnected) htmx.trigger(region, missed);
  }, pause);
};
for (const topic of ["call", "pbx", "integration", "delivery"]) document.addEventListener(`sse:${topic}`, ration, true);

// A live region that lost its stream says so: the element named by data-stale="ID" shows until the stream is back.
const stale = (event, hidden) => {
  const region = event.target.closest?.("[data-stale]");
  if (region) document.getElementById(region.dataset.stale).hidden = hidden;
};
document.addEventListener("htmx:sseError", (event) => stale(event, false));
document.addEventListener("htmx:sseOpen", (event) => stale(event, true));

document.addEventListener("htmx:responseError", (event) => {
  const { status, statusText, responseText } = event.detail.xhr;
  let said;
  try { said = JSON.parse(responseText).said; } catch { /* a page */ }
  toast(said ?? `${status} ${statusText}`, "bad");
});
document.addEventListener("htmx:sendError", () => toast(document.documentElement.lang === "ru" ? "Нет связи с сервером" : "The server cannot be reached", "bad"));
