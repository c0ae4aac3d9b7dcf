"use strict";
// The slice viewer: one case at a time, three planes at one scale, outlines on the edges of the voxels.
(() => {
const root = document.querySelector(".viewer");
if (!root) return;
const AXES = [2, 1, 0]; // axial, coronal, sagittal
const articles = [...root.querySelectorAll("article")];
const picks = [...root.querySelectorAll("[data-pick]")];
const stage = root.querySelector(".stage"), where = root.querySelector(".where"), choice = root.querySelector("select");
const shows = { reference: true, prediction: true, errors: false, cross: true };
const windowing = { brightness: 0, contrast: 1 };
const planes = AXES.map(makePlane);
let scan = null, at = [0, 0, 0], inside = new Uint8Array(4096), waiting = false;

// ---- a case ---------------------------------------------------------------------------------------------------------

async function pick(number) {
  picks.forEach((button, i) => button.setAttribute("aria-pressed", i === number));
  articles.forEach((article, i) => { article.hidden = i !== number; });
  const data = JSON.parse(articles[number].querySelector("script").textContent);
  const [image, reference, prediction] = await Promise.all([unpack(data.image, data), unpack(data.reference, data, true), unpack(data.prediction, data, true)]);
  const before = choice.value;
  choice.replaceChildren(new Option("all structures", ""), ...Object.keys(data.structures).map(name => new Option(name, name)));
  if (before in data.structures) choice.value = before;
  scan = { data, image, reference, prediction };
  for (const name of ["prediction", "errors"]) root.querySelector(`[data-show=${name}]`).disabled = !prediction;
  root.querySelector(".windowing").hidden = !image;
  at = [...data.centre];
  planes.forEach(plane => plane.fit(scan));
  choose();
  at = [...scan.worst];
  layout();
  root.dataset.shown = picks[number].dataset.case;
}

// The volumes of a case arrive as pictures of their axial slices side by side; this gives back the voxels (x fastest).
// The grey of a label, or each of its three colours, is a digit times a scale; blurring may have moved it a little.
async function unpack(address, data, isLabels) {
  if (!address) return null;
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  const [nx, ny, nz] = data.shape;
  const voxels = new (isLabels ? Uint16Array : Uint8Array)(nx * ny * nz);
  const digit = at => Math.round(pixels[at] / data.scale);
  const number = data.digits === 3 ? at => 256 * digit(at) + 16 * digit(at + 1) + digit(at + 2) : digit;
  const value = isLabels ? number : at => pixels[at];
  for (let z = 0, i = 0; z < nz; z++) {
    const left = (z % data.columns) * nx, top = Math.floor(z / data.columns) * ny;
    for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++) voxels[i] = value(4 * ((top + y) * canvas.width + left + x));
  }
  return voxels;
}

// Which labels are outlined: those of the chosen structure as one, or each of all.
function choose() {
  const { data, reference, prediction } = scan;
  inside = new Uint8Array(4096);
  for (const [name, codes] of Object.entries(data.structures)) if (!choice.value || choice.value === name) for (const c of codes) inside[c] = 1;
  const wrong = data.shape.map(n => new Uint32Array(n)), [nx, ny] = data.shape;
  const place = i => [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
  const errors = [];
  if (prediction) reference.forEach((label, i) => { if (differ(label, prediction[i])) errors.push(i); });
  for (const i of errors) place(i).forEach((to, axis) => { wrong[axis][to]++; });
  planes.forEach(plane => plane.profile(wrong[plane.axis]));
  // The voxel in error whose three slices hold most of the errors: in each plane they are seen, and here is one.
  let most = 0;
  scan.worst = data.centre;
  for (const i of errors) {
    const at = place(i), sum = wrong[0][at[0]] + wrong[1][at[1]] + wrong[2][at[2]];
    if (sum > most) [most, scan.worst] = [sum, at];
  }
  drawAll();
}

const differ = (r, p) => choice.value ? inside[r] !== inside[p] : inside[r] * r !== inside[p] * p;

// A slice by the axis of the file on which it lies and its number there: what other viewers of the file show.
function sliceOf(axis) {
  const { voxel, size } = scan.data, own = voxel.findIndex(row => row[axis] !== 0);
  return `${"ijk"[own]} = ${Math.round(voxel[own][axis] * at[axis] + voxel[own][3])} of 0 to ${size[own] - 1}`;
}

// ---- the planes -----------------------------------------------------------------------------------------------------

function layout() {
  if (!scan) return;
  const { shape, spacing } = scan.data, room = stage.clientWidth - parseFloat(getComputedStyle(stage).paddingLeft) * 2 - 1, narrow = room < 560, gap = 12;
  const width = plane => shape[plane.u] * spacing[plane.u], height = plane => shape[plane.v] * spacing[plane.v];
  const tallest = Math.max(...planes.map(height)), widths = planes.map(width);
  const across = narrow ? Math.max(...widths) : widths.reduce((a, b) => a + b);
  const scale = Math.min((room - (narrow ? 0 : 2 * gap)) / across, (narrow ? 420 : 520) / tallest); // CSS pixels a mm, one for all
  planes.forEach(plane => plane.resize(width(plane) * scale, height(plane) * scale));
  drawNow();
}

function drawNow() {
  waiting = false;
  planes.forEach(plane => plane.draw());
  say();
}

function drawAll() {
  if (waiting || !scan) return;
  waiting = true;
  requestAnimationFrame(() => { if (waiting) drawNow(); });
}

function go(axis, to) {
  at[axis] = Math.max(0, Math.min(scan.data.shape[axis] - 1, to));
  drawAll();
}

function say() {
  const { data, reference, prediction } = scan, [nx, ny] = data.shape;
  const i = at[0] + nx * (at[1] + ny * at[2]);
  const place = rows => rows.map(row => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
  const name = code => Object.keys(data.structures).filter(n => data.structures[n].includes(code)).join(", ") || "none";
  const mm = place(data.world).map((v, axis) => `${Math.abs(v).toFixed(1)} ${(v < 0 ? "LPI" : "RAS")[axis]}`).join(", ");
  where.textContent = `voxel ${place(data.voxel).map(Math.round).join(", ")} · ${mm} mm · reference: ${name(reference[i])}`
    + (prediction ? ` · prediction: ${name(prediction[i])}` : "");
}

function makePlane(axis) {
  const [u, v] = [0, 1, 2].filter(a => a !== axis); // u runs to the left (radiological view), v upwards
  const canvas = document.createElement("canvas"), bars = document.createElement("canvas"), small = document.createElement("canvas");
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0 });
  const text = document.createElement("p"), box = document.createElement("div");
  const pen = canvas.getContext("2d");
  let w = 1, h = 1, width = 1, height = 1, letters = ["", "", "", ""], name = "", grey, map = {};
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  bars.className = "bars";
  bars.setAttribute("aria-hidden", "true");
  box.className = "plane";
  box.append(text, canvas, slider, bars);
  stage.append(box);

  slider.oninput = () => go(axis, +slider.value);
  canvas.onkeydown = event => {
    const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 }[event.key];
    if (by && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); go(axis, at[axis] + by); }
  };
  // A wheel belongs to the page until the plane has been chosen by a click or the tab key.
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas || event.ctrlKey) return;
    event.preventDefault();
    go(axis, at[axis] - Math.sign(event.deltaY));
  }, { passive: false });
  const point = event => {
    const edge = canvas.getBoundingClientRect();
    at[u] = Math.max(0, Math.min(w - 1, Math.floor((1 - (event.clientX - edge.left) / edge.width) * w)));
    at[v] = Math.max(0, Math.min(h - 1, Math.floor((1 - (event.clientY - edge.top) / edge.height) * h)));
    drawAll();
  };
  canvas.onpointerdown = event => { if (event.button === 0) point(event); };
  canvas.onpointermove = event => { if (event.buttons === 1 && event.pointerType === "mouse") point(event); };

  // One slice as it is seen: rows from the top, columns from the left.
  function cut(volume, into) {
    const step = [1, scan.data.shape[0], scan.data.shape[0] * scan.data.shape[1]], start = at[axis] * step[axis];
    for (let row = 0, i = 0; row < h; row++) {
      for (let column = 0, from = start + (h - 1 - row) * step[v] + (w - 1) * step[u]; column < w; column++, i++, from -= step[u]) into[i] = volume[from];
    }
    return into;
  }

  // The scan is smoothed when it is enlarged; what marks labels keeps the edges of the voxels.
  function ground() {
    const level = new Uint8ClampedArray(256).map((_, g) => (g - 128) * windowing.contrast + 128 + windowing.brightness);
    layer(!!grey, (put, i) => { const g = grey ? level[grey[i]] : 22; put(g, g, g, 255); });
    if (shows.errors && map.prediction) layer(false, (put, i) => {
      const [r, p] = [map.reference[i], map.prediction[i]];
      if (!differ(r, p)) put(0, 0, 0, 0);
      else if (inside[r] && inside[p]) put(204, 121, 167, 150);
      else if (inside[r]) put(0, 114, 178, 180);
      else put(213, 94, 0, 160);
    });
  }

  function layer(smooth, colour) {
    const pixels = new ImageData(w, h), to = pixels.data;
    for (let i = 0; i < w * h; i++) colour((r, g, b, a) => { to[4 * i] = r; to[4 * i + 1] = g; to[4 * i + 2] = b; to[4 * i + 3] = a; }, i);
    Object.assign(small, { width: w, height: h }).getContext("2d").putImageData(pixels, 0, 0);
    pen.imageSmoothingEnabled = smooth;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  // The edges between inside and outside, joined into closed paths, so that dashes run evenly along them.
  function path(labels, wanted) {
    const next = new Map(), found = new Path2D(), [sx, sy] = [canvas.width / w, canvas.height / h];
    const is = (x, y) => x >= 0 && y >= 0 && x < w && y < h && wanted(labels[x + w * y]);
    const edge = (x0, y0, x1, y1) => { const k = x0 + (w + 1) * y0, to = x1 + (w + 1) * y1; next.has(k) ? next.get(k).push(to) : next.set(k, [to]); };
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      if (!is(x, y)) continue;
      if (!is(x, y - 1)) edge(x, y, x + 1, y);
      if (!is(x + 1, y)) edge(x + 1, y, x + 1, y + 1);
      if (!is(x, y + 1)) edge(x + 1, y + 1, x, y + 1);
      if (!is(x - 1, y)) edge(x, y + 1, x, y);
    }
    for (const [first, ends] of next) while (ends.length) {
      found.moveTo(first % (w + 1) * sx, Math.floor(first / (w + 1)) * sy);
      for (let k = first, out = ends; out && out.length; out = next.get(k)) {
        k = out.pop();
        found.lineTo(k % (w + 1) * sx, Math.floor(k / (w + 1)) * sy);
      }
      found.closePath();
    }
    return found;
  }

  function outline(labels, colour, lineWidth, dash) {
    const dpr = devicePixelRatio || 1, groups = choice.value ? [c => inside[c]] : [...new Set(labels)].filter(c => inside[c]).map(code => c => c === code);
    pen.lineJoin = "round";
    for (const wanted of groups) {
      const found = path(labels, wanted);
      pen.setLineDash([]);
      pen.strokeStyle = "rgba(0,0,0,.45)";
      if (!dash) { pen.lineWidth = (lineWidth + 1.6) * dpr; pen.stroke(found); }
      pen.setLineDash(dash ? [5 * dpr, 4 * dpr] : []);
      pen.strokeStyle = colour;
      pen.lineWidth = lineWidth * dpr;
      pen.stroke(found);
    }
    pen.setLineDash([]);
  }

  function cross() {
    const x = (w - at[u] - 0.5) / w * canvas.width, y = (h - at[v] - 0.5) / h * canvas.height, gap = 9 * (devicePixelRatio || 1);
    pen.beginPath();
    for (const [x0, y0, x1, y1] of [[x, 0, x, y - gap], [x, y + gap, x, canvas.height], [0, y, x - gap, y], [x + gap, y, canvas.width, y]]) { pen.moveTo(x0, y0); pen.lineTo(x1, y1); }
    pen.strokeStyle = "rgba(255,255,255,.4)";
    pen.lineWidth = devicePixelRatio || 1;
    pen.stroke();
  }

  function edgeLetters() {
    const dpr = devicePixelRatio || 1, [cw, ch] = [canvas.width, canvas.height], off = 11 * dpr;
    pen.font = `600 ${12 * dpr}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3 * dpr;
    pen.strokeStyle = "rgba(0,0,0,.7)";
    pen.fillStyle = "#fff";
    for (const [letter, x, y] of [[letters[0], off, ch / 2], [letters[1], cw - off, ch / 2], [letters[2], cw / 2, ch - off], [letters[3], cw / 2, off]]) {
      pen.strokeText(letter, x, y);
      pen.fillText(letter, x, y);
    }
  }

  return {
    axis, u, v,
    fit({ data, image, reference, prediction }) {
      [w, h] = [data.shape[u], data.shape[v]];
      ({ letters, name } = data.planes[axis]);
      grey = image && new Uint8Array(w * h);
      map = { reference: new Uint16Array(w * h), prediction: prediction && new Uint16Array(w * h) };
      slider.max = data.shape[axis] - 1;
      slider.setAttribute("aria-label", `${name} slice`);
    },
    resize(cssWidth, cssHeight) {
      const dpr = devicePixelRatio || 1;
      Object.assign(canvas, { width: Math.max(1, Math.round(cssWidth * dpr)), height: Math.max(1, Math.round(cssHeight * dpr)) });
      for (const part of [canvas, slider, bars]) part.style.width = `${cssWidth}px`;
      canvas.style.height = `${cssHeight}px`;
      slider.style.width = `${Math.max(cssWidth, 120)}px`;
    },
    profile(counts) {
      const most = Math.max(1, ...counts), ink = bars.getContext("2d");
      Object.assign(bars, { width: counts.length * 4, height: 20 });
      ink.fillStyle = "#e69f00";
      counts.forEach((count, i) => { const tall = count ? Math.max(2, 20 * count / most) : 0; ink.fillRect(4 * i, 20 - tall, 3, tall); });
    },
    draw() {
      if (grey) cut(scan.image, grey);
      cut(scan.reference, map.reference);
      if (map.prediction) cut(scan.prediction, map.prediction);
      ground();
      if (shows.reference) outline(map.reference, "#56b4e9", 2.6, false);
      if (shows.prediction && map.prediction) outline(map.prediction, "#e69f00", 2, true);
      if (shows.cross) cross();
      edgeLetters();
      slider.value = at[axis];
      text.textContent = `${name}, ${sliceOf(axis)}`;
      slider.setAttribute("aria-valuetext", sliceOf(axis));
      canvas.setAttribute("aria-label", `${name} slice, ${sliceOf(axis)}; arrow keys change it`);
    },
  };
}

// ---- switches -------------------------------------------------------------------------------------------------------

function flip(name) {
  const button = root.querySelector(`[data-show=${name}]`);
  if (button.disabled) return;
  shows[name] = !shows[name];
  button.setAttribute("aria-pressed", shows[name]);
  drawAll();
}

picks.forEach((button, number) => button.addEventListener("click", () => pick(number)));
for (const button of root.querySelectorAll("[data-show]")) button.addEventListener("click", () => flip(button.dataset.show));
for (const input of root.querySelectorAll(".windowing input")) input.addEventListener("input", () => { windowing[input.name] = +input.value; drawAll(); });
root.querySelector(".jump").addEventListener("click", () => { at = [...scan.worst]; drawAll(); });
choice.addEventListener("change", choose);
root.addEventListener("keydown", event => {
  const name = { r: "reference", p: "prediction", e: "errors", c: "cross" }[event.key];
  if (name && scan && event.target !== choice && !event.ctrlKey && !event.metaKey && !event.altKey) flip(name);
});
new ResizeObserver(layout).observe(stage);
document.addEventListener("view-case", event => {
  const number = picks.findIndex(button => button.dataset.case === event.detail);
  if (number >= 0) { pick(number); root.scrollIntoView({ behavior: "smooth" }); }
});
pick(0).catch(error => { where.textContent = `The slices could not be unpacked: ${error.message}`; throw error; });
})();
