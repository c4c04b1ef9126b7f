// Charts by Apache ECharts (vendor/), with their numbers as a table and as files.

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74",
  "#c3b369", "#e1cc55", "#fee838"];
const SYMBOLS = ["circle", "triangle", "rect", "diamond", "roundRect", "arrow", "pin", "emptyCircle"];
const charts = new Set();

const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark";
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
// Okabe and Ito's colours, lighter on dark ground so that each keeps 3:1 against it.
const palette = () => (dark()
  ? ["#56a8e0", "#f08a4b", "#33c79b", "#e39cc4", "#f0b93a", "#8fd0f5", "#b8b8b8", "#ffffff"]
  : ["#0072b2", "#d55e00", "#00805c", "#b5578f", "#a66f00", "#2f8fc4", "#666666", "#000000"]);

const textStyle = () => ({ color: ink("ink"), fontFamily: "inherit" });
const axisStyle = () => ({
  axisLabel: { color: ink("soft-ink") }, nameTextStyle: { color: ink("soft-ink") },
  axisLine: { lineStyle: { color: ink("line") } }, axisTick: { lineStyle: { color: ink("line") } },
  splitLine: { lineStyle: { color: ink("line"), opacity: 0.6 } },
});

/** Text lines as elements: ECharts shows a node as it is, and would read a string as HTML. */
function lines(...texts) {
  return el("div", {}, texts.flat().filter(Boolean).map((text) => el("div", {}, text)));
}

const tooltip = (formatter, trigger = "item") => ({
  trigger, confine: true, formatter, backgroundColor: ink("card"), borderColor: ink("line"),
  textStyle: { color: ink("ink"), fontSize: 13 }, axisPointer: { type: "line" },
});

/**
 * A chart in a node.
 * of: { name, label (its text for screen readers), height, option: () => ECharts option,
 *       head, rows: () => its numbers, onclick }
 */
function chart(node, of) {
  const plot = el("div", { class: "plot", role: "img", "aria-label": of.label, style: `height:${of.height}px` });
  const numbers = el("details", {}, el("summary", {}, "Numbers"));
  numbers.addEventListener("toggle", () => {
    if (numbers.open && numbers.children.length === 1) numbers.append(table(of.head, of.rows()));
  });
  node.replaceChildren(plot, el("div", { class: "under" }, "Download",
    el("button", { type: "button", click: () => saveCsv(of.name, of.head, of.rows()) }, "CSV"),
    el("button", { type: "button", click: () => saveChart(of, plot, "png") }, "PNG"),
    el("button", { type: "button", click: () => saveChart(of, plot, "svg") }, "SVG"),
    numbers));
  const entry = { plot, of, drawn: echarts.init(plot, null, { renderer: "svg" }) };
  entry.draw = () => entry.drawn.setOption({ ...base(), ...of.option() }, true);
  entry.draw();
  if (of.onclick) entry.drawn.on("click", of.onclick);
  charts.add(entry);
  sizes.observe(plot);
  return entry;
}

const base = () => ({
  animation: false, color: palette(), textStyle: textStyle(), backgroundColor: "transparent",
});

const sizes = new ResizeObserver((found) => {
  for (const { target } of found) {
    if (!target.clientWidth) continue;
    for (const entry of charts) if (entry.plot === target) entry.drawn.resize();
  }
});

/** The chart on a white or dark ground of its own size, as a file. */
function saveChart(of, plot, type) {
  const aside = el("div", { style: `width:${plot.clientWidth}px;height:${of.height}px;position:absolute;left:-9999px` });
  document.body.append(aside);
  const copy = echarts.init(aside, null, { renderer: type === "svg" ? "svg" : "canvas" });
  copy.setOption({ ...base(), ...of.option(), backgroundColor: ink("card") });
  if (type === "svg") save(`${of.name}.svg`, copy.renderToSVGString(), "image/svg+xml");
  else saveDataUrl(of.name, copy);
  copy.dispose();
  aside.remove();
}

function saveDataUrl(name, copy) {
  const data = atob(copy.getDataURL({ type: "png", pixelRatio: 2 }).split(",")[1]);
  save(`${name}.png`, Uint8Array.from(data, (c) => c.charCodeAt(0)), "image/png");
}

function disposeIn(node) {
  for (const entry of [...charts]) {
    if (!node.contains(entry.plot)) continue;
    sizes.unobserve(entry.plot);
    entry.drawn.dispose();
    charts.delete(entry);
  }
}

function redraw() { for (const entry of charts) entry.draw(); }

/** Cells [a][b] of a square matrix as a heatmap; two side by side: raw, adjusted. */
function heatmaps(node, of) {
  const n = of.categories.length;
  const known = of.parts.flatMap((part) => part.values).filter((value) => value !== null);
  const [low, high] = of.range ?? [Math.min(...known), Math.max(...known)];
  const wide = () => (node.clientWidth || 800) >= 640 || of.parts.length === 1;
  const cell = Math.max(26, Math.min(46, 340 / n));
  const gap = n > 5 ? 100 : 76, tilted = n > 5;
  const height = () => (wide() ? 1 : of.parts.length) * (n * cell + gap) + 34;
  const label = (text) => cutText(text, 12);
  const option = () => {
    const across = wide() ? of.parts.length : 1;
    const grid = of.parts.map((_, at) => ({
      left: `${((at % across) * 100) / across + (across > 1 ? 9 : 17)}%`, width: `${100 / across - (across > 1 ? 11 : 20)}%`,
      top: 44 + Math.floor(at / across) * (n * cell + gap), height: n * cell,
    }));
    const axis = (at, names, side) => ({
      type: "category", data: names, gridIndex: at, ...axisStyle(), splitLine: { show: false }, axisTick: { show: false },
      inverse: side === "y",
      axisLabel: { color: ink("ink"), formatter: (text) => label(text), interval: 0, rotate: side === "x" && tilted ? 40 : 0 },
    });
    return {
      title: of.parts.map((part, at) => ({
        text: part.title, left: grid[at].left, top: grid[at].top - 32, textStyle: { color: ink("ink"), fontSize: 14, fontWeight: 600 },
      })),
      grid, tooltip: tooltip((item) => lines(of.tip(item.value[3], of.parts[item.seriesIndex]))),
      xAxis: of.parts.map((_, at) => axis(at, of.categories, "x")),
      yAxis: of.parts.map((_, at) => axis(at, of.categories, "y")),
      visualMap: {
        min: low, max: Math.max(high, low + 1e-9), calculable: false, orient: "horizontal", left: "center", bottom: 0,
        inRange: { color: CIVIDIS }, textStyle: { color: ink("soft-ink") }, itemWidth: 12, itemHeight: 160,
        text: [fixed(high), fixed(low)], dimension: 2,
      },
      series: of.parts.map((part, at) => ({
        type: "heatmap", xAxisIndex: at, yAxisIndex: at, name: part.title, cursor: of.onclick ? "pointer" : "default",
        data: part.values.map((value, k) => [k % n, Math.floor(k / n), value ?? "-", k]),
        label: {
          show: n <= 12, formatter: (item) => (typeof item.value[2] === "number" ? item.value[2].toFixed(2) : ""),
          fontSize: n > 8 ? 10 : 12,
        },
        itemStyle: { borderWidth: 1, borderColor: ink("card") },
        emphasis: { itemStyle: { borderColor: ink("ink"), borderWidth: 2 } },
      })),
    };
  };
  const entry = chart(node, {
    name: of.name, label: of.label, height: height(), option: () => shaded(option(), low, high),
    head: of.head, rows: of.rows,
    onclick: of.onclick && ((item) => of.onclick(item.value[3])),
  });
  return entry;
}

/** Numbers white on the dark half of the scale, black on the bright half: AA on every cell. */
function shaded(option, low, high) {
  for (const series of option.series) {
    series.data = series.data.map((value) => ({
      value, label: { color: typeof value[2] === "number" && value[2] > low + 0.55 * (high - low) ? "#000" : "#fff" },
    }));
  }
  return option;
}

/** Curves over layers with bands; of.curves: [{ name, x, y, low, high, dashed }]. */
function curves(node, of) {
  const option = () => {
    const colors = palette();
    const solid = of.curves.filter((curve) => !curve.dashed);
    const series = of.curves.flatMap((curve) => {
      const at = solid.indexOf(curve);
      const color = curve.dashed ? ink("soft-ink") : colors[at % colors.length];
      const line = {
        type: "line", name: curve.name, data: curve.x.map((x, k) => [x, curve.y[k]]), symbol: curve.dashed ? "none" : SYMBOLS[at % SYMBOLS.length],
        symbolSize: 6, lineStyle: { width: 2, color, type: curve.dashed ? "dotted" : "solid" }, itemStyle: { color },
        emphasis: { focus: "series" }, z: 3,
      };
      return curve.low ? [...band(curve, color), line] : [line];
    });
    return {
      grid: { left: 58, right: 16, top: of.curves.length > 1 ? 40 : 16, bottom: 44 },
      legend: of.curves.length > 1 ? {
        data: of.curves.map((curve) => curve.name), top: 0, textStyle: { color: ink("ink") }, type: "scroll",
        formatter: (name) => cutText(name, 28), itemGap: 14, pageTextStyle: { color: ink("ink") }, inactiveColor: ink("soft-ink"),
      } : undefined,
      xAxis: { type: "value", name: "layer", nameLocation: "middle", nameGap: 26, minInterval: 1, min: "dataMin", max: "dataMax", ...axisStyle(), splitLine: { show: false } },
      yAxis: { type: "value", name: of.unit, nameLocation: "middle", nameGap: 42, scale: false, max: of.top, min: of.bottom, ...axisStyle() },
      tooltip: tooltip((items) => {
        const layer = items[0].value[0];
        const told = of.curves.map((curve) => {
          const k = curve.x.indexOf(layer);
          if (k < 0 || curve.y[k] === null) return null;
          const range = curve.low && curve.low[k] !== null ? ` (${fixed(curve.low[k], of.digits)} to ${fixed(curve.high[k], of.digits)})` : "";
          return `${cutText(curve.name, 30)}: ${fixed(curve.y[k], of.digits)}${range}`;
        });
        return lines(`layer ${layer}`, told);
      }, "axis"),
      series,
    };
  };
  return chart(node, { ...of, option, height: of.height ?? 320 });
}

/** An interval as a translucent band: its lower edge unseen, its width stacked on it. */
function band(curve, color) {
  const common = { type: "line", stack: `band ${curve.name}`, symbol: "none", silent: true, lineStyle: { opacity: 0 }, tooltip: { show: false }, stackStrategy: "all", z: 1 };
  const has = (k) => curve.low[k] !== null && curve.high[k] !== null;
  return [
    { ...common, data: curve.x.map((x, k) => [x, has(k) ? curve.low[k] : null]) },
    { ...common, data: curve.x.map((x, k) => [x, has(k) ? curve.high[k] - curve.low[k] : null]), areaStyle: { color, opacity: 0.16 } },
  ];
}

/** Horizontal bars by category; of.series: [{ name, values, low, high }]. */
function bars(node, of) {
  const option = () => ({
    grid: { left: 8, right: 48, top: of.series.length > 1 ? 34 : 8, bottom: 28, containLabel: true },
    legend: of.series.length > 1 ? { top: 0, textStyle: { color: ink("ink") } } : undefined,
    xAxis: { type: "value", name: of.unit, nameLocation: "middle", nameGap: 24, max: of.top, ...axisStyle() },
    yAxis: { type: "category", inverse: true, data: of.categories, ...axisStyle(), splitLine: { show: false },
      axisLabel: { color: ink("ink"), formatter: (text) => cutText(text, 16) } },
    tooltip: tooltip((item) => lines(of.categories[item.dataIndex], `${item.seriesName}: ${of.format(of.series[item.seriesIndex].values[item.dataIndex])}`,
      of.tip ? of.tip(item.dataIndex) : null)),
    series: of.series.map((series, at) => ({
      type: "bar", name: series.name, data: series.values.map((value) => value ?? "-"), barMaxWidth: 16,
      itemStyle: { color: palette()[at], decal: at ? { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 3], rotation: Math.PI / 4, color: "rgba(255,255,255,.55)" } : undefined },
      label: { show: true, position: "right", color: ink("ink"), formatter: (item) => of.format(series.values[item.dataIndex]) },
    })),
  });
  return chart(node, {
    ...of, option, height: of.height ?? 60 + of.categories.length * (18 * of.series.length + 12),
    head: ["category", ...of.series.map((series) => series.name)],
    rows: () => of.categories.map((name, at) => [name, ...of.series.map((series) => series.values[at])]),
  });
}
