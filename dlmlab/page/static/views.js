// The views: all runs, one run.

/** All runs: pictures, filters, table. */
function overview() {
  const quality = qualityPanel(allRows), speed = speedPanel(index.speeds);
  const table = resultsTable(allRows, { onFiltered: (rows) => quality?.update(rows), onSelect: selectionBar });
  return [
    el("h1", {}, "All runs"),
    !index.runs.length && el("p", { class: "empty" }, "No runs yet: python run.py makes one."),
    (quality || speed) && el("div", { class: "panels" }, quality?.element, speed),
    problems(),
    el("section", {}, el("h2", {}, "Results"), table),
  ];
}

/** What isn't as it should be, in a fold. */
function problems() {
  const wrong = index.runs.filter((run) => run.state !== "finished");
  return wrong.length > 0 && el("details", { class: "problems" },
    el("summary", {}, `${wrong.length} of ${index.runs.length} runs are unfinished, older or damaged`),
    el("ul", {}, wrong.map((run) => el("li", {}, badge(run.state), " ", el("a", { href: `#run/${run.number}` }, visible(run.name)), " ", visible(run.problem)))));
}

/** Quality against cost; null where no row has a score. Only rows on the same items by the same model share a plot. */
function qualityPanel(rows, heading = "Quality against cost") {
  const plottable = (some) => some.filter((row) => row.score !== null && (row.full_passes || row.speed) && row.role !== "noise" && row.run.state === "finished");
  const common = [...count(plottable(rows).map(groupOf))].sort((a, b) => b[1] - a[1]).map(([group]) => group);
  if (!common.length) return null;
  const names = new Map();
  for (const row of plottable(rows)) if (!names.has(groupOf(row))) names.set(groupOf(row), groupName(row, names));
  let some = rows, group = common[0], cost = "full_passes";
  const plot = el("div", { class: "plot" }), left = el("p", { class: "note" });
  function update(rowsLeft = some) {
    some = rowsLeft;
    const own = plottable(some).filter((row) => groupOf(row) === group && row[cost] > 0);
    left.textContent = [own.length ? "" : "Nothing to plot.", leftOut(some, own, cost)].filter(Boolean).join(" ");
    plot.hidden = !own.length;
    if (own.length) draw(plot, (look) => qualityFigure(own, cost, look));
  }
  update();
  const costs = { "full passes": "full_passes", "tokens/s": "speed" };
  const named = common.map((each) => names.get(each));
  const element = el("section", { class: "panel" }, el("div", { class: "head" }, el("h2", {}, heading),
    named.length > 1 && chooser("on", named, named[0], (word) => { group = common[named.indexOf(word)]; update(); }),
    plottable(rows).some((row) => row.speed) && chooser("against", Object.keys(costs), "full passes", (word) => { cost = costs[word]; update(); })), plot, left);
  return { element, update };
}

/** What rows must share to be compared: the task, its items and the model. */
function groupOf(row) {
  return [row.task, row.items, row.run.model].join("\n");
}

/** A group in words, told from others of the same words by a number. */
function groupName(row, names) {
  const words = [row.task, row.run.model, row.n && counted(row.n, "item")].filter(Boolean).join(", ");
  const same = [...names.values()].filter((name) => name === words || name.startsWith(`${words} (`)).length;
  return same ? `${words} (${same + 1})` : words;
}

/** Why rows with a score are not on a plot, in a sentence; empty where all are. */
function leftOut(rows, shown, cost) {
  const reasons = count(rows.filter((row) => row.score !== null && !shown.includes(row)).map((row) =>
    row.run.state !== "finished" ? `of a run that is ${row.run.state}` : row.role === "noise" ? "of the noise floor"
      : row[cost] > 0 ? "on other items or models" : `without ${cost}`));
  const parts = [...reasons].map(([reason, number]) => `${number} ${reason}`);
  return parts.length ? `Not shown: ${parts.join(", ")}.` : "";
}

function count(words) {
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

/** Speed over time; null where nothing was timed. */
function speedPanel(speeds) {
  const lines = speedLines(speeds);
  if (!lines.length) return null;
  const settings = [...new Set(lines.map((line) => `${line.hardware}; ${line.setting}`))];
  let chosen = settings.at(-1);
  const plot = el("div", { class: "plot" }), said = el("ul", { class: "warning" });
  function update() {
    const own = lines.filter((line) => `${line.hardware}; ${line.setting}` === chosen);
    const fell = regressions(own);
    said.replaceChildren(...fell.slice(-5).map((text) => el("li", {}, visible(text))));
    said.hidden = !fell.length;
    draw(plot, (look) => speedFigure(own, look));
  }
  update();
  return el("section", { class: "panel" }, el("div", { class: "head" }, el("h2", {}, "Speed over time"),
    settings.length > 1 && chooser("setting", settings, chosen, (word) => { chosen = word; update(); })), plot, said);
}

const LINKED = { "viewer.html": "the player", "denoising.gif": "a film", "denoising.png": "a still" };

/** One run: what it asked, how, what came out, and its samples. */
async function runView(run) {
  const { results = {}, manifest = {} } = (await unpack(`detail-${run.number}`)) ?? {};
  const plots = document.getElementById("plotly");
  const quality = plots && qualityPanel(run.rows, "Quality against forward passes");
  const grid = run.rows.filter((row) => row.score !== null && Object.keys(row.values).length === 3);
  const heat = plots && grid.length > 1 && el("div", { class: "plot" });
  if (heat) draw(heat, (look) => heatFigure(grid, look));
  const several = run.rows.length > 1 || !(results.tables ?? []).length;
  return [
    el("h1", {}, visible(run.title || run.experiment || run.name), " ", run.state === "finished" ? "" : badge(run.state)),
    run.problem && el("p", { class: "warning" }, visible(run.problem)),
    results.question && el("p", { class: "question" }, visible(results.question)),
    results.verdict && el("p", { class: "verdict" }, visible(shown(results.verdict))),
    run.links.length > 0 && el("p", {}, "How canvases filled: ", run.links.map((name, place) => [place ? ", " : "",
      el("a", { href: [...run.path.split("/"), name].map(encodeURIComponent).join("/").replace(/^\.\//, "") }, LINKED[name] ?? visible(name))])),
    factList(run, results, manifest),
    (results.tables ?? []).map((table) => reportTable(table, run)),
    quality && el("div", { class: "panels" }, quality.element,
      heat && el("section", { class: "panel" }, el("div", { class: "head" }, el("h2", {}, "Score by κ, τ and W")), heat)),
    several && el("section", {}, el("h2", {}, "Results"), resultsTable(run.rows, { filters: false, onSelect: selectionBar })),
    run.rows.some((row) => row.series) && el("section", {}, el("h2", {}, "Samples"), runSamples(run.rows.filter((row) => row.series))),
  ];
}

function factList(run, results, manifest) {
  const settings = Object.entries(results.settings ?? {}).map(([key, value]) => `${key}=${shown(value)}`).join(", ");
  const facts = { folder: run.name, started: manifest.started, ended: manifest.ended, command: manifest.command, settings,
    commit: run.commit && run.commit.slice(0, 12) + (run.dirty ? " with uncommitted changes" : ""), machine: manifest.machine?.cpu };
  return el("dl", { class: "facts" }, Object.entries(facts).filter(([, value]) => value).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, name === "command" ? el("code", {}, visible(value)) : visible(shown(value))))));
}

/** A table of the report; one of another shape is shown as it stands. */
function reportTable(table, run) {
  const whole = Array.isArray(table?.columns) && Array.isArray(table.rows) && table.rows.every(Array.isArray);
  return el("section", {}, el("h2", {}, visible(table?.title || run.title)),
    whole ? plainTable(table.columns.map(String), table.rows) : el("pre", {}, visible(JSON.stringify(table))),
    table?.note && el("p", { class: "note" }, visible(shown(table.note))));
}

/** The samples of one of a run's rows. */
function runSamples(rows) {
  const name = (row) => `${nameOf(row)} — ${row.task}`;
  const kinds = { all: () => true, "not right": (item) => item.score !== 1, right: (item) => item.score === 1 };
  let row = rows.find((each) => !each.role) ?? rows[0], kind = "all", words = "";
  const list = el("div");
  async function update() {
    const [items, traced] = await Promise.all([itemsOf(row), tracesOf(row)]);
    const ids = [...items.keys()].filter((id) => kinds[kind](items.get(id)) && said(items.get(id)).includes(words));
    list.replaceChildren(el("p", { class: "count", role: "status" }, counted(ids.length, "item")), itemList(ids,
      (id) => [el("span", {}, visible(id)), " ", scoreMark(items.get(id)), traced.has(id) ? " · traced" : ""],
      async (id) => el("div", {}, answers([[nameOf(row), items.get(id)]]), tracePlayer([traced.get(id)].filter(Boolean)))));
  }
  update();
  const search = el("input", { type: "search", placeholder: "in prompts, answers and targets", "aria-label": "search samples",
    input: () => { words = search.value.toLowerCase().trim(); update(); } });
  return el("div", {}, el("div", { class: "filters" }, el("label", { class: "field wide" }, el("span", {}, "search samples"), search),
    rows.length > 1 && chooser("result", rows.map(name), name(row), (word) => { row = rows.find((each) => name(each) === word); update(); }),
    chooser("show", Object.keys(kinds), kind, (word) => { kind = word; update(); })), sampledNote(), list);
}
