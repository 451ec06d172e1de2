"use strict";
// Model output is only ever set through textContent, never as HTML.

for (const svg of document.querySelectorAll("svg.line")) {
  const points = JSON.parse(svg.dataset.points);
  const hover = svg.querySelector(".hover");
  const [dot, text] = hover.children;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const near = points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
    dot.setAttribute("cx", near[0]);
    dot.setAttribute("cy", near[1]);
    const right = near[0] > svg.viewBox.baseVal.width / 2;
    text.setAttribute("x", near[0] + (right ? -8 : 8));
    text.setAttribute("text-anchor", right ? "end" : "start");
    text.textContent = near[2];
    hover.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerleave", () => hover.setAttribute("visibility", "hidden"));
}

const PAGE = 20;
const form = document.querySelector(".controls");
if (form) {
  const { questions, samples } = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const NAMES = { evaluation: "evaluation", training: "GRPO rollouts", filter: "filtered traces" };
  const FIELDS = ["origin", "group", "bench", "mode", "outcome"];
  const DISAGREE = "disagreement"; // an extra choice: rules and judges, or repeats, disagree
  const fits = (s, field, value) => (field === "outcome" && value === DISAGREE ? s.disagree === true : s[field] === value);
  let hits = [];

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // Offer in each field only the values left by the fields before it.
  const offer = () => {
    let left = samples;
    for (const field of FIELDS) {
      const select = form.elements[field];
      const before = select.value;
      const values = [...new Set(left.map((s) => s[field]))].filter((v) => v !== undefined);
      select.parentElement.hidden = !values.length; // only evaluations have benchmarks
      if (field === "outcome" && left.some((s) => s.disagree)) values.push(DISAGREE);
      const options = values.map((v) => new Option(field === "origin" ? NAMES[v] : v, v));
      select.replaceChildren(...(field === "origin" ? [] : [new Option("all", "")]), ...options);
      select.value = values.includes(before) ? before : field === "origin" ? values[0] : "";
      if (select.value) left = left.filter((s) => fits(s, field, select.value));
    }
    return left;
  };

  const block = (title, text) => [make("h4", "", title), make("pre", "", text)];

  const fill = (card, sample) => {
    const question = questions[sample.question] || { text: "(question not found)", gold: null };
    const body = make("div", "body");
    body.append(...block("Question", question.text));
    body.append(...block(sample.note ? `Completion (${sample.note})` : "Completion", sample.text));
    const facts = make("table", "checks");
    const line = (...cells) => facts.append(cells.reduce((row, c) => (row.append(make("td", "", c)), row), make("tr")));
    line("gold", question.gold ?? "–");
    line("answer read", sample.answer ?? "–");
    body.append(make("h4", "", "Answer"), facts);
    const checks = make("table", "checks");
    for (const [name, value, why] of sample.checks) {
      const row = make("tr");
      const word = value === null || value === undefined ? "undecided" : value === 1 ? "yes" : value === 0 ? "no" : String(value);
      const kind = { undecided: "undecided", yes: "right", no: "wrong" }[word] || "partly";
      row.append(make("td", "", name.replaceAll("_", " ")), make("td", `verdict ${kind}`, word), make("td", "", why || ""));
      checks.append(row);
    }
    body.append(make("h4", "", "Verdicts"), checks);
    card.append(body);
  };

  const show = () => {
    for (const sample of hits.slice(list.children.length, list.children.length + PAGE)) {
      const card = make("details", "sample");
      const head = make("summary");
      head.append(
        make("span", `verdict ${sample.outcome}`, sample.outcome),
        make("span", "q", (questions[sample.question]?.text || "").replace(/\s+/g, " ").slice(-160)),
        make("span", "quiet", `${sample.group}, ${sample.bench ? `${sample.bench}, ` : ""}${sample.mode}${sample.disagree ? ", judges disagree" : ""}`),
      );
      card.append(head);
      card.addEventListener("toggle", () => card.open && !card.querySelector(".body") && fill(card, sample));
      list.append(card);
    }
    more.hidden = list.children.length >= hits.length;
  };

  const update = () => {
    const words = form.elements.text.value.toLowerCase();
    const found = (s) => `${questions[s.question]?.text || ""}\n${s.text}`.toLowerCase().includes(words);
    hits = offer().filter((s) => !words || found(s));
    document.getElementById("found").textContent = `${hits.length} found`;
    list.replaceChildren();
    show();
  };

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", show);
  update();
}
