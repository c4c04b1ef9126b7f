// Tables that sort, filter and page, by AG Grid (vendor/): its cells show values as text.

const gridTheme = agGrid.themeQuartz.withParams({
  accentColor: "var(--accent)", backgroundColor: "var(--card)", foregroundColor: "var(--ink)",
  textColor: "var(--ink)", borderColor: "var(--line)", headerBackgroundColor: "var(--soft)",
  headerTextColor: "var(--ink)", chromeBackgroundColor: "var(--soft)", browserColorScheme: "inherit",
  fontFamily: "inherit", fontSize: 14, rowHeight: 36, headerHeight: 38,
});

/**
 * A grid in a node.
 * of: { name, label, columns, rows, filter: (row) => bool, onopen: (row), onshown: (number), short }
 * columns: { head, value: (row) => any, format: (value, row) => text, number, width, flex, open, group, help }
 */
function grid(node, of) {
  const definitions = of.columns.map((column) => definition(column, of));
  const groups = [];
  of.columns.forEach((column, at) => {
    const last = groups.at(-1);
    if (column.group && last?.headerName === column.group) last.children.push(definitions[at]);
    else if (column.group) groups.push({ headerName: column.group, children: [definitions[at]], marryChildren: true });
    else groups.push(definitions[at]);
  });
  const place = el("div", { class: of.short ? "grid short" : "grid" });
  const saved = el("button", { type: "button", class: "small", click: () => saveCsv(of.name, of.columns.map(headOf), rows()) }, "Download CSV");
  node.replaceChildren(place, el("div", { class: "under" }, saved));
  const api = agGrid.createGrid(place, {
    theme: gridTheme, columnDefs: groups, rowData: of.rows, animateRows: false, ensureDomOrder: true,
    domLayout: of.short ? "autoHeight" : "normal", enableCellTextSelection: true, suppressMovableColumns: true,
    isExternalFilterPresent: () => Boolean(of.filter), doesExternalFilterPass: (item) => of.filter(item.data),
    suppressDragLeaveHidesColumns: true, alwaysMultiSort: false, tooltipShowDelay: 900,
    defaultColDef: { sortable: true, resizable: true, sortingOrder: ["desc", "asc", null], suppressHeaderMenuButton: true, wrapHeaderText: true, autoHeaderHeight: true },
    onRowClicked: (event) => { if (of.onopen && !String(getSelection())) of.onopen(event.data); },
    onCellKeyDown: (event) => { if (of.onopen && event.event.key === "Enter") of.onopen(event.data); },
    onModelUpdated: (event) => of.onshown?.(event.api.getDisplayedRowCount()),
    overlayNoRowsTemplate: undefined, rowStyle: of.onopen ? { cursor: "pointer" } : undefined,
  });
  const rows = () => {
    const out = [];
    api.forEachNodeAfterFilterAndSort((item) => out.push(of.columns.map((column) => column.value(item.data))));
    return out;
  };
  place.querySelector("[role=grid], [role=treegrid]")?.setAttribute("aria-label", of.label);
  return api;
}

const headOf = (column) => (column.group ? `${column.head} (${column.group})` : column.head);

function definition(column, of) {
  const text = (item) => {
    const value = column.value(item.data);
    return column.format ? column.format(value, item.data) : value ?? none;
  };
  return {
    headerName: column.head, headerTooltip: column.help, colId: column.id ?? headOf(column), valueGetter: (item) => column.value(item.data), valueFormatter: text,
    type: column.number ? "rightAligned" : undefined, width: column.width, flex: column.flex, minWidth: column.flex ? column.width : undefined,
    hide: column.hide, sort: column.sort, sortIndex: column.sortIndex, comparator: compared,
    cellRenderer: column.open && of.onopen ? (item) => el("button", { type: "button", class: "link", tabindex: "-1" }, text(item)) : undefined,
    tooltipValueGetter: column.flex ? text : undefined,
  };
}

/** By value; what is not known comes last in either order. */
function compared(a, b, _one, _other, descending) {
  const unknown = (a === null || a === undefined) - (b === null || b === undefined);
  if (unknown) return descending ? -unknown : unknown;
  if (typeof a === "number") return a - b;
  return String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true });
}
