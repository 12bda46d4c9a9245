// COCO's compressed run lengths, and a picture of a mask with its outline.

// Undo the compression: six bits a character from "0" on, low five first, the sixth says that more follow. From the
// fourth run on, a number is the difference to the run two before.
export function runsFromText(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, shift = 0, more = true, bits = 0;
    while (more) {
      bits = text.charCodeAt(at++) - 48;
      value += (bits & 31) * 2 ** shift;
      shift += 5;
      more = (bits & 32) !== 0;
    }
    // Bit 4 of the last character is the sign.
    if (bits & 16) value -= 2 ** shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

// A mask within its box, row by row with a margin of one pixel on each side: 1 where the object is.
export function maskInBox({ size: [height], counts }, [x, y, width, height_]) {
  const stride = width + 2;
  const inside = new Uint8Array(stride * (height_ + 2));
  let at = 0, filled = false;
  for (const run of runsFromText(counts)) {
    if (filled) {
      for (let pixel = at; pixel < at + run; pixel++) {
        const column = Math.floor(pixel / height) - x;
        inside[(pixel % height - y + 1) * stride + column + 1] = 1;
      }
    }
    at += run;
    filled = !filled;
  }
  return { inside, stride, rows: height_ + 2 };
}

// A canvas as large as the box: a thin tint, so that the object keeps its colour, within an outline of `line` pixels.
export function maskPicture(segmentation, box, [red, green, blue], line) {
  const { inside, stride, rows } = maskInBox(segmentation, box);
  const depth = depths(inside, stride, rows, line);
  const [, , width, height] = box;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = depth[(row + 1) * stride + column + 1];
      if (at) picture.data.set([red, green, blue, at <= line ? 255 : 45], 4 * (row * width + column));
    }
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

// How deep each pixel lies in the mask, in steps to its edge, counted up to one more than `most`; 0 outside.
function depths(inside, stride, rows, most) {
  const depth = inside.map((one) => one * (most + 1));
  const lower = (at, than) => { if (depth[at] > depth[than] + 1) depth[at] = depth[than] + 1; };
  for (let row = 1; row < rows - 1; row++) {
    for (let at = row * stride + 1; at < (row + 1) * stride - 1; at++) { lower(at, at - 1); lower(at, at - stride); }
  }
  for (let row = rows - 2; row > 0; row--) {
    for (let at = (row + 1) * stride - 2; at > row * stride; at--) { lower(at, at + 1); lower(at, at + stride); }
  }
  return depth;
}
