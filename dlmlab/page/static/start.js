// Where the page begins, and which view its address asks for.

const view = el("main", { id: "view", tabindex: -1 });
const bar = el("aside", { class: "selection", "aria-label": "selected results", "aria-live": "polite", hidden: true });

/** Show the page. */
function start() {
  document.body.append(
    el("header", { class: "top" }, el("a", { href: "#", class: "brand" }, el("span", { class: "squares", "aria-hidden": "true" },
      Array.from({ length: 8 }, (_, place) => el("i", { style: `--share:${[0, 43, 0, 14, 71, 100, 29, 57][place]}%` }))), "dlmlab"),
    el("p", {}, `${visible(index.folder)} · ${counted(index.runs.length, "run")}, ${counted(allRows.length, "result")}`)),
    view, bar);
  if (index.watch) setInterval(() => { if (!selection.size) location.reload(); }, 1000 * index.watch);
  addEventListener("hashchange", route);
  route();
}

async function route() {
  const [, kind, which] = location.hash.match(/^#(run|compare)\/([\d.,]+)$/) ?? [];
  const only = index.runs.length === 1 ? index.runs[0] : null;
  const run = kind === "run" ? index.runs[which] : kind ? null : only;
  const rows = kind === "compare" ? which.split(",").map((key) => allRows.find((row) => row.key === key)).filter(Boolean) : [];
  view.setAttribute("aria-busy", "true");
  forgetFigures();
  const parts = rows.length > 1 ? await compareView(rows) : run ? await runView(run) : overview();
  const back = (rows.length > 1 || (run && !only)) && el("nav", { "aria-label": "back" }, el("a", { href: "#" }, only ? "← the run" : "← all runs"));
  view.replaceChildren(...el("div", {}, back, parts).childNodes);
  view.setAttribute("aria-busy", "false");
  document.title = `${view.querySelector("h1")?.textContent.trim() || "dlmlab"} · ${visible(index.folder)} · dlmlab`;
  if (kind) { scrollTo(0, 0); view.focus({ preventScroll: true }); }
  selectionBar();
}

/** The bar that offers to compare what is selected. */
function selectionBar() {
  const keys = [...selection];
  bar.hidden = !keys.length || location.hash.startsWith("#compare/");
  const clear = () => {
    selection.clear();
    for (const box of view.querySelectorAll("td.pick input")) box.checked = false;
    selectionBar();
  };
  bar.replaceChildren(el("span", {}, `${keys.length} selected`),
    keys.length > 1 ? el("a", { class: "button", href: `#compare/${keys.join(",")}` }, "Compare") : el("span", { class: "quiet" }, "select another to compare"),
    el("button", { type: "button", click: clear }, "Clear"));
}
