"use strict";
// The side bar: what images are shown for, and a threshold for each class with the count of what stays.
GS.filters = (() => {
  const $ = (id) => document.getElementById(id);
  const PLAIN = { name: "", images: "all", order: "run", class_name: "", decided: "any", min_score: "0", max_score: "1", min_mask: "0", max_mask: "1", leaves_box: false, touches_border: false, dropped: false };
  const DELAY_MS = 250;
  const rows = new Map();
  const waiting = new Map(); // scores that are still to be sent, by class
  let timer = 0;

  /** What differs from showing everything. */
  function wanted() {
    const filter = {};
    for (const [name, plain] of Object.entries(PLAIN)) {
      const field = $(`f-${name}`);
      const value = field.type === "checkbox" ? field.checked : field.value.trim();
      if (field.type === "number" && (value === "" || Number(value) === Number(plain))) continue;
      if (value !== plain) filter[name] = String(value);
    }
    return filter;
  }

  function show(filter) {
    for (const [name, plain] of Object.entries(PLAIN)) {
      const field = $(`f-${name}`);
      if (field.type === "checkbox") field.checked = (filter[name] ?? String(plain)) === "true";
      else field.value = filter[name] ?? plain;
    }
  }

  function start({ onFilter, onThreshold, onLiveThreshold }) {
    let later = 0;
    for (const name of Object.keys(PLAIN)) {
      $(`f-${name}`).addEventListener("input", () => {
        clearTimeout(later);
        later = setTimeout(onFilter, DELAY_MS);
      });
    }
    $("reset-filters").addEventListener("click", () => {
      show({});
      onFilter();
    });
    send = onThreshold;
    live = onLiveThreshold;
    window.addEventListener("pagehide", flush);
  }

  let send = () => {};
  let live = () => {};

  /** Send the thresholds that were moved; resolves when they are stored. */
  async function flush() {
    clearTimeout(timer);
    const moved = [...waiting];
    waiting.clear();
    for (const [name, score] of moved) await send(name, score);
  }

  function move(name, score) {
    waiting.set(name, score);
    live(name, score);
    clearTimeout(timer);
    timer = setTimeout(flush, DELAY_MS);
  }

  /** Make what the classes need anew, where there are other ones than before. */
  function showClasses(classes, colours) {
    const select = $("f-class_name");
    if ([...rows.keys()].join("\0") !== classes.map((one) => one.name).join("\0")) {
      const chosen = select.value;
      select.replaceChildren(new Option("all classes", ""), ...classes.map((one) => new Option(one.name, one.name)));
      select.value = chosen;
      rows.clear();
      $("thresholds").replaceChildren(...classes.map((one) => rowOf(one, colours.get(one.name))));
    }
    for (const one of classes) {
      if (!waiting.has(one.name)) fill(rows.get(one.name), one, one.threshold ?? 0);
    }
  }

  function rowOf({ name }, colour) {
    const row = document.createElement("div");
    row.className = "threshold";
    const head = document.createElement("label");
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = GS.paint.rgb(colour);
    const words = document.createElement("span");
    words.textContent = name;
    const value = document.createElement("output");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01 });
    slider.dataset.className = name;
    const count = document.createElement("small");
    head.append(swatch, words, value, slider);
    row.append(head, count);
    const parts = { slider, value, count, about: null };
    rows.set(name, parts);
    slider.addEventListener("input", () => {
      fill(parts, parts.about, Number(slider.value));
      move(name, Number(slider.value) || null);
    });
    return row;
  }

  function fill(parts, about, score) {
    parts.about = about;
    parts.slider.value = score;
    parts.value.textContent = score.toFixed(2);
    // Scores are counted from a step of 0.01 on; a threshold between two steps drops what the next one does.
    const step = Math.min(about.stays.length - 1, Math.ceil(score * (about.stays.length - 1) - 1e-9));
    const stays = about.stays[step];
    const decided = about.accepted + about.relabelled;
    parts.count.textContent = `${stays} of ${about.stays[0] + about.rejected} stay` + (decided ? `, ${decided} accepted` : "") + (about.rejected ? `, ${about.rejected} rejected` : "");
  }

  return { start, show, wanted, showClasses, flush };
})();
