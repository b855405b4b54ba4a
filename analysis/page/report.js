"use strict";
// Without this script the page shows the same, in the order in which it was written.

const key = (row, at, numeric) => {
  const cell = row.cells[at];
  if (!numeric) return cell.textContent.trim();
  return cell.dataset.key ? Number(cell.dataset.key) : null;
};

// What is missing stays at the end, whichever way the rest is sorted.
const compare = (one, two, way, numeric) => {
  if (numeric) {
    if (one === null || two === null) return (one === null) - (two === null);
    return way * (one - two);
  }
  return way * one.localeCompare(two, "en", { numeric: true });
};

const sortBy = (table, heading) => {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  const way = descending ? -1 : 1;
  const numeric = "numeric" in heading.dataset;
  const at = heading.cellIndex;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [key(row, at, numeric), row]);
  rows.sort((one, two) => compare(one[0], two[0], way, numeric));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows.map((pair) => pair[1]));
};

for (const table of document.querySelectorAll("table.sorts")) {
  for (const heading of table.tHead.rows[0].cells) {
    if ("fixed" in heading.dataset) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading));
  }
}

// Paper cannot be opened further.
let opened = [];
addEventListener("beforeprint", () => {
  opened = Array.from(document.querySelectorAll("details:not([open])"));
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
