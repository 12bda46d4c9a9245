"use strict";
// All images as tiles: only those in sight are in the page, however many there are.
GS.grid = (() => {
  const $ = (id) => document.getElementById(id);
  const GAP = 10;
  const CAPTION = 46;
  const AT_ONCE = 60;
  const tiles = new Map(); // by place in the selection
  let selection = [];
  let layout = { columns: 1, width: 200, height: 200 };
  let chosen = 0;
  let hooks = {};
  let drawn = 0;

  function start(given) {
    hooks = given;
    $("grid-scroll").addEventListener("scroll", draw, { passive: true });
    new ResizeObserver(resized).observe($("grid-scroll"));
  }

  function resized() {
    const all = $("grid").clientWidth;
    if (!all) return;
    const columns = Math.max(2, Math.floor((all + GAP) / (all < 500 ? 160 : 230)));
    const width = Math.floor((all - GAP * (columns - 1)) / columns);
    layout = { columns, width, height: Math.round(width * 0.75) + CAPTION };
    clear();
    draw();
  }

  function clear() {
    for (const tile of tiles.values()) tile.remove();
    tiles.clear();
  }

  function show(images, place = 0) {
    selection = images;
    chosen = Math.min(Math.max(place, 0), Math.max(images.length - 1, 0));
    clear();
    draw();
  }

  /** Put the tiles in sight into the page, and take the others out. */
  async function draw() {
    const { columns, height } = layout;
    const rows = Math.ceil(selection.length / columns);
    $("grid").style.height = `${rows * (height + GAP)}px`;
    const scroll = $("grid-scroll");
    if (!scroll.clientHeight) return;
    const first = Math.max(0, Math.floor(scroll.scrollTop / (height + GAP)) - 1) * columns;
    const last = Math.min(selection.length, (Math.ceil((scroll.scrollTop + scroll.clientHeight) / (height + GAP)) + 1) * columns);
    for (const [place, tile] of tiles) {
      if (place >= first && place < last) continue;
      tile.remove();
      tiles.delete(place);
    }
    const missing = [];
    for (let place = first; place < last; place++) {
      if (!tiles.has(place)) {
        const tile = tileAt(place);
        tiles.set(place, tile);
        $("grid").append(tile);
      }
      const item = hooks.known(selection[place]);
      if (item) fill(tiles.get(place), item);
      else missing.push(selection[place]);
    }
    if (!missing.length) return;
    const mine = ++drawn;
    // While somebody scrolls on, what is already out of sight isn't asked for.
    await new Promise((done) => setTimeout(done, 40));
    if (mine !== drawn) return;
    for (let at = 0; at < missing.length; at += AT_ONCE) await hooks.load(missing.slice(at, at + AT_ONCE));
    if (mine === drawn) draw();
  }

  function tileAt(place) {
    const { columns, width, height } = layout;
    const tile = document.createElement("button");
    tile.type = "button";
    tile.className = "tile";
    Object.assign(tile.style, {
      left: `${(place % columns) * (width + GAP)}px`,
      top: `${Math.floor(place / columns) * (height + GAP)}px`,
      width: `${width}px`,
      height: `${height}px`,
    });
    tile.tabIndex = place === chosen ? 0 : -1;
    const frame = document.createElement("span");
    frame.className = "frame";
    frame.style.height = `${height - CAPTION}px`;
    const name = document.createElement("span");
    name.className = "name";
    const counts = document.createElement("span");
    counts.className = "counts";
    tile.append(frame, name, counts);
    tile.addEventListener("click", () => hooks.open(place));
    tile.addEventListener("focus", () => (chosen = place));
    return tile;
  }

  function fill(tile, item) {
    if (tile.item === item) return paint(tile);
    tile.item = item;
    const [frame, name, counts] = tile.children;
    name.textContent = item.file_name.split("/").pop();
    tile.title = item.file_name;
    counts.replaceChildren(...hooks.badges(item));
    if (item.skipped !== null) {
      frame.textContent = "skipped by the run";
      tile.title += `\n${item.skipped}`;
      return undefined;
    }
    if (!frame.querySelector("img")) {
      const image = document.createElement("img");
      image.alt = "";
      image.decoding = "async";
      image.addEventListener("load", () => paint(tile));
      image.addEventListener("error", () => {
        frame.textContent = "this image can't be shown";
      });
      image.src = GS.source.thumbnail(item.index);
      frame.append(image, document.createElement("canvas"));
    }
    return paint(tile);
  }

  /** Draw the instances over a tile's image. */
  function paint(tile) {
    const image = tile.querySelector("img");
    const canvas = tile.querySelector("canvas");
    if (!tile.item || !image?.naturalWidth) return;
    const { item } = tile;
    const [wide, high] = [layout.width - 2, layout.height - CAPTION];
    const scale = Math.min(wide / item.width, high / item.height);
    const dense = window.devicePixelRatio || 1;
    Object.assign(canvas.style, { width: `${item.width * scale}px`, height: `${item.height * scale}px` });
    Object.assign(image.style, { width: `${item.width * scale}px`, height: `${item.height * scale}px` });
    canvas.width = Math.round(item.width * scale * dense);
    canvas.height = Math.round(item.height * scale * dense);
    const context = canvas.getContext("2d");
    context.scale(scale * dense, scale * dense);
    GS.paint.item(context, item, { ...hooks.look(), isSmall: true, boxes: false }, scale);
  }

  /** Draw again what is in sight: thresholds or decisions are others. */
  function repaint() {
    for (const tile of tiles.values()) {
      const item = tile.item && hooks.known(tile.item.index);
      if (!item) continue;
      fill(tile, item);
      tile.children[2].replaceChildren(...hooks.badges(item));
    }
  }

  /** Bring a tile into sight and let it have the keyboard. */
  function focus(place = chosen) {
    chosen = Math.min(Math.max(place, 0), selection.length - 1);
    if (chosen < 0) return;
    const { columns, height } = layout;
    const scroll = $("grid-scroll");
    const top = Math.floor(chosen / columns) * (height + GAP);
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    if (top + height > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + height - scroll.clientHeight;
    draw();
    for (const [at, tile] of tiles) tile.tabIndex = at === chosen ? 0 : -1;
    tiles.get(chosen)?.focus({ preventScroll: true });
  }

  /** The keys of the grid; tells whether it was one. */
  function key(event) {
    const { columns } = layout;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -selection.length, End: selection.length };
    if (!(event.key in steps)) return false;
    focus(chosen + steps[event.key]);
    return true;
  }

  return { start, show, repaint, focus, key, draw: resized };
})();
