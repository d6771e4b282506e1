// The table of results, and where each of its numbers comes from.

const KEY = Math.min(1, data.labels.length - 1); // the strategy: the label that stays in sight, and has the footnotes
const labelColumns = data.labels.map((header, index) => ({
  id: `label ${index}`,
  header,
  key: index === KEY,
  value: (row) => row.labels[index],
  element: (row) => {
    const marks = row.notes.map((note) => make("a", { href: `#note-${note}`, text: note, title: data.footnotes[note - 1] }));
    const notes = index === KEY && marks.length ? make("sup", {}, ...marks) : null;
    return make(index === KEY ? "th" : "td", { scope: index === KEY && "row", class: "name" }, named(row.labels[index]), notes);
  },
}));
const numberColumns = data.columns.map(({ key, quantity, header, better }, index) => ({
  id: key,
  quantity,
  header,
  better,
  number: true,
  cells: (row) => row.parts?.[index] ?? row.cells,
  value: (row) => row.values[index],
  text: (row) => row.texts[index],
  element: (row, column) => numberCell(row, column, row.best.includes(index)),
}));
const furtherColumns = data.further.map((name) => ({
  id: name,
  quantity: name,
  header: name,
  number: true,
  cells: (row) => row.cells,
  value: (row) => merged(name, row).value,
  text: (row) => merged(name, row).text,
  element: (row, column) => numberCell(row, column, false),
}));
const origin = new WeakMap(); // of each number's button: its row and column

function numberCell(row, column, best) {
  const text = column.text(row);
  const end = typeof column.value(row) === "number" && text.includes(" ") ? text.indexOf(" ") : text.length;
  const spread = end < text.length ? make("small", { text: text.slice(end) }) : null;
  const button = make("button", { type: "button", tabindex: -1 }, make("span", { text: text.slice(0, end) }), spread);
  origin.set(button, { row, column });
  return make("td", { class: best ? "number best" : "number" }, button);
}

const offered = [...labelColumns, ...numberColumns, ...furtherColumns];
const chosen = new Set([...labelColumns, ...numberColumns]);
const results = new SortableTable(byId("results"), [...chosen], data.rows, "Results");
const selects = [];

function filterRows() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  results.kept = (row) => {
    if (selects.some(({ select, index }) => select.selectedIndex > 0 && row.labels[index] !== select.value)) return false;
    const notes = row.notes.map((note) => data.footnotes[note - 1]);
    const text = [...row.labels, row.failure ?? "", ...notes].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  };
  byId("shown").textContent = `${results.update()} of ${data.rows.length} rows`;
  enter();
}

/** Let Tab lead to one number of the table, from which the arrow keys go on. */
function enter(button = byId("results").querySelector("td button")) {
  byId("results").querySelector('td button[tabindex="0"]')?.setAttribute("tabindex", -1);
  button?.setAttribute("tabindex", 0);
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function setUpResults() {
  data.labels.forEach((header, index) => {
    const values = [...new Set(data.rows.map((row) => row.labels[index]))].sort(order.compare);
    if (values.length < 2) return;
    const options = values.map((value) => make("option", { value, text: value }));
    const select = make("select", { onchange: filterRows }, make("option", { value: "", text: "all" }), ...options);
    selects.push({ select, index });
    byId("columns").before(make("label", {}, make("span", { text: `${header} ` }), select));
  });
  for (const column of offered) {
    const box = make("input", { type: "checkbox" });
    box.checked = chosen.has(column);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(column);
      else chosen.delete(column);
      results.show(offered.filter((each) => chosen.has(each)));
      enter();
    });
    byId("column-choices").append(make("label", {}, box, make("span", { text: ` ${column.header}` })));
  }
  byId("filter").addEventListener("input", filterRows);
  byId("results").addEventListener("click", (event) => {
    const found = origin.get(event.target.closest("button"));
    if (found) showOrigin(found.row, found.column);
  });
  byId("results").addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step || !origin.has(event.target)) return;
    const cell = event.target.closest("td");
    const row = results.body.rows[cell.parentElement.sectionRowIndex + step[0]];
    const next = row?.cells[cell.cellIndex + step[1]]?.querySelector("button");
    if (!next) return;
    event.preventDefault();
    enter(next);
    next.focus();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && byId("columns").removeAttribute("open"));
  filterRows();
}

// --- where a number comes from ---

/** Show the cells behind a number, and what is known of them; what they share is told once. */
function showOrigin(row, column) {
  byId("provenance-heading").replaceChildren(named(`${column.header}: ${column.text(row)}`));
  const parts = [make("p", {}, named(rowName(row)))];
  if (row.failure) parts.push(make("p", { class: "wrong", text: row.failure }));
  const behind = column.cells(row);
  if (!behind.length) parts.push(make("p", { text: "No cell of the run stands behind this number." }));
  const notes = row.notes.map((note) => make("li", { value: note, text: data.footnotes[note - 1] }));
  if (notes.length) parts.push(make("ol", { class: "footnotes" }, ...notes));
  const facts = make("dl");
  const names = Object.keys(data.cells.fields);
  const first = ["cell", "seed", column.quantity, "command line", "commit", "dirty", "device", "versions", "weights_sha256"];
  for (const name of new Set([...first.filter((each) => names.includes(each)), ...names])) {
    const cells = new Map();
    for (const cell of behind) {
      const text = field(name, cell);
      if (text !== "") cells.set(text, [...(cells.get(text) ?? []), field("seed", cell)]);
    }
    if (!cells.size) continue;
    const lines = [...cells].map(([text, seeds]) => (cells.size === 1 ? text : `seed ${seeds.join(", ")}: ${text}`));
    const text = name === "seed" ? [...cells.keys()].join(", ") : lines.join("\n");
    facts.append(make("dt", { text: name }), make("dd", { dir: "auto", text }));
  }
  byId("provenance-body").replaceChildren(...parts, facts);
  byId("provenance").showModal();
  byId("provenance").scrollTop = 0;
}

byId("close").addEventListener("click", () => byId("provenance").close());
byId("provenance").addEventListener("click", (event) => event.target === byId("provenance") && byId("provenance").close());
setUpResults();
