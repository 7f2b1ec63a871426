// Drawing without flicker: only changed cells and rows are touched, so scrolling, selection and focus stay.
// Content is a text, a list, or h(tag, attributes, …children). Texts become text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** A description of an element. The attribute `width` is a bar's share in per cent. */
export const h = (tag, attributes = {}, ...children) => ({ tag, attributes, children });

/** A link; addresses other than http and https are left out, since frameworks name some of them. */
export function link(href, text, attributes = {}) {
  const safe = ["http:", "https:"].includes(new URL(href, location.href).protocol);
  return safe ? h("a", { href, ...attributes }, text) : text;
}

const flat = (what) => (Array.isArray(what) ? what.flatMap(flat) : what === null || what === undefined ? [] : [what]);

function dress(node, attributes) {
  for (const { name } of [...node.attributes]) if (!(name in attributes) && name !== "style") node.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "width") node.style.width = `${value}%`;
    else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

/** `node` as described, or a new one in its place when it is of another kind. */
function patched(node, what) {
  if (typeof what !== "object") {
    if (node?.nodeType !== Node.TEXT_NODE) return document.createTextNode(String(what));
    if (node.nodeValue !== String(what)) node.nodeValue = String(what);
    return node;
  }
  const element = node?.nodeName === what.tag.toUpperCase() ? node : document.createElement(what.tag);
  dress(element, what.attributes);
  paint(element, what.children);
  return element;
}

/** Make `holder` contain what is described, and nothing else. */
export function paint(holder, what) {
  const wanted = flat(what);
  wanted.forEach((item, index) => {
    const there = holder.childNodes[index];
    const element = patched(there, item);
    if (!there) holder.append(element);
    else if (there !== element) there.replaceWith(element);
  });
  while (holder.childNodes.length > wanted.length) holder.lastChild.remove();
}

/**
 * Fill a table's body. Each row is {key, cells, kind?}; rows keep their element as long as their key is there.
 * A cell is what `paint` takes, or {cell: that, kind: class}. `nothing` is shown when there are no rows.
 */
export function fill(table, rows, nothing) {
  const columns = table.tHead.rows[0].cells.length;
  const wanted = rows.length ? rows : [{ key: "", cells: [{ cell: nothing, kind: "none" }] }];
  const there = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.key, row]));
  let before = null;
  for (const { key, cells, kind } of wanted) {
    const row = there.get(key) ?? Object.assign(document.createElement("tr"), { className: kind ?? "" });
    row.dataset.key = key;
    there.delete(key);
    cells.forEach((item, index) => {
      const cell = row.cells[index] ?? row.insertCell();
      const described = item?.cell !== undefined;
      cell.className = described ? (item.kind ?? "") : "";
      cell.colSpan = cells.length === 1 ? columns : 1;
      paint(cell, described ? item.cell : item);
    });
    const place = before ? before.nextSibling : table.tBodies[0].firstChild;
    if (place !== row) table.tBodies[0].insertBefore(row, place);
    before = row;
  }
  for (const row of there.values()) row.remove();
}

export const num = (value) => ({ cell: value, kind: "num" });
export const tight = (value) => ({ cell: value, kind: "tight" });
export const state = (text, kind = "", title = null) => h("span", { class: `state ${kind}`, title }, text);
export const sub = (text) => h("span", { class: "sub" }, text);

/** A bar of used and offered shares of a total; the text beside it says the same, so it is hidden from screen readers. */
export function bar(used, offered, total) {
  const share = (amount) => (total > 0 ? Math.min(100, Math.round((1000 * amount) / total) / 10) : 0);
  return h("span", { class: "bar", "aria-hidden": "true" }, h("i", { width: share(used) }), h("i", { class: "offered", width: share(offered) }));
}

export function tile(label, value, small, note, extra) {
  return h("li", {}, h("span", { class: "label" }, label), h("strong", {}, value, small ? h("small", {}, ` ${small}`) : null), h("p", {}, note ?? ""), extra);
}

export function facts(holder, entries) {
  paint(holder, entries.filter(([, value]) => value !== null && value !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
