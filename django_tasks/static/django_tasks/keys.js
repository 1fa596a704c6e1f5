"use strict";

// Keys for who works in these pages all day. What they are, where they lead and the words for it stand in the page, in a
// <template>; without this script, nothing of it is shown.
(() => {
  const KEY = "django_tasks.keys";
  const TOGETHER = 1500; // milliseconds within which the second key follows the first
  const FIELD = "#searchbar";
  const template = document.getElementById("djt-keys");
  const place = document.getElementById("content");
  if (!template || !place) return;

  place.append(template.content.cloneNode(true));
  const help = place.querySelector(".djt-keys");
  const used = help.querySelector("[type=checkbox]");
  const every = document.querySelector("[data-djt-every]");
  const part = document.querySelector("[data-djt-live]");

  try { used.checked = localStorage.getItem(KEY) !== "off"; } catch { /* they are on */ }
  used.addEventListener("change", () => {
    try { localStorage.setItem(KEY, used.checked ? "on" : "off"); } catch { /* as long as the page is there */ }
  });
  place.querySelector(".djt-keys-open").addEventListener("click", () => help.showModal());

  const search = () => {
    const field = document.querySelector(FIELD);
    if (field) field.focus();
    else help.querySelector("[data-djt-search]")?.click();
  };
  const refresh = () => {
    if (part && every) part.dispatchEvent(new Event("djt:refresh"));
    else location.reload();
  };
  let before = "";
  const live = () => {
    if (!every) return;
    const chosen = every.value;
    every.value = chosen === "0" ? before || every.options[0].value : "0";
    before = chosen === "0" ? "" : chosen;
    every.dispatchEvent(new Event("change"));
  };
  const does = { "/": search, "?": () => help.showModal(), l: live, r: refresh };

  let first = -Infinity;
  document.addEventListener("keydown", (event) => {
    if (!used.checked || help.open || event.defaultPrevented) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.target.closest?.("input, select, textarea, dialog, [contenteditable]")) return;
    const second = event.timeStamp - first < TOGETHER;
    first = -Infinity;
    if (second) {
      const link = help.querySelector(`[data-djt-go="${CSS.escape(event.key)}"]`);
      if (link) link.click();
    } else if (event.key === "g") {
      first = event.timeStamp;
    } else if (Object.hasOwn(does, event.key)) {
      event.preventDefault();
      does[event.key]();
    }
  });
  if (location.hash === FIELD) search();
})();
