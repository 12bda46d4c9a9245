// The page of `grounded-seg serve`: an image and a prompt in, boxes and masks out.
import { maskPicture } from "./masks.js";

const LOWEST = 0.05;
const LONGEST_SIDE = 4096;
// Told apart by people with any kind of colour vision (Okabe and Ito, 2008).
const PALETTE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const state = { file: null, picture: null, line: null, pictures: [], marked: null, asking: null, version: "" };

async function start() {
  // The server says where its threshold is, and which version it has.
  const models = await (await fetch("/v1/models")).json();
  const widgets = Object.values(models.data)[0].widgets;
  setThreshold(widgets.find((one) => one.name === "edit_conf").value);
  state.version = (await (await fetch("/openapi.json")).json()).info.version;
}

function tell(text, isWrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", isWrong);
}

function threshold() {
  return Number($("threshold").value);
}

function setThreshold(value) {
  $("threshold").value = value;
  $("threshold-value").textContent = threshold().toFixed(2);
}

function colourOf(prompt) {
  const prompts = [...new Set(state.line.instances.map((one) => one.attributes.prompt))];
  return PALETTE[prompts.indexOf(prompt) % PALETTE.length];
}

function shown() {
  const instances = state.line ? state.line.instances : [];
  return instances.map((one, index) => ({ one, index })).filter(({ one }) => one.score >= threshold());
}

async function take(file) {
  if (!file) return;
  stop();
  Object.assign(state, { file, line: null, pictures: [], marked: null });
  try {
    state.picture = await createImageBitmap(file);
  } catch {
    // Formats that the server reads and the browser doesn't: its own picture is shown later.
    state.picture = null;
  }
  tell(state.picture ? "" : "This browser can't show the file; the server may read it.");
  show();
  if ($("prompt").value.trim()) await ask(); else $("prompt").focus();
}

function stop() {
  if (state.asking) state.asking.abort();
  state.asking = null;
}

async function send(fields, signal) {
  const form = new FormData();
  form.set("file", state.file, state.file.name || "image.png");
  form.set("prompts", $("prompt").value);
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  const answer = await fetch("/v1/segment", { method: "POST", body: form, signal });
  if (answer.ok) return answer;
  const content = await answer.json().catch(() => null);
  throw new Error(content ? content.error.message : `the server answered with status ${answer.status}`);
}

async function ask() {
  if (!state.file) return tell("Drop an image first.", true);
  if (!$("prompt").value.trim()) return tell("Type what to look for.", true);
  stop();
  const asking = state.asking = new AbortController();
  tell("Looking …");
  $("go").disabled = true;
  const started = performance.now();
  try {
    const line = await (await send({ score_threshold: LOWEST }, asking.signal)).json();
    if (!state.picture) {
      const overlay = await send({ score_threshold: threshold(), format: "png" }, asking.signal);
      state.picture = await createImageBitmap(await overlay.blob());
      state.pictures = null;
    }
    state.line = line;
    if (state.pictures) paint();
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    tell(line.instances.length ? `${line.width} × ${line.height} px, ${seconds} s` : `Nothing found, ${seconds} s`);
    show();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, true);
  } finally {
    if (state.asking === asking) state.asking = null;
    $("go").disabled = false;
  }
}

// Pixels of the image for a line that is 2 px wide on the screen.
function lineWidth() {
  return Math.max(1, Math.round(Math.sqrt(state.line.width * state.line.height) / 300));
}

function paint() {
  state.pictures = state.line.instances.map((one) =>
    Array.isArray(one.segmentation) ? null : maskPicture(one.segmentation, one.bbox, colourOf(one.attributes.prompt), lineWidth()));
}

function show() {
  const visible = shown();
  canvas.hidden = !state.picture;
  $("hint").hidden = Boolean(state.picture);
  $("coco").disabled = !state.line;
  $("png").disabled = !state.line;
  if (state.picture) draw(visible);
  $("found").replaceChildren(...visible.map(listed));
}

function draw(visible) {
  const { width, height } = state.picture;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(state.picture, 0, 0, canvas.width, canvas.height);
  if (!state.line || !state.pictures) return;
  context.scale(scale, scale);
  const others = visible.filter(({ index }) => index !== state.marked);
  const marked = visible.filter(({ index }) => index === state.marked);
  // The best on top, and above it what the list points to.
  for (const { one, index } of [...others.reverse(), ...marked]) {
    const faint = state.marked !== null && index !== state.marked;
    context.globalAlpha = faint ? 0.35 : 1;
    const [x, y, boxWidth, boxHeight] = one.bbox;
    if (state.pictures[index]) context.drawImage(state.pictures[index], x, y);
    context.lineWidth = lineWidth();
    context.strokeStyle = `rgb(${colourOf(one.attributes.prompt)})`;
    context.strokeRect(x, y, boxWidth, boxHeight);
  }
  for (const { one } of [...others.reverse(), ...marked]) chip(context, one);
  context.globalAlpha = 1;
}

function chip(context, one) {
  const size = Math.max(12, Math.sqrt(state.line.width * state.line.height) / 45);
  const [x, y, , boxHeight] = one.bbox;
  const text = `${one.attributes.label} ${one.score.toFixed(2)}`;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size * 0.6;
  // Above the box, else below it: a small object stays visible.
  const top = y >= size * 1.4 ? y - size * 1.4 : Math.min(y + boxHeight, state.line.height - size * 1.4);
  const left = Math.max(0, Math.min(x, state.line.width - width));
  const [red, green, blue] = colourOf(one.attributes.prompt);
  context.fillStyle = `rgb(${red} ${green} ${blue})`;
  context.fillRect(left, top, width, size * 1.4);
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 100 ? "#141414" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + size * 0.3, top + size * 0.75);
}

function listed({ one, index }) {
  const item = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = `rgb(${colourOf(one.attributes.prompt)})`;
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = one.attributes.label;
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = one.score.toFixed(2);
  item.append(swatch, name, score);
  item.tabIndex = 0;
  const mark = (value) => () => { state.marked = value; draw(shown()); };
  item.addEventListener("mouseenter", mark(index));
  item.addEventListener("mouseleave", mark(null));
  item.addEventListener("focus", mark(index));
  item.addEventListener("blur", mark(null));
  return item;
}

// The COCO file of what is shown, as the server would write it with this threshold.
function coco() {
  const { file_name, width, height, instances } = state.line;
  const prompts = [...new Set($("prompt").value.split(";").map((one) => one.trim()).filter(Boolean))];
  for (const one of instances) if (!prompts.includes(one.attributes.prompt)) prompts.push(one.attributes.prompt);
  const ids = new Map(prompts.map((name, index) => [name, index + 1]));
  return {
    info: { description: "Made by grounded-seg", version: state.version },
    licenses: [],
    categories: prompts.map((name) => ({ id: ids.get(name), name })),
    images: [{ id: 1, file_name, width, height }],
    annotations: shown().map(({ one }, index) =>
      ({ id: index + 1, image_id: 1, category_id: ids.get(one.attributes.prompt), ...one })),
  };
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${state.line.file_name.replace(/\.[^.]*$/, "") || "image"}${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("file").addEventListener("change", () => take($("file").files[0]));
$("threshold").addEventListener("input", () => { setThreshold(threshold()); show(); });
$("coco").addEventListener("click", () => save(new Blob([JSON.stringify(coco(), null, 1)], { type: "application/json" }), ".json"));
$("png").addEventListener("click", () => canvas.toBlob((blob) => save(blob, ".png"), "image/png"));
for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) { event.preventDefault(); take(file); }
});

start().catch((error) => tell(`The server can't be reached: ${error.message}`, true));
