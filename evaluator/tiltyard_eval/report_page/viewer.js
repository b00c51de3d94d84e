"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("sample-data").textContent);
  const list = document.getElementById("sample-list");
  const count = document.getElementById("sample-count");
  const more = document.getElementById("sample-more");
  const controls = ["search", "task", "outcome"].map((name) => document.getElementById("sample-" + name));
  const PAGE = 50;
  let matching = [];
  let shown = 0;

  // Text of the model goes into the page through textContent alone.
  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const outcome = (row) => (row.failure !== null ? row.failure : row.score >= 1 ? "right" : row.score > 0 ? "partial" : "wrong");
  const haystack = rows.map((row) => [row.prompt, row.answer, row.expected].join("\n").toLowerCase());

  const block = (title, text, className) => {
    const part = element("div", className);
    part.append(element("h3", "", title), element("pre", "", text));
    return part;
  };
  const texts = (row) => {
    const body = element("div", "texts");
    body.append(
      block("Prompt", row.prompt, "wide"),
      block("Answer", row.answer),
      block("Extracted", row.extracted),
      block("Expected", row.expected),
    );
    return body;
  };
  const sample = (row) => {
    const node = element("details", "sample");
    const summary = element("summary");
    const kind = outcome(row);
    const tone = row.failure !== null ? "fault" : kind;
    const label = element("span");
    label.append(element("span", "chip " + tone, kind === "partial" ? row.score.toFixed(2) : kind.replaceAll("_", " ")));
    summary.append(label, element("span", "muted clip", row.task + " " + row.index), element("span", "clip line", row.prompt));
    node.append(summary);
    node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(texts(row)); });
    return node;
  };
  const showMore = () => {
    const next = matching.slice(shown, shown + PAGE);
    list.append(...next.map((index) => sample(rows[index])));
    shown += next.length;
    more.hidden = shown >= matching.length;
    count.textContent = matching.length + " of " + rows.length + " items";
  };
  const filter = () => {
    const [search, task, wanted] = controls.map((control) => control.value);
    const needle = search.toLowerCase();
    matching = [...rows.keys()].filter((index) =>
      (!task || rows[index].task === task) && (!wanted || outcome(rows[index]) === wanted) &&
      (!needle || haystack[index].includes(needle)));
    list.replaceChildren();
    shown = 0;
    showMore();
  };
  const fill = (select, values) => select.append(...[...new Set(values)].sort().map((value) => element("option", "", value)));

  fill(controls[1], rows.map((row) => row.task));
  fill(controls[2], rows.map(outcome));
  let pending;
  controls[0].addEventListener("input", () => { clearTimeout(pending); pending = setTimeout(filter, 120); });
  controls[1].addEventListener("change", filter);
  controls[2].addEventListener("change", filter);
  more.addEventListener("click", showMore);
  filter();
})();
