// The table of results: a row for a decoder at a task of a run, to filter, sort and select.

const selection = new Set();
const PAGE_ROWS = 200;
const COLUMNS = [
  { name: "date", of: (row) => row.run.date, show: (row) => dateOf(row.run), falling: true },
  { name: "run", of: (row) => row.run.experiment || row.run.name, show: runLink },
  { name: "model", of: (row) => row.run.model },
  { name: "decoder", of: nameOf, show: decoderCell },
  { name: "task", of: (row) => row.task },
  { name: "score", of: (row) => row.score, show: scoreCell, number: true, falling: true },
  { name: "items", of: (row) => row.n, number: true, falling: true },
  { name: "verdict", of: (row) => row.verdict, show: (row) => badge(row.verdict, row.note) },
  { name: "forwards", of: (row) => row.forwards, show: (row) => fixed(row.forwards, 2), number: true },
  { name: "full passes", of: (row) => row.full_passes, show: (row) => fixed(row.full_passes, 2), number: true },
  { name: "per forward", of: (row) => row.tokens_per_forward, show: (row) => fixed(row.tokens_per_forward, 2),
    number: true, falling: true },
  { name: "tokens/s", of: (row) => row.speed, show: (row) => fixed(row.speed, 0), number: true, falling: true },
  { name: "commit", of: (row) => row.run.commit, show: commitCell },
];
const OF_RUN = ["date", "run", "model", "commit"];
const FILTERS = {
  model: (row) => row.run.model, decoder: (row) => row.decoder, task: (row) => row.task,
  experiment: (row) => row.run.experiment, verdict: (row) => row.verdict, state: (row) => row.run.state,
};

/** A table of rows with its filters. onFiltered is told the rows that are left, onSelect of every change. */
function resultsTable(rows, { filters = true, onFiltered = () => {}, onSelect = () => {} } = {}) {
  const wanted = {};
  let words = "", sorted = COLUMNS[0], falling = true, limit = PAGE_ROWS;
  const body = el("tbody"), count = el("p", { class: "count", role: "status" });
  const more = el("button", { type: "button", click: () => { limit += 5 * PAGE_ROWS; draw(); } });
  const columns = filters ? COLUMNS : COLUMNS.filter((column) => !OF_RUN.includes(column.name));
  const headings = columns.map((column) => {
    const click = () => {
      falling = column === sorted ? !falling : Boolean(column.falling);
      sorted = column;
      draw();
    };
    return el("th", { scope: "col", class: column.number && "number" },
      el("button", { type: "button", click }, column.name));
  });
  const table = el("table", { class: "results" }, el("caption", { class: "hidden" }, "Results of all runs"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden" }, "compare")), headings)), body);

  function draw(filtered = false) {
    const left = rows.filter((row) => Object.entries(wanted).every(([key, word]) => !word || FILTERS[key](row) === word) &&
      words.split(/\s+/).every((word) => haystack(row).includes(word)));
    left.sort((a, b) => compareCells(sorted.of(a), sorted.of(b), falling) || a.run.number - b.run.number || a.place - b.place);
    headings.forEach((heading, place) => heading.setAttribute("aria-sort",
      columns[place] !== sorted ? "none" : falling ? "descending" : "ascending"));
    body.replaceChildren(...left.slice(0, limit).map((row, place) =>
      tableRow(row, columns, sorted === COLUMNS[0] && place > 0 && left[place - 1].run === row.run, onSelect)));
    const runs = new Set(left.map((row) => row.run)).size;
    count.textContent = left.length ? `${left.length} of ${rows.length} results, ${runs} of ${index.runs.length} runs`
      : "Nothing matches: loosen a filter";
    more.hidden = left.length <= limit;
    more.textContent = `Show more (${left.length - limit} left)`;
    if (filtered) onFiltered(left);
  }

  const search = el("input", { type: "search", placeholder: "any words: localleap κ=0.9 damaged", "aria-label": "Search",
    input: () => { words = search.value.toLowerCase().trim(); draw(true); } });
  const bar = filters && el("form", { class: "filters", role: "search", submit: (event) => event.preventDefault() },
    el("label", { class: "field wide" }, el("span", {}, "search"), search),
    Object.entries(FILTERS).map(([key, of]) => {
      const values = [...new Set(rows.map(of))].filter(Boolean).sort();
      return values.length > 1 && chooser(key, ["", ...values], "", (word) => { wanted[key] = word; draw(true); });
    }));
  draw();
  return el("div", {}, bar, filters && count, el("div", { class: "scroll" }, table), more);
}

function tableRow(row, columns, same, onSelect) {
  const box = el("input", { type: "checkbox", "aria-label": `compare ${visible(nameOf(row))}, ${visible(row.task)}`,
    change: () => { selection[box.checked ? "add" : "delete"](row.key); onSelect(); } });
  box.checked = selection.has(row.key);
  box.dataset.key = row.key;
  return el("tr", { class: [same && "same", row.role && "reference", row.run.state].filter(Boolean).join(" ") },
    el("td", { class: "pick" }, row.series ? box : ""),
    columns.map((column) => {
      const cell = column.show ? column.show(row) : visible(column.of(row));
      return el("td", { class: column.number && "number", "data-label": column.name }, cell ?? "");
    }));
}

function haystack(row) {
  row.haystack ??= [row.run.name, row.run.experiment, row.run.title, row.run.model, nameOf(row), row.task, row.verdict,
    row.role, row.run.date, row.run.commit, row.run.state, row.run.problem].join(" ").toLowerCase();
  return row.haystack;
}

/** Order of two cells; what is empty comes last either way. */
function compareCells(a, b, falling) {
  const empty = (value) => value === null || value === undefined || value === "";
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return falling ? -order : order;
}

function dateOf(run) {
  return el("time", { datetime: run.date }, visible(run.date.slice(0, 16).replace("T", " ")));
}

function runLink(row) {
  const { run } = row;
  return el("span", {}, el("a", { href: `#run/${run.number}`, title: visible(run.name) }, visible(run.experiment || run.name)),
    run.state === "finished" ? "" : " ", run.state === "finished" ? "" : badge(run.state, run.problem));
}

function decoderCell(row) {
  return el("span", { class: "decoder" }, visible(row.decoder), " ",
    el("small", {}, visible(row.parameters), row.batch === null ? "" : ` batch ${row.batch}`));
}

function scoreCell(row) {
  if (row.score === null) return "";
  const interval = intervalOf(row);
  const title = interval && `${points(interval.low)} … ${points(interval.high)}${row.n ? `, ${row.n} items` : ""}`;
  return el("span", { title, class: "score" }, interval && rangeBar(interval, row.score, 0, 1), points(row.score));
}

/** A small drawing of an interval on a scale from `from` to `to`, with a tick where a reference lies. */
function rangeBar(interval, at, from, to, tick = null) {
  const place = (value) => `${(100 * (Math.min(to, Math.max(from, value)) - from)) / (to - from)}%`;
  return el("span", { class: "range", "aria-hidden": "true",
    style: `--low:${place(interval.low)};--high:${place(interval.high)};--at:${place(at)}` },
    tick !== null && el("i", { style: `left:${place(tick)}` }));
}

function commitCell(row) {
  return el("code", { title: row.run.dirty && "with uncommitted changes" },
    visible(row.run.commit.slice(0, 8)), row.run.dirty ? "*" : "");
}
