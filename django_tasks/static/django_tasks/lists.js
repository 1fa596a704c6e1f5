"use strict";

// Puts what live.js fetches into a list: its rows, counts and links. It stands still while a row is chosen or a menu is
// open.
(() => {
  const part = document.querySelector("[data-djt-live]");
  const BUSY = "tr input.action-select:checked, .djt-own details[open], dialog[open]";
  const FOCUSED = "#changelist a, .djt-pages a, tr input.action-select";
  const boxes = () => [...part.querySelectorAll("tr input.action-select")];
  const rowsIn = (table) => [...table.tBodies].flatMap((body) => [...body.rows]);
  const spare = [];
  let listenAnew = () => {};

  if (window.Actions) {
    // The admin's own script is to know the boxes that are there, not those that were there in the beginning.
    const original = window.Actions;
    const present = {
      get length() { return boxes().length; },
      [Symbol.iterator]: () => boxes()[Symbol.iterator](),
      forEach: (each) => boxes().forEach(each),
    };
    window.Actions = (_boxes, options) => {
      listenAnew = () => original(present, options);
      listenAnew();
    };
  }

  // Rows stay where they are and get other cells: what listens to them goes on.
  const fill = (table, fresh) => {
    const apart = table.matches(".result-list"); // Unfold has a body for each row, and listens to each
    const rows = rowsIn(table);
    const wanted = fresh ? rowsIn(fresh) : [];
    let grown = false;
    wanted.forEach((row, place) => {
      const old = rows[place] ?? spare.pop()?.rows[0];
      if (old && !old.isEqualNode(row)) old.replaceChildren(...row.childNodes);
      if (rows[place]) return;
      if (apart) table.append((old ?? row).parentElement);
      else table.tBodies[0].append(row);
      grown = grown || !old;
    });
    for (const row of rows.slice(wanted.length)) {
      if (apart) spare.push(row.parentElement);
      (apart ? row.parentElement : row).remove();
    }
    if (apart && grown) listenAnew();
  };

  const swap = (old, fresh) => {
    if (old && fresh && !old.isEqualNode(fresh)) old.replaceChildren(...fresh.childNodes);
  };

  part.addEventListener("djt:look", (event) => {
    if (document.querySelector(BUSY)) event.preventDefault();
  });

  part.addEventListener("djt:arrived", (event) => {
    event.preventDefault();
    const next = event.detail;
    const table = document.getElementById("result_list");
    const fresh = next.querySelector("#result_list");
    if (!table) {
      const field = document.getElementById("searchbar");
      if (fresh && (!field || field.value === field.defaultValue)) location.reload(); // it was empty so far
      return;
    }
    const focused = document.activeElement;
    fill(table, fresh);
    for (const name of [".djt-tabs", ".djt-pages"]) swap(document.querySelector(name), next.querySelector(name));
    const counter = part.querySelector(".action-counter");
    if (counter) {
      counter.dataset.actionsIcnt = boxes().length;
      counter.textContent = next.querySelector(".action-counter").textContent;
    }
    if (focused && !focused.isConnected) {
      const same = (one) => ["href", "value"].every((name) => one.getAttribute(name) === focused.getAttribute(name));
      [...document.querySelectorAll(FOCUSED)].find(same)?.focus({ preventScroll: true });
    }
  });
})();
