// One recorded prediction, looked up.

import { byId, define, make } from './dom.js';
import * as format from './format.js';
import { ask, Refusal } from './net.js';

/** `newest()` names the prediction on screen; `refused` is told of answers that want another key. */
export const start = (newest, refused) => {
  const input = byId('audit-id');
  byId('audit-form').addEventListener('submit', (event) => {
    event.preventDefault();
    look(input.value.trim(), refused);
  });
  byId('audit-last').addEventListener('click', () => {
    input.value = newest();
    if (input.value) look(input.value, refused);
  });
};

const look = async (id, refused) => {
  const box = byId('audit');
  if (!id) return;
  box.setAttribute('aria-busy', 'true');
  try {
    const record = await ask(`v1/audit/${encodeURIComponent(id)}`);
    box.replaceChildren(...view(record));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const hint = error.status === 503 ? ' Records are kept where audit.dir names a folder: PEREGRINE_AUDIT__DIR=/data/audit.' : '';
    box.replaceChildren(make('p', { class: 'empty' }, `${error.message}.${hint}`));
    if (error.wantsKey) refused(error);
  } finally {
    box.removeAttribute('aria-busy');
  }
};

const view = (record) => {
  const facts = make('dl', { class: 'facts columns' });
  const timing = record.timing_ms ?? {};
  define(facts, [
    ['Answered', new Date(record.at_ms).toISOString().replace('T', ' ').replace('Z', ' UTC')],
    ['Model', `${record.model}, version ${record.model_version}`],
    ['Computed by', `${record.backend} on ${record.node} in ${record.region}${record.degraded ? ', degraded' : ''}`],
    ['Took', `${format.millis(timing.total)}: ${format.millis(timing.queue)} queued, ${format.millis(timing.compute)} computed`],
    ['Rows', `${format.whole(record.rows_count)} of a batch of ${format.whole(record.batch_rows)}`],
    ['Caller', record.caller || 'no key'],
    ['Weights SHA-256', record.sha256],
    ['Window SHA-256', record.window_sha256],
    ['Chain', record.intact ? `intact: segment ${record.segment}, at ${record.at}` : 'CHANGED: not what the chain says', null, record.intact ? 'good' : 'bad'],
  ]);
  const rows = (record.rows ?? []).slice(0, 20).map((row) => {
    const name = row.series ? `${row.series}${row.seq ? `, number ${format.whole(row.seq)}` : ''}` : 'one row';
    return make('details', { open: record.rows.length === 1 },
      make('summary', {}, `${name} — ${row.prediction_id}`),
      numbers('Forecast', row.forecast), numbers('Window', row.y));
  });
  return [facts, ...rows];
};

const numbers = (title, list) => make('div', {},
  make('h3', {}, `${title}, ${list.length} numbers`),
  make('p', { class: 'many', tabindex: '0' }, list.map((one) => (one === null ? 'none' : format.plain(one))).join('  ')));
