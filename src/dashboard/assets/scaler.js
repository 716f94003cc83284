// What the scaler wants, why, and what it has cost beside a fleet of fixed size.

import { byId, draw, fill, make, named, say } from './dom.js';
import * as format from './format.js';
import { ask } from './net.js';

const READ_EVERY_MS = 15_000;

let report = null;
let acts = false;
let shown = '';

export const start = () => setInterval(() => read(), READ_EVERY_MS);

/** Shows the scaler of a frame; `null`: none acts. Of the node of this page there is a report, too. */
export const observe = ({ scaler }, isHome) => {
  if (!isHome) [acts, report] = [false, null];
  if (!scaler) {
    [acts, report] = [false, null];
    say(byId('scaler-note'), 'off');
    once('off', () => [
      make('p', { class: 'empty' }, 'No scaler acts on this node. One that does decides how many machines there are, by measured load, market hours and a forecast of the demand, within a budget. Turn it on with one variable:'),
      make('pre', { class: 'code' }, 'PEREGRINE_SCALER__ENABLED=true peregrine serve'),
    ]);
    return;
  }
  if (isHome && !acts) {
    acts = true;
    read();
  }
  paint(scaler);
};

// Asked for only while one acts: otherwise it is refused, which browsers report as a fault.
const read = async () => {
  if (!acts || document.hidden) return;
  try {
    report = await ask('v1/scaler/report');
  } catch {
    report = null; // the frame says the rest
  }
};

const paint = (scaler) => {
  say(byId('scaler-note'), `acts on ${scaler.acting_on ?? 'this node'}`);
  const saved = scaler.cost_fixed > 0 && typeof scaler.cost_so_far === 'number' ? 1 - scaler.cost_so_far / scaler.cost_fixed : null;
  const parts = [];
  parts.push(make('dl', { class: 'facts row-facts' },
    pair('Cost so far', format.money(scaler.cost_so_far, scaler.currency)),
    pair('A fixed fleet', format.money(scaler.cost_fixed, scaler.currency)),
    pair('Saved', format.percent(saved)),
    pair('Spent this month', format.money(report?.spent_this_month, scaler.currency))));
  if (saved !== null) parts.push(costs(scaler));
  const table = make('table');
  const groups = scaler.groups ?? [];
  fill(table, 'Groups of machines', [['Group'], ['Running', 'right'], ['Wanted', 'right'], ['Why', 'grow']],
    groups.map((one) => [named(one.name), format.whole(one.running), format.whole(one.wanted), one.reason ?? '']), 'no group is configured');
  parts.push(make('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-labelledby': 'scaler-title' }, table));
  const told = [
    ...(report?.actions ?? []).map(({ action, error }) => (error ? `${action}: ${error}` : action)),
    ...(report?.advice ?? []),
  ].slice(0, 6);
  if (told.length > 0) parts.push(make('h3', {}, 'Last round'), make('ul', { class: 'log' }, ...told.map((line) => make('li', {}, line))));
  once(parts.map((part) => part.outerHTML).join(), () => parts);
};

// Both costs as bars of one scale.
const costs = ({ cost_so_far: cost, cost_fixed: fixed, currency }) => {
  const most = Math.max(cost, fixed);
  const line = (name, amount, kind) => make('div', { class: 'cost' },
    make('span', {}, name),
    draw('svg', { class: `cost-bar ${kind}`, viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      draw('rect', { class: 'meter-all', width: 100, height: 8 }),
      draw('rect', { class: 'meter-used', width: most > 0 ? (amount / most) * 100 : 0, height: 8 })),
    make('span', { class: 'right' }, format.money(amount, currency)));
  return make('div', { class: 'costs' }, line('scaled', cost, 'ours'), line('fixed', fixed, 'theirs'));
};

const pair = (term, text) => make('div', {}, make('dt', {}, term), make('dd', {}, text));

const once = (key, parts) => {
  if (key === shown) return;
  shown = key;
  byId('scaler').replaceChildren(...parts());
};
