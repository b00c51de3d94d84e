"use strict";
// Shows up to ten thousand items: blocks of JSON are read one at a time, a search runs in slices of a few milliseconds,
// and of the list only the rows in view are in the document. Text of the model goes into text nodes alone.
(() => {
  const get = (id) => document.getElementById(id);
  const about = JSON.parse(get("sample-about").textContent);
  const blocks = [...document.querySelectorAll("script.sample-block")];
  const [search, taskChoice, outcomeChoice] = ["search", "task", "outcome"].map((name) => get("sample-" + name));
  const [list, spacer, detail, count] = ["list", "spacer", "detail", "count"].map((name) => get("sample-" + name));
  const ROW_PX = 56;
  const SPARE_ROWS = 6;
  const SLICE_MS = 8;
  const MARKS_MAX = 500;
  const [TASK, INDEX, SCORE, FAILURE, LATENCY, PROMPT, ANSWER, EXPECTED, EXTRACTED] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const rows = [];
  const lowered = []; // the texts of rows[i] in lower case, made when first searched
  let matching = []; // indices of rows
  let chosen = -1; // place in `matching`
  let work = 0; // number of the filtering under way; an older one stops
  let last = { needle: "", task: "", outcome: "", found: null };

  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  // As tiltyard_eval.pieces.text.visible: what would hide or turn other characters is shown as its code point.
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff]|\p{Cs}/gu;
  const visible = (text) => text.replaceAll("\r\n", "\n").replace(UNSEEN,
    (one) => "⟨U+" + one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩");
  const line = (text) => visible(text.slice(0, 300)).replace(/\s+/g, " ");
  const outcome = (row) => row[FAILURE] !== null ? row[FAILURE] : row[SCORE] >= 1 ? "right" : row[SCORE] > 0 ? "partial" : "wrong";
  const WORDS = { right: "Right", partial: "Partly right", wrong: "Wrong", format: "No readable answer" };
  const words = (kind) => Object.hasOwn(WORDS, kind) ? WORDS[kind] : visible(kind).replaceAll("_", " ");
  const chip = (row) => {
    const kind = outcome(row);
    const tone = { right: "good", partial: "warn", wrong: "bad" }[kind] || "warn";
    return element("span", "chip " + tone, kind === "partial" ? row[SCORE].toFixed(2) : words(kind));
  };
  const name = (row) => visible(about.tasks[row[TASK]][1]) + " " + row[INDEX];

  // Waits for the next task, after the browser had its turn.
  const channel = new MessageChannel();
  const waiting = [];
  channel.port1.onmessage = () => waiting.shift()();
  const pause = () => new Promise((resolve) => { waiting.push(resolve); channel.port2.postMessage(null); });

  const textsOf = (index) => lowered[index] ??=
    [PROMPT, ANSWER, EXPECTED, EXTRACTED].map((field) => rows[index][field] ?? "").join("\u0000").toLowerCase();

  const filter = async (keeps = false) => {
    const mine = ++work;
    const now = { needle: search.value.toLowerCase(), task: taskChoice.value, outcome: outcomeChoice.value, found: null };
    const narrower = last.found && now.task === last.task && now.outcome === last.outcome && now.needle.includes(last.needle);
    const among = narrower ? last.found : null;
    const total = among ? among.length : rows.length;
    const found = [];
    let until = performance.now() + SLICE_MS;
    for (let place = 0; place < total; place++) {
      const index = among ? among[place] : place;
      const row = rows[index];
      if ((now.task === "" || row[TASK] === Number(now.task)) && (now.outcome === "" || outcome(row) === now.outcome) &&
        (now.needle === "" || textsOf(index).includes(now.needle))) found.push(index);
      if (performance.now() > until) {
        await pause();
        if (mine !== work) return;
        until = performance.now() + SLICE_MS;
      }
    }
    last = { ...now, found };
    matching = found;
    const of = rows.length < about.total ? ` (${rows.length} read yet)` : "";
    count.textContent = `${found.length} of ${about.total} items${of}`;
    spacer.style.height = found.length * ROW_PX + "px";
    if (!keeps) list.scrollTop = 0;
    choose(keeps && chosen >= 0 ? chosen : found.length ? 0 : -1);
  };

  const shown = new Map(); // place → node
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - SPARE_ROWS);
    const end = Math.min(matching.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + SPARE_ROWS);
    for (const [place, node] of shown) {
      if (place < first || place >= end) { node.remove(); shown.delete(place); }
    }
    for (let place = first; place < end; place++) {
      if (!shown.has(place)) { const node = option(place); shown.set(place, node); list.append(node); }
    }
  };
  const option = (place) => {
    const row = rows[matching[place]];
    const node = element("div", "row");
    node.id = "item-" + place;
    node.setAttribute("role", "option");
    node.setAttribute("aria-setsize", matching.length);
    node.setAttribute("aria-posinset", place + 1);
    node.setAttribute("aria-selected", place === chosen);
    node.style.top = place * ROW_PX + "px";
    node.dataset.place = place;
    node.append(element("span", "clip", line(row[PROMPT])), chip(row), element("span", "clip about", name(row) + " · " + line(row[ANSWER])));
    return node;
  };

  const choose = (place) => {
    chosen = place;
    for (const node of shown.values()) node.remove();
    shown.clear();
    if (place >= 0) {
      const top = place * ROW_PX;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
    }
    draw();
    if (place >= 0) list.setAttribute("aria-activedescendant", "item-" + place);
    else list.removeAttribute("aria-activedescendant");
    describe();
  };

  const marked = (text, needle) => {
    const node = element("pre");
    node.tabIndex = 0;
    let from = 0;
    if (needle) {
      const pattern = new RegExp(needle.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"), "gi");
      for (const found of [...text.matchAll(pattern)].slice(0, MARKS_MAX)) {
        node.append(visible(text.slice(from, found.index)), element("mark", "", visible(found[0])));
        from = found.index + found[0].length;
      }
    }
    node.append(visible(text.slice(from)));
    return node;
  };
  const describe = () => {
    if (chosen < 0) {
      detail.replaceChildren(element("header", "", "No item matches."));
      return;
    }
    const row = rows[matching[chosen]];
    const head = element("header");
    const right = element("span", "muted num", row[LATENCY] === null ? "" : row[LATENCY] + " s ");
    right.append(chip(row));
    head.append(element("h3", "", name(row)), right);
    const texts = element("dl", "detail-texts");
    const parts = [["Prompt", row[PROMPT]], ["Answer", row[ANSWER]], ["Expected", row[EXPECTED]]];
    if (row[EXTRACTED] !== null) parts.splice(2, 0, ["Extracted", row[EXTRACTED]]);
    for (const [title, text] of parts) {
      const part = element("div");
      const body = element("dd");
      body.append(text === "" ? element("span", "muted", "(empty)") : marked(text, search.value));
      part.append(element("dt", "", title), body);
      texts.append(part);
    }
    detail.replaceChildren(head, texts);
    detail.scrollTop = 0;
  };

  let isDrawing = false;
  list.addEventListener("scroll", () => {
    if (isDrawing) return;
    isDrawing = true;
    requestAnimationFrame(() => { isDrawing = false; draw(); });
  }, { passive: true });
  new ResizeObserver(draw).observe(list);
  list.addEventListener("click", (event) => {
    const node = event.target.closest(".row");
    if (node) choose(Number(node.dataset.place));
  });
  const move = { ArrowDown: () => 1, ArrowUp: () => -1, PageDown: () => perPage(), PageUp: () => -perPage(), Home: () => -Infinity, End: () => Infinity };
  const perPage = () => Math.max(1, Math.floor(list.clientHeight / ROW_PX) - 1);
  list.addEventListener("keydown", (event) => {
    if (Object.hasOwn(move, event.key) && matching.length) {
      event.preventDefault();
      choose(Math.min(matching.length - 1, Math.max(0, chosen + move[event.key]())));
    } else if (event.key === "Enter" && chosen >= 0) detail.focus();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); list.focus(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && detail.contains(event.target)) list.focus();
  });
  search.addEventListener("input", () => filter());
  taskChoice.addEventListener("change", () => filter());
  outcomeChoice.addEventListener("change", () => filter());

  const fill = (select, pairs) => select.append(...pairs.map(([value, text]) => {
    const node = element("option", "", text);
    node.value = value;
    return node;
  }));
  fill(taskChoice, about.tasks.map(([, title], number) => [number, visible(title)]));
  const groups = ["right", "partial", "wrong"];
  fill(outcomeChoice, [...groups, ...about.kinds].map((kind) => [kind, words(kind)]));

  const read = async () => {
    get("viewer").hidden = false;
    for (const [number, block] of blocks.entries()) {
      await pause();
      for (const row of JSON.parse(block.textContent)) rows.push(row);
      block.remove();
      // What is filtered so far is of fewer rows; the first block fills the screen, the last settles it.
      last.found = null;
      if (number === 0 || number === blocks.length - 1) await filter(number > 0);
    }
  };
  read();
})();
