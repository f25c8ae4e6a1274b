"use strict";
// Sorting: a heading becomes a button; missing values stay at the end whichever way it goes.
// Wide tables fade out at the right for as long as they go on there.

const valueOf = (row, column) => row.cells[column].dataset.value;

const compare = (a, b) => {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
};

const sortBy = (table, heading) => {
  const column = heading.cellIndex;
  const down = heading.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows];
  const known = rows.filter((row) => valueOf(row, column) !== undefined);
  const missing = rows.filter((row) => valueOf(row, column) === undefined);
  known.sort((a, b) => (down ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column)));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...known, ...missing);
};

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sortBy(table, heading));
    heading.replaceChildren(button);
  }
}

const fade = (box) => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
const widths = new ResizeObserver((entries) => entries.forEach((entry) => fade(entry.target)));

for (const box of document.querySelectorAll(".scroll")) {
  box.addEventListener("scroll", () => fade(box), { passive: true });
  widths.observe(box);
}
