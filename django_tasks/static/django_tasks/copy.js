"use strict";

// Copies what a page shows: a button names by data-djt-copy the element whose text it takes, and is hidden without this
// script. Beside it stands an element that tells what came of it.
(() => {
  const textOf = (element) => {
    const rows = [...element.querySelectorAll("tr")];
    const ofCell = (cell) => (cell.querySelector("pre") ?? cell).textContent.trim(); // not the tree beside it
    if (rows.length) return rows.map((row) => [...row.cells].map(ofCell).join(": ")).join("\n");
    const parts = [...element.querySelectorAll("pre")]; // what is folded, too, without the words on the fold
    return parts.length ? parts.map((part) => part.textContent).join("\n") : element.textContent.trim();
  };

  // For pages that do not come by HTTPS, which have no clipboard.
  const copyBySelection = (button, text) => {
    const field = document.createElement("textarea");
    field.className = "djt-hidden";
    field.value = text;
    button.after(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    button.focus();
    if (!done) throw new Error("refused");
  };

  for (const button of document.querySelectorAll("[data-djt-copy]")) {
    const said = button.parentElement.querySelector("[role=status]");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = textOf(document.getElementById(button.dataset.djtCopy));
      said.textContent = "";
      try {
        if (navigator.clipboard) await navigator.clipboard.writeText(text);
        else copyBySelection(button, text);
        said.textContent = button.dataset.copied;
      } catch {
        said.textContent = button.dataset.failed;
      }
    });
  }
})();
