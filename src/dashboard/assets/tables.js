// Devices, breakers, actors and alerts of a node.

import { bar, byId, fill, make, mark, named, say, state } from './dom.js';
import * as format from './format.js';

const count = (list, one, many) => (list.length === 1 ? `1 ${one}` : `${list.length} ${many}`);

// `gpu`, and `gpu-1` for the second of them.
const kind = (one) => (one.device > 0 ? `${one.backend}-${one.device}` : one.backend);

export const showDevices = ({ devices }) => {
  say(byId('devices-note'), count(devices, 'device', 'devices'));
  const meters = devices.some((one) => typeof one.temperature_celsius === 'number');
  const columns = [['Device'], ['State'], ['Busy', 'right'], ['Queued rows', 'right']];
  if (meters) columns.push(['Used', 'right'], ['Memory', 'right'], ['°C', 'right'], ['W', 'right']);
  const rows = devices.map((one) => {
    const cells = [
      named(make('b', {}, kind(one)), ` ${one.name}`),
      [state(one.state, one.state === 'up' ? 'good' : 'bad'), one.reason ? make('small', {}, ` ${one.reason}`) : null].filter(Boolean),
      bar(one.busy_share, format.percent(one.busy_share)),
      format.whole(one.queue_rows),
    ];
    if (meters) {
      const share = one.memory_total_bytes > 0 ? one.memory_used_bytes / one.memory_total_bytes : null;
      cells.push(
        bar(one.utilisation, format.percent(one.utilisation)),
        bar(share, format.bytes(one.memory_used_bytes)),
        format.whole(one.temperature_celsius),
        format.whole(one.power_watts),
      );
    }
    return cells;
  });
  fill(byId('devices'), 'Devices that compute', columns, rows, 'no device is open');
};

const CIRCUIT = { closed: 'good', 'half-open': 'fair', half_open: 'fair', open: 'bad', 'forced-open': 'bad', forced_open: 'bad' };
const URGENCY = { bad: 0, fair: 1, none: 2, good: 3 };

export const showBreakers = ({ breakers }) => {
  const closed = breakers.filter((one) => CIRCUIT[one.state] === 'good').length;
  say(byId('breakers-note'), closed === breakers.length ? `all ${closed} closed: traffic goes through` : `${breakers.length - closed} of ${breakers.length} not closed`);
  const mood = (one) => CIRCUIT[one.state] ?? 'none';
  const sorted = [...breakers].sort((a, b) => URGENCY[mood(a)] - URGENCY[mood(b)]);
  const rows = sorted.map((one) => [
    named(one.node ? `node ${one.node}` : `${one.model} ${one.version}`),
    kind(one) ?? format.NONE,
    state(one.state.replace('_', '-'), mood(one)),
    one.mode,
    format.whole(one.failures),
    one.reason || (typeof one.probe_in_ms === 'number' ? `probe in ${format.millis(one.probe_in_ms)}` : ''),
  ]);
  const columns = [['Guards'], ['Backend'], ['State'], ['Mode', 'wide-only'], ['Failures', 'right'], ['Why', 'grow']];
  fill(byId('breakers'), 'Circuit breakers', columns, rows, 'no breaker yet');
};

const LIFE = { running: 'good', up: 'good', starting: 'fair', restarting: 'fair', backoff: 'fair', waiting: 'fair', stopping: 'fair' };

export const showActors = ({ actors }) => {
  const parents = new Map(actors.map((one) => [one.name, one.parent]));
  const depth = (name) => {
    let steps = 0;
    for (let at = parents.get(name); at && steps < 16; at = parents.get(at)) steps += 1;
    return steps;
  };
  const restarts = actors.reduce((sum, one) => sum + (one.restarts ?? 0), 0);
  say(byId('actors-note'), `${count(actors, 'actor', 'actors')}, ${restarts === 1 ? '1 restart' : `${restarts} restarts`}`);
  const rows = actors.map((one) => [
    make('span', { class: `name depth-${Math.min(5, depth(one.name))}` }, one.name),
    state(one.state, LIFE[one.state] ?? (one.state === 'stopped' ? 'none' : 'bad')),
    format.whole(one.mailbox_depth),
    format.rate(one.messages_rate),
    format.whole(one.restarts),
    failure(one.last_failure),
  ]);
  const columns = [['Actor'], ['State'], ['Mailbox', 'right'], ['Messages /s', 'right'], ['Restarts', 'right'], ['Last failure', 'grow']];
  fill(byId('actors'), 'Actors, children below their parents', columns, rows, 'no actor is watched');
};

const failure = (one) => {
  if (one === null || one === undefined) return '';
  if (typeof one !== 'object') return String(one);
  return String(one.failure ?? JSON.stringify(one));
};

let known = null;

/** Shows what is wrong, and says aloud what is new of it. */
export const showAlerts = ({ alerts }, now) => {
  const firing = alerts.filter((one) => one.state === 'firing');
  const pending = alerts.filter((one) => one.state !== 'firing');
  const told = [];
  if (firing.length > 0) told.push(count(firing, 'alert fires', 'alerts fire'));
  if (pending.length > 0) told.push(count(pending, 'alert pending', 'alerts pending'));
  say(byId('alerts-note'), told.join(', ') || 'nothing is wrong');
  const isCalm = alerts.length === 0;
  mark(byId('alerts-note'), firing.some((one) => one.severity === 'critical') ? 'bad' : firing.length > 0 ? 'fair' : isCalm ? 'good' : null);
  const first = (one) => (one.state === 'firing' ? 0 : 2) + (one.severity === 'critical' ? 0 : 1);
  const sorted = [...alerts].sort((a, b) => first(a) - first(b));
  const box = byId('alerts');
  const next = alerts.length > 0
    ? make('ul', { class: 'alerts' }, ...sorted.map((one) => item(one, now)))
    : make('p', { class: 'empty' }, 'No rule is broken. Rules are in [alerts.rules] of the configuration; a webhook tells whom you name.');
  if (!box.firstElementChild?.isEqualNode(next)) box.replaceChildren(next);
  const names = new Set(firing.map((one) => one.fingerprint ?? one.rule));
  if (known) {
    const fresh = firing.filter((one) => !known.has(one.fingerprint ?? one.rule));
    const critical = fresh.filter((one) => one.severity === 'critical');
    if (critical.length > 0) say(byId('said-alert'), critical.map((one) => `Critical alert: ${one.summary}`).join('. '));
    else if (fresh.length > 0) say(byId('said'), fresh.map((one) => `Alert: ${one.summary}`).join('. '));
  }
  known = names;
};

/** Nobody knows what is wrong by now. */
export const doubtAlerts = () => {
  say(byId('alerts-note'), 'unknown');
  mark(byId('alerts-note'), null);
};

const item = (one, now) => {
  const mood = one.state !== 'firing' ? 'none' : one.severity === 'critical' ? 'bad' : 'fair';
  const labels = Object.entries(one.labels ?? {}).map(([name, text]) => `${name} ${text}`).join(', ');
  // To the minute: a list that changes each second cannot be read aloud.
  const since = Math.floor((now - Date.parse(one.fired_at ?? one.bad_since)) / 60_000);
  const when = Number.isFinite(since) ? (since < 1 ? 'for less than a minute' : `for ${format.lasting(since * 60).replace(' 0 s', '')}`) : '';
  return make('li', { 'data-mood': mood },
    make('b', {}, state(`${one.severity}, ${one.state}`, mood)),
    make('span', {}, one.summary),
    make('small', {}, [one.rule, labels, when].filter(Boolean).join(' · ')));
};
