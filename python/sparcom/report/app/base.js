// Elements, blocks, numbers and files. Every text that comes from a run is set as textContent.

const live = document.body.dataset.live === "1";
const byId = (id) => document.getElementById(id);

/** An element with attributes (functions: listeners) and children (texts stay texts). */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

const opened = new Map();

/** A block of a run: from the page, or from the server of `sparcom view`. Read once. */
function block(run, name) {
  const key = `${run}-${name}`;
  if (!opened.has(key)) opened.set(key, live ? fetched(run, name) : unpacked(`data-${key}`));
  return opened.get(key);
}

async function fetched(run, name) {
  const answer = await fetch(`data/${run}/${encodeURIComponent(name)}`);
  if (!answer.ok) throw new Error(`the server has no ${name}: ${answer.status}`);
  return answer.json();
}

async function unpacked(id) {
  const node = byId(id);
  if (!node) return null;
  const bytes = Uint8Array.from(atob(node.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Columns as rows, which keep their number in `row`. */
function rowsOf(columns) {
  const names = Object.keys(columns).filter((name) => Array.isArray(columns[name]));
  return Array.from({ length: columns.n }, (_, row) => {
    const out = { row };
    for (const name of names) out[name] = columns[name][row];
    return out;
  });
}

const runs = [...document.querySelectorAll("h1")].map((node) => node.textContent);
const runNames = [...document.querySelectorAll("header code")].map((node) => node.textContent);
const nameOf = (run) => runNames[run] ?? runs[run];
let current = 0;

const none = "–";
const fixed = (value, digits = 3) =>
  value === null || value === undefined ? none : value.toFixed(digits);
const signed = (value, digits = 3) =>
  value === null || value === undefined ? none : (value >= 0 ? "+" : "") + value.toFixed(digits);
const percent = (value, digits = 0) =>
  value === null || value === undefined ? none : `${(100 * value).toFixed(digits)} %`;
const small = (value) =>
  value === null || value === undefined ? none
    : value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : value.toPrecision(2);
const count = (value) =>
  value === null || value === undefined ? "undetermined" : value.toLocaleString("en");
const cutText = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function say(text) { byId("status").textContent = text; }

/** Offer bytes as a file of the page; nothing leaves the browser. */
function save(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = el("a", { href: url, download: name.replace(/[^\w.-]+/g, "_") });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  say(`saved ${link.download}`);
}

/** RFC 4180; a text that a spreadsheet would take for a formula gets an apostrophe. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csv = (head, rows) => [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
const saveCsv = (name, head, rows) => save(`${name}.csv`, csv(head, rows), "text/csv");

/** A plain table. */
function table(head, rows) {
  return el("div", { class: "wide" }, el("table", {},
    el("tr", {}, head.map((text, at) => el("th", { scope: "col", class: at ? "n" : null }, text))),
    rows.map((row) => el("tr", {}, row.map((cell, at) => el("td", { class: at ? "n" : null }, cell ?? none))))));
}

/** A select with a label; options: [value, text] each. */
function picker(label, options, onchange, value) {
  const select = el("select", { change: () => onchange(select.value) },
    options.map(([of, text]) => el("option", { value: of, selected: of === value }, text)));
  return { node: el("label", {}, label, select), select };
}

const dialog = byId("dialog");
byId("dialog-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => disposeIn(byId("dialog-body")));

/** Show something over the page; Escape closes it and gives the focus back. */
function show(title, build) {
  const body = byId("dialog-body");
  disposeIn(body);
  byId("dialog-title").textContent = title;
  body.replaceChildren();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  build(body);
}
