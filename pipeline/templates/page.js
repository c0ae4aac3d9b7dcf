"use strict";
// Tables: a press on a heading sorts by that column, numbers as numbers, missing figures last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keys = new Map([...body.rows].map(row => [row, row.cells[column].textContent.trim()]));
    const missing = text => text === "\u2013", number = text => /^-?[\d.]+$/.test(text);
    body.append(...[...body.rows].sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const by = number(x) && number(y) ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return up ? by : -by;
    }));
  }));
}

// The search field keeps the rows that hold every word of it.
const rows = [...document.querySelectorAll("table.sortable tbody tr")], found = document.querySelector(".found");
for (const field of document.querySelectorAll("input[type=search]")) {
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    found.textContent = words.length ? `${rows.filter(row => !row.hidden).length} of ${rows.length} rows` : "";
  });
}

// A mark in a chart shows its case: in the viewer where it is drawn there, else in the table.
const drawn = new Set([...document.querySelectorAll("[data-pick]")].map(button => button.dataset.case));
function show(name) {
  let first = null;
  for (const row of rows) {
    const here = row.dataset.case === name;
    row.classList.toggle("marked", here);
    if (here) { row.hidden = false; first ??= row; }
  }
  if (drawn.has(name)) document.dispatchEvent(new CustomEvent("view-case", { detail: name }));
  else first?.scrollIntoView({ behavior: "smooth", block: "center" });
}
document.addEventListener("click", event => {
  const mark = event.target.closest(".dot[data-case], [data-view]");
  if (mark) show(mark.dataset.case ?? mark.dataset.view);
});
