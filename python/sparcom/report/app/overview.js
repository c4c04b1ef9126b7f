// The pictures beside the three findings.

async function drawOverview() {
  for (const node of document.querySelectorAll("#overview .chart")) {
    const run = Number(node.dataset.run), core = await block(run, "core");
    const draw = { overlap: overviewOverlap, depth: overviewDepth, units: overviewUnits }[node.dataset.chart];
    draw(node, run, core);
  }
}

function overviewOverlap(node, run, core) {
  overlapChart(node, run, core, core.families[0], (a, b) => openCell(run, core.families[0].name, a, b));
}

function overviewDepth(node, run, core) {
  depthChart(node, run, core, core.families[0]);
}

function overviewUnits(node, run, core) {
  const names = core.categories, rows = rowsOf(core.counts).filter((row) => row.family === "neurons");
  const of = (figure) => names.map((name) => rows.find((row) => row.figure === figure && row.category === name)?.value ?? null);
  const series = ["enriched", "specific", "unique"].map((figure) => ({ name: figure, values: of(figure) }))
    .filter((item) => item.values.some((value) => value !== null));
  bars(node, {
    name: `${nameOf(run)}-units`, categories: names, series, unit: "neurons", format: count,
    label: `Neurons of each type. ${names.map((name, at) => `${name}: ${series.map((item) => `${count(item.values[at])} ${item.name}`).join(", ")}`).join("; ")}.`,
  });
}
