"use strict";
// The cards are filtered by text, severity and check, and put into an order; a press on a check's name filters by it.
const list = document.querySelector(".cards");
const cards = [...list.children];
const [text, severity, check, order, count] = ["text", "severity", "check", "order", "count"].map(id => document.getElementById(id));
const buttons = [...document.querySelectorAll(".findings button")];

const words = new Map(cards.map(card => [card, card.textContent.toLowerCase()]));
const number = (card, key) => parseFloat(card.dataset[key]) || 0;
const byName = (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true });

function marked(card) {
  const marks = card.dataset.marks.split(" ");
  return severity.value === "clean" ? card.dataset.marks === "" : !severity.value || marks.includes(severity.value);
}

function show() {
  let shown = 0;
  for (const card of cards) {
    const wanted = marked(card) && words.get(card).includes(text.value.toLowerCase())
      && (!check.value || card.dataset.checks.split(" ").includes(check.value));
    card.hidden = !wanted;
    shown += wanted;
  }
  buttons.forEach(button => button.setAttribute("aria-pressed", button.dataset.check === check.value));
  count.textContent = shown === cards.length ? `${shown} cases` : `${shown} of ${cards.length} cases`;
}

function sort() {
  const key = order.value;
  list.append(...cards.sort((a, b) => (key === "name" ? 0 : number(b, key) - number(a, key)) || byName(a, b)));
}

for (const field of [text, severity, check]) field.addEventListener("input", show);
order.addEventListener("input", sort);
for (const button of buttons) {
  button.addEventListener("click", () => {
    check.value = check.value === button.dataset.check ? "" : button.dataset.check;
    show();
    document.getElementById("cases").scrollIntoView();
  });
}
show();
