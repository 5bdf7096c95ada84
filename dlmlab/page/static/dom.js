// Elements and numbers. Text from runs only ever becomes text: no view builds HTML from strings.

/** An element with attributes and children. A function is a listener; null, undefined and false are left out. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Text whose control, formatting and unassigned characters are written as escapes; lines and tabs stay. */
function visible(text) {
  return String(text).replace(/(?![\n\t])[\p{C}\u2028\u2029]/gu, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** A number with so many digits behind the point; empty for none. */
function fixed(value, digits) {
  return value === null || value === undefined ? "" : value.toFixed(digits);
}

/** A fraction in points of 100, with a sign where it is a difference. */
function points(value, signed = false) {
  if (value === null || value === undefined) return "";
  const text = (100 * value).toFixed(1).replace(/^-0\.0$/, "0.0");
  return signed && !text.startsWith("-") ? `+${text}` : text.replace("-", "−");
}

/** A number of things. */
function counted(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

/** A badge for a verdict or a state. */
function badge(word, title = null) {
  const marks = { pass: "✓", fail: "✗", inconclusive: "?", finished: "", unfinished: "…", older: "○", damaged: "!" };
  return word ? el("span", { class: `badge ${word in marks ? word : ""}`, title: title && visible(title) },
    `${marks[word] ?? ""} ${visible(word)}`.trim()) : "";
}

/** A choice among words. */
function chooser(label, words, chosen, onChoice) {
  const select = el("select", { "aria-label": label, change: () => onChoice(select.value) },
    words.map((word) => el("option", { value: word, selected: word === chosen }, visible(word || "all"))));
  return el("label", { class: "field" }, el("span", {}, label), select);
}

/** A table of cells that are text or elements; columns of numbers are set to the right. */
function plainTable(columns, rows, caption = "") {
  const number = /^([−+-]?[\d.]+( ?[×%]| ms)?)?$/;
  const numeric = columns.map((_, place) => rows.every((row) => !(row[place] instanceof Node) && number.test(row[place] ?? "")));
  const cell = (name, value, place) => el(name, { class: numeric[place] && "number", scope: name === "th" && "col" },
    value instanceof Node ? value : visible(shown(value)));
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": caption || "table" },
    el("table", {}, caption && el("caption", {}, visible(caption)),
      el("thead", {}, el("tr", {}, columns.map((column, place) => cell(column ? "th" : "td", column, place)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, place) => cell("td", value, place)))))));
}

/** A cell as report.md shows it. */
function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "✓" : "✗";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : Math.abs(value) >= 1e4 ? value.toFixed(0) : String(+value.toPrecision(4));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
