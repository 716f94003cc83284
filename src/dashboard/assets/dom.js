// Elements from values. Text is set as text: nothing that a server says is ever taken for markup.

/** An element with attributes, and children that are elements or text. */
export const make = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  set(node, attributes);
  add(node, children);
  return node;
};

const SVG = 'http://www.w3.org/2000/svg';

/** The same, for pictures. */
export const draw = (tag, attributes, ...children) => {
  const node = document.createElementNS(SVG, tag);
  set(node, attributes);
  add(node, children);
  return node;
};

// What turns the direction of what stands beside it, or is not seen at all: two names would look alike.
const UNSEEN = /[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** A name as it can be told from others. */
export const visible = (text) => String(text).replace(UNSEEN, '\ufffd');

export const byId = (id) => document.getElementById(id);

/** Sets text only when it differs, so that a selection, or a reader that looks on, is left alone. */
export const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/** Puts terms and their values into a list of definitions; rows that are there already are kept. */
export const define = (list, rows) => {
  rows.forEach(([term, value, hint, mood], at) => {
    let box = list.children[at];
    if (!box) {
      box = make('div', {}, make('dt'), make('dd'));
      list.append(box);
    }
    say(box.firstChild, term);
    say(box.lastChild, value);
    box.title = hint ?? '';
    mark(box, mood);
  });
  while (list.children.length > rows.length) list.lastChild.remove();
};

/** How something fares, for colours; what it means is said in words beside. */
export const mark = (node, mood) => {
  if (mood) node.dataset.mood = mood;
  else delete node.dataset.mood;
};

/** A state as a word behind a sign whose form tells it too. */
export const state = (word, mood) => {
  const sign = { good: '●', fair: '▲', bad: '■', none: '○' }[mood] ?? '○';
  return make('span', { class: 'state', 'data-mood': mood }, make('span', { 'aria-hidden': 'true' }, sign), ` ${word}`);
};

/** A name that somebody gave: however long, it wraps, and leaves room for what is said of it. */
export const named = (...parts) => make('span', { class: 'name' }, ...parts.map((part) => (typeof part === 'string' ? visible(part) : part)));

/** A share between 0 and 1 as a bar, with its number. */
export const bar = (share, text) => {
  if (share === null || share === undefined) return '–';
  const wide = Math.round(Math.min(1, Math.max(0, share)) * 60);
  const picture = draw('svg', { class: 'meter', viewBox: '0 0 60 8', width: 60, height: 8, 'aria-hidden': 'true' });
  picture.append(draw('rect', { class: 'meter-all', width: 60, height: 8, rx: 2 }));
  if (wide > 0) picture.append(draw('rect', { class: 'meter-used', width: Math.max(2, wide), height: 8, rx: 2 }));
  return make('span', { class: 'metered' }, picture, text);
};

const ROWS_MAX = 200;

/**
 * Fills a table: `columns` are [title, class], `rows` lists of cells, the first of which names its row. A cell is text,
 * an element, or a list of both.
 */
export const fill = (table, caption, columns, rows, empty) => {
  const key = JSON.stringify(columns);
  if (table.dataset.columns !== key) {
    table.dataset.columns = key;
    const head = make('tr', {}, ...columns.map(([title, kind]) => make('th', { scope: 'col', class: kind }, title)));
    table.replaceChildren(make('caption', { class: 'unseen' }, caption), make('thead', {}, head), make('tbody'));
  }
  const body = table.tBodies[0];
  const shown = rows.slice(0, ROWS_MAX);
  const lines = shown.map((cells) =>
    make('tr', {}, ...cells.map((cell, at) => {
      const [, kind] = columns[at];
      const inner = Array.isArray(cell) ? cell : [cell];
      return at === 0 ? make('th', { scope: 'row', class: kind }, ...inner) : make('td', { class: kind }, ...inner);
    })));
  const more = rows.length - shown.length;
  const text = rows.length === 0 ? empty : more > 0 ? `and ${more} more` : null;
  if (text) lines.push(make('tr', { class: 'rest' }, make('td', { colspan: columns.length }, text)));
  patch(body, lines);
};

// Rows that say the same stay: focus and selections survive, and a browser lays out what has changed alone.
const patch = (body, lines) => {
  const held = body.contains(document.activeElement) ? called(document.activeElement.closest('tr')) : null;
  lines.forEach((line, at) => {
    const old = body.children[at];
    if (!old) body.append(line);
    else if (!old.isEqualNode(line)) {
      if (old.contains(document.activeElement) && called(line) === held) mend(old, line);
      else old.replaceWith(line);
    }
  });
  while (body.children.length > lines.length) body.lastChild.remove();
  // Whoever is on the button of a row stays on it, wherever the row is now.
  if (held !== null && !body.contains(document.activeElement)) {
    [...body.rows].find((row) => called(row) === held)?.querySelector('button')?.focus({ preventScroll: true });
  }
};

// Which row it is, whatever else is said in it.
const called = ({ cells }) => `${cells[0].textContent}\n${cells[1]?.textContent}`;

// A row whose button has the focus: its other cells are replaced.
const mend = (old, line) => {
  [...line.children].forEach((cell, at) => {
    const was = old.children[at];
    if (was && !was.contains(document.activeElement)) was.replaceWith(cell);
  });
};

const set = (node, attributes) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
};

const add = (node, children) => {
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
};
