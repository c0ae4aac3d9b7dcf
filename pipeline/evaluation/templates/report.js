"use strict";
// Tables: a press on a heading sorts by that column, numbers as numbers, missing figures last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].textContent;
    const missing = text => text === "\u2013";
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const number = parseFloat(x) - parseFloat(y);
      const by = /^-?[\d.]+$/.test(x) && /^-?[\d.]+$/.test(y) ? number : x.localeCompare(y, undefined, { numeric: true });
      return up ? by : -by;
    };
    body.append(...[...body.rows].sort(order));
  }));
}

// The volumes of a case arrive as pictures of their axial slices side by side; this gives back the voxels (x fastest).
async function unpack(address, data) {
  if (!address) return null;
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  const [nx, ny, nz] = data.shape;
  const voxels = new Uint8Array(nx * ny * nz);
  for (let z = 0, i = 0; z < nz; z++) {
    const left = (z % data.columns) * nx, top = Math.floor(z / data.columns) * ny;
    for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++) voxels[i] = pixels[4 * ((top + y) * canvas.width + left + x)];
  }
  return voxels;
}

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

async function openViewer(details) {
  const data = JSON.parse(details.querySelector("script").textContent);
  const stage = details.querySelector(".stage");
  const [image, reference, prediction] = await Promise.all(
    [data.image, data.reference, data.prediction].map(address => unpack(address, data)));
  for (const map of [reference, prediction]) if (map) for (let i = 0; i < map.length; i++) map[i] = Math.round(map[i] / data.scale);
  const [nx, ny] = data.shape;
  const at = [...data.centre];
  const redraw = [];
  const drawAll = () => redraw.forEach(draw => draw());
  const check = (text, checked) => element("input", { type: "checkbox", checked, onchange: drawAll, ariaLabel: text });
  const shows = { reference: check("reference", true), prediction: check("prediction", true), cross: check("crosshair", true) };
  const choice = element("select", { onchange: drawAll, ariaLabel: "structure" }, new Option("all structures", ""));
  for (const name of Object.keys(data.structures)) choice.append(new Option(name, name));
  const switches = element("div", { className: "switches" },
    element("label", {}, shows.reference, " reference (solid)"),
    element("label", {}, shows.prediction, " prediction (dashed)"),
    element("label", {}, shows.cross, " crosshair"), element("label", {}, "outline ", choice));
  if (!prediction) shows.prediction.disabled = true;
  stage.append(switches);
  for (const axis of [2, 1, 0]) stage.append(makePlane(axis));
  drawAll();

  function makePlane(axis) {
    const [u, v] = [0, 1, 2].filter(a => a !== axis); // u runs to the right, v upwards
    const [w, h] = [data.shape[u], data.shape[v]];
    const { name, letters } = data.planes[axis];
    const canvas = element("canvas", { tabIndex: 0, ariaLabel: `${name} slice` });
    canvas.setAttribute("role", "img");
    const small = element("canvas", { width: w, height: h });
    const slider = element("input", { type: "range", min: 0, max: data.shape[axis] - 1, value: at[axis], ariaLabel: `${name} slice` });
    const text = element("label", {});
    const move = to => { at[axis] = Math.max(0, Math.min(data.shape[axis] - 1, to)); drawAll(); };
    slider.oninput = () => move(+slider.value);
    canvas.onkeydown = event => {
      const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (by) { event.preventDefault(); move(at[axis] + by); }
    };
    canvas.onclick = event => {
      const box = canvas.getBoundingClientRect();
      at[u] = Math.min(w - 1, Math.floor((event.clientX - box.left) / box.width * w));
      at[v] = Math.min(h - 1, Math.floor((1 - (event.clientY - box.top) / box.height) * h));
      drawAll();
    };
    const index = (a, b) => { const p = [0, 0, 0]; p[axis] = at[axis]; p[u] = a; p[v] = b; return p[0] + nx * (p[1] + ny * p[2]); };
    redraw.push(() => {
      const widthMm = w * data.spacing[u], heightMm = h * data.spacing[v];
      const scale = 2 * Math.min(420 / widthMm, 420 / heightMm);
      canvas.width = Math.round(widthMm * scale);
      canvas.height = Math.round(heightMm * scale);
      canvas.style.aspectRatio = `${widthMm} / ${heightMm}`;
      const pen = canvas.getContext("2d");
      const pixels = new ImageData(w, h);
      for (let b = 0; b < h; b++) for (let a = 0; a < w; a++) {
        const grey = image ? image[index(a, b)] : 0, to = 4 * ((h - 1 - b) * w + a);
        pixels.data[to] = pixels.data[to + 1] = pixels.data[to + 2] = grey;
        pixels.data[to + 3] = 255;
      }
      small.getContext("2d").putImageData(pixels, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, 0, 0, canvas.width, canvas.height);
      const names = choice.value ? [choice.value] : Object.keys(data.structures);
      for (const structure of names) {
        const codes = new Set(data.structures[structure]);
        if (shows.reference.checked) outline(pen, reference, codes, "#56b4e9", 6, false);
        if (shows.prediction.checked && prediction) outline(pen, prediction, codes, "#e69f00", 4, true);
      }
      if (shows.cross.checked) cross(pen);
      letter(pen, letters);
      slider.value = at[axis];
      text.textContent = `${name}, slice ${data.first[axis] + at[axis] * data.step[axis]}`;
    });
    // Every voxel edge between inside and outside is one line; a dashed outline draws the middle part of each.
    function outline(pen, map, codes, colour, width, dashed) {
      const [sx, sy] = [pen.canvas.width / w, pen.canvas.height / h];
      const inside = (a, b) => a >= 0 && b >= 0 && a < w && b < h && codes.has(map[index(a, b)]);
      const coarse = Math.max(1, Math.round(12 / Math.min(sx, sy)));
      const skip = (a, b) => dashed && coarse > 1 && Math.floor((a + b) / coarse) % 2;
      const cut = dashed && coarse === 1 ? 0.22 : 0;
      pen.beginPath();
      const line = (x0, y0, x1, y1) => {
        pen.moveTo(x0 + cut * (x1 - x0), y0 + cut * (y1 - y0));
        pen.lineTo(x1 - cut * (x1 - x0), y1 - cut * (y1 - y0));
      };
      for (let b = 0; b < h; b++) for (let a = 0; a < w; a++) {
        if (!inside(a, b) || skip(a, b)) continue;
        const [x0, x1, y0, y1] = [a * sx, (a + 1) * sx, (h - b) * sy, (h - b - 1) * sy];
        if (!inside(a - 1, b)) line(x0, y0, x0, y1);
        if (!inside(a + 1, b)) line(x1, y0, x1, y1);
        if (!inside(a, b - 1)) line(x0, y0, x1, y0);
        if (!inside(a, b + 1)) line(x0, y1, x1, y1);
      }
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.lineCap = dashed ? "butt" : "round";
      pen.stroke();
    }
    function cross(pen) {
      const x = (at[u] + 0.5) / w * pen.canvas.width, y = (1 - (at[v] + 0.5) / h) * pen.canvas.height;
      pen.beginPath();
      pen.moveTo(x, 0); pen.lineTo(x, pen.canvas.height); pen.moveTo(0, y); pen.lineTo(pen.canvas.width, y);
      pen.strokeStyle = "rgba(255,255,255,.35)";
      pen.lineWidth = 1.5;
      pen.stroke();
    }
    function letter(pen, [left, right, bottom, top]) {
      const [cw, ch] = [pen.canvas.width, pen.canvas.height];
      pen.fillStyle = "#fff";
      pen.font = "26px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      for (const [text, x, y] of [[left, 18, ch / 2], [right, cw - 18, ch / 2], [bottom, cw / 2, ch - 18], [top, cw / 2, 20]]) pen.fillText(text, x, y);
    }
    return element("div", {}, text, canvas, slider);
  }
}

for (const details of document.querySelectorAll("details.viewer")) {
  details.addEventListener("toggle", () => openViewer(details), { once: true });
}
