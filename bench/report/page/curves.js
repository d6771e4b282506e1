// Learning curves of the rows that the reader chooses.

function setUpCurves() {
  if (!byId("learning")) return;
  const rows = data.rows.filter((row) => row.cells.some((cell) => Object.keys(data.curves[cell]).length));
  const shown = new Set(rows.slice(0, SERIES));
  const has = (name) => data.curves.some((curves) => name in curves);
  const options = Object.entries(data.curve_names).filter(([name]) => has(name));
  byId("curve").append(...options.map(([value, text]) => make("option", { value, text })));
  const line = (index) => ({
    stroke: `var(--series-${index % SERIES})`,
    "stroke-dasharray": ["none", "6 3", "2 3"][Math.floor(index / SERIES) % 3],
  });
  const update = () => byId("curve-plot").replaceChildren(chart(rows, shown, byId("curve").value, line));
  byId("curve").addEventListener("change", update);
  rows.forEach((row, index) => {
    const stroke = draw("line", { x1: 0, x2: 22, y1: 5, y2: 5, "stroke-width": 3, ...line(index) });
    const toggle = (event) => {
      if (!shown.delete(row)) shown.add(row);
      event.currentTarget.setAttribute("aria-pressed", shown.has(row));
      update();
    };
    const attributes = { type: "button", "aria-pressed": String(shown.has(row)), onclick: toggle };
    byId("legend").append(make("button", attributes, draw("svg", { "aria-hidden": "true" }, stroke), named(rowName(row))));
  });
  update();
}

/** A line chart of a quantity over epochs, one line a cell. */
function chart(rows, shown, name, line) {
  const [width, height, left, bottom] = [760, 320, 58, 40];
  const drawn = rows.flatMap((row, index) =>
    shown.has(row) ? row.cells.filter((cell) => data.curves[cell][name]).map((cell) => ({ cell, index })) : [],
  );
  const points = drawn.map(({ cell }) => data.curves[cell][name]);
  const xs = ticks(0, Math.max(...points.flatMap(([epochs]) => epochs), 0), 8);
  const ys = ticks(Math.min(...points.flatMap(([, values]) => values)), Math.max(...points.flatMap(([, values]) => values)), 6);
  const x = (value) => left + ((value - xs[0]) / (xs.at(-1) - xs[0])) * (width - left - 12);
  const y = (value) => height - bottom - ((value - ys[0]) / (ys.at(-1) - ys[0])) * (height - bottom - 14);
  const title = `${data.curve_names[name]} over epochs`;
  const picture = draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  for (const value of ys) {
    picture.append(draw("line", { class: "grid", x1: left, x2: width - 12, y1: y(value), y2: y(value) }));
    picture.append(draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end", text: rounded(value) }));
  }
  for (const value of xs) {
    picture.append(draw("text", { x: x(value), y: height - bottom + 18, "text-anchor": "middle", text: rounded(value) }));
  }
  picture.append(draw("text", { x: (left + width) / 2, y: height - 5, "text-anchor": "middle", text: "epoch" }));
  drawn.forEach(({ cell, index }, at) => {
    const [epochs, values] = points[at];
    const path = epochs.map((epoch, place) => `${x(epoch).toFixed(1)},${y(values[place]).toFixed(1)}`).join(" ");
    const dot = epochs.length === 1 && draw("circle", { cx: x(epochs[0]), cy: y(values[0]), r: 3, fill: line(index).stroke });
    picture.append(draw("polyline", { points: path, ...line(index) }, draw("title", { text: cellName(cell) })), ...(dot ? [dot] : []));
  });
  return picture;
}

/** Round numbers that hold a range between them, about so many. */
function ticks(low, high, count) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const room = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(room / count));
  const step = power * [1, 2, 5, 10].find((factor) => room / (power * factor) <= count);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

setUpCurves();
