"use strict";

// Lets the bars of {% task_progress %} move: asks each task's address until the task is done.
(() => {
  const SHORTEST = 1000;
  const LONGEST = 15000;

  const show = (element, told) => {
    const bar = element.querySelector("progress");
    const text = element.querySelector("[role=status]");
    if (told.percent === null) bar.removeAttribute("value");
    else bar.value = told.percent;
    if (text.textContent !== told.state) text.textContent = told.state;
    element.dataset.djtState = told.state;
  };

  const follow = (element) => {
    let wait = SHORTEST;
    const look = async () => {
      if (!element.isConnected) return;
      if (!document.hidden) {
        try {
          const answer = await fetch(element.dataset.djtProgress, { credentials: "same-origin", cache: "no-store" });
          if (answer.status === 403 || answer.status === 404) return;
          if (!answer.ok) throw new Error(String(answer.status));
          const told = await answer.json();
          show(element, told);
          if (told.finished) {
            element.dispatchEvent(new CustomEvent("django-tasks:finished", { bubbles: true, detail: told }));
            return;
          }
          wait = SHORTEST;
        } catch {
          wait = Math.min(LONGEST, 2 * wait);
        }
      }
      setTimeout(look, wait);
    };
    setTimeout(look, wait);
  };

  for (const element of document.querySelectorAll("[data-djt-progress]")) follow(element);
})();
