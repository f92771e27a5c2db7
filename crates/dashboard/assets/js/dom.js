// Builds and changes elements. Text is always set as text, so that no name or message can become markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes (a `null` or `false` one is left out, `on*` is a listener) and children. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets text only when it differs: an untouched node costs no layout and is not announced again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or, for `null`, removes an attribute, only when it differs. */
export function setAttribute(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

/**
 * Makes the children of `parent` follow `items`: one child per key, in order, made once and updated afterwards, so
 * that focus and selection survive an update.
 */
export function keyed(parent, items, key, make, update) {
  const known = parent.keyedChildren ?? (parent.keyedChildren = new Map());
  const wanted = new Set(items.map(key));
  for (const [name, child] of known) {
    if (!wanted.has(name)) {
      child.node.remove();
      known.delete(name);
    }
  }
  let previous = null;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    if (!child) {
      child = make(item);
      known.set(name, child);
    }
    const expected = previous === null ? parent.firstChild : previous.nextSibling;
    if (child.node !== expected) parent.insertBefore(child.node, expected);
    update(child, item);
    previous = child.node;
  }
}
