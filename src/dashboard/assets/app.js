// The page: one frame a second of the overview into its panels, the stream into the forecast, and what both need.

import * as audit from './audit.js';
import * as charts from './charts.js';
import { byId, define, make, mark, say, state } from './dom.js';
import { Fan } from './fan.js';
import * as format from './format.js';
import * as map from './map.js';
import * as models from './models.js';
import { ask, key, Socket } from './net.js';
import * as scaler from './scaler.js';
import * as tables from './tables.js';
import * as theme from './theme.js';

const SILENCE_MS = 6000;

let node = '';
let home = null;
let paused = false;
let latest = null;
let heard = null;
let isHeard = false;
let version = null;
let lost = null;
let wasLost = false;
let isRefused = false;
let isDeclined = false;
let isUsed = false;

theme.start(byId('theme'));

const fan = new Fan({ refused: wantKey, isLive: () => lost === null });

const overview = new Socket('v1/overview/stream', SILENCE_MS, {
  message: (frame) => observe(frame),
  state: (name, detail) => connection(name, detail),
});

function observe(frame) {
  if (frame.error) {
    note(`${node}: ${frame.error}`);
    silence();
    return;
  }
  note('');
  if (node === '') home = frame.node.name;
  charts.observe(frame); // the past comes once, with the first frame
  latest = frame;
  [heard, isHeard] = [Date.now(), true];
  if (version !== null && version !== frame.node.version) stale(frame.node.version);
  version ??= frame.node.version;
  show();
}

function show() {
  if (!latest || paused || document.hidden) return;
  const frame = latest;
  header(frame);
  numbers(frame);
  charts.show();
  models.observe(frame, home);
  tables.showAlerts(frame, frame.at);
  map.show(frame);
  tables.showDevices(frame);
  tables.showBreakers(frame);
  tables.showActors(frame);
  scaler.observe(frame, frame.node.name === home);
  document.body.toggleAttribute('data-silent', !isHeard);
  byId('silence').hidden = isHeard;
  if (!isHeard) silence();
}

// What is on screen is of the past, and must not look like now.
function silence() {
  isHeard = false;
  if (!latest) return;
  const { name } = latest.node;
  document.body.toggleAttribute('data-silent', true);
  byId('silence').hidden = false;
  const wanted = node || home;
  say(byId('silence'), name === wanted
    ? `Nothing was heard of ${name} since ${format.clock(heard)}: what is grey is of then.`
    : `Nothing was heard of ${wanted} yet: what is grey is of ${name}, of ${format.clock(heard)}.`);
  byId('node-ready').replaceChildren(state('unknown', 'none'));
  byId('node-ready').title = '';
  document.title = `○ ${name} · peregrine`;
  tables.doubtAlerts();
}

function header({ node: one, cluster }) {
  say(byId('node-name'), one.name);
  // Whoever is looked at, this node streams the forecast and looks up records.
  const isHome = one.name === home;
  say(byId('fan-title'), isHome ? 'Forecast' : `Forecast, by ${home}`);
  say(byId('audit-title'), isHome ? 'Audit' : `Audit, by ${home}`);
  byId('cut').hidden = !latest.cut;
  say(byId('node-region'), one.region);
  say(byId('node-version'), one.version);
  say(byId('node-uptime'), format.lasting(one.uptime_seconds));
  const word = one.ready ? 'ready' : 'not ready';
  const box = byId('node-ready');
  if (box.textContent.trim().slice(2) !== word) box.replaceChildren(state(word, one.ready ? 'good' : 'bad'));
  box.title = (one.reasons ?? []).join('; ');
  document.title = `${one.ready ? '' : '■ '}${one.name} · peregrine`;
  const names = (cluster.members ?? []).map((member) => member.node).sort();
  const select = byId('node-select');
  byId('node-pick').hidden = names.length < 2;
  if ([...select.options].map((option) => option.value).join() !== names.join() && document.activeElement !== select) {
    select.replaceChildren(...names.map((name) => make('option', { value: name }, name)));
  }
  if (document.activeElement !== select) select.value = one.name;
}

function numbers({ requests, streams, system }) {
  const memory = system.memory_total_bytes > 0 ? system.memory_used_bytes / system.memory_total_bytes : null;
  const errors = requests.rate > 0 ? requests.error_rate / requests.rate : null;
  define(byId('numbers'), [
    ['Forecasts asked', `${format.rate(requests.rate)} /s`, 'Answers to requests; what follows ticks is counted beside'],
    ['Predicted on ticks', `${format.rate(streams.predictions_rate)} /s`, 'What followed ticks, for subscribers'],
    ['Ticks', `${format.rate(streams.ticks_rate)} /s`],
    ['Asked, p50', format.millis(requests.p50_ms), 'Of the forecasts that were asked for'],
    ['Asked, p99', format.millis(requests.p99_ms), 'Of the forecasts that were asked for'],
    ['Asked, errors', format.percent(errors, 1), 'Of the forecasts that were asked for', errors > 0.05 ? 'bad' : errors > 0 ? 'fair' : null],
    ['In flight', format.whole(requests.in_flight)],
    ['Subscribers', format.whole(streams.subscribers)],
    ['CPU', format.percent(system.cpu_share), 'Of the machine', system.cpu_share > 0.95 ? 'fair' : null],
    ['Memory', format.percent(memory), `This process: ${format.bytes(system.process_bytes)}`, memory > 0.9 ? 'fair' : null],
  ]);
}

// The connection, in the corner and, when it changes, aloud.
function connection(name, detail) {
  const link = byId('link');
  if (name === 'live') {
    lost = null;
    link.dataset.state = 'live';
    say(byId('link-text'), 'Live');
    if (wasLost) say(byId('said'), 'Connected again.');
    [wasLost, isRefused, isDeclined] = [false, false, false];
    return;
  }
  lost = detail.again;
  silence();
  link.dataset.state = 'lost';
  if (!wasLost && heard !== null) say(byId('said'), 'Connection lost; trying again.');
  wasLost = heard !== null;
  wait();
  // A browser does not say why a websocket was refused; a plain question does, when there is somebody to answer it.
  if (!detail.wasOpen && !byId('key-dialog').open) ask('v1/overview').then(() => { isRefused = false; }, (error) => {
    if (lost === null) return;
    isRefused = error.wantsKey === true;
    wait();
    // Whoever has closed it without a key knows, and finds it in the corner.
    if (isRefused && !isDeclined) wantKey(error);
  });
}

function wait() {
  if (lost === null) return;
  const seconds = Math.max(0, Math.ceil((lost - performance.now()) / 1000));
  say(byId('link-text'), isRefused ? 'A key is needed' : seconds > 0 ? `Lost; again in ${seconds} s` : 'Connecting');
}

function note(text) {
  const box = byId('notice');
  if (box.dataset.kind === 'stale') return;
  box.hidden = text === '';
  say(box, text);
}

function stale(next) {
  const box = byId('notice');
  if (box.dataset.kind === 'stale') return;
  const again = make('button', { type: 'button' }, 'Load its page');
  again.addEventListener('click', () => location.reload());
  box.dataset.kind = 'stale';
  box.hidden = false;
  box.replaceChildren(`The node runs version ${next} now. `, again);
}

function wantKey(refusal) {
  say(byId('key-wrong'), refusal.message);
  if (!byId('key-dialog').open) byId('key-dialog').showModal();
}

function begin() {
  overview.start(node ? `v1/overview/stream?node=${encodeURIComponent(node)}` : 'v1/overview/stream');
}

byId('key-open').addEventListener('click', () => {
  say(byId('key-wrong'), '');
  byId('key-dialog').showModal();
});
byId('key-close').addEventListener('click', () => byId('key-dialog').close());
byId('key-forget').addEventListener('click', () => use(''));
byId('key-dialog').addEventListener('close', () => {
  [isDeclined, isUsed] = [!isUsed, false];
});
byId('key-form').addEventListener('submit', () => use(byId('key-input').value.trim()));

function use(text) {
  key.set(text);
  byId('key-input').value = '';
  isUsed = byId('key-dialog').open;
  byId('key-dialog').close();
  isRefused = false;
  say(byId('release-wrong'), ''); // of the key before
  say(byId('key-open'), text ? 'Key ✓' : 'Key');
  begin();
  fan.start();
}

byId('node-select').addEventListener('change', (event) => {
  node = event.target.value === home ? '' : event.target.value;
  charts.clear();
  note('');
  silence(); // until the other one is
  begin();
});

byId('pause').addEventListener('click', (event) => {
  paused = !paused;
  event.target.setAttribute('aria-pressed', String(paused));
  say(event.target, paused ? 'Go on' : 'Pause');
  fan.pause(paused);
  show();
});

document.addEventListener('visibilitychange', show);
setInterval(wait, 500);
mark(byId('link'), null);
if (key.get()) say(byId('key-open'), 'Key ✓');

models.start(wantKey);
scaler.start();
audit.start(() => fan.record, wantKey);
begin();
fan.start();
