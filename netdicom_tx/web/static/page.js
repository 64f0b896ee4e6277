// Follows what happens: the node sends parts of the page that have changed, and they replace the old ones.
"use strict";

(() => {
  const page = document.body.dataset.page;
  const state = document.getElementById("live");
  if (!page || !window.EventSource) {
    return;
  }
  let source = null;
  const waiting = new Map();

  const say = (text, is_live) => {
    state.hidden = false;
    state.classList.toggle("on", is_live);
    if (state.textContent !== text) {
      state.textContent = text;
    }
  };

  const busy = (part) =>
    part.contains(document.activeElement) && document.activeElement.matches("button, input, select, summary, a")
    || part.querySelector("details[open]") !== null;

  const put = (name, html) => {
    const part = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
    if (!part) {
      return;
    }
    if (busy(part)) {
      // What is under the visitor's hands does not move.
      waiting.set(name, html);
      return;
    }
    waiting.delete(name);
    const places = [...part.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    part.innerHTML = html;
    [...part.querySelectorAll(".scroll")].forEach((each, number) => {
      each.scrollLeft = places[number] || 0;
    });
  };

  const later = () => {
    for (const [name, html] of [...waiting]) {
      put(name, html);
    }
  };

  const open = () => {
    source = new EventSource(`/events?page=${encodeURIComponent(page)}`);
    source.onopen = () => say("Live", true);
    source.onerror = () => say(source.readyState === EventSource.CLOSED ? "Not live" : "Connecting", false);
    source.addEventListener("part", (event) => {
      const { name, html } = JSON.parse(event.data);
      put(name, html);
    });
  };

  const close = () => {
    if (source) {
      source.close();
      source = null;
    }
  };

  document.addEventListener("focusout", () => setTimeout(later, 0));
  document.addEventListener("toggle", () => setTimeout(later, 0), true);
  // A page that nobody sees holds no connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else if (!source) {
      open();
    }
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", () => {
    if (!source && !document.hidden) {
      open();
    }
  });
  if (!document.hidden) {
    open();
  }
})();
