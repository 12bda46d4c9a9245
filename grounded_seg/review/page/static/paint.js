"use strict";
// How instances look, in the grid and on the large image: colours by class or by verdict, lines by decision.
GS.paint = (() => {
  const VERDICTS = { right: [0, 200, 140], wrong: [255, 92, 40], missed: [255, 225, 70] };
  const REJECTED = [255, 107, 107];
  const shapes = new WeakMap();

  /** The outline of an instance, made when it is first asked for. */
  function shapeOf(one) {
    if (!shapes.has(one)) shapes.set(one, GS.masks.shapeOf(one));
    return shapes.get(one);
  }

  const rgb = (colour, opacity = 1) => `rgba(${colour.join(",")},${opacity})`;
  const isKept = (one) => one.state !== "rejected";

  /** Whether a threshold drops an instance: a decision beats any. */
  function isDropped(one, thresholds) {
    return one.state === "undecided" && one.score < (thresholds.get(one.own_class) ?? 0);
  }

  /** Whether an object is missed by what is left. */
  function isMissed(object, item, thresholds) {
    if (object.is_crowd) return false;
    const by = item.instances.find((one) => one.key === object.found_by);
    return !by || !isKept(by) || isDropped(by, thresholds);
  }

  function colourOf(one, look) {
    if (look.byVerdict && one.verdict) return VERDICTS[one.verdict];
    return look.colours.get(one.class) ?? [200, 200, 200];
  }

  function stroke(context, path, colour, width, dash, scale) {
    context.setLineDash(dash.map((length) => length / scale));
    context.lineJoin = "round";
    context.lineWidth = (width + 2) / scale;
    context.strokeStyle = "rgba(8,10,14,.75)";
    context.stroke(path);
    context.lineWidth = width / scale;
    context.strokeStyle = colour;
    context.stroke(path);
    context.setLineDash([]);
  }

  /** Draw one instance; the context's unit is a pixel of the image, and `scale` says how many of the screen that is. */
  function instance(context, one, look, scale) {
    const shape = shapeOf(one);
    const path = look.masks ? shape.path : shape.box;
    const colour = colourOf(one, look);
    const isActive = one.key === look.selected || one.key === look.hovered;
    const isSmall = look.isSmall;
    if (isDropped(one, look.thresholds)) {
      context.globalAlpha = isActive ? 0.9 : 0.45;
      stroke(context, path, rgb(colour), 1, [2, 4], scale);
      context.globalAlpha = 1;
      return;
    }
    if (!isKept(one)) {
      context.globalAlpha = isActive ? 1 : 0.75;
      stroke(context, path, rgb(REJECTED), isSmall ? 1 : 1.5, [6, 5], scale);
      context.globalAlpha = 1;
      return;
    }
    if (look.masks && shape.hasMask) {
      context.fillStyle = rgb(colour, isActive ? 0.2 : 0.12);
      context.fill(path);
    }
    if (isActive) {
      context.lineWidth = 7 / scale;
      context.strokeStyle = "rgba(255,255,255,.9)";
      context.stroke(path);
    }
    stroke(context, path, rgb(colour), isSmall ? 1.5 : isActive ? 3 : 2, one.is_new && one.state === "undecided" ? [8, 4] : [], scale);
    if (look.boxes && shape.hasMask) stroke(context, shape.box, rgb(colour, 0.9), 1, [], scale);
  }

  /** Draw all of an item, the best on top, and then what was missed. */
  function item(context, one, look, scale) {
    const shown = one.instances.filter((each) => look.dropped || !isDropped(each, look.thresholds) || each.key === look.selected);
    const order = [...shown].sort((a, b) => isKept(a) - isKept(b) || a.score - b.score);
    const last = order.findIndex((each) => each.key === look.selected);
    if (last >= 0) order.push(...order.splice(last, 1));
    for (const each of order) instance(context, each, look, scale);
    if (look.truth) {
      for (const object of one.objects) {
        if (!isMissed(object, one, look.thresholds)) continue;
        stroke(context, shapeOf(object).path, rgb(VERDICTS.missed), look.isSmall ? 1.5 : 2.5, [10, 5], scale);
      }
    }
    return shown;
  }

  const CHIP = 18; // height in pixels of the screen

  /** Words at a box, above, in or below it, whichever hides no other words; `box` is on the screen, as `taken` is. */
  function chip(context, text, colour, box, size, taken) {
    context.font = "600 12px system-ui, sans-serif";
    const wide = context.measureText(text).width + 10;
    const left = Math.max(0, Math.min(box.left, size[0] - wide));
    const tops = [box.top - CHIP - 1, box.top, box.bottom - CHIP, box.bottom + 1].map((top) => Math.max(0, Math.min(top, size[1] - CHIP)));
    const isFree = (top) => !taken.some((one) => left < one.left + one.wide && one.left < left + wide && Math.abs(top - one.top) < CHIP);
    const top = tops.find(isFree) ?? tops[0];
    taken.push({ left, top, wide });
    context.fillStyle = rgb(colour, 0.95);
    context.beginPath();
    context.roundRect(left, top, wide, CHIP, 4);
    context.fill();
    context.fillStyle = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120 ? "#101418" : "#fff";
    context.fillText(text, left + 5, top + 13);
  }

  return { item, chip, shapeOf, colourOf, isDropped, isKept, isMissed, rgb, VERDICTS };
})();
