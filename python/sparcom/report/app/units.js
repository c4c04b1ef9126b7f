// Every unit: search, sort, filter; a row opens its numbers by category and its text examples.

const MARKS = ["general", "always on", "unique", "enriched", "depleted", "specific"];

/** What a unit is, in words. */
function marksOf(units, names, i) {
  const out = [];
  if (units.general[i]) out.push("general");
  if (units.always_on[i]) out.push("always on");
  if (units.unique_to[i] !== null) out.push(`unique to ${units.unique_to[i]}`);
  if (units.sign) {
    const specific = names.filter((_, c) => units.specific[c][i]), enriched = names.filter((_, c) => units.sign[c][i] > 0 && !units.specific[c][i]);
    const depleted = names.filter((_, c) => units.sign[c][i] < 0);
    if (specific.length) out.push(`specific to ${specific.join(", ")}`);
    if (enriched.length) out.push(`enriched in ${enriched.join(", ")}`);
    if (depleted.length) out.push(`depleted in ${depleted.join(", ")}`);
  }
  return out;
}

/** True if a unit is `mark` in category c, or in any (c === null). */
function isMarked(units, names, i, mark, c) {
  if (mark === "general") return units.general[i];
  if (mark === "always on") return units.always_on[i];
  if (mark === "unique") return units.unique_to[i] !== null && (c === null || units.unique_to[i] === names[c]);
  if (!units.sign) return false;
  const of = mark === "specific" ? (k) => units.specific[k][i] === 1 : (k) => units.sign[k][i] === (mark === "enriched" ? 1 : -1);
  return c === null ? names.some((_, k) => of(k)) : of(c);
}

/** The category that a unit is shown in: the one with the largest difference, or c / T. */
function ownCategory(units, names, i) {
  const by = units.in.difference[0] ? units.in.difference : units.in.frequency;
  let best = 0;
  names.forEach((_, c) => { if ((by[c]?.[i] ?? -Infinity) > (by[best]?.[i] ?? -Infinity)) best = c; });
  return best;
}

async function drawUnits(section) {
  const run = current, core = await block(run, "core"), names = core.categories;
  let family = core.unit_families[0];
  const holder = el("div", {});
  section.append(el("h2", {}, "Every unit"),
    el("p", { class: "hint" }, "Raw: the share of all counted tokens of a type on which the unit fires (c / T). Adjusted: how much more than in the other types, at equal length and source, with q, the false discovery rate. ",
      "A row opens the unit: all types, and the instructions in which it fires most."));
  if (core.unit_families.length > 1) section.append(el("div", { class: "filters" }, picker("Components", core.unit_families.map((name) => [name, name]), (value) => { family = value; fill(); }, family).node));
  section.append(holder);
  const fill = async () => unitGrid(holder, run, core, names, family, await block(run, `units-${family}`));
  await fill();
}

function unitGrid(holder, run, core, names, family, units) {
  const tested = Boolean(units.sign);
  const state = { text: "", category: null, marks: new Set(), low: -Infinity, high: Infinity, kind: null };
  const rowsFor = () => Array.from({ length: units.n }, (_, i) => {
    const c = state.category ?? ownCategory(units, names, i), frequency = units.in.frequency;
    let next = null;
    names.forEach((_, k) => { if (k !== c && (next === null || (frequency[k][i] ?? -1) > (frequency[next][i] ?? -1))) next = k; });
    return { i, c, next };
  });
  const marks = Array.from({ length: units.n }, (_, i) => marksOf(units, names, i).join("; "));
  const pass = ({ i }) => {
    const layer = units.layer[i];
    if (layer < state.low || layer > state.high || (state.kind && units.kind[i] !== state.kind)) return false;
    for (const mark of state.marks) if (!isMarked(units, names, i, mark, state.category)) return false;
    return !state.text || `${units.unit[i]} ${units.kind[i]} ${marks[i]}`.toLowerCase().includes(state.text);
  };
  const at = (field) => (row) => units.in[field][row.c]?.[row.i] ?? null;
  const raw = "raw: share of tokens", adjusted = "adjusted for length and source";
  const shown = el("p", { class: "hint", role: "status" });
  const place = el("div", {});
  const api = () => grids.units;
  const changed = () => api().onFilterChanged();
  const kinds = [...new Set(units.kind)];
  const layers = units.layer.length ? [Math.min(...unitsLayers(units)), Math.max(...unitsLayers(units))] : [0, 0];
  const bound = (label, key, start) => el("label", {}, label, el("input", { type: "number", min: layers[0], max: layers[1], value: start, input: (event) => {
    state[key] = event.target.value === "" ? (key === "low" ? -Infinity : Infinity) : Number(event.target.value); changed();
  } }));
  const category = picker("Category", [["", "all: where it differs most"], ...names.map((name, c) => [String(c), name])], (value) => {
    state.category = value === "" ? null : Number(value);
    api().setGridOption("rowData", rowsFor());
  }, "");
  holder.replaceChildren(
    el("div", { class: "filters" },
      el("label", {}, "Search", el("input", { type: "search", id: "unit-search", placeholder: "22:616, specific to QA, …", input: (event) => { state.text = event.target.value.trim().toLowerCase(); changed(); } })),
      category.node, bound("Layer from", "low", layers[0]), bound("to", "high", layers[1]),
      kinds.length > 1 ? picker("Kind", [["", "all"], ...kinds.map((kind) => [kind, kind])], (value) => { state.kind = value || null; changed(); }, "").node : null,
      el("fieldset", { class: "chips" }, el("legend", { class: "sr" }, "Only units that are"), (tested ? MARKS : MARKS.slice(0, 3)).map((mark) => el("button", { type: "button", "aria-pressed": "false", click: (event) => {
        const on = !state.marks.delete(mark);
        if (on) state.marks.add(mark);
        event.target.setAttribute("aria-pressed", String(on));
        changed();
      } }, mark)))),
    shown, place);
  grids.units = grid(place, {
    name: `${nameOf(run)}-units-${family}`, label: `all ${family}`, rows: rowsFor(), filter: pass, onopen: (row) => showUnit(run, family, units.unit[row.i]),
    onshown: (number) => {
      shown.textContent = `${number.toLocaleString("en")} of ${units.n.toLocaleString("en")} ${family}` +
        (units.total > units.n ? `. This run has ${units.total.toLocaleString("en")}: the page holds those that are something, those that most sets hold, and those that differ most; sparcom view shows more.` : " that any set holds or any test finds");
    },
    columns: [
      { head: family === "experts" ? "expert" : "unit", value: (row) => units.unit[row.i], width: 120, open: true },
      { head: "layer", value: (row) => units.layer[row.i], number: true, width: 85 },
      { head: "kind", value: (row) => units.kind[row.i], width: 95, hide: kinds.length < 2 },
      { head: "category", value: (row) => names[row.c], width: 105 },
      { head: "there", value: at("frequency"), format: (value) => fixed(value, 2), number: true, width: 85, group: raw },
      { head: "highest elsewhere", value: (row) => (row.next === null ? null : units.in.frequency[row.next][row.i]), number: true, width: 150, group: raw,
        format: (value, row) => (row.next === null ? none : `${fixed(value, 2)} (${names[row.next]})`) },
      { head: "held by", help: "share of the sets of this category that hold the unit", value: at("prevalence"), format: (value) => percent(value), number: true, width: 90 },
      { head: "difference", value: at("difference"), format: (value) => signed(value, 2), number: true, width: 105, group: adjusted, hide: !tested },
      { head: "least", id: "gap", help: "the smallest difference from another category", value: at("gap"), format: (value) => signed(value, 2), number: true, width: 105, group: adjusted, hide: !tested, sort: tested ? "desc" : undefined },
      { head: "q", value: at("q"), format: small, number: true, width: 90, group: adjusted, hide: !tested },
      { head: "what it is", value: (row) => marks[row.i], flex: 1, width: 180 },
    ],
  });
}

const grids = {};
function* unitsLayers(units) { const seen = new Set(units.layer); yield* seen; }

const unitLink = (run, family, unit) => el("button", { type: "button", class: "link", click: () => showUnit(run, family, unit) }, unit);

/** A unit: what it is, by category raw and adjusted, and its text examples. */
async function showUnit(run, family, unit) {
  const of = family === "experts" ? "experts" : "neurons";
  const [core, units, text] = await Promise.all([block(run, "core"), block(run, `units-${of}`), block(run, "instructions")]);
  const names = core.categories, i = units.unit.indexOf(unit);
  show(`${of === "experts" ? "Expert" : "Unit"} ${unit}`, (body) => {
    if (i < 0) body.append(el("p", {}, "The page does not hold the numbers of this unit; sparcom view shows more units."));
    else describeUnit(body, run, units, names, i);
    body.append(el("h4", {}, "Instructions in which it fires most"));
    const traced = of === "neurons" ? rowsOf(text.traced).filter((row) => row.unit === unit) : [];
    const seen = new Set(traced.map((row) => row.id));
    const found = rowsOf(text.examples).filter((row) => row.family === of && row.unit === unit && !seen.has(row.id));
    if (!found.length && !traced.length) body.append(el("p", { class: "hint" }, "No examples are stored of this unit: they are kept of specific, enriched, depleted and unique units, and of those that most sets of each layer hold."));
    const instruction = new Map(rowsOf(text.instructions).map((row) => [row.id, row]));
    if (traced.length) body.append(el("p", { class: "hint" }, "Marked: the tokens on which it fires. Of those that were not traced, only their number is known."));
    for (const row of [...traced, ...found].sort((a, b) => shareOf(b) - shareOf(a))) body.append(example(run, row, instruction.get(row.id)));
    if (of === "neurons" && traced.length) topTokens(body, rowsOf(text.top_tokens).filter((row) => row.unit === unit));
    if (of === "neurons" && !traced.length) body.append(el("p", { class: "hint" }, "sparcom trace shows its firing tokens: ", el("code", {}, `sparcom trace RUN --unit ${unit}`)));
  });
}

function describeUnit(body, run, units, names, i) {
  body.append(el("p", {}, marksOf(units, names, i).join("; ") || "neither general nor of one type"));
  const raw = el("div", { class: "chart" }), adjusted = el("div", { class: "chart" });
  const values = (field) => names.map((_, c) => units.in[field][c]?.[i] ?? null);
  body.append(el("div", { class: "several" }, el("div", {}, el("h4", {}, "Raw: share of tokens on which it fires"), raw),
    units.sign ? el("div", {}, el("h4", {}, "Adjusted: difference from the other types"), adjusted) : null));
  const held = values("prevalence"), frequency = values("frequency");
  const told = (list, format) => names.map((name, c) => `${name} ${format(list[c])}`).join(", ");
  bars(raw, { name: `unit-${units.unit[i]}-raw`, categories: names, series: [{ name: "c / T", values: frequency }], unit: "c / T", top: 1, format: (value) => fixed(value, 2),
    label: `Share of tokens: ${told(frequency, (value) => fixed(value, 2))}.`, tip: (c) => `held by ${percent(held[c])} of the sets` });
  if (!units.sign) return;
  const difference = values("difference"), q = values("q"), error = values("error");
  bars(adjusted, { name: `unit-${units.unit[i]}-adjusted`, categories: names, series: [{ name: "difference", values: difference }], unit: "difference of c / T", format: (value) => signed(value, 2),
    label: `Adjusted differences: ${told(difference, (value) => signed(value, 2))}.`, tip: (c) => `standard error ${fixed(error[c])}, q = ${small(q[c])}` });
}

/** The tokens on which a unit fires most beyond its own share, in its traced examples. */
function topTokens(body, rows) {
  if (!rows.length) return;
  body.append(el("h4", {}, "Tokens on which it fires most, in these examples"),
    table(["token", "read", "fired", "lift"], rows.map((row) => [JSON.stringify(row.token), row.read, row.fired, fixed(row.lift, 1)])));
}

/** The share of its tokens at which a unit fires in an example. */
const shareOf = (row) => row.frequency ?? row.count / row.tokens;

/** One text example; the tokens on which the unit fires are marked where they were traced. */
function example(run, row, of) {
  const text = el("p", { class: "text" }), share = shareOf(row);
  if (row.fired) {
    row.text.forEach((piece, k) => text.append(row.fired[k] ? el("mark", {}, piece) : piece));
    if (row.tokens > row.text.length) text.append(" …");
  } else text.append(of ? of.text + (of.cut ? " …" : "") : "The page does not hold this text.");
  return el("div", { class: "example" },
    el("div", { class: "of" }, instructionLink(run, row.id), of ? el("span", {}, of.category) : null,
      el("span", {}, `fires on ${Math.round(share * row.tokens)} of ${row.tokens} tokens (${percent(share)})${row.family === "neurons" ? ", not traced" : ""}`)), text);
}
