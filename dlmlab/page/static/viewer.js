/**
 * Plays how canvases were filled, pass by pass: dlmlabViewer(element, traces), traces as in traces.jsonl.
 *
 * Traces of one item play side by side, in step; where there are several items, one is chosen. Texts of prompts and
 * models are shown as text, whatever is in them.
 */
function dlmlabViewer(element, traces) {
  const PACE = 600; // milliseconds a pass
  const GLYPHS = { anchor: "◆", neighbour: "◇" };
  const ICONS = {
    first: "M3 3v10M13 3 6 8l7 5z", back: "M12 3 5 8l7 5z", play: "M4 2v12l10-6z", pause: "M4 3h3v10H4zM9 3h3v10H9z",
    next: "M4 3l7 5-7 5z", last: "M13 3v10M3 3l7 5-7 5z",
  };

  const make = (tag, name = "", ...children) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children);
    return made;
  };
  const draw = (button, icon, label) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", ICONS[icon]);
    svg.append(path);
    button.replaceChildren(svg);
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  const visible = (text) =>
    String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (each) =>
      each === "\n" ? "⏎" : each === "\t" ? "⇥" : `\\u{${each.codePointAt(0).toString(16)}}`);
  const percent = (confidence) => confidence.toFixed(2);

  /** A trace, ready to be asked for its state after any pass. */
  class Track {
    constructor(trace) {
      this.trace = trace;
      this.steps = trace.steps.map((step) => ({
        begin: step.begin,
        tokens: step.tokens,
        confidence: step.confidence,
        commit: step.commit,
        revoke: step.revoke ?? [],
        computed: (step.computed ?? []).reduce((sum, [from, to]) => sum + to - from, 0),
        marks: Object.entries(step.marks ?? {}).filter(([, places]) => places.length),
      }));
      this.first = trace.steps[0].tokens.length;
      this.ends = new Set(trace.end_tokens ?? []);
    }

    text(token) {
      return this.ends.has(token) ? "∎" : visible(token);
    }

    /** For each place what is to be seen after `pass` passes. */
    after(pass) {
      const cells = this.trace.tokens.map(() => ({ state: "future", token: null, confidence: null, marks: [] }));
      this.steps.slice(0, pass).forEach((step, number) => {
        const now = number + 1 === pass;
        step.tokens.forEach((token, k) => {
          const cell = cells[step.begin + k];
          if (token !== null) Object.assign(cell, { state: "waiting", token, confidence: step.confidence[k], marks: [] });
          cell.fresh = false;
        });
        for (const [mark, places] of step.marks) for (const k of places) cells[step.begin + k].marks.push(mark);
        for (const k of step.commit) Object.assign(cells[step.begin + k], { state: "committed", pass: number + 1, fresh: now });
        for (const k of step.revoke) Object.assign(cells[step.begin + k], { state: "waiting", token: null, confidence: null, marks: [], revoked: now });
      });
      const next = this.steps[pass];
      cells.forEach((cell, place) => {
        cell.active = next !== undefined && place >= next.begin && place < next.begin + next.tokens.length;
        if (cell.active && cell.state === "future") cell.state = "waiting";
      });
      return cells;
    }

    /** The number of the block in which a place lies, from 0; the first is shorter where the prompt has a part of it. */
    blockOf(place) {
      return Math.floor((place - this.first) / this.trace.block_length) + 1;
    }

    /** What was proposed at a place, pass by pass. */
    history(place) {
      return this.steps.flatMap((step, number) => {
        const k = place - step.begin;
        if (k < 0 || k >= step.tokens.length) return [];
        const marks = step.marks.filter(([, places]) => places.includes(k)).map(([mark]) => mark);
        const what = step.commit.includes(k) ? "committed" : step.revoke.includes(k) ? "revoked" : "waiting";
        if (step.tokens[k] === null && what !== "revoked") return [];
        return [{ pass: number + 1, token: step.tokens[k], confidence: step.confidence[k], marks, what }];
      });
    }
  }

  /** A track's canvas on the page. */
  class Pane {
    constructor(track, most, point) {
      this.track = track;
      this.most = most;
      const trace = track.trace;
      this.count = make("span", "dv-count");
      this.canvas = make("div", "dv-canvas");
      this.cells = trace.tokens.map((token, place) => {
        const block = track.blockOf(place);
        if (place && block > track.blockOf(place - 1)) this.canvas.append(make("span", "dv-block", `${block + 1}`));
        const ghost = make("span", "dv-ghost", track.text(token));
        const cell = make("span", "dv-cell", ghost, make("span", "dv-text"));
        ghost.setAttribute("aria-hidden", "true");
        cell.addEventListener("pointerenter", () => point(this, place, false));
        cell.addEventListener("click", () => point(this, place, true));
        this.canvas.append(cell);
        if (!track.ends.has(token) && token.includes("\n")) {
          const indent = make("span", "dv-indent");
          indent.style.width = `${token.length - token.lastIndexOf("\n") - 1}ch`;
          this.canvas.append(make("span", "dv-break"), indent);
        }
        return cell;
      });
      const name = make("h3", "dv-name", visible(trace.decoder));
      this.root = make("section", "dv-pane", make("header", "dv-head", name, this.count), this.canvas);
    }

    show(pass) {
      const own = Math.min(pass, this.track.steps.length);
      const cells = this.track.after(own);
      const filled = cells.filter((cell) => cell.state === "committed").length;
      const fresh = cells.filter((cell) => cell.fresh && own === pass).length;
      const done = pass >= this.track.steps.length;
      this.count.textContent = done
        ? `full after ${this.track.steps.length} passes`
        : `${filled} of ${cells.length} tokens${fresh ? `, ${fresh} of them now` : ""}`;
      const computed = own ? this.track.steps[own - 1].computed : 0, all = this.track.steps[0].computed;
      if (computed < all && own && !done) this.count.textContent += `; computed ${computed} of ${all} positions`;
      this.root.classList.toggle("dv-done", done);
      cells.forEach((cell, place) => this.paint(this.cells[place], cell, own === pass));
    }

    paint(node, cell, moving) {
      const glyphs = cell.marks.map((mark) => GLYPHS[mark] ?? "●").join("");
      node.className = `dv-cell dv-${cell.state}`;
      node.classList.toggle("dv-fresh", Boolean(cell.fresh) && moving);
      node.classList.toggle("dv-active", cell.active);
      node.classList.toggle("dv-revoked", Boolean(cell.revoked) && moving);
      for (const mark of cell.marks) if (mark in GLYPHS) node.classList.add(`dv-${mark}`);
      node.dataset.marks = glyphs;
      node.style.setProperty("--dv-c", cell.confidence ?? 0);
      if (cell.state === "committed") this.colour(node, cell.pass);
      else node.style.background = node.style.color = "";
      node.lastChild.textContent = cell.token === null ? "·" : this.track.text(cell.token);
      node.title = cell.token === null ? "masked" : `${visible(cell.token)}  ${percent(cell.confidence)}`
        + (cell.state === "committed" ? `  pass ${cell.pass}` : "  waiting") + cell.marks.map((mark) => `  ${mark}`).join("");
    }

    colour(node, pass) {
      node.style.cssText += passColours(this.most > 1 ? (pass - 1) / (this.most - 1) : 0);
    }
  }

  /** Everything about one item. */
  class Player {
    constructor(tracks) {
      this.most = Math.max(...tracks.map((track) => track.steps.length));
      this.panes = tracks.map((track) => new Pane(track, this.most, (...where) => this.point(...where)));
      this.timer = null;
      this.pinned = false;
      this.slider = make("input", "dv-slider");
      Object.assign(this.slider, { type: "range", min: 0, max: this.most, step: 1 });
      this.slider.setAttribute("aria-label", "forward pass");
      this.slider.addEventListener("input", () => { this.pause(); this.seek(Number(this.slider.value)); });
      this.where = make("output", "dv-where");
      this.playing = this.button("play", "play", () => (this.timer ? this.pause() : this.play()));
      this.pace = make("select", "dv-pace", ...[["½×", 2], ["1×", 1], ["2×", 0.5], ["4×", 0.25]].map(([name, value]) => {
        const option = make("option", "", name);
        option.value = value;
        option.selected = value === 1;
        return option;
      }));
      this.pace.setAttribute("aria-label", "speed");
      this.readout = make("div", "dv-readout");
      this.readout.setAttribute("role", "status");
      const buttons = make("span", "dv-buttons",
        this.button("first", "to the empty canvas", () => this.jump(0)),
        this.button("back", "a pass back", () => this.jump(this.pass - 1)), this.playing,
        this.button("next", "a pass on", () => this.jump(this.pass + 1)),
        this.button("last", "to the full canvas", () => this.jump(this.most)));
      this.root = make("div", "dv-player",
        make("p", "dv-prompt", visible(tracks[0].trace.prompt).replaceAll("⏎", "⏎\n")),
        make("div", "dv-controls", buttons, this.slider, this.where, this.pace),
        make("div", "dv-panes", ...this.panes.map((pane) => pane.root)),
        this.readout, this.legend(tracks));
      this.root.addEventListener("keydown", (event) => this.key(event));
      this.root.tabIndex = 0;
      this.root.setAttribute("role", "group");
      this.root.setAttribute("aria-label", "denoising viewer: space plays, arrow keys step and choose a place");
      this.at = [this.panes[0], null];
      this.seek(this.most);
    }

    button(icon, label, action) {
      const button = make("button", `dv-button dv-to-${icon}`);
      button.type = "button";
      draw(button, icon, label);
      button.addEventListener("click", action);
      return button;
    }

    seek(pass) {
      this.pass = Math.max(0, Math.min(this.most, pass));
      this.slider.value = this.pass;
      this.slider.style.setProperty("--dv-at", this.most ? this.pass / this.most : 0);
      this.where.textContent = `pass ${this.pass} of ${this.most}`;
      this.slider.setAttribute("aria-valuetext", this.where.textContent);
      this.root.dataset.pass = this.pass;
      for (const pane of this.panes) pane.show(this.pass);
      this.read();
    }

    jump(pass) {
      this.pause();
      this.seek(pass);
    }

    play() {
      if (this.pass === this.most) this.seek(0);
      draw(this.playing, "pause", "pause");
      const next = () => {
        if (!this.root.isConnected) return this.pause();
        this.seek(this.pass + 1);
        if (this.pass === this.most) return this.pause();
        this.timer = setTimeout(next, PACE * this.pace.value);
      };
      this.timer = setTimeout(next, PACE * this.pace.value);
    }

    pause() {
      clearTimeout(this.timer);
      this.timer = null;
      draw(this.playing, "play", "play");
    }

    key(event) {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const own = event.target === this.root;
      const moves = { ArrowRight: 1, ArrowLeft: -1 };
      if (event.target === this.pace || (event.key === " " && !own && event.target !== this.slider)) return;
      if (event.key === " ") this.timer ? this.pause() : this.play();
      else if (event.key in moves) this.jump(this.pass + moves[event.key]);
      else if (event.key === "Home") this.jump(0);
      else if (event.key === "End") this.jump(this.most);
      else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.walk(event.key === "ArrowDown" ? 1 : -1);
      else if (event.key === "Escape") this.point(this.at[0], null, false, true);
      else return;
      event.preventDefault();
    }

    walk(by) {
      const [pane, place] = this.at;
      const from = place ?? (by > 0 ? -1 : pane.cells.length);
      this.point(pane, Math.max(0, Math.min(pane.cells.length - 1, from + by)), false, true);
    }

    /** Choose the place that the read-out tells of. A click keeps it until the next one. */
    point(pane, place, click, always = false) {
      if (this.pinned && !click && !always) return;
      const [, before] = this.at;
      this.pinned = click && !(this.pinned && this.at[0] === pane && before === place);
      this.at = [pane, place];
      this.read();
    }

    read() {
      const [pane, place] = this.at;
      for (const each of this.root.querySelectorAll(".dv-chosen")) each.classList.remove("dv-chosen");
      if (place === null) {
        this.readout.replaceChildren(make("p", "dv-hint", "Point at a token, or press ↑ ↓, for what was proposed there."));
        return;
      }
      pane.cells[place].classList.add("dv-chosen");
      const { track } = pane;
      const past = track.history(place).map((each) => {
        const token = make("span", "dv-then", each.token === null ? "–" : track.text(each.token));
        const bar = make("i", "dv-tall");
        const number = make("span", "dv-number", each.confidence === null ? "" : percent(each.confidence));
        const step = make("li", `dv-past dv-past-${each.what}`, bar, token, number, make("span", "dv-pass", `${each.pass}`));
        bar.style.setProperty("--dv-c", each.confidence ?? 0);
        if (each.what === "committed") pane.colour(bar, each.pass);
        step.classList.toggle("dv-now", each.pass === this.pass);
        step.title = `pass ${each.pass}: ${[each.what, ...each.marks].join(", ")}`;
        return step;
      });
      const history = make("ol", "dv-history", ...past);
      const block = track.blockOf(track.trace.tokens.length - 1) ? `, block ${track.blockOf(place) + 1}` : "";
      const name = this.panes.length > 1 ? `${visible(track.trace.decoder)}: ` : "";
      this.readout.replaceChildren(
        make("p", "dv-hint", `${name}place ${place + 1}${block}. Confidence and proposal at each pass:`), history);
      const now = history.querySelector(".dv-now");
      if (now) history.scrollLeft = now.offsetLeft - history.clientWidth / 2;
    }

    legend(tracks) {
      const seen = new Set(tracks.flatMap((track) => track.steps.flatMap((step) => step.marks.map(([mark]) => mark))));
      const ramp = make("span", "dv-ramp");
      const waiting = make("span", "dv-cell dv-waiting dv-active", "word");
      waiting.style.setProperty("--dv-c", 0.6);
      return make("p", "dv-legend",
        make("span", "", "committed in pass 1", ramp, `${this.most}`),
        make("span", "", waiting, "proposed, not committed; the line below a token is its confidence"),
        ...[...seen].map((mark) => make("span", "", make("b", "dv-glyph", GLYPHS[mark] ?? "●"), `${visible(mark)}`)),
        ...(tracks.some((track) => track.ends.size) ? [make("span", "", "∎ end token")] : []));
    }
  }

  const items = new Map();
  let broken = 0;
  for (const trace of traces) {
    try {
      const track = new Track(trace);
      track.after(track.steps.length);
      const key = JSON.stringify([trace.task, trace.id, trace.prompt]);
      items.set(key, [...(items.get(key) ?? []), track]);
    } catch {
      broken += 1;
    }
  }
  const root = make("div", "dv");
  const place = make("div");
  const groups = [...items.values()];
  const open = (number) => place.replaceChildren(new Player(groups[number]).root);
  if (groups.length > 1) {
    const choice = make("select", "dv-choice", ...groups.map(([{ trace }], number) => {
      const option = make("option", "", [trace.task, trace.id, visible(trace.prompt).slice(0, 60)].filter(Boolean).join(" · "));
      option.value = number;
      return option;
    }));
    choice.addEventListener("change", () => open(Number(choice.value)));
    root.append(make("label", "dv-items", "item ", choice));
  }
  if (broken) root.append(make("p", "dv-hint", `${broken} traces can't be read.`));
  root.append(place);
  if (groups.length) open(0);
  element.replaceChildren(root);
}

/** The style of a token that was committed after a share of the passes, 0 to 1: a colour of viewer.css's ramp. */
function passColours(share) {
  const stops = 9, low = Math.min(stops - 2, Math.floor(share * (stops - 1)));
  const part = 100 * (share * (stops - 1) - low);
  return `background: color-mix(in oklab, var(--dv-r${low + 1}) ${part}%, var(--dv-r${low})); ` +
    `color: ${share < 0.43 ? "var(--dv-on-dark)" : "var(--dv-on-light)"};`;
}
