// Two or more results on the same items: how their runs differ, by how much they do, and on which samples.

/** The view of a comparison. The first row is the reference until another is chosen. */
async function compareView(rows) {
  const items = new Map(await Promise.all(rows.map(async (row) => [row, await itemsOf(row)])));
  let reference = rows[0], margin = 2;
  const table = el("div"), samples = el("div");
  const field = el("input", { type: "number", min: 0, max: 100, step: 0.5, value: margin,
    input: () => { margin = Math.max(0, Number(field.value) || 0); draw(); } });

  function draw() {
    table.replaceChildren(comparisonTable(rows, reference, items, margin / 100, (row) => { reference = row; draw(); showSamples(); }));
  }
  async function showSamples() {
    samples.replaceChildren(await disagreements(reference, rows.filter((row) => row !== reference && row.task === reference.task), items));
  }
  draw();
  await showSamples();
  return [
    el("h1", {}, "Comparison"),
    el("section", {}, el("h2", {}, "Scores on the same items"),
      el("label", { class: "field" }, el("span", {}, "margin, points"), field), table,
      el("p", { class: "note" }, "Items are paired by their ids. Interval: Tango's, 95 %, of the paired difference; p: McNemar's exact, two-sided. " +
        "Verdict: pass where the whole interval lies above −margin, fail where it lies below.")),
    el("section", {}, el("h2", {}, "What made them"), await differencesTable(rows)),
    el("section", {}, el("h2", {}, "Samples"), samples),
  ];
}

/** What two results come to on the items that both have. */
function paired(reference, row, items) {
  const [theirs, own] = [items.get(reference), items.get(row)];
  const ids = reference.task === row.task ? [...own.keys()].filter((id) => theirs.has(id)) : [];
  const scored = ids.filter((id) => own.get(id).score !== null && theirs.get(id).score !== null);
  const right = (side, id) => side.get(id).score === 1;
  const gained = scored.filter((id) => right(own, id) && !right(theirs, id)).length;
  const lost = scored.filter((id) => right(theirs, id) && !right(own, id)).length;
  const mean = (of) => (ids.length ? ids.reduce((sum, id) => sum + of(id), 0) / ids.length : null);
  const fullPasses = mean((id) => own.get(id).fullPasses);
  return {
    ids, n: scored.length, gained, lost, fullPasses,
    score: scored.length ? scored.filter((id) => right(own, id)).length / scored.length : null,
    difference: scored.length ? (gained - lost) / scored.length : null,
    interval: scored.length ? pairedInterval(gained, lost, scored.length) : null,
    speedup: fullPasses ? mean((id) => theirs.get(id).fullPasses) / fullPasses : null,
  };
}

function comparisonTable(rows, reference, items, margin, onReference) {
  const found = rows.map((row) => paired(reference, row, items));
  const widest = Math.max(0.02, margin, ...found.flatMap(({ interval }) => (interval ? [-interval.low, interval.high] : [])));
  const body = rows.map((row, place) => {
    const it = found[place], own = row === reference;
    const radio = el("input", { type: "radio", name: "reference", "aria-label": `reference: ${visible(nameOf(row))}`, change: () => onReference(row) });
    radio.checked = own;
    const nothing = !own && it.interval === null;
    return [
      radio,
      el("span", { class: "decoder" }, el("a", { href: `#run/${row.run.number}` }, visible(nameOf(row))), " ",
        el("small", {}, `${visible(row.task)} · ${visible(row.run.date.slice(0, 16).replace("T", " "))}`)),
      own ? String(items.get(row).size) : String(it.ids.length),
      own ? points(row.score) : points(it.score),
      own ? "reference" : nothing ? "no scored item in common" : `+${it.gained} / −${it.lost}`,
      own || nothing ? "" : el("span", { class: "score" }, rangeBar(it.interval, it.difference, -widest, widest, 0), points(it.difference, true)),
      own || nothing ? "" : el("span", { class: "whole" }, `${points(it.interval.low, true)} … ${points(it.interval.high, true)}`),
      own || nothing ? "" : mcnemarP(it.gained, it.lost).toPrecision(2),
      fixed(own ? row.full_passes : it.fullPasses, 2),
      own || it.speedup === null ? "" : `${it.speedup.toFixed(2)}×`,
      own || nothing ? "" : badge(judge(it.interval, -margin)),
    ];
  });
  return plainTable(["ref.", "result", "items", "score", "gained / lost", "difference", "95 % interval", "p", "full passes", "speedup in full passes", "verdict"], body);
}

/** The keys in which the runs' manifests differ: the config's first, the machine's and packages' behind a fold. */
async function differencesTable(rows) {
  const runs = [...new Set(rows.map((row) => row.run))];
  if (runs.length < 2) return el("p", {}, "One run made them, from one config.");
  const flat = await Promise.all(runs.map(async (run) => flatten((await unpack(`detail-${run.number}`))?.manifest ?? {})));
  const keys = [...new Set(flat.flatMap((each) => [...each.keys()]))]
    .filter((key) => !["started", "ended"].includes(key) && new Set(flat.map((each) => each.get(key))).size > 1);
  const own = keys.filter((key) => /^(config|data|model|seed|command)\b/.test(key)), others = keys.filter((key) => !own.includes(key));
  const names = runs.map((run) => `${run.experiment || run.name} ${run.date.slice(0, 16).replace("T", " ")}`);
  const table = (some) => plainTable(["setting", ...names], some.map((key) => [key, ...flat.map((each) => each.get(key) ?? "–")]));
  const data = own.filter((key) => key.startsWith("data."));
  return el("div", {},
    data.length > 0 && el("p", { class: "warning" }, "Their data differ: the same id may be another item."),
    own.length ? table(own) : el("p", {}, "Their configs are the same."),
    others.length > 0 && el("details", {}, el("summary", {}, `${others.length} differences of code, machine and packages`), table(others)));
}

function flatten(value, prefix = "", into = new Map()) {
  if (value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) {
    for (const [key, each] of Object.entries(value)) flatten(each, prefix ? `${prefix}.${key}` : key, into);
  } else into.set(prefix, typeof value === "string" ? value : JSON.stringify(value));
  return into;
}

/** The items on which the reference and another disagree. */
async function disagreements(reference, others, items) {
  if (!others.length) return el("p", { class: "empty" }, "Select two results of the same task to see their samples side by side.");
  const kinds = { "different score": (a, b) => a.score !== b.score, "different text": (a, b) => !a.whole || !b.whole || a.whole.text !== b.whole.text, all: () => true };
  let other = others[0], kind = "different score";
  const list = el("div");
  const traced = new Map(await Promise.all([reference, ...others].map(async (row) => [row, await tracesOf(row)])));
  function draw() {
    const [theirs, own] = [items.get(reference), items.get(other)];
    const ids = [...theirs.keys()].filter((id) => own.has(id) && kinds[kind](theirs.get(id), own.get(id)));
    const line = (id) => [el("span", {}, visible(id)), " ", scoreMark(theirs.get(id)), " → ", scoreMark(own.get(id))];
    list.replaceChildren(el("p", { class: "count", role: "status" }, counted(ids.length, "item")), itemList(ids, line, (id) => {
      const traces = [reference, other].map((row) => traced.get(row).get(id)).filter(Boolean);
      return Promise.resolve(el("div", {}, answers([[nameOf(reference), theirs.get(id)], [nameOf(other), own.get(id)]]), tracePlayer(traces)));
    }));
  }
  draw();
  return el("div", {}, el("div", { class: "filters" },
    others.length > 1 && chooser("against", others.map(nameOf), nameOf(other), (name) => { other = others.find((row) => nameOf(row) === name); draw(); }),
    chooser("show", Object.keys(kinds), kind, (word) => { kind = word; draw(); })), sampledNote(), list);
}

function sampledNote() {
  const { total, kept } = index.samples;
  return kept < total && el("p", { class: "note" },
    `${kept} of ${total} samples stand on this page whole, the same items for every decoder; all scores do, and all samples in samples.jsonl of their runs.`);
}

/** Where traces play, if there are any; one that is damaged is said to be. */
function tracePlayer(traces) {
  const place = el("div", { class: "player" });
  try {
    if (traces.length) dlmlabViewer(place, traces);
  } catch (error) {
    place.replaceChildren(el("p", { class: "warning" }, `This trace can't be played: ${visible(error.message)}`));
  }
  return place;
}
