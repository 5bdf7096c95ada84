// What the page holds: the index at once, details and samples when they are asked for.

const index = JSON.parse(document.getElementById("index").textContent);
index.runs.forEach((run, number) => {
  run.number = number;
  run.rows.forEach((row, place) => Object.assign(row, { run, place, key: `${number}.${place}` }));
});
const allRows = index.runs.flatMap((run) => run.rows);
const unpackedParts = new Map();

/** The text of a compressed part; null where the page has none of that name. */
async function unpackText(name) {
  const element = document.getElementById(name);
  if (!element) return null;
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** A part as it was packed, kept once it is unpacked. */
function unpack(name) {
  if (!unpackedParts.has(name)) unpackedParts.set(name, unpackText(name).then((text) => text && JSON.parse(text)));
  return unpackedParts.get(name);
}

/** A row's items by id: score, forwards and, for those that the page holds whole, prompt, text and tokens. */
async function itemsOf(row) {
  const [packed, prompts] = await Promise.all([unpack(`samples-${row.run.number}`), unpack("prompts")]);
  const items = new Map();
  const own = packed?.rows[row.place];
  if (!own) return items;
  own.ids.forEach((id, place) => {
    const whole = own.kept[place];
    items.set(id, {
      id, score: own.scores[place], forwards: own.forwards[place], fullPasses: own.full_passes[place],
      whole: whole && { ...whole, prompt: prompts[whole.prompt], pieces: whole.pieces.map((at) => packed.vocabulary[at]) },
    });
  });
  return items;
}

/** The page's traces of a row, by the item's id. */
async function tracesOf(row) {
  const traces = (await unpack(`traces-${row.run.number}`)) ?? [];
  const own = traces.filter((trace) => trace.decoder === row.series && (!trace.task || trace.task === row.task));
  return new Map(own.map((trace) => [trace.id, trace]));
}

/** What a row is called beside others. */
function nameOf(row) {
  const batch = row.batch === null ? "" : ` · batch ${row.batch}`;
  return [row.decoder || row.run.experiment || row.run.name, row.parameters].filter(Boolean).join(" ") + batch;
}
