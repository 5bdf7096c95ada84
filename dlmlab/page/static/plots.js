// Plotly's charts, in the page's colours.

let plotlyReady = null;
const drawn = new Map();
const DAY = 24 * 3600 * 1000;

/** Plotly, from the copy that the page holds. */
function loadPlotly() {
  plotlyReady ??= unpackText("plotly").then((source) => {
    if (source) document.head.append(el("script", {}, source));
    return window.Plotly;
  });
  return plotlyReady;
}

/** Forget the figures of a view that another one takes the place of. */
function forgetFigures() {
  drawn.clear();
}

/** Draw a figure that a function makes of the page's colours, now and whenever these change. */
async function draw(element, make) {
  drawn.set(element, make);
  const plotly = await loadPlotly();
  if (!plotly) return;
  while (!element.isConnected) { // a figure takes its size from the page that it stands on
    await new Promise(requestAnimationFrame);
    if (drawn.get(element) !== make) return;
  }
  const { data, layout } = make(palette());
  const look = palette();
  await plotly.react(element, data, {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: look.font, size: 12, color: look.ink },
    margin: { l: 52, r: 12, t: 12, b: 44 }, hoverlabel: { font: { family: look.font } }, colorway: look.lines,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, ...layout,
  }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [element, make] of drawn) if (element.isConnected) draw(element, make);
});

function palette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const lines = Array.from({ length: 8 }, (_, place) => read(`--line-${place + 1}`));
  return { ink: read("--ink"), faint: read("--faint"), rule: read("--rule"), accent: read("--accent"), bad: read("--bad"),
    font: getComputedStyle(document.body).fontFamily, lines };
}

/** Text for Plotly, which would take markup in it for its own. */
function inert(text) {
  return visible(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function axis(look, title, more = {}) {
  return { title: { text: title }, gridcolor: look.rule, zerolinecolor: look.rule, linecolor: look.rule, ...more };
}

/** Score against full-pass equivalents or speed, with the Pareto front. */
function qualityFigure(rows, cost, look) {
  const slow = cost === "full_passes";
  const front = paretoFront(rows, (row) => (slow ? row.full_passes : -row.speed));
  const names = [...new Set(rows.map((row) => row.decoder))].sort();
  const bars = rows.length <= 80;
  const data = names.map((name, place) => {
    const own = rows.filter((row) => row.decoder === name);
    const ends = own.map((row) => intervalOf(row) ?? { low: row.score, high: row.score });
    return {
      name: inert(name), type: "scatter", mode: "markers", x: own.map((row) => row[cost]),
      y: own.map((row) => 100 * row.score), customdata: own.map((row) => row.key),
      text: own.map((row) => `${inert(nameOf(row))}<br>${inert(row.run.model)} · ${inert(row.run.date.slice(0, 10))}`),
      hovertemplate: `%{text}<br>%{y:.1f} points, %{x:.4~g} ${slow ? "full passes" : "tokens/s"}<extra></extra>`,
      marker: { size: own.map((row) => (row.role === "chosen" ? 14 : 9)), color: look.lines[place % look.lines.length],
        symbol: own.map((row) => ({ baseline: "square", chosen: "star" })[row.role] ?? "circle"), opacity: 0.9 },
      error_y: bars && { type: "data", symmetric: false, thickness: 1, width: 2, color: look.faint,
        array: own.map((row, at) => 100 * (ends[at].high - row.score)),
        arrayminus: own.map((row, at) => 100 * (row.score - ends[at].low)) },
    };
  });
  data.unshift({ name: "Pareto front", type: "scatter", mode: "lines", hoverinfo: "skip", x: front.map((row) => row[cost]),
    y: front.map((row) => 100 * row.score), line: { shape: slow ? "hv" : "vh", color: look.faint, width: 1.5, dash: "dot" } });
  const title = slow ? "full-pass equivalents an item" : "canvas tokens per second";
  return { data, layout: { hovermode: "closest", xaxis: axis(look, title, { type: "log", dtick: slow ? Math.log10(2) : null }),
    yaxis: axis(look, "score, points") } };
}

/** Heat maps of the score by κ and τ, one for each W. */
function heatFigure(rows, look) {
  const values = (key) => [...new Set(rows.map((row) => row.values[key]))].sort((a, b) => a - b);
  const [kappas, taus, radii] = ["kappa", "tau", "radius"].map(values);
  const scores = rows.map((row) => 100 * row.score);
  const layout = { grid: { rows: 1, columns: radii.length, pattern: "independent" }, annotations: [], margin: { l: 52, r: 12, t: 34, b: 44 } };
  const data = radii.map((radius, place) => {
    const suffix = place ? place + 1 : "";
    const at = (kappa, tau) => rows.find((row) => row.values.radius === radius && row.values.kappa === kappa && row.values.tau === tau);
    const cell = (kappa, tau) => { const row = at(kappa, tau); return row ? 100 * row.score : null; };
    layout[`xaxis${suffix}`] = axis(look, "τ", { type: "category" });
    layout[`yaxis${suffix}`] = axis(look, place ? "" : "κ", { type: "category" });
    layout.annotations.push({ text: `W = ${radius}`, showarrow: false, xref: `x${suffix} domain`, yref: `y${suffix} domain`,
      x: 0.5, y: 1.02, yanchor: "bottom" });
    return { type: "heatmap", x: taus.map(String), y: kappas.map(String), z: kappas.map((kappa) => taus.map((tau) => cell(kappa, tau))),
      xaxis: `x${suffix}`, yaxis: `y${suffix}`, zmin: Math.min(...scores) - 1, zmax: Math.max(...scores) + 1, colorscale: "Viridis",
      showscale: place === radii.length - 1, xgap: 2, ygap: 2,
      text: kappas.map((kappa) => taus.map((tau) => heatText(at(kappa, tau)))), texttemplate: "%{text}",
      hovertemplate: "κ %{y}, τ %{x}<br>%{text}<extra></extra>" };
  });
  return { data, layout };
}

function heatText(row) {
  if (!row) return "";
  const text = `${points(row.score)}<br>in ${fixed(row.forwards, 2)}`;
  return row.role === "chosen" ? `<b>★ ${text}</b>` : text;
}

/** Rates over time: a line for what can be compared, and a mark where one fell. */
function speedFigure(lines, look) {
  const data = lines.map((line, place) => ({
    name: inert(line.name), type: "scatter", mode: "lines+markers", x: line.speeds.map((each) => each.date),
    y: line.speeds.map((each) => each.rate), line: { width: 1.5, color: look.lines[place % look.lines.length] },
    marker: { size: line.speeds.map((each) => (each.fell ? 13 : 7)), symbol: line.speeds.map((each) => (each.fell ? "triangle-down" : "circle")),
      color: line.speeds.map((each) => (each.fell ? look.bad : look.lines[place % look.lines.length])) },
    hovertemplate: `${inert(line.name)}<br>%{x}<br>%{y:.1f} tokens/s<extra></extra>`,
  }));
  const days = lines.flatMap((line) => line.speeds.map((each) => Date.parse(each.date)));
  const [first, last] = [Math.min(...days), Math.max(...days)], rim = first === last ? DAY / 2 : 0.05 * (last - first);
  const range = [first - rim, last + rim].map((day) => new Date(day).toISOString());
  return { data, layout: { xaxis: axis(look, "", { type: "date", range }), yaxis: axis(look, "canvas tokens per second", { rangemode: "tozero" }) } };
}
