"use strict";
// The page as a whole: what is known, what is in sight, keys, and the address that brings it all back.
(() => {
  const $ = (id) => document.getElementById(id);
  const KEPT = 800; // items
  const POLL_MS = 4000;
  const KEYS = [
    ["→ or N", "next image"],
    ["← or P", "previous image"],
    ["↓ or J, ↑ or K", "next, previous instance"],
    ["A", "accept the instance"],
    ["R or X", "reject the instance"],
    ["L", "relabel the instance"],
    ["C", "clear its decision"],
    ["Shift+A", "accept all undecided on the image"],
    ["U or Ctrl+Z", "undo the last decision"],
    ["+, −, 0", "zoom in, out, whole image"],
    ["M, B, T", "masks, boxes, labels on or off"],
    ["Enter, Esc", "open an image, back to all"],
    ["/", "search by file name"],
    ["?", "this list"],
  ];
  const items = new Map();
  const thresholds = new Map();
  const colours = new Map();
  let run = null;
  let selection = [];
  let place = 0;
  let open = null; // index of the image in the viewer
  let work = Promise.resolve();
  let quiet = 0;

  function say(text, isFault = false) {
    $("message").textContent = text;
    $("message").className = isFault ? "fault" : "";
    $("message").hidden = false;
    clearTimeout(quiet);
    quiet = setTimeout(() => ($("message").hidden = true), isFault ? 10000 : 3500);
  }

  /** One thing after the other: what keys do happens in their order. */
  function queue(task) {
    work = work.then(() => task()).catch((error) => say(error.message, true));
    return work;
  }

  function keep(item) {
    items.delete(item.index);
    items.set(item.index, item);
    while (items.size > KEPT) items.delete(items.keys().next().value);
  }

  async function load(images) {
    try {
      for (const item of await GS.source.items(images)) keep(item);
    } catch (error) {
      say(error.message, true);
    }
  }

  const look = () => ({ thresholds, colours, dropped: $("f-dropped").checked, masks: true, byVerdict: run.has_truth, truth: run.has_truth });

  function verdicts(item) {
    if (item.caption) return item.caption;
    const kept = item.instances.filter((one) => GS.paint.isKept(one) && !GS.paint.isDropped(one, thresholds));
    const count = (verdict) => kept.filter((one) => one.verdict === verdict).length;
    const missed = item.objects.filter((one) => GS.paint.isMissed(one, item, thresholds)).length;
    const [right, wrong] = [count("right"), count("wrong")];
    const all = 2 * right + wrong + missed;
    return `${right} right, ${wrong} wrong, ${missed} missed, F1 ${(all ? (2 * right) / all : 1).toFixed(2)}`;
  }

  function badges(item) {
    const badge = (kind, text) => Object.assign(document.createElement("span"), { className: `badge ${kind}`, textContent: text });
    if (item.skipped !== null) return [badge("skipped", "skipped")];
    if (run.has_truth) return [badge("undecided", verdicts(item))];
    const inSight = item.instances.filter((one) => !GS.paint.isDropped(one, thresholds));
    const counts = { undecided: 0, accepted: 0, rejected: 0, relabelled: 0 };
    for (const one of inSight) counts[one.state]++;
    const made = [];
    if (counts.undecided) made.push(badge("undecided", `${counts.undecided} to decide`));
    if (counts.accepted + counts.relabelled) made.push(badge("accepted", `✓ ${counts.accepted + counts.relabelled}`));
    if (counts.rejected) made.push(badge("rejected", `✗ ${counts.rejected}`));
    if (!inSight.length) made.push(badge(item.is_looked_through ? "accepted" : "none", item.is_looked_through ? "✓ nothing there" : "nothing found"));
    return made;
  }

  function showRun() {
    $("run-name").textContent = run.title ?? run.run;
    document.title = `${run.title ?? run.run} - grounded-seg`;
    const skipped = run.n_skipped ? `, ${run.n_skipped} skipped` : "";
    const of = run.n_all > run.n_images ? ` of ${run.n_all.toLocaleString("en")}` : "";
    const state = run.is_running ? ", running" : "";
    $("run-about").textContent = run.about ?? `${run.n_images.toLocaleString("en")}${of} images${skipped}, ${run.n_instances.toLocaleString("en")} instances${state}${run.reviewer ? `, reviewed by ${run.reviewer}` : ""}`;
    document.body.classList.toggle("has-truth", run.has_truth);
    document.body.classList.toggle("can-ask", Boolean(run.can_ask));
    document.body.classList.toggle("static", GS.source.isStatic);
    takeClasses(run.classes);
  }

  function takeClasses(classes) {
    run.classes = classes;
    classes.forEach((one, number) => {
      colours.set(one.name, run.palette[number % run.palette.length]);
      if (one.threshold === null) thresholds.delete(one.name);
      else thresholds.set(one.name, one.threshold);
    });
    if (GS.source.isStatic) return;
    GS.filters.showClasses(classes, colours);
    progress();
  }

  function progress() {
    let [decided, all] = [0, 0];
    for (const one of run.classes) {
      const done = one.accepted + one.rejected + one.relabelled;
      decided += done;
      const step = Math.ceil((thresholds.get(one.name) ?? 0) * (one.stays.length - 1) - 1e-9);
      all += one.stays[step] + one.rejected;
    }
    $("progress-bar").max = Math.max(all, 1);
    $("progress-bar").value = decided;
    $("progress-text").textContent = `${decided.toLocaleString("en")} of ${all.toLocaleString("en")} decided`;
  }

  /** Take in what a decision changed. */
  function changed(answer) {
    if (answer.item) keep(answer.item);
    takeClasses(answer.classes);
    repaint();
  }

  function repaint() {
    if (!run) return;
    if (open === null) GS.grid.repaint();
    else showImage();
  }

  function remember() {
    const state = new URLSearchParams(GS.filters.wanted());
    if (open !== null) state.set("image", open);
    history.replaceState(null, "", `#${state}`);
  }

  async function select({ stay = false } = {}) {
    selection = await GS.source.selection(GS.filters.wanted());
    const n = selection.length.toLocaleString("en");
    $("found").textContent = GS.source.isStatic ? "" : selection.length === run.n_images ? `All ${n} images` : `${n} of ${run.n_images.toLocaleString("en")} images`;
    if (!selection.length) $("found").textContent = run.n_images ? "No image is like that. Reset the filters to see all." : "The run has no image yet.";
    if (!stay) $("grid-scroll").scrollTop = 0;
    if (open !== null) place = selection.indexOf(open);
    GS.grid.show(selection, stay ? place : 0);
    remember();
  }

  async function show(image) {
    if (!items.has(image)) await load([image]);
    if (!items.has(image)) return;
    open = image;
    place = selection.indexOf(image);
    $("browse").hidden = true;
    $("viewer").hidden = false;
    document.body.classList.remove("filters-open");
    document.body.classList.add("viewing");
    showImage();
    remember();
    for (const at of [place + 1, place + 2]) {
      if (at < selection.length && !items.has(selection[at])) load([selection[at]]);
      if (at < selection.length && !GS.source.isStatic) new Image().src = GS.source.picture(selection[at]);
    }
  }

  function showImage() {
    const item = items.get(open);
    if (!item) return;
    GS.viewer.show(item, place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${selection.length.toLocaleString("en")}`);
  }

  function go(by) {
    return queue(async () => {
      const to = place < 0 ? 0 : place + by;
      if (to >= 0 && to < selection.length) await show(selection[to]);
      else say(by > 0 ? "this is the last image" : "this is the first image");
    });
  }

  function back() {
    open = null;
    $("viewer").hidden = true;
    $("browse").hidden = false;
    document.body.classList.remove("viewing");
    remember();
    GS.grid.draw();
    GS.grid.repaint();
    if (place >= 0) GS.grid.focus(place);
  }

  function undo() {
    return queue(async () => {
      if (GS.source.isStatic) return;
      await GS.filters.flush();
      const answer = await GS.source.undo();
      changed(answer);
      const { undone } = answer;
      if (!undone) return say("there is nothing to undo");
      if (answer.item && open !== null && open !== answer.item.index) await show(answer.item.index);
      return say(`undone: ${undone.what}${undone.n > 1 ? ` of ${undone.n}` : ""}${undone.class ? ` ${undone.class}` : ""}${undone.image ? ` on ${undone.image}` : ""}`);
    });
  }

  function toggle(id) {
    $(id).checked = !$(id).checked;
    GS.stage.draw();
  }

  const ANYWHERE = {
    u: undo,
    "?": () => $("keys").showModal(),
    "/": () => {
      if (GS.viewer.isOpen()) back();
      document.body.classList.add("filters-open");
      $("f-name").focus();
    },
  };
  const IN_VIEWER = {
    ArrowRight: () => go(1),
    n: () => go(1),
    ArrowLeft: () => go(-1),
    p: () => go(-1),
    ArrowDown: () => GS.viewer.step(1),
    j: () => GS.viewer.step(1),
    ArrowUp: () => GS.viewer.step(-1),
    k: () => GS.viewer.step(-1),
    a: () => GS.viewer.decide("accept"),
    A: () => GS.viewer.acceptAll(),
    r: () => GS.viewer.decide("reject"),
    x: () => GS.viewer.decide("reject"),
    c: () => GS.viewer.decide("clear"),
    l: () => GS.viewer.relabel(),
    "+": () => GS.stage.zoom(1.4),
    "=": () => GS.stage.zoom(1.4),
    "-": () => GS.stage.zoom(1 / 1.4),
    0: () => GS.stage.fit(),
    m: () => toggle("s-masks"),
    b: () => toggle("s-boxes"),
    t: () => toggle("s-labels"),
    Escape: back,
  };

  function onKey(event) {
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (document.querySelector("dialog[open]") || event.altKey) return;
    if (isTyping) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    // Caps Lock makes no other key of a letter.
    const key = event.key.length > 1 ? event.key : event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z") return;
      undo();
    } else if (ANYWHERE[key]) {
      ANYWHERE[key]();
    } else if (GS.viewer.isOpen() && IN_VIEWER[key]) {
      IN_VIEWER[key]();
    } else if (GS.viewer.isOpen() || !GS.grid.key(event)) {
      if (event.key === "Escape") document.body.classList.remove("filters-open");
      return;
    }
    event.preventDefault();
  }

  async function poll() {
    if (!document.hidden) {
      try {
        const now = await GS.source.run();
        const isOther = now.n_images !== run.n_images || now.is_running !== run.is_running;
        const hasMore = now.n_images !== run.n_images;
        if (isOther) {
          run = now;
          showRun();
        }
        if (hasMore) await select({ stay: true });
      } catch (error) {
        say(error.message, true);
      }
    }
    setTimeout(poll, run.is_running || run.n_all > run.n_images ? POLL_MS : 4 * POLL_MS);
  }

  async function begin() {
    for (const [keys, what] of KEYS) {
      const key = document.createElement("dt");
      key.textContent = keys;
      const meaning = document.createElement("dd");
      meaning.textContent = what;
      $("key-list").append(key, meaning);
    }
    GS.filters.start({
      onFilter: () => queue(select),
      onThreshold: async (name, score) => changed(await GS.source.threshold(name, score)),
      onLiveThreshold: (name, score) => {
        if (score === null) thresholds.delete(name);
        else thresholds.set(name, score);
        progress();
        repaint();
      },
    });
    GS.grid.start({ known: (image) => items.get(image), load, open: (at) => queue(() => show(selection[at])), look, badges });
    GS.viewer.start({ run: () => run, thresholds: () => thresholds, look, queue, changed, say, verdicts });
    const clicks = { back, previous: () => go(-1), next: () => go(1), undo, "show-keys": () => $("keys").showModal() };
    for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
    $("open-filters").addEventListener("click", () => document.body.classList.toggle("filters-open"));
    document.addEventListener("keydown", onKey);
    run = await GS.source.run();
    showRun();
    const state = new URLSearchParams(location.hash.slice(1));
    const image = state.get("image");
    state.delete("image");
    GS.filters.show(Object.fromEntries(state));
    await select();
    if (image !== null && Number(image) < run.n_images) await show(Number(image));
    document.body.classList.add("ready");
    if (!GS.source.isStatic) setTimeout(poll, POLL_MS);
  }

  begin().catch((error) => say(error.message, true));
})();
