// Models and their versions: how they do, who answers what, and the orders that change it.

import { byId, fill, make, named, say, state } from './dom.js';
import * as format from './format.js';
import { ask, Refusal } from './net.js';

const READ_EVERY_MS = 5000;
const READ_MAX = 50;
const FIND_FROM = 20;
const LIFE = { ready: 'good', loading: 'fair', warming: 'fair', unloading: 'fair', remote: 'none', unavailable: 'none' };

// Of the node of this page, which alone is asked and ordered; null: it is known that there is none.
const releases = new Map();
let home = null;
let isHome = true;
let uptime = 0;
let versions = new Map();
let turn = 0;
let told = () => {};
let open = null;
let orders = null;
let latest = null;

/** Begins to read releases; `refused` is told of answers that want another key. */
export const start = (refused) => {
  told = refused;
  byId('models').addEventListener('click', (event) => {
    const name = event.target.closest('button')?.dataset.model;
    if (name) show(name);
  });
  const dialog = byId('release-dialog');
  byId('release-close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => {
    // Told some time after it was closed: it may be open again, for another model.
    if (dialog.open) return;
    // The row from which it was opened may be another by now.
    const rows = [...byId('models').querySelectorAll('button')];
    const at = document.activeElement;
    if (at === document.body || dialog.contains(at)) rows.find(({ dataset }) => dataset.model === open)?.focus();
    [open, orders] = [null, null];
  });
  byId('release-body').addEventListener('click', (event) => {
    const order = event.target.closest('button')?.dataset;
    if (order?.order) confirm(order);
  });
  byId('models-find').addEventListener('input', () => {
    if (latest) table(latest);
  });
  setInterval(() => {
    if (!document.hidden && byId('link').dataset.state === 'live') refresh();
  }, READ_EVERY_MS);
};

/** Shows the models of a frame; `ours` is the node of this page, whose releases can be read and ordered here. */
export const observe = ({ models, node }, ours) => {
  const isAnother = home !== ours || isHome !== (node.name === ours) || node.uptime_seconds < uptime;
  [home, isHome, uptime] = [ours, node.name === ours, node.uptime_seconds];
  if (isAnother) releases.clear(); // they end with their node
  if (!isHome && open) byId('release-dialog').close();
  const next = new Map();
  for (const one of models) next.set(one.name, [...(next.get(one.name) ?? []), String(one.version)]);
  const isNew = [...next].some(([name, list]) => list.length > 1 && !(versions.get(name)?.length > 1));
  versions = next;
  if (isNew || isAnother) refresh();
  latest = { models, node };
  table(latest);
};

const table = ({ models, node }) => {
  byId('models-pick').hidden = models.length <= FIND_FROM;
  const sought = byId('models-pick').hidden ? '' : byId('models-find').value.trim().toLowerCase();
  const found = models.filter(({ name }) => name.toLowerCase().includes(sought));
  // What does not serve stands where it is seen, however many there are.
  found.sort((a, b) => (a.state === 'ready') - (b.state === 'ready'));
  const ready = models.filter((one) => one.state === 'ready').length;
  const elsewhere = isHome ? '' : `; shares and orders are on the dashboard of ${node.name} itself`;
  say(byId('models-note'), `${ready} of ${models.length} ready; a row is one forecast, asked for or on a tick, and an answer has one or more${elsewhere}`);
  const columns = [
    ['Model'], ['Version'], ['State'], ['Share', 'right'], ['Answers /s', 'right'], ['Rows /s', 'right'], ['Failed /s', 'right wide-only'],
    ['p50', 'right'], ['p95', 'right'], ['p99', 'right'], ['Queue p99', 'right wide-only'], ['Compute p99', 'right wide-only'],
    ['Batch', 'right wide-only'], ['Versions'],
  ];
  const rows = found.map((one) => {
    const button = make('button', { type: 'button', 'data-model': one.name, class: 'small', 'aria-label': `Manage ${one.name}` }, 'Manage');
    return [
      named(one.name, make('small', {}, ` ${one.family ?? ''}`)),
      String(one.version),
      state(one.state, LIFE[one.state] ?? 'bad'),
      share(one),
      format.rate(one.rate),
      format.rate(one.rows_rate),
      format.rate(one.failed_rate),
      format.millis(one.p50_ms),
      format.millis(one.p95_ms),
      format.millis(one.p99_ms),
      format.millis(one.queue_p99_ms),
      format.millis(one.compute_p99_ms),
      format.number(one.batch_rows_mean),
      isHome ? button : named(make('small', {}, `on ${node.name}`)),
    ];
  });
  fill(byId('models'), 'Models that are served', columns, rows, models.length > 0 ? 'no model is called that' : 'no model is loaded');
};

// Of the requests that name no version.
const share = (one) => {
  if (!isHome) return format.NONE;
  const list = versions.get(one.name) ?? [];
  if (list.length === 1) return '100 %';
  const known = releases.get(one.name);
  if (known === undefined) return '…';
  if (known === null) return String(one.version) === highest(list) ? '100 %' : '0 %';
  const portion = known.versions.find((portion) => portion.version === String(one.version));
  return format.percent(portion?.share ?? 0);
};

const highest = (list) => list.reduce((best, version) => (Number(version) > Number(best) ? version : best), list[0]);

// Releases of models that have several versions, and of the one that is looked at.
const refresh = async () => {
  if (!isHome) return;
  const all = [...versions].filter(([, list]) => list.length > 1).map(([name]) => name);
  // Where there are very many, some at a time.
  turn = turn < all.length ? turn : 0;
  const names = all.slice(turn, turn + READ_MAX);
  turn += READ_MAX;
  if (open && !names.includes(open)) names.push(open);
  await Promise.all(names.map(read));
  if (open && !orders) paint();
};

const read = async (name) => {
  try {
    const { release } = await ask(`v1/models/${encodeURIComponent(name)}`);
    releases.set(name, release ?? null);
  } catch (error) {
    if (name === open) say(byId('release-wrong'), error.message);
    if (error.wantsKey) told(error);
  }
};

const show = (name) => {
  [open, orders] = [name, null];
  say(byId('release-title'), `Versions of ${name} on ${home}`);
  say(byId('release-wrong'), '');
  paint();
  byId('release-dialog').showModal();
  refresh();
};

// Whoever is on a button stays on it when all is written anew; whoever leaves a question returns to where it was asked.
const write = (parts, from) => {
  const body = byId('release-body');
  const at = body.contains(document.activeElement) ? document.activeElement.dataset : null;
  const was = at?.order ? at : from;
  body.replaceChildren(...parts);
  if (!was) return;
  const same = ({ dataset }) => dataset.order === was.order && dataset.version === was.version;
  ([...body.querySelectorAll('button')].find(same) ?? byId('release-close')).focus();
};

const paint = (from) => {
  const release = releases.get(open);
  if (release === undefined) {
    write([make('p', {}, 'Asking who answers …')], from);
    return;
  }
  const list = versions.get(open) ?? [];
  const stable = release?.stable ?? highest(list);
  const rows = list.map((version) => {
    const seen = release?.versions.find((one) => one.version === version);
    const role = version === stable ? 'stable' : version === release?.canary?.version ? 'canary' : version === release?.shadow?.version ? 'shadow' : 'loaded';
    return [
      version,
      role,
      share({ name: open, version }),
      make('button', { type: 'button', class: 'small', 'data-order': 'promote', 'data-version': version }, `Promote ${version}`),
      format.whole(seen?.requests),
      format.whole(seen?.failed),
      format.millis(seen?.requests > 0 ? seen.p95_ms : null),
    ];
  });
  const versioned = make('table', { id: 'release-table' });
  fill(versioned, 'Versions and their traffic', [['Version'], ['Role'], ['Share', 'right'], ['Order'], ['Requests', 'right'], ['Failed', 'right'], ['p95', 'right']], rows, 'no version is loaded');
  const canary = release?.canary;
  const others = list.filter((version) => version !== stable);
  const buttons = make('div', { class: 'row' },
    make('button', { type: 'button', 'data-order': 'rollback' }, 'Roll back'),
    ...others.map((version) => make('button', { type: 'button', 'data-order': 'canary', 'data-version': version }, `Canary ${version}`)),
    ...others.map((version) => make('button', { type: 'button', 'data-order': 'shadow', 'data-version': version }, `Shadow ${version}`)),
    release?.shadow ? make('button', { type: 'button', 'data-order': 'shadow' }, 'End shadow') : null,
    release ? make('button', { type: 'button', 'data-order': 'split' }, 'End release') : null);
  const log = (release?.log ?? []).slice(0, 8).map(({ ago_s: age, what }) => make('li', {}, `${format.lasting(age)} ago: ${what}`));
  write([
    make('p', {}, release ? `Plan: ${release.plan}; version ${release.stable} is stable.` : `No release: the highest version, ${stable}, answers whoever names none.`),
    canary ? make('p', {}, `Canary ${canary.version} at ${canary.percent} % since ${format.lasting(canary.step_age_s)}${canary.waiting ? `; waits: ${canary.waiting}` : ''}.`) : '',
    release?.shadow ? make('p', {}, `Shadow ${release.shadow.version}: ${format.whole(release.shadow.compared)} compared, ${format.whole(release.shadow.differing)} differ.`) : '',
    make('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-labelledby': 'release-title' }, versioned), buttons,
    log.length > 0 ? make('h3', {}, 'What was done') : '', log.length > 0 ? make('ul', { class: 'log' }, ...log) : '',
  ], from);
};

const NAMES = { promote: 'Promote', rollback: 'Roll back', canary: 'Begin the canary', shadow: 'Change the shadow', split: 'End the release' };

// Of which model, and on which node.
const meant = () => `${open} on ${home}`;

const ORDERS = {
  promote: ({ version }) => [`Version ${version} of ${meant()} answers everything, at once.`, { version: Number(version) }],
  rollback: () => [`${meant()} goes back: the stable version answers everything, or, if it does already, the one before it.`, {}],
  canary: ({ version }) => [`Version ${version} of ${meant()} gets 1, 10, 50, then 100 % of the traffic, a minute at least each, and is taken back if more of its requests fail, if it is slower or, where predictions are scored, if their error is 1.2 times that of the stable version.`,
    { version: Number(version), steps: [1, 10, 50, 100], hold_ms: 60_000 }],
  shadow: ({ version }) => (version
    ? [`Version ${version} of ${meant()} is asked what others answer; its answers are compared and thrown away.`, { version: Number(version) }]
    : [`No version of ${meant()} is shadow any more.`, {}]),
  split: () => [`The release of ${meant()} ends: its highest version answers.`, { weights: {} }],
};

// Nothing that changes who answers is done by one click.
const confirm = (order) => {
  const name = open;
  const [sentence, body] = ORDERS[order.order](order);
  orders = order;
  const act = make('button', { type: 'button', class: 'main' }, NAMES[order.order]);
  const leave = make('button', { type: 'button' }, 'Leave it');
  byId('release-body').replaceChildren(make('p', { class: 'sure' }, sentence), make('div', { class: 'row' }, act, leave));
  act.focus();
  leave.addEventListener('click', () => {
    orders = null;
    paint(order);
  });
  act.addEventListener('click', async () => {
    act.disabled = true;
    say(byId('release-wrong'), '');
    try {
      const { release } = await ask(`v1/models/${encodeURIComponent(name)}/${order.order}`, body);
      releases.set(name, release ?? null);
      say(byId('said'), `Done: ${sentence}`);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      say(byId('release-wrong'), error.message);
      if (error.wantsKey) told(error);
    }
    if (orders !== order) return; // the dialog is about something else by now
    orders = null;
    paint(order);
  });
};
