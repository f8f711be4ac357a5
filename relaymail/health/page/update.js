
"use strict";
// Loads this page again every few seconds and takes over what has changed: there is one place that draws it
(() => {
  const every = 5000;
  const lost = document.getElementById("lost");
  let last = new Date();

  function take(fresh) {
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!other) throw new Error("not our page");
      part.className = other.className;
      if (part.dataset.part === "head") {
        // The live region stays, so that a change of it is read out, and only that
        const word = part.querySelector("[role=status]");
        const now = other.querySelector("[role=status]").textContent;
        if (word.textContent !== now) word.textContent = now;
        for (const choice of [".icon", ".summary", ".where"]) {
          part.querySelector(choice).replaceWith(other.querySelector(choice));
        }
      } else if (part.innerHTML !== other.innerHTML) {
        part.replaceChildren(...other.childNodes);
      }
    }
    document.title = fresh.title;
    document.querySelector("link[rel=icon]").href = fresh.querySelector("link[rel=icon]").href;
  }

  async function update() {
    if (document.hidden) return;
    try {
      const options = { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(8000) };
      const response = await fetch(location.href, options);
      take(new DOMParser().parseFromString(await response.text(), "text/html"));
      last = new Date();
      lost.hidden = true;
    } catch {
      lost.textContent = `No answer since ${last.toLocaleTimeString()}; what is shown is from then.`;
      lost.hidden = false;
    }
    document.body.classList.toggle("lost", !lost.hidden);
  }

  setInterval(update, every);
  document.addEventListener("visibilitychange", update);
})();
