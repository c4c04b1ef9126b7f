// Views, theme and printing.

const DRAW = { overview: drawOverview, overlap: drawOverlap, depth: drawDepth, units: drawUnits, instructions: drawInstructions, statistics: () => {} };
const sections = [...document.querySelectorAll("section[data-view]")];
const drawn = new Map();

const nav = byId("nav");
nav.append(...sections.map((section) => el("a", { href: `#${section.id}` }, section.dataset.view)));
nav.hidden = false;
byId("tools").hidden = false;

/** Show a view; it is drawn when it is first shown. */
function shownView(id) {
  for (const section of sections) section.hidden = section.id !== id;
  for (const link of nav.children) {
    if (link.getAttribute("href") === `#${id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!drawn.has(id)) drawn.set(id, Promise.resolve().then(() => DRAW[id](byId(id))).catch((error) => failed(byId(id), error)));
  return drawn.get(id);
}

function failed(section, error) {
  section.append(el("p", { class: "warn" }, `This view cannot be drawn: ${error.message}`));
  console.error(error);
}

function route() {
  const id = location.hash.slice(1);
  return shownView(DRAW[id] ? id : "overview");
}
addEventListener("hashchange", route);

const pick = byId("run");
if (runs.length > 1) {
  byId("run-pick").hidden = false;
  pick.append(...runs.map((_, run) => el("option", { value: run }, nameOf(run))));
  pick.addEventListener("change", () => {
    current = Number(pick.value);
    for (const id of ["units", "instructions", "overlap"]) {
      drawn.delete(id);
      disposeIn(byId(id));
      byId(id).replaceChildren();
    }
    route();
  });
}

const THEMES = ["system", "light", "dark"];
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  byId("theme").textContent = `Theme: ${next}`;
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => { for (const node of document.querySelectorAll("#statistics details")) node.open = true; });

// Each figure of the statistics as a file, each table as CSV.
for (const figure of document.querySelectorAll("figure[data-name]")) {
  const svg = figure.querySelector("svg"), name = figure.dataset.name;
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", figure.getAttribute("aria-label"));
  figure.append(el("div", { class: "under" }, "Download",
    el("button", { type: "button", click: () => savePng(svg, name) }, "PNG"),
    el("button", { type: "button", click: () => save(`${name}.svg`, new XMLSerializer().serializeToString(svg), "image/svg+xml") }, "SVG"),
    el("button", { type: "button", click: () => save(`${name}.pdf`, Uint8Array.from(atob(byId(figure.dataset.pdf).textContent.trim()), (c) => c.charCodeAt(0)), "application/pdf") }, "PDF")));
}
for (const node of document.querySelectorAll("#statistics table")) {
  const cells = () => [...node.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  const title = node.closest("details").querySelector("h3").textContent;
  node.parentElement.after(el("div", { class: "under" }, el("button", { type: "button", click: () => { const [head, ...rows] = cells(); saveCsv(title, head, rows); } }, "Download CSV")));
}

/** An <svg> drawn at twice its size. */
function savePng(svg, name) {
  const box = svg.viewBox.baseVal, image = new Image();
  const url = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(svg))}`;
  image.onload = () => {
    const canvas = el("canvas", { width: 2 * box.width, height: 2 * box.height }), context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(`${name}.png`, blob, "image/png"));
  };
  image.src = url;
}

route();
