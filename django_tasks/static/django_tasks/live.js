"use strict";

// Fetches the live part of a page again and again, while somebody looks. Without it the page is as whole, and as of its
// loading.
document.addEventListener("DOMContentLoaded", () => {
  const SLOWEST = 60;
  const GIVE_UP_AFTER = 30 * 60 * 1000;
  const part = document.querySelector("[data-djt-live]");
  const select = document.querySelector("[data-djt-every]");
  const said = document.querySelector("[data-djt-said]");
  if (!part || !select || !said) return;
  const KEY = ["django_tasks.every", select.dataset.djtEvery].filter(Boolean).join(".");

  let timer = 0;
  let etag = "";
  let delay = 0;
  let underWay = false;
  let lastInput = Date.now();

  const remembered = (() => {
    try { return localStorage.getItem(KEY); } catch { return null; }
  })();
  if (remembered !== null && [...select.options].some((option) => option.value === remembered)) select.value = remembered;
  select.closest("label").hidden = false;

  const every = () => Number(select.value);
  const say = (text) => { if (said.textContent !== text) said.textContent = text; };

  // What is typed, chosen or marked in there must not vanish.
  const inUse = () => {
    if (!part.dispatchEvent(new Event("djt:look", { cancelable: true }))) return true; // a list has its own reasons
    const active = document.activeElement;
    if (active && part.contains(active) && active.matches("input:not([type=checkbox]), select, textarea")) return true;
    const selection = document.getSelection();
    return Boolean(selection && !selection.isCollapsed && part.contains(selection.anchorNode));
  };

  // By what an element is found again that a new part brings anew.
  const mark = (element) => `${element.tagName} ${element.getAttribute("href") ?? element.closest("details")?.dataset.djtKey}`;

  const replace = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html").body;
    if (!part.dispatchEvent(new CustomEvent("djt:arrived", { cancelable: true, detail: next }))) return; // and is filled
    const open = new Set([...part.querySelectorAll("details[open][data-djt-key]")].map((one) => one.dataset.djtKey));
    const focused = part.contains(document.activeElement) ? mark(document.activeElement) : null;
    for (const one of next.querySelectorAll("details[data-djt-key]")) one.open = open.has(one.dataset.djtKey);
    const scrolled = [...part.querySelectorAll(".djt-scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
    part.replaceChildren(...next.childNodes);
    [...part.querySelectorAll(".djt-scroll")].forEach((one, place) => {
      if (scrolled[place]) [one.scrollLeft, one.scrollTop] = scrolled[place];
    });
    if (focused !== null) {
      const again = [...part.querySelectorAll("a, summary, [tabindex]")].find((one) => mark(one) === focused);
      if (again) again.focus({ preventScroll: true });
    }
  };

  const look = async () => {
    if (underWay || document.hidden || inUse()) return;
    underWay = true;
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const answer = await fetch(part.dataset.djtLive, { headers, credentials: "same-origin", cache: "no-store", redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
        select.value = "0";
        say(said.dataset.left);
        return;
      }
      if (answer.status !== 200 && answer.status !== 304) throw new Error(String(answer.status));
      if (answer.status === 200) {
        const html = await answer.text();
        if (!inUse()) {
          replace(html);
          etag = answer.headers.get("ETag") || "";
        }
      }
      delay = 0;
      say(`${said.dataset.updated} ${new Date().toLocaleTimeString(document.documentElement.lang || undefined)}`);
    } catch {
      delay = Math.min(SLOWEST, Math.max(every(), 2 * (delay || every())));
      say(said.dataset.failed);
    } finally {
      underWay = false;
    }
  };

  const plan = () => {
    clearTimeout(timer);
    if (!every()) return;
    const seconds = (delay || every()) * (0.9 + 0.2 * Math.random());
    timer = setTimeout(async () => {
      if (Date.now() - lastInput > GIVE_UP_AFTER) {
        say(said.dataset.asleep);
        return;
      }
      await look();
      plan();
    }, 1000 * seconds);
  };

  select.addEventListener("change", () => {
    try { localStorage.setItem(KEY, select.value); } catch { /* as long as the page is there */ }
    if (!every()) say("");
    delay = 0;
    plan();
  });
  part.addEventListener("djt:refresh", () => look().then(plan));
  for (const event of ["pointerdown", "keydown", "pointermove", "scroll"]) {
    document.addEventListener(event, () => {
      const slept = Date.now() - lastInput > GIVE_UP_AFTER;
      lastInput = Date.now();
      if (slept) plan();
    }, { passive: true });
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && every()) look().then(plan);
  });
  plan();
});
