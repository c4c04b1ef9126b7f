// Every instruction: its text, T, set, nearest instructions, and the members that mark it.

async function drawInstructions(section) {
  const run = current, text = await block(run, "instructions"), rows = rowsOf(text.instructions);
  const state = { text: "", category: "" };
  const shown = el("p", { class: "hint", role: "status" }), place = el("div", {});
  const names = [...new Set(rows.map((row) => row.category))];
  const sources = new Set(rows.map((row) => row.source)).size > 1;
  section.append(el("h2", {}, "Every instruction"),
    el("p", { class: "hint" }, "T: its counted tokens. A row opens the instruction: its text, where its set lies, the members that fewest others hold, and the nearest instructions."),
    el("div", { class: "filters" },
      el("label", {}, "Search", el("input", { type: "search", id: "instruction-search", placeholder: "words of the text, or an id", input: (event) => { state.text = event.target.value.trim().toLowerCase(); api.onFilterChanged(); } })),
      picker("Category", [["", "all"], ...names.map((name) => [name, name])], (value) => { state.category = value; api.onFilterChanged(); }, "").node),
    shown, place);
  const api = grid(place, {
    name: `${nameOf(run)}-instructions`, label: "all instructions", rows, onopen: (row) => showInstruction(run, row.id),
    filter: (row) => (!state.category || row.category === state.category) && (!state.text || `${row.id}\n${row.text}`.toLowerCase().includes(state.text)),
    onshown: (number) => {
      shown.textContent = `${number.toLocaleString("en")} of ${rows.length.toLocaleString("en")} instructions` + (text.total > rows.length ? `, of ${text.total.toLocaleString("en")} whose pairs were taken; sparcom view shows more` : "");
    },
    columns: [
      { head: "id", value: (row) => row.id, width: 130, open: true },
      { head: "category", value: (row) => row.category, width: 110 },
      { head: "source", value: (row) => row.source, width: 100, hide: !sources },
      { head: "T", value: (row) => row.tokens, number: true, width: 80, format: count },
      { head: "set", help: "neurons in its set", value: (row) => total(row.sites_neurons), number: true, width: 95, format: (value) => (value === null ? none : count(value)), hide: !rows[0]?.sites_neurons },
      { head: "text", value: (row) => row.text, format: (value) => cutText(value.replaceAll("\n", " "), 300), flex: 1, width: 220 },
    ],
  });
}

const total = (sizes) => (sizes ? sizes.reduce((x, y) => x + y, 0) : null);
const instructionLink = (run, id) => el("button", { type: "button", class: "link", click: () => showInstruction(run, id) }, id || "(no id)");

async function showInstruction(run, id) {
  const [core, text] = await Promise.all([block(run, "core"), block(run, "instructions")]);
  const all = rowsOf(text.instructions), row = all.find((item) => item.id === id);
  show(`Instruction ${id}`, (body) => {
    if (!row) { body.append(el("p", {}, "The page does not hold this instruction.")); return; }
    body.append(el("dl", {}, ...facts([["category", row.category], ["source", row.source || none], ["cluster", row.cluster], ["T", `${row.tokens} counted tokens`],
      ["set", row.sites_neurons ? `${count(total(row.sites_neurons))} neurons${row.sites_experts ? `, ${count(total(row.sites_experts))} experts` : ""}` : "not retained"]])),
    el("p", { class: "text" }, row.text + (row.cut ? " …" : "")));
    if (row.sites_neurons) setByLayer(body, core, row);
    const nearest = rowsOf(text.nearest).filter((item) => item.id === id), of = new Map(all.map((item) => [item.id, item]));
    for (const family of ["neurons", "experts"]) {
      const rows = nearest.filter((item) => item.family === family);
      if (!rows.length) continue;
      const place = el("div", {});
      body.append(el("h4", {}, family === "experts" ? "Nearest by experts" : "Nearest instructions by their sets"), place);
      grid(place, { name: `${id}-nearest-${family}`, label: "nearest instructions", rows, short: true, onopen: (item) => showInstruction(run, item.other), columns: [
        { head: "id", value: (item) => item.other, width: 130, open: true },
        { head: "category", value: (item) => of.get(item.other)?.category, width: 110 },
        { head: "overlap", value: (item) => item.jaccard, format: (value) => fixed(value), number: true, width: 95 },
        { head: "shared", value: (item) => item.shared, format: count, number: true, width: 90 },
        { head: "text", value: (item) => of.get(item.other)?.text ?? "", format: (value) => cutText(value.replaceAll("\n", " "), 200), flex: 1, width: 160 },
      ] });
    }
    membersOf(body, run, text, id, all.length);
  });
}

function setByLayer(body, core, row) {
  const layers = new Map();
  core.sites.forEach(([layer], at) => layers.set(layer, (layers.get(layer) ?? 0) + (row.sites_neurons[at] ?? 0)));
  const x = [...layers.keys()], y = [...layers.values()], node = el("div", { class: "chart" });
  body.append(el("h4", {}, "Its set by layer"), node);
  curves(node, { name: `${row.id}-set`, curves: [{ name: "members", x, y }], unit: "neurons", digits: 0, bottom: 0, height: 200,
    label: `Members of the set in each layer; most, ${Math.max(...y)}, in layer ${x[y.indexOf(Math.max(...y))]}.`, head: ["layer", "members"], rows: () => x.map((layer, at) => [layer, y[at]]) });
}

function membersOf(body, run, text, id, others) {
  const rows = rowsOf(text.members).filter((item) => item.id === id);
  if (!rows.length) return;
  const place = el("div", {});
  body.append(el("h4", {}, "Members of its set that fewest others hold"), place);
  grid(place, { name: `${id}-members`, label: "members of the set", rows, short: true, onopen: (item) => showUnit(run, item.family, item.unit), columns: [
    { head: "unit", value: (item) => item.unit, width: 130, open: true },
    { head: "of", value: (item) => item.family, width: 110 },
    { head: `held by, of ${others} sets`, value: (item) => item.held_by, format: count, number: true, width: 150 },
    { head: "share of its tokens", value: (item) => item.frequency, format: (value) => percent(value), number: true, width: 150 },
  ] });
}
