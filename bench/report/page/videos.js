// Classes and test videos of a page: accuracy by class, and the videos on which two cells disagree.

const CARDS = 24; // that are drawn at a time
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const isSet = (bits, index) => (bits[index >> 3] >> (index & 7)) & 1;

/** A cell's outcomes, video by video: right, wrong or not predicted, and the class that was taken for another one. */
function outcomesOf(cell) {
  const { test, right, seen, guesses, bytes: width } = data.outcomes[cell];
  const { labels } = data.tests[test];
  const bits = bytes(right);
  const predicted = seen && bytes(seen);
  const codes = guesses && (width === 1 ? bytes(guesses) : new Uint16Array(bytes(guesses).buffer));
  let mistakes = 0;
  return labels.map((label, video) => {
    if (predicted && !isSet(predicted, video)) return null;
    if (isSet(bits, video)) return { right: true, guess: label };
    return { right: false, guess: codes ? codes[mistakes++] : null };
  });
}

const DISAGREEMENTS = {
  "A alone is right": (a, b) => a.right && !b.right,
  "B alone is right": (a, b) => b.right && !a.right,
  "both are wrong, in different ways": (a, b) => !a.right && !b.right && a.guess !== b.guess,
};

function setUpVideos() {
  if (!byId("cell-a")) return;
  const cells = data.outcomes.flatMap((outcome, cell) => (outcome && rowOf.has(cell) ? [cell] : []));
  if (!cells.length) return;
  const byAccuracy = cells.toSorted((one, other) => field("top1", other) - field("top1", one));
  const partner = byAccuracy.findLast((cell) => data.outcomes[cell].test === data.outcomes[byAccuracy[0]].test);
  for (const [id, start] of [["cell-a", byAccuracy[0]], ["cell-b", partner]]) {
    byId(id).append(...cells.map((cell) => make("option", { value: cell, text: cellName(cell) })));
    byId(id).value = start;
    byId(id).addEventListener("change", compareCells);
  }
  byId("disagreement").addEventListener("change", () => gallery.show());
  byId("more").addEventListener("click", () => gallery.more());
  compareCells();
}

function compareCells() {
  const [a, b] = ["cell-a", "cell-b"].map((id) => Number(byId(id).value));
  const test = data.tests[data.outcomes[a].test];
  for (const option of byId("cell-b").options) {
    option.disabled = data.outcomes[Number(option.value)].test !== data.outcomes[a].test;
  }
  if (data.outcomes[b].test !== data.outcomes[a].test) {
    byId("cell-b").value = a;
    compareCells();
    return;
  }
  const outcomes = [outcomesOf(a), outcomesOf(b)];
  showClasses(test, outcomes);
  const both = test.labels.flatMap((_, video) => (outcomes[0][video] && outcomes[1][video] ? [video] : []));
  byId("both").textContent = `${test.data}: ${both.length} videos that both predicted`;
  gallery.compare(test, both, outcomes);
}

function showClasses(test, outcomes) {
  const counts = test.classes.map((name) => ({ name, right: [0, 0], videos: [0, 0] }));
  test.labels.forEach((label, video) => {
    outcomes.forEach((of, side) => {
      counts[label].videos[side] += of[video] ? 1 : 0;
      counts[label].right[side] += of[video]?.right ? 1 : 0;
    });
  });
  const share = (row, side) => (row.videos[side] ? row.right[side] / row.videos[side] : null);
  const cell = (text) => make("td", { class: "number", text });
  const columns = [
    { id: "name", header: "class", value: (row) => row.name, element: (row) => make("th", { scope: "row", class: "name" }, named(row.name)) },
    { id: "videos", header: "videos", number: true, better: "high", value: (row) => row.videos[0], element: (row) => cell(row.videos[0]) },
    ...["A", "B"].map((header, side) => ({
      id: header,
      header: `${header} %`,
      number: true,
      better: "high",
      value: (row) => share(row, side),
      element: (row) => {
        const part = make("i");
        part.style.width = `${100 * (share(row, side) ?? 0)}%`;
        const bar = make("span", { class: side ? "bar b" : "bar", "aria-hidden": "true" }, part);
        return make("td", { class: "number" }, make("span", { text: percent(share(row, side) ?? NaN) }), bar);
      },
    })),
    {
      id: "difference",
      header: "A - B",
      number: true,
      better: "high",
      value: (row) => (row.videos[0] && row.videos[1] ? share(row, 0) - share(row, 1) : null),
      element: (row) => cell(percent((share(row, 0) ?? NaN) - (share(row, 1) ?? NaN))),
    },
  ];
  new SortableTable(byId("classes"), columns, counts.filter((row) => row.videos[0] + row.videos[1]), "Accuracy by class");
}

const gallery = {
  compare(test, videos, outcomes) {
    Object.assign(this, { test, outcomes });
    const kinds = Object.entries(DISAGREEMENTS);
    this.lists = kinds.map(([, differ]) => videos.filter((video) => differ(outcomes[0][video], outcomes[1][video])));
    const chosen = Math.max(0, byId("disagreement").selectedIndex);
    const options = kinds.map(([text], index) => make("option", { value: index, text: `${text} (${this.lists[index].length})` }));
    byId("disagreement").replaceChildren(...options);
    byId("disagreement").selectedIndex = chosen;
    this.show();
  },

  show() {
    byId("gallery").replaceChildren();
    this.videos = this.lists[byId("disagreement").selectedIndex].toSorted(
      (one, other) => (other in this.test.pictures) - (one in this.test.pictures) || one - other,
    );
    this.more();
  },

  more() {
    const drawn = byId("gallery").childElementCount;
    byId("gallery").append(...this.videos.slice(drawn, drawn + CARDS).map((video) => this.card(video)));
    byId("more").hidden = byId("gallery").childElementCount >= this.videos.length;
  },

  card(video) {
    const { names, labels, classes, pictures } = this.test;
    const source = pictures[video] && `data:image/jpeg;base64,${pictures[video]}`;
    const taken = ["A", "B"].map((side, index) => {
      const { right, guess } = this.outcomes[index][video];
      const text = right ? `${side} right` : `${side} took it for ${guess == null ? "another class" : classes[guess]}`;
      return make("p", { class: right ? "right" : "wrong" }, named(text));
    });
    const picture = source ? make("img", { src: source, alt: "frames of the video" }) : null;
    return make("li", {}, picture, make("p", {}, named(names[video])), make("p", {}, named(classes[labels[video]])), ...taken);
  },
};

function setUpSkipped() {
  if (!byId("skipped")) return;
  const columns = ["data set", "split", "video", "reason", "cells"].map((header, index) => ({
    id: header,
    header,
    number: header === "cells",
    value: (row) => row[index],
    element: (row) => make("td", { class: header === "cells" ? "number" : "name" }, named(row[index])),
  }));
  new SortableTable(byId("skipped"), columns, data.skipped, "Videos that could not be read");
}

setUpVideos();
setUpSkipped();
