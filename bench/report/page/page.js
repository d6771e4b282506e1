// What the other scripts of a run's page share: its data, elements and tables. Together they are one module.
// Whatever the data hold is text: it gets onto the page by textContent alone.

const data = JSON.parse(document.getElementById("data").textContent);
const CHUNK = 100; // rows that are drawn at a time
const SERIES = 8; // colours
const byId = (id) => document.getElementById(id);
const order = new Intl.Collator(undefined, { numeric: true });

/** Make an element: `text` is its text, what begins with "on" listens, false and null are attributes that are not there. */
function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const named = (text) => make("bdi", { text }); // a name may run from right to left
const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)}` : "-");
const rounded = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5))));

// --- cells ---

/** The text of a cell's field; an empty one where it has none. */
function field(name, cell) {
  const [texts, at] = data.cells.fields[name] ?? [[""]];
  return at ? texts[at[cell]] : texts[0];
}

const rowOf = new Map(data.rows.flatMap((row) => row.cells.map((cell) => [cell, row])));
const rowName = (row) => row.labels.join(" · ");
const cellName = (cell) => `${rowName(rowOf.get(cell))} · seed ${field("seed", cell)}`;

/** Mean of a field over a row's cells where it is a number, else the different texts. */
function merged(name, row) {
  const texts = row.cells.map((cell) => field(name, cell)).filter((text) => text !== "");
  const numbers = texts.map(Number);
  if (!texts.length) return { value: null, text: "-" };
  if (numbers.every(Number.isFinite)) {
    const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
    return { value: mean, text: rounded(mean) };
  }
  const text = [...new Set(texts)].join(", ");
  return { value: text, text };
}

// --- tables ---

/**
 * A table whose headers sort. Rows are drawn some at a time, so that thousands of them do not hold up the page.
 *
 * columns: { id, header, value(row), element(row, column): a <td> or <th>, number, better, key: it stays in sight }
 */
class SortableTable {
  constructor(place, columns, rows, label) {
    this.columns = columns;
    this.rows = rows;
    this.kept = () => true;
    this.sorted = { id: null, descending: false };
    this.body = make("tbody");
    this.head = make("thead");
    this.turn = 0;
    place.replaceChildren(make("table", { "aria-label": label }, this.head, this.body));
    this.show(columns);
  }

  show(columns) {
    this.columns = columns;
    this.made = new Map();
    this.head.replaceChildren(make("tr", {}, ...columns.map((column) => this.header(column))));
    this.update();
  }

  header(column) {
    const { id, descending } = this.sorted;
    const state = column.id !== id ? "none" : descending ? "descending" : "ascending";
    const button = make("button", { type: "button", text: column.header, onclick: () => this.sort(column) });
    const classes = column.number ? "number" : column.key ? "name key" : "name";
    return make("th", { scope: "col", "aria-sort": state, class: classes, "data-column": column.id }, button);
  }

  /** Sort by a column, then the other way round, then not at all. */
  sort(column) {
    const first = column.better === "high";
    const { id, descending } = this.sorted;
    if (id !== column.id) this.sorted = { id: column.id, descending: first };
    else this.sorted = descending === first ? { id, descending: !first } : { id: null, descending: false };
    for (const cell of this.head.rows[0].cells) {
      const state = this.sorted.descending ? "descending" : "ascending";
      cell.setAttribute("aria-sort", cell.dataset.column === this.sorted.id ? state : "none");
    }
    this.update();
  }

  /** Draw the rows that are kept, in order. */
  update() {
    const column = this.columns.find((each) => each.id === this.sorted.id);
    const rows = this.rows.filter(this.kept);
    if (column) {
      const sign = this.sorted.descending ? -1 : 1;
      const keyed = rows.map((row) => [column.value(row), row]);
      keyed.sort(([one], [other]) => compare(one, other, sign));
      rows.splice(0, rows.length, ...keyed.map(([, row]) => row));
    }
    this.body.replaceChildren();
    const turn = ++this.turn;
    const more = (first) => {
      if (turn !== this.turn) return; // another order is drawn meanwhile
      const chunk = rows.slice(first, first + CHUNK).map((row, index) => this.element(row, rows[first + index - 1], !column));
      this.body.append(...chunk);
      if (first + CHUNK < rows.length) setTimeout(more, 0, first + CHUNK);
    };
    more(0);
    return rows.length;
  }

  element(row, before, grouped) {
    if (!this.made.has(row)) {
      this.made.set(row, make("tr", {}, ...this.columns.map((column) => column.element(row, column))));
    }
    const element = this.made.get(row);
    element.className = row.failure ? "failed" : "";
    element.classList.toggle("begins", Boolean(grouped && before?.labels && before.labels[0] !== row.labels[0]));
    return element;
  }
}

/** Order of two values, those that are missing last whatever the sign. */
function compare(one, other, sign) {
  if (one == null || other == null) return (one == null) - (other == null);
  return sign * (typeof one === "number" && typeof other === "number" ? one - other : order.compare(one, other));
}

// --- light and dark ---

function setUpTheme() {
  const root = document.documentElement;
  const dark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const tell = () => byId("theme").setAttribute("aria-pressed", dark());
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    tell();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
}

setUpTheme();
