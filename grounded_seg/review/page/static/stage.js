"use strict";
// The large image: zoom and pan by mouse, wheel, fingers and keys; tells what is under the pointer.
GS.stage = (() => {
  const $ = (id) => document.getElementById(id);
  const MOST_ZOOM = 40;
  const SLIP = 4; // a pointer that moved less was a click
  const probe = document.createElement("canvas").getContext("2d");
  const image = new Image();
  const pointers = new Map();
  let item = null;
  let view = { scale: 1, x: 0, y: 0 };
  let hooks = {};
  let moved = 0;
  let isAsked = false;

  function start(given) {
    hooks = given;
    const canvas = $("canvas");
    canvas.addEventListener("wheel", onWheel, { passive: false });
    canvas.addEventListener("pointerdown", onDown);
    canvas.addEventListener("pointermove", onMove);
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, onUp);
    canvas.addEventListener("pointerleave", () => hover(null));
    canvas.addEventListener("dblclick", () => fit());
    new ResizeObserver(() => fit()).observe($("stage"));
    image.addEventListener("load", draw);
    image.addEventListener("error", () => ($("stage-text").textContent = image.dataset.failed));
  }

  function show(one, { keepView = false } = {}) {
    const isOther = !item || one.index !== item.index;
    item = one;
    if (isOther) {
      hover(null);
      $("stage-text").textContent = one.skipped === null ? "" : `skipped by the run: ${one.skipped}`;
      image.removeAttribute("src");
      image.dataset.failed = `the image ${one.file_name} can't be shown: it isn't there any more, or can't be read`;
      if (one.skipped === null) image.src = GS.source.picture(one.index);
    }
    if (isOther && !keepView) fit();
    else draw();
  }

  const size = () => [$("stage").clientWidth, $("stage").clientHeight];

  function fitting() {
    const [wide, high] = size();
    const scale = Math.min(wide / (item.width || 1), high / (item.height || 1));
    return { scale, x: (wide - item.width * scale) / 2, y: (high - item.height * scale) / 2 };
  }

  function fit() {
    if (!item) return;
    view = fitting();
    draw();
  }

  function zoom(factor, [x, y] = size().map((one) => one / 2)) {
    if (!item) return;
    const least = fitting().scale;
    const scale = Math.min(Math.max(view.scale * factor, least * 0.5), Math.max(MOST_ZOOM, least));
    const by = scale / view.scale;
    view = { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by };
    draw();
  }

  function pan(x, y) {
    view = { ...view, x: view.x + x, y: view.y + y };
    draw();
  }

  function draw() {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      if (item) drawNow();
    });
  }

  function drawNow() {
    const canvas = $("canvas");
    const dense = window.devicePixelRatio || 1;
    const [wide, high] = size();
    if (canvas.width !== Math.round(wide * dense) || canvas.height !== Math.round(high * dense)) {
      canvas.width = Math.round(wide * dense);
      canvas.height = Math.round(high * dense);
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (item.skipped !== null) return;
    context.setTransform(view.scale * dense, 0, 0, view.scale * dense, view.x * dense, view.y * dense);
    if (image.complete && image.naturalWidth) {
      context.imageSmoothingEnabled = view.scale < 4;
      context.imageSmoothingQuality = "high";
      context.drawImage(image, 0, 0, item.width, item.height);
    }
    const look = hooks.look();
    const shown = GS.paint.item(context, item, look, view.scale);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    const taken = [];
    const isActive = (one) => one.key === look.selected || one.key === look.hovered;
    // What is selected has the first choice of a place.
    for (const one of [...shown].sort((a, b) => isActive(b) - isActive(a) || b.score - a.score)) {
      const isKept = GS.paint.isKept(one);
      if (!isActive(one) && (!look.labels || !isKept || GS.paint.isDropped(one, look.thresholds))) continue;
      const [x, y, width, height] = one.bbox;
      const [left, top] = onScreen(x, y);
      const box = { left, top, bottom: top + height * view.scale };
      GS.paint.chip(context, hooks.words(one), isKept ? GS.paint.colourOf(one, look) : [255, 107, 107], box, [wide, high], taken);
    }
  }

  const onScreen = (x, y) => [view.x + x * view.scale, view.y + y * view.scale];
  const inImage = ([x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

  function placeOf(event) {
    const box = $("canvas").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** The smallest instance at a place of the screen. */
  function instanceAt(place) {
    if (!item || item.skipped !== null) return null;
    const [x, y] = inImage(place);
    const look = hooks.look();
    const near = 4 / view.scale;
    const there = item.instances.filter((one) => {
      if (!look.dropped && one.key !== look.selected && GS.paint.isDropped(one, look.thresholds)) return false;
      const shape = GS.paint.shapeOf(one);
      if (x < shape.left - near || x > shape.right + near || y < shape.top - near || y > shape.bottom + near) return false;
      return probe.isPointInPath(look.masks ? shape.path : shape.box, x, y);
    });
    there.sort((a, b) => GS.paint.shapeOf(a).area - GS.paint.shapeOf(b).area);
    return there[0] ?? null;
  }

  function hover(one, place = [0, 0]) {
    const tip = $("tip");
    tip.hidden = !one;
    if (one) {
      tip.textContent = hooks.tip(one);
      const [wide, high] = size();
      tip.style.left = `${Math.max(4, Math.min(place[0] + 14, wide - tip.offsetWidth - 6))}px`;
      tip.style.top = `${Math.max(4, Math.min(place[1] + 16, high - tip.offsetHeight - 6))}px`;
    }
    hooks.onHover?.(one ? one.key : null);
  }

  function onWheel(event) {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), placeOf(event));
  }

  function onDown(event) {
    if (event.button > 1) return;
    $("canvas").setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOf(event));
    moved = pointers.size > 1 ? SLIP : 0;
  }

  function onMove(event) {
    const place = placeOf(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      hover(instanceAt(place), place);
      return;
    }
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, one]) => one);
    pointers.set(event.pointerId, place);
    moved += Math.hypot(place[0] - before[0], place[1] - before[1]);
    if (moved < SLIP) return;
    if (others.length) {
      const [x, y] = others[0];
      const factor = Math.hypot(place[0] - x, place[1] - y) / Math.max(1, Math.hypot(before[0] - x, before[1] - y));
      zoom(factor, [(place[0] + x) / 2, (place[1] + y) / 2]);
    } else {
      pan(place[0] - before[0], place[1] - before[1]);
    }
  }

  function onUp(event) {
    const was = pointers.delete(event.pointerId);
    if (was && event.type === "pointerup" && moved < SLIP) hooks.onPick(instanceAt(placeOf(event)));
  }

  return { start, show, draw, fit, zoom, pan };
})();
