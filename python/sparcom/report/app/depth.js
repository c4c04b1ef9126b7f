// Where in depth the sets lie, by category; the adjusted effect of the category in each layer.

async function drawDepth(section) {
  const cores = await Promise.all(runs.map((_, run) => block(run, "core")));
  const families = unique(cores.flatMap((core) => core.families.map((family) => [family.name, family.label])));
  if (!families.length) { section.append(el("p", {}, "This run retains no sets.")); return; }
  let name = chosen.family ?? families[0][0];
  const place = el("div", {});
  const redo = () => {
    disposeIn(place);
    const parts = [];
    const shown = cores.map((core) => core.families.find((family) => family.name === name));
    const top = Math.max(...shown.filter(Boolean).flatMap((family) => layerCurves(family, []).flatMap((curve) => [...curve.y, ...(curve.high ?? [])])));
    place.replaceChildren();
    cores.forEach((core, run) => {
      const family = shown[run];
      if (!family) return;
      const raw = el("div", { class: "chart" }), effect = el("div", { class: "chart" });
      const effects = rowsOf(family.effects).filter((row) => row.value !== null);
      place.append(el("div", { class: "card" }, runs.length > 1 ? el("p", { class: "of" }, nameOf(run)) : null, el("div", { class: "several" },
        el("div", {}, el("h3", {}, `${family.label} in each layer, raw`), raw),
        effects.length > 1 ? el("div", {}, el("h3", {}, "Effect of the type in each layer, adjusted"), effect) : null)));
      parts.push(() => { depthChart(raw, run, core, family, top); if (effects.length > 1) effectChart(effect, run, family, effects); });
    });
    parts.forEach((draw) => draw());
  };
  section.append(el("h2", {}, "Where in depth?"),
    el("p", { class: "hint" }, "Left: mean number of members of an instruction's set in each layer, with 95 % intervals over clusters; dotted, the same number spread evenly. ",
      "Right: how much more two instructions of one type share than two of different types, within each layer, with length, source and common words held fixed; grey, what permuted clusters give."));
  if (families.length > 1) section.append(el("div", { class: "filters" }, picker("Sets of", families, (value) => { name = value; redo(); }, name).node));
  section.append(place);
  redo();
}

/** Members per layer of each category, summed over the kinds of site in a layer. */
function layerCurves(family, categories) {
  const rows = rowsOf(family.layers), layers = [...new Set(rows.map((row) => row.layer))].sort((x, y) => x - y);
  const kinds = new Set(rows.map((row) => row.kind)).size;
  const names = categories.length ? categories : [...new Set(rows.map((row) => row.category))];
  const sum = (of, field) => layers.map((layer) => of.filter((row) => row.layer === layer).reduce((total, row) => total + row[field], 0));
  const out = names.map((name) => {
    const of = rows.filter((row) => row.category === name);
    const bands = kinds === 1 && of.every((row) => row.low !== null);
    return { name, x: layers, y: sum(of, "mean"), low: bands ? sum(of, "low") : null, high: bands ? sum(of, "high") : null };
  });
  const total = names.reduce((t, name) => t + sum(rows.filter((row) => row.category === name), "mean").reduce((x, y) => x + y, 0), 0) / names.length;
  const even = sum(rows.filter((row) => row.category === names[0]), "chance").map((share) => share * total);
  return [...out, { name: "even spread", x: layers, y: even, dashed: true }];
}

function depthChart(node, run, core, family, top) {
  const found = layerCurves(family, core.categories), [first] = found;
  const peak = (curve) => curve.x[curve.y.indexOf(Math.max(...curve.y))];
  curves(node, {
    name: `${nameOf(run)}-${family.name}-depth`, curves: found, unit: `mean number of ${family.label}`, digits: 1, bottom: 0, top: top ? Math.ceil(top) : undefined,
    label: `Members of a set per layer, layers ${first.x[0]} to ${first.x.at(-1)}, one curve for each of ${core.categories.length} types. Most: ${found.filter((curve) => !curve.dashed).map((curve) => `${curve.name} layer ${peak(curve)}`).join(", ")}.`,
    head: ["category", "layer", "mean", "low", "high"],
    rows: () => found.flatMap((curve) => curve.x.map((layer, k) => [curve.name, layer, curve.y[k], curve.low?.[k] ?? null, curve.high?.[k] ?? null])),
  });
}

function effectChart(node, run, family, rows) {
  const kinds = [...new Set(rows.map((row) => row.kind))];
  const lines_ = kinds.map((kind) => {
    const of = rows.filter((row) => row.kind === kind);
    const bands = of.every((row) => row.low !== null);
    return { name: kinds.length > 1 ? kind : "same − different type", x: of.map((row) => row.layer), y: of.map((row) => row.value),
      low: bands ? of.map((row) => row.low) : null, high: bands ? of.map((row) => row.high) : null };
  });
  const chance = rows.filter((row) => row.kind === kinds[0] && row.chance_low !== null);
  if (chance.length) lines_.push({ name: "permuted clusters", dashed: true, x: chance.map((row) => row.layer), y: chance.map(() => 0), low: chance.map((row) => row.chance_low), high: chance.map((row) => row.chance_high) });
  curves(node, {
    name: `${nameOf(run)}-${family.name}-effect`, curves: lines_, unit: "difference of mean overlap", digits: 3,
    label: `Adjusted effect of the type on overlap within each layer; in ${rows.filter((row) => row.p !== null && row.p <= 0.05).length} of ${rows.length} layers p is at most 0.05.`,
    head: ["layer", "kind", "effect", "low", "high", "chance low", "chance high", "p"],
    rows: () => rows.map((row) => [row.layer, row.kind, row.value, row.low, row.high, row.chance_low, row.chance_high, row.p]),
  });
}
