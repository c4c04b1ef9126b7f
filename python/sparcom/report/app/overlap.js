// The category matrix; a cell opens its pairs and the units that both categories share.

const chosen = { family: null };

async function drawOverlap(section) {
  const cores = await Promise.all(runs.map((_, run) => block(run, "core")));
  const families = unique(cores.flatMap((core) => core.families.map((family) => [family.name, family.label])));
  if (!families.length) { section.append(el("p", {}, "This run has no pairs of sets: it retains only its profile, or its sets are empty.")); return; }
  chosen.family ??= families[0][0];
  const place = el("div", { class: "several" }), detail = el("div", { id: "cell", "aria-live": "polite" });
  const redo = () => {
    disposeIn(place);
    const withFamily = runs.map((_, run) => run).filter((run) => familyOf(cores[run]));
    const known = withFamily.flatMap((run) => matrixValues(familyOf(cores[run])));
    const range = [Math.min(...known), Math.max(...known)];
    place.classList.toggle("one", withFamily.length === 1);
    place.replaceChildren(...withFamily.map((run) => {
      const node = el("div", { class: "chart" });
      return el("div", { class: "card" }, runs.length > 1 ? el("p", { class: "of" }, nameOf(run)) : null, node);
    }));
    [...place.querySelectorAll(".chart")].forEach((node, at) => {
      const run = withFamily[at];
      overlapChart(node, run, cores[run], familyOf(cores[run]), (a, b) => showCell(detail, run, chosen.family, a, b), range);
    });
    detail.replaceChildren();
  };
  const familyOf = (core) => core.families.find((family) => family.name === chosen.family);
  const filters = el("div", { class: "filters" });
  if (families.length > 1) filters.append(picker("Sets of", families, (value) => { chosen.family = value; redo(); }, chosen.family).node);
  const names = cores[current].categories.map((name, at) => [String(at), name]);
  const first = picker("Category", names, () => {}, "0"), second = picker("and", names, () => {}, "0");
  filters.append(first.node, second.node, el("button", { type: "button", click: () => {
    showCell(detail, current, chosen.family, Number(first.select.value), Number(second.select.value));
  } }, "Open pairs and shared units"));
  section.append(el("h2", {}, "How alike are the sets of two instructions?"),
    el("p", { class: "hint" }, "Left: all pairs as they are. Right: length, source and common words held fixed, among pairs that share no template. ",
      "A cell opens its pairs and the units that both types share."),
    filters, place, detail);
  redo();
}

const matrixValues = (family) => [...family.matrix.value, ...family.matrix.adjusted].filter((value) => value !== null);
const unique = (pairs) => [...new Map(pairs).entries()];

function overlapChart(node, run, core, family, onopen, range) {
  const names = core.categories, m = family.matrix, cells = rowsOf(m);
  const at = (a, b) => cells.find((row) => row.a === names[a] && row.b === names[b]);
  const order = names.flatMap((_, a) => names.map((__, b) => at(a, b)));
  const parts = [
    { title: "All pairs, raw", values: order.map((row) => row?.value ?? null) },
    { title: "Adjusted", values: order.map((row) => row?.adjusted ?? null) },
  ];
  const same = order.filter((row) => row && row.a === row.b && row.value !== null), other = order.filter((row) => row && row.a !== row.b && row.value !== null);
  const mean = (rows) => fixed(rows.length ? rows.reduce((sum, row) => sum + row.value, 0) / rows.length : null);
  heatmaps(node, {
    name: `${nameOf(run)}-${family.name}-overlap`, categories: names, parts, range,
    label: `Two heatmaps, raw and adjusted, of the mean overlap of ${family.label} between ${names.length} types. Raw mean on the diagonal ${mean(same)}, off it ${mean(other)}. The numbers are under "Numbers".`,
    tip: (k, part) => {
      const row = order[k];
      return [`${cutText(row.a, 40)} and ${cutText(row.b, 40)}`, `${part.title}: ${fixed(part.values[k])}`,
        row.low !== null && part === parts[0] ? `95 % interval ${fixed(row.low)} to ${fixed(row.high)}` : null,
        part === parts[1] && row.adjusted_p !== null ? `under permuted clusters ${fixed(row.adjusted_chance)}, p = ${small(row.adjusted_p)}` : null,
        `${row.pairs.toLocaleString("en")} pairs`];
    },
    head: ["category", "and", "pairs", "raw mean", "low", "high", "adjusted", "adjusted p"],
    rows: () => order.filter(Boolean).map((row) => [row.a, row.b, row.pairs, row.value, row.low, row.high, row.adjusted, row.adjusted_p]),
    onclick: (k) => onopen(Math.floor(k / names.length), k % names.length),
  });
}

/** From the overview: go to the view of cells, then open one. */
async function openCell(run, family, a, b) {
  chosen.family = family;
  location.hash = "overlap";
  await shownView("overlap");
  showCell(byId("cell"), run, family, a, b);
}

async function showCell(node, run, family, a, b) {
  const [core, pairs, text] = await Promise.all([block(run, "core"), block(run, "pairs"), block(run, "instructions")]);
  const [left, right] = a <= b ? [a, b] : [b, a], names = core.categories;
  const cell = rowsOf(core.families.find((item) => item.name === family).matrix).find((row) => row.a === names[left] && row.b === names[right]);
  const of = rowsOf(pairs).filter((row) => row.family === family && row.a === names[left] && row.b === names[right]);
  const instruction = new Map(rowsOf(text.instructions).map((row) => [row.id, row]));
  const title = el("h3", { tabindex: "-1" }, a === b ? `Two instructions of ${names[a]}` : `${names[left]} and ${names[right]}`);
  const card = el("div", { class: "card" }, title,
    runs.length > 1 ? el("p", { class: "of" }, nameOf(run)) : null,
    el("dl", {}, ...facts([
      ["raw mean overlap", `${fixed(cell.value)}${cell.low === null ? "" : ` (95 % ${fixed(cell.low)} to ${fixed(cell.high)})`}`],
      ["adjusted", cell.adjusted === null ? "undetermined" : `${fixed(cell.adjusted)}; under permuted clusters ${fixed(cell.adjusted_chance)}, p = ${small(cell.adjusted_p)}`],
      ["random sets", `${fixed(cell.J0)} with the same sizes; ${fixed(cell.J0_prevalence)} that also keep how often each unit is held`],
      ["pairs", cell.pairs.toLocaleString("en")],
    ])));
  for (const [end, words] of [["most", "The most alike pairs"], ["least", "The least alike pairs"]]) {
    const rows = of.filter((row) => row.end === end);
    if (!rows.length) continue;
    const place = el("div", {});
    card.append(el("h4", {}, words), place);
    queueMicrotask(() => pairGrid(place, `${nameOf(run)}-${names[left]}-${names[right]}-${end}`, words, rows, instruction, run));
  }
  const shared = el("div", {});
  card.append(el("h4", {}, a === b ? `Units that most sets of ${names[a]} hold, and fewer of the others` : "Units that both types hold, and fewer of the others"), shared);
  node.replaceChildren(card);
  await sharedUnits(shared, run, family, left, right);
  title.focus({ preventScroll: true });
  node.scrollIntoView({ block: "start" });
}

const facts = (rows) => rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);

function pairGrid(place, name, label, rows, instruction, run) {
  const text = (id) => instruction.get(id)?.text ?? id;
  grid(place, {
    name, label, rows, short: true, onopen: (row) => showPair(row, instruction, run),
    columns: [
      { head: "overlap", value: (row) => row.jaccard, format: (value) => fixed(value), number: true, width: 95, open: true },
      { head: "shared units", value: (row) => row.shared, format: count, number: true, width: 95 },
      { head: "first instruction", value: (row) => text(row.first), format: (value) => cutText(value, 300), flex: 1, width: 160 },
      { head: "second instruction", value: (row) => text(row.second), format: (value) => cutText(value, 300), flex: 1, width: 160 },
      { head: "one template", value: (row) => (row.same_cluster ? "yes" : "no"), width: 100 },
    ],
  });
}

/** Both texts of a pair, and the shared units that fewest instructions hold. */
function showPair(row, instruction, run) {
  show(`Overlap ${fixed(row.jaccard)}: ${row.shared} units in both sets`, (body) => {
    for (const id of [row.first, row.second]) {
      const of = instruction.get(id);
      body.append(el("div", { class: "example" }, el("div", { class: "of" }, instructionLink(run, id), of ? el("span", {}, of.category) : null,
        of ? el("span", {}, `T = ${of.tokens}`) : null), of ? el("p", { class: "text" }, of.text + (of.cut ? " …" : "")) : null));
    }
    body.append(el("h4", {}, "Shared units that fewest instructions hold"), el("p", {}, row.units.flatMap((unit) => [unitLink(run, row.family, unit), " "])));
  });
}

/** The units in the sets of both categories, by how much more than in any other. */
async function sharedUnits(node, run, family, a, b) {
  const kind = ["neurons", "experts"].includes(family) ? null : family, of = family === "experts" ? "experts" : "neurons";
  const units = await block(run, `units-${of}`), core = await block(run, "core");
  const held = units.in.prevalence, others = core.categories.map((_, c) => c).filter((c) => c !== a && c !== b);
  const rows = [];
  for (let i = 0; i < units.n; i += 1) {
    if (kind && units.kind[i] !== kind) continue;
    const both = Math.min(held[a][i] ?? 0, held[b][i] ?? 0);
    if (both <= 0) continue;
    const elsewhere = Math.max(0, ...others.map((c) => held[c][i] ?? 0));
    rows.push({ i, both, elsewhere, more: both - elsewhere });
  }
  rows.sort((x, y) => y.more - x.more || y.both - x.both);
  grid(node, {
    name: `${nameOf(run)}-${core.categories[a]}-${core.categories[b]}-units`, label: "shared units", rows: rows.slice(0, 20), short: true,
    onopen: (row) => showUnit(run, of, units.unit[row.i]),
    columns: [
      { head: "unit", value: (row) => units.unit[row.i], width: 130, open: true },
      { head: `held by sets of ${core.categories[a]}`, value: (row) => held[a][row.i], format: (value) => percent(value), number: true, width: 150 },
      ...(a === b ? [] : [{ head: `held by sets of ${core.categories[b]}`, value: (row) => held[b][row.i], format: (value) => percent(value), number: true, width: 150 }]),
      { head: "highest elsewhere", value: (row) => row.elsewhere, format: (value) => percent(value), number: true, width: 130, hide: !others.length },
      { head: "what", value: (row) => marksOf(units, core.categories, row.i).join(", "), flex: 1, width: 160 },
    ],
  });
}
