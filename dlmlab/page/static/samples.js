// Samples: texts beside each other, what differs between them, and tokens in the order in which they were committed.

const PAGE_ITEMS = 50;
const DIFF_CELLS = 4e6;

/** A list of items that is drawn a page at a time, each opened by its line. */
function itemList(ids, line, open) {
  const list = el("div", { class: "items" });
  let shownItems = 0;
  const more = el("button", { type: "button", click: grow });
  function grow() {
    for (const id of ids.slice(shownItems, shownItems + PAGE_ITEMS)) {
      const details = el("details", { toggle: async () => {
        if (details.open && details.childElementCount === 1) details.append(await open(id));
      } }, el("summary", {}, line(id)));
      list.append(details);
    }
    shownItems += PAGE_ITEMS;
    more.hidden = shownItems >= ids.length;
    more.textContent = `Show more (${ids.length - shownItems} left)`;
  }
  grow();
  return el("div", {}, ids.length ? list : el("p", { class: "empty" }, "No such item."), more);
}

/** All text of an item that the page holds, to search in. */
function said(item) {
  const { prompt = "", text = "", reason = "", target = "" } = item.whole ?? {};
  return [item.id, prompt, text, reason, target].join("\n").toLowerCase();
}

/** One or two answers to the same prompt; texts of two are marked where they differ. */
function answers(named) {
  const whole = named.map(([, item]) => item?.whole);
  const { prompt, target } = whole.find(Boolean) ?? {};
  const texts = whole.every(Boolean) && whole.length === 2 ? diff(whole[0].text, whole[1].text) : whole.map((each) => each && [[each.text, false]]);
  return el("div", {},
    prompt !== undefined && el("figure", {}, el("figcaption", {}, "prompt"), el("pre", { dir: "ltr", tabindex: 0 }, visible(prompt))),
    target && el("figure", {}, el("figcaption", {}, "a right answer"), el("pre", { class: "target", dir: "ltr", tabindex: 0 }, visible(target))),
    el("div", { class: "beside" }, named.map(([name, item], place) => el("section", {},
      el("h3", {}, visible(name), " ", scoreMark(item)),
      whole[place] ? [
        el("pre", { class: "answer", dir: "ltr", tabindex: 0 }, texts[place].map(([part, changed]) => changed ? el("mark", {}, visible(part)) : visible(part))),
        whole[place].reason && el("p", { class: "reason" }, visible(whole[place].reason)),
        canvas(whole[place]),
      ] : el("p", { class: "empty" }, item ? "Not held by this page; samples.jsonl in the run's folder has it." : "This run has no such item.")))));
}

function scoreMark(item) {
  if (!item) return "";
  const score = item.score === null ? "" : item.score === 1 ? badge("pass") : item.score === 0 ? badge("fail") : points(item.score);
  return el("span", { class: "quiet" }, score, ` ${counted(item.forwards, "forward")}`);
}

/** The canvas: each token coloured by the forward pass after which it was committed. */
function canvas(sample) {
  const { pieces, step_of: steps } = sample, last = Math.max(1, ...steps.map(Number));
  let end = pieces.length - 1;
  while (end > 0 && pieces[end - 1] === pieces.at(-1)) end--;
  const folded = pieces.length - end > 2 ? pieces.length - end : 0; // the end tokens behind an answer are all alike
  const tokens = pieces.slice(0, folded ? end : pieces.length).map((piece, place) => chip(piece, steps[place], last));
  if (folded) tokens.push(chip(pieces.at(-1), Math.max(...steps.slice(end).map(Number)), last, folded));
  return el("figure", { class: "canvas dv" },
    el("figcaption", {}, "committed first ", el("span", { class: "ramp", "aria-hidden": "true" }), ` last; ${last + 1} forward passes`),
    el("div", { class: "tokens", dir: "ltr", tabindex: 0 }, tokens));
}

/** A token in the colour of its pass, which is the viewer's; of several that are alike, the last one's. */
function chip(piece, step, last, times = 1) {
  const share = Number(step) / last;
  return el("span", { class: "token", style: passColours(share), title: `forward pass ${Number(step) + 1}` },
    visible(piece).replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅", times > 1 && ` × ${times}`);
}

/** Two texts in parts [text, whether the other lacks it], by words. */
function diff(a, b) {
  const [left, right] = [a, b].map((text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? []);
  let head = 0, tail = 0;
  while (head < Math.min(left.length, right.length) && left[head] === right[head]) head++;
  while (tail < Math.min(left.length, right.length) - head && left.at(-1 - tail) === right.at(-1 - tail)) tail++;
  const middles = [left, right].map((words) => words.slice(head, words.length - tail));
  const same = commonWords(...middles);
  return middles.map((words, side) => [
    [left.slice(0, head).join(""), false],
    ...words.map((word, place) => [word, !same[side].has(place)]),
    [left.slice(left.length - tail).join(""), false],
  ].filter(([text]) => text));
}

/** The places of a longest common subsequence in both lists; none where they are too long to tell. */
function commonWords(a, b) {
  const places = [new Set(), new Set()];
  if (a.length * b.length > DIFF_CELLS) return places;
  const width = b.length + 1, lengths = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { places[0].add(i++); places[1].add(j++); }
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
    else j++;
  }
  return places;
}
