"use strict";
// One image by itself: its instances as a list, and what is decided on them.
GS.viewer = (() => {
  const $ = (id) => document.getElementById(id);
  const MARKS = { undecided: "", accepted: "✓", rejected: "✗", relabelled: "✎" };
  let item = null;
  let selected = null;
  let hovered = null;
  let hooks = {};

  const isOpen = () => !$("viewer").hidden;
  const toDo = () => item.instances.filter((one) => one.state === "undecided" && !GS.paint.isDropped(one, hooks.thresholds()));
  const inSight = () => item.instances.filter((one) => $("f-dropped").checked || !GS.paint.isDropped(one, hooks.thresholds()));
  const current = () => item?.instances.find((one) => one.key === selected) ?? null;

  function look() {
    const isTruthShown = hooks.run().has_truth && $("s-truth").checked;
    return {
      ...hooks.look(),
      masks: $("s-masks").checked,
      boxes: $("s-boxes").checked,
      labels: $("s-labels").checked,
      byVerdict: isTruthShown,
      truth: isTruthShown,
      selected,
      hovered,
    };
  }

  const wordsOf = (one) => `${one.class} ${one.score.toFixed(2)}`;

  function tipOf(one) {
    const lines = [`${one.class}  score ${one.score.toFixed(3)}` + (one.mask_score === null ? "" : `  mask ${one.mask_score.toFixed(3)}`)];
    if (one.label !== one.class) lines.push(`label: ${one.label}`);
    lines.push(`prompt: ${one.prompt}`);
    const flags = [one.is_new && "new", one.state !== "undecided" && one.state, one.leaves_box && "mask leaves its box", one.touches_border && "touches the border", one.why ?? one.verdict];
    const said = flags.filter(Boolean).join(", ");
    return said ? `${lines.join("\n")}\n${said}` : lines.join("\n");
  }

  function start(given) {
    hooks = given;
    GS.stage.start({
      look,
      words: wordsOf,
      tip: tipOf,
      onHover: (key) => hover(key),
      onPick: (one) => select(one ? one.key : null),
    });
    for (const name of ["masks", "boxes", "labels", "truth"]) $(`s-${name}`).addEventListener("change", () => GS.stage.draw());
    const clicks = { accept: "accept", reject: "reject", clear: "clear" };
    for (const [id, what] of Object.entries(clicks)) $(id).addEventListener("click", () => decide(what));
    $("relabel").addEventListener("click", relabel);
    $("accept-all").addEventListener("click", acceptAll);
    $("zoom-in").addEventListener("click", () => GS.stage.zoom(1.4));
    $("zoom-out").addEventListener("click", () => GS.stage.zoom(1 / 1.4));
    $("zoom-fit").addEventListener("click", () => GS.stage.fit());
    $("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      ask($("ask-prompt").value.trim());
    });
    startClasses();
  }

  function show(one, place) {
    const isOther = !item || item.index !== one.index;
    item = one;
    $("image-name").textContent = one.file_name;
    $("image-name").title = one.file_name;
    $("image-place").textContent = place;
    if (isOther) selected = toDo()[0]?.key ?? null;
    else if (!current()) selected = null;
    GS.stage.show(one);
    list();
  }

  function list() {
    const rows = inSight().map(rowOf);
    $("instances").replaceChildren(...rows);
    if (!rows.length) {
      const empty = document.createElement("li");
      empty.className = "empty";
      const nothing = item.is_looked_through ? "Nothing here, and looked through." : "Nothing was found here.";
      const advice = item.is_looked_through || GS.source.isStatic ? "" : " Accept all marks the image as looked through.";
      empty.textContent = item.skipped === null ? nothing + advice : "";
      $("instances").append(empty);
    }
    $("instances").querySelector(".selected")?.scrollIntoView({ block: "nearest" });
    const has = Boolean(current());
    for (const id of ["accept", "reject", "relabel", "clear"]) $(id).disabled = !has;
    $("accept-all").disabled = item.skipped !== null;
    if (hooks.run().has_truth) showVerdicts();
  }

  /** How many are right, wrong and missed, in the colours of the image. */
  function showVerdicts() {
    const words = hooks.verdicts(item).split(", ").map((text) => {
      const colour = GS.paint.VERDICTS[text.split(" ")[1]];
      const word = document.createElement("span");
      word.textContent = text;
      if (colour) word.style.color = GS.paint.rgb(colour);
      return word;
    });
    $("verdicts").replaceChildren(...words.flatMap((word, number) => (number ? [", ", word] : [word])), item.faults ? `: ${item.faults}` : "");
  }

  function rowOf(one) {
    const row = document.createElement("li");
    row.className = `${one.state}${one.key === selected ? " selected" : ""}${GS.paint.isDropped(one, hooks.thresholds()) ? " dropped" : ""}`;
    row.dataset.key = one.key;
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = GS.paint.rgb(GS.paint.colourOf(one, look()));
    const words = document.createElement("span");
    words.className = "words";
    words.textContent = one.class;
    const more = document.createElement("small");
    more.textContent = [one.is_new && "new", one.label !== one.class && one.label, one.leaves_box && "leaves box", one.why ?? one.verdict].filter(Boolean).join(", ");
    const score = document.createElement("span");
    score.className = "score";
    score.textContent = one.score.toFixed(2);
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = MARKS[one.state];
    mark.title = one.state;
    row.append(swatch, words, more, score, mark);
    row.title = tipOf(one);
    row.addEventListener("click", () => select(one.key));
    row.addEventListener("pointerenter", () => hover(one.key));
    row.addEventListener("pointerleave", () => hover(null));
    return row;
  }

  function hover(key) {
    if (key === hovered) return;
    hovered = key;
    for (const row of $("instances").children) row.classList.toggle("hovered", row.dataset.key === String(key));
    GS.stage.draw();
  }

  function select(key) {
    selected = key;
    list();
    GS.stage.draw();
  }

  /** Go to another instance in the list. */
  function step(by) {
    const all = inSight();
    if (!all.length) return;
    const at = all.findIndex((one) => one.key === selected);
    select(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length].key);
  }

  /** Decide on the instance that is selected, and go on to the next one that is undecided. */
  function decide(what, name) {
    hooks.queue(async () => {
      const one = current();
      if (!one || GS.source.isStatic) return;
      const order = inSight().map((each) => each.key);
      hooks.changed(await GS.source.decide(item.index, what, [one.key], name));
      if (what === "clear") return;
      const left = new Set(toDo().map((each) => each.key));
      const at = order.indexOf(one.key);
      const following = [...order.slice(at + 1), ...order.slice(0, at)].find((key) => left.has(key));
      select(following ?? one.key);
    });
  }

  /** Accept what is undecided and no threshold drops; an image without anything is marked as looked through. */
  function acceptAll() {
    hooks.queue(async () => {
      if (!item || item.skipped !== null || GS.source.isStatic) return;
      const keys = toDo().map((one) => one.key);
      const dropped = item.instances.filter((one) => GS.paint.isDropped(one, hooks.thresholds())).map((one) => one.key);
      if (keys.length || !item.instances.length) {
        hooks.changed(await GS.source.decide(item.index, "accept", keys));
      } else if (dropped.length === item.instances.length) {
        // Nothing is shown and nothing is meant to be there.
        hooks.changed(await GS.source.decide(item.index, "reject", dropped));
        hooks.say(`${dropped.length} below the thresholds rejected`);
      }
    });
  }

  function relabel() {
    const one = current();
    if (!one || GS.source.isStatic) return;
    $("class-text").value = "";
    listClasses();
    $("classes").showModal();
    $("class-text").focus();
  }

  function startClasses() {
    $("class-text").addEventListener("input", listClasses);
    $("classes").addEventListener("keydown", (event) => {
      const names = [...$("class-list").querySelectorAll("button")];
      const at = names.indexOf(document.activeElement);
      if (event.key === "ArrowDown") names[Math.min(at + 1, names.length - 1)]?.focus();
      else if (event.key === "ArrowUp") (names[at - 1] ?? $("class-text")).focus();
      else return;
      event.preventDefault();
    });
    $("classes").addEventListener("close", () => {
      const typed = $("class-text").value.trim();
      if ($("classes").returnValue === "take" && typed) decide("relabel", nameFor(typed));
      $("classes").returnValue = "";
    });
  }

  /** The class that a text means: one that begins so, if there is only one; else a new one. */
  function nameFor(typed) {
    const names = hooks.run().classes.map((one) => one.name);
    const begun = names.filter((name) => name.toLowerCase().startsWith(typed.toLowerCase()));
    return names.includes(typed) ? typed : begun.length === 1 ? begun[0] : typed;
  }

  function listClasses() {
    const part = $("class-text").value.trim().toLowerCase();
    const names = hooks.run().classes.map((one) => one.name).filter((name) => name.toLowerCase().includes(part));
    $("class-list").replaceChildren(
      ...names.map((name) => {
        const line = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = name;
        button.addEventListener("click", () => {
          $("class-text").value = "";
          $("classes").close();
          decide("relabel", name);
        });
        line.append(button);
        return line;
      }),
    );
  }

  function ask(prompt) {
    if (!prompt || !item || item.skipped !== null) return;
    hooks.queue(async () => {
      hooks.say(`asking about ${prompt} ...`);
      const answer = await GS.source.ask(item.index, prompt);
      hooks.changed(answer);
      hooks.say(answer.n_new ? `${answer.n_new} new: accept or reject them like the others` : "nothing new was found");
      const first = toDo().find((one) => one.is_new);
      if (first) select(first.key);
    });
  }

  return { start, show, list, look, step, decide, acceptAll, relabel, isOpen, current };
})();
