"use strict";
// Masks: COCO's run lengths and polygons become outlines, which a canvas fills, strokes, and tests for a point.
window.GS = {};

GS.masks = (() => {
  const MOST_CELLS = 1 << 20; // a larger mask is sampled
  const STEP_X = [1, 0, -1, 0]; // right, down, left, up
  const STEP_Y = [0, 1, 0, -1];

  /** COCO's text of run lengths: five bits a letter, from the third number on as the difference to the last but one. */
  function runsFromText(text) {
    const runs = [];
    for (let at = 0; at < text.length; ) {
      let value = 0;
      let shift = 0;
      let code = 32;
      while (code & 32 && at < text.length) {
        code = text.charCodeAt(at++) - 48;
        value |= (code & 31) << shift;
        shift += 5;
      }
      if (code & 16 && shift < 32) value |= -1 << shift;
      if (runs.length > 2) value += runs[runs.length - 2];
      runs.push(value);
    }
    return runs;
  }

  /** The pieces of a mask by column: calls `take(x, top, bottom)`, bottom not included. */
  function eachPiece(runs, height, take) {
    let end = 0;
    runs.forEach((length, number) => {
      let start = end;
      end += length;
      if (number % 2 === 0) return;
      while (start < end) {
        const x = Math.floor(start / height);
        const bottom = Math.min(end, (x + 1) * height);
        take(x, start - x * height, bottom - x * height);
        start = bottom;
      }
    });
  }

  /** The mask's part of the image as cells with an empty border around; null where it has no pixel. */
  function gridFrom(runs, height) {
    let [left, right, top, bottom] = [Infinity, 0, Infinity, 0];
    eachPiece(runs, height, (x, from, to) => {
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, from);
      bottom = Math.max(bottom, to);
    });
    if (right === 0) return null;
    const step = Math.max(1, Math.ceil(Math.sqrt(((right - left) * (bottom - top)) / MOST_CELLS)));
    const width = Math.ceil((right - left) / step);
    const rows = Math.ceil((bottom - top) / step);
    const cells = new Uint8Array((width + 2) * (rows + 2));
    eachPiece(runs, height, (x, from, to) => {
      if ((x - left) % step) return;
      const column = (x - left) / step + 1;
      for (let row = Math.ceil((from - top) / step); row * step + top < to; row++) cells[(row + 1) * (width + 2) + column] = 1;
    });
    return { cells, width, rows, left, top, step };
  }

  /** For each corner of cells, in which directions an edge leaves it with the mask on its right. */
  function edgesOf({ cells, width, rows }) {
    const stride = width + 1;
    const edges = new Uint8Array(stride * (rows + 1));
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < width; x++) {
        const cell = (y + 1) * (width + 2) + x + 1;
        if (!cells[cell]) continue;
        const corner = y * stride + x;
        if (!cells[cell - width - 2]) edges[corner] |= 1;
        if (!cells[cell + 1]) edges[corner + 1] |= 2;
        if (!cells[cell + width + 2]) edges[corner + stride + 1] |= 4;
        if (!cells[cell - 1]) edges[corner + stride] |= 8;
      }
    }
    return edges;
  }

  /** One closed line of edges from a corner on; its points are the edges' middles, so that steps become slopes. */
  function lineFrom(edges, stride, start) {
    const points = [];
    let corner = start;
    let before = -1;
    let middle = null;
    let direction = [0, 1, 2, 3].find((one) => edges[corner] & (1 << one));
    while (direction !== undefined) {
      edges[corner] &= ~(1 << direction);
      const last = middle;
      middle = [(corner % stride) + STEP_X[direction] / 2, Math.floor(corner / stride) + STEP_Y[direction] / 2];
      if (direction !== before) {
        if (last && points[points.length - 1] !== last) points.push(last);
        points.push(middle);
      }
      before = direction;
      corner += STEP_X[direction] + STEP_Y[direction] * stride;
      const bits = edges[corner];
      direction = [before + 1, before, before + 3].map((one) => one % 4).find((one) => bits & (1 << one));
    }
    if (points[points.length - 1] !== middle) points.push(middle);
    return points;
  }

  function pathFromRuns(runs, height) {
    const path = new Path2D();
    const grid = gridFrom(runs, height);
    if (!grid) return path;
    const edges = edgesOf(grid);
    const stride = grid.width + 1;
    for (let corner = 0; corner < edges.length; corner++) {
      while (edges[corner]) {
        const line = lineFrom(edges, stride, corner);
        line.forEach(([x, y], number) => path[number ? "lineTo" : "moveTo"](grid.left + x * grid.step, grid.top + y * grid.step));
        path.closePath();
      }
    }
    return path;
  }

  function pathFromPolygons(polygons) {
    const path = new Path2D();
    for (const polygon of polygons) {
      for (let at = 0; at + 1 < polygon.length; at += 2) path[at ? "lineTo" : "moveTo"](polygon[at], polygon[at + 1]);
      path.closePath();
    }
    return path;
  }

  /** The outline of an instance or object: that of its mask or, without one, its box. */
  function shapeOf(one) {
    const { segmentation, bbox } = one;
    const box = new Path2D();
    box.rect(...bbox);
    const [left, top, width, height] = bbox;
    const shape = { box, left, top, right: left + width, bottom: top + height, area: width * height, hasMask: true };
    if (Array.isArray(segmentation) && segmentation.length) return { ...shape, path: pathFromPolygons(segmentation) };
    if (segmentation && segmentation.counts) {
      const { counts, size } = segmentation;
      const runs = typeof counts === "string" ? runsFromText(counts) : counts;
      return { ...shape, path: pathFromRuns(runs, size[0]) };
    }
    return { ...shape, path: box, hasMask: false };
  }

  return { shapeOf, runsFromText };
})();
