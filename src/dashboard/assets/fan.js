// The forecast of one series, live: what was observed, what is expected of it, and what was expected before.

import uPlot from './uplot.js';
import { byId, define, make, mark, say } from './dom.js';
import * as format from './format.js';
import { ask, Refusal, Socket } from './net.js';
import { centre, Observed } from './observed.js';
import { colour, onTheme } from './theme.js';

const LISTING = 1;
const PAST_LEN = 96;
const PAST_LEN_SMALL = 40;
const RESUMED_LEN = 96;
const READ_EVERY_MS = 250;
const SCORE_EVERY_MS = 5000;
const SILENCE_MS = 25_000;
const LEVELS_MAX = 3;
const PLACES = 3;

/** Follows one series by one model, both as the reader chooses. */
export class Fan {
  #told;
  #socket;
  #models = [];
  #model = null;
  #series = null;
  #id = LISTING;
  #observed = new Observed();
  #seq = 0;
  #reading = false;
  #readAgain = false;
  #frame = 0;
  #paused = false;
  #isLive = false;
  #chart = null;
  #levels = '';
  #range = null;
  #first = 0;
  #cursor = null;

  /** `told`: `refused(refusal)`, when another key is wanted; `isLive()`, whether the node is heard otherwise. */
  constructor(told) {
    this.#told = told;
    this.#socket = new Socket('v1/stream', SILENCE_MS, {
      open: () => this.#list(),
      message: (message) => this.#hear(message),
      state: (name, detail) => this.#heard(name, detail),
    });
    byId('fan-model').addEventListener('change', (event) => this.#choose(event.target.value, this.#series));
    byId('fan-series-box').addEventListener('change', (event) => this.#choose(this.#model, event.target.value.trim()));
    byId('fan-plot').addEventListener('keydown', (event) => this.#step(event));
    new ResizeObserver(() => this.#fit()).observe(byId('fan-plot'));
    onTheme(() => this.#chart?.redraw(true, true));
    setInterval(() => this.#score(), SCORE_EVERY_MS);
    const wished = new URLSearchParams(location.hash.slice(1));
    this.#model = wished.get('model');
    this.#series = wished.get('series');
  }

  /** `model/series#seq@epoch` of what is shown: the name under which it is recorded. */
  get record() {
    const newest = this.#observed.shown;
    return newest ? `${newest.model}/${newest.series}#${newest.seq}@${newest.epoch}` : '';
  }

  /** Holds the picture, or lets it go on. */
  pause(isPaused) {
    this.#paused = isPaused;
    this.#draw();
  }

  /** Begins: with the first look, and with another key. */
  start() {
    this.#socket.start();
  }

  #heard(name, detail) {
    this.#isLive = name === 'live';
    if (this.#isLive) this.#mute(false);
    if (name !== 'lost') return;
    if (!detail.wasOpen && this.#told.isLive()) this.#explain();
    else this.#lost();
  }

  #mute(isSilent) {
    byId('fan-plot').closest('.fan').toggleAttribute('data-silent', isSilent);
  }

  #lost() {
    this.#mute(true);
    this.#note('connection lost: this is the last that was heard', 'fair');
  }

  // A browser does not say why a websocket was refused; a plain question does, when there is somebody to answer it.
  async #explain() {
    try {
      await ask('v1/stream');
    } catch (error) {
      if (this.#isLive) return;
      if (error.status === 403) this.#note('this key may not read predictions: scope predict is needed', 'bad');
      else if (error.status === 401) this.#note(error.message, 'bad');
      else this.#lost();
    }
  }

  async #list() {
    try {
      const { models, default: usual } = await ask('v1/models');
      this.#models = models.filter(({ state }) => state === 'ready' || state === 'remote');
      const names = [...new Set(this.#models.map(({ name }) => name))];
      if (!names.includes(this.#model)) this.#model = names.includes(usual) ? usual : names[0] ?? null;
      offer(byId('fan-model'), names, this.#model);
      if (this.#model) this.#names();
      else this.#note('no model is served');
    } catch (error) {
      this.#refused(error);
    }
  }

  // A subscription to all series tells their names; it is given up as soon as it has.
  #names() {
    this.#id = LISTING;
    this.#socket.send({ op: 'subscribe', id: LISTING, model: this.#model, series: ['*'], conflate: true });
  }

  #hear(message) {
    switch (message.op) {
      case 'subscribed':
        if (message.id === LISTING) this.#named(message);
        break;
      case 'snapshot':
      case 'prediction':
        if (message.model === this.#model && message.series === this.#series) this.#predicted(message);
        break;
      case 'gap':
        if (message.series === this.#series && message.reason !== 'expired') {
          this.#note(`no prediction for numbers ${message.from} to ${message.to}: ${message.reason}`);
        }
        break;
      case 'goodbye':
        this.#socket.wish(message.reconnect_after_ms);
        break;
      case 'error':
        if (message.id === undefined || message.id === this.#id) this.#note(message.detail, 'bad');
        break;
      default:
    }
  }

  #named(message) {
    this.#socket.send({ op: 'unsubscribe', id: LISTING });
    const names = Object.keys(message.next ?? {}).sort();
    if (!this.#series || (names.length > 0 && !names.includes(this.#series))) this.#series = names[0] ?? this.#series;
    const box = byId('fan-series-box');
    // Too many to be listed: the reader says which.
    const kind = names.length > 0 || message.matched === 0 ? 'select' : 'input';
    if (box.firstElementChild.localName !== kind) box.replaceChildren(make(kind, { id: 'fan-series' }));
    if (kind === 'select') offer(box.firstElementChild, names, this.#series);
    else box.firstElementChild.value = this.#series ?? '';
    if (this.#series) this.#follow();
    else this.#note(message.matched === 0 ? 'no series yet: feed ticks to /v1/ticks' : 'name a series');
  }

  #choose(model, series) {
    const isModel = model !== this.#model;
    [this.#model, this.#series] = [model, series];
    if (this.#id !== LISTING) this.#socket.send({ op: 'unsubscribe', id: this.#id });
    history.replaceState(null, '', `#${new URLSearchParams({ model, series: series ?? '' })}`);
    if (isModel) this.#names();
    else if (series) this.#follow();
  }

  async #follow() {
    this.#id += 1;
    const id = this.#id;
    this.#observed = new Observed();
    [this.#seq, this.#range, this.#cursor] = [0, null, null];
    this.#note('waiting for the first prediction');
    this.#draw();
    try {
      const log = await ask(address(this.#series));
      if (id !== this.#id) return;
      this.#observed.observe(log.ticks);
      this.#seq = log.seq;
    } catch (error) {
      if (id !== this.#id) return;
      if (error.status !== 404) this.#refused(error);
    }
    // Those before are asked for too: what was expected of what has come since.
    const from = Math.max(1, this.#seq - RESUMED_LEN);
    this.#socket.send({ op: 'subscribe', id, model: this.#model, series: [this.#series], from, snapshot: true });
    this.#draw();
    this.#score();
  }

  #predicted(one) {
    if (!this.#observed.predict(one)) return;
    if (one.seq > this.#seq) this.#read();
    this.#note(one.degraded ? 'degraded: the CPU answers for a GPU' : 'live', one.degraded ? 'fair' : 'good');
    this.#draw();
  }

  // The stream carries predictions; the observations that they follow are read, all that are new at once.
  async #read() {
    if (this.#reading) {
      this.#readAgain = true;
      return;
    }
    [this.#reading, this.#readAgain] = [true, false];
    const observed = this.#observed;
    const missing = (observed.newest?.seq ?? 0) - this.#seq;
    try {
      const log = await ask(`${address(this.#series)}?last=${Math.min(1024, Math.max(2, missing + 1))}`);
      if (observed === this.#observed) {
        observed.observe(log.ticks);
        this.#seq = log.seq;
        this.#draw();
      }
    } catch (error) {
      this.#refused(error);
    }
    setTimeout(() => {
      this.#reading = false;
      if (this.#readAgain) this.#read();
    }, READ_EVERY_MS);
  }

  async #score() {
    if (!this.#series || !this.#isLive || document.hidden || this.#paused) return;
    const [model, series] = [this.#model, this.#series];
    try {
      const wish = new URLSearchParams({ model, series });
      const { models } = await ask(`v1/scorecard?${wish}`);
      if (series !== this.#series || model !== this.#model) return;
      const version = this.#observed.newest?.model_version;
      this.#rate(models.find((one) => one.version === version) ?? models[0]);
    } catch (error) {
      if (error.wantsKey) this.#refused(error);
    }
  }

  #rate(score) {
    if (!score) {
      define(byId('fan-score'), [['Scored', 'not yet, or on the node that keeps the series']]);
      return;
    }
    const rows = [
      ['Error against naive', format.number(score.mase), 'Mean absolute scaled error: below 1 is better than yesterday’s value',
        score.mase === null ? null : score.mase < 1 ? 'good' : 'fair'],
      ['Mean absolute error', format.number(score.mae)],
      ['Pinball loss', format.number(score.pinball)],
    ];
    for (const { level, held } of score.coverage) {
      rows.push([`Within ${level} %`, held === null ? format.NONE : `${held.toFixed(0)} %`, 'Share of truths within the interval', fits(level, held)]);
    }
    rows.push(['Values scored', format.whole(score.weight), 'Recent ones weigh more']);
    define(byId('fan-score'), rows);
  }

  #refused(error) {
    if (!(error instanceof Refusal)) throw error;
    this.#note(error.message, 'bad');
    if (error.wantsKey) this.#told.refused(error);
  }

  #note(text, mood) {
    const note = byId('fan-state');
    say(note, text);
    mark(note, mood);
  }

  #draw() {
    if (this.#frame || this.#paused) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#show();
    });
  }

  #show() {
    this.#facts(this.#observed.shown);
    const data = this.#data();
    if (!data) return;
    if (!this.#chart || data.levels.join() !== this.#levels) this.#build(data);
    else this.#chart.setData(data.columns, true);
    this.#readout();
  }

  // Columns of the chart. Places on its axis are counted from the first observation there ever was, so that its marks
  // move with what they mark.
  #data() {
    const observed = this.#observed;
    const newest = observed.shown;
    if (observed.times.length === 0) return null;
    const pastLen = innerWidth < 640 ? PAST_LEN_SMALL : PAST_LEN;
    const last = observed.times.length - 1;
    const start = Math.max(0, last + 1 - pastLen);
    const origin = newest ? observed.index(newest.ts) : -1;
    const ahead = newest ? centre(newest).length : 0;
    const len = last - start + 1 + ahead;
    this.#first = this.#seq - last;
    const levels = (newest?.intervals ?? []).slice(0, LEVELS_MAX).map(({ level }) => level).sort((a, b) => b - a);
    const blank = () => new Array(len).fill(null);
    const bounds = levels.map(() => [blank(), blank()]);
    const [trail, middle, truth, missed] = [[blank(), blank()], blank(), blank(), blank()];
    const narrow = levels.at(-1);
    for (let at = start; at <= last; at += 1) {
      const value = observed.values[at];
      truth[at - start] = value;
      const said = observed.foretold(at);
      const bound = said?.bounds.find(({ level }) => level === narrow);
      if (!bound) continue;
      trail[0][at - start] = bound.lo;
      trail[1][at - start] = bound.hi;
      if (value !== null && (value < bound.lo || value > bound.hi)) missed[at - start] = value;
    }
    if (origin >= start) {
      const here = observed.values[origin];
      middle[origin - start] = here;
      centre(newest).forEach((value, step) => { middle[origin - start + 1 + step] = value; });
      levels.forEach((level, at) => {
        const { lo, hi } = newest.intervals.find((one) => one.level === level);
        [lo, hi].forEach((side, which) => {
          bounds[at][which][origin - start] = here;
          side.forEach((value, step) => { bounds[at][which][origin - start + 1 + step] = value; });
        });
      });
    }
    const places = Array.from({ length: len }, (_, at) => this.#first + start + at);
    return { levels, columns: [places, ...bounds.flat(), ...trail, middle, truth, missed] };
  }

  #build({ levels, columns }) {
    this.#chart?.destroy();
    this.#levels = levels.join();
    const edge = (name) => ({ stroke: () => colour(name), width: 1, points: { show: false } });
    const series = [{}];
    const bands = [];
    levels.forEach((_, at) => {
      const fill = () => colour(at === levels.length - 1 ? 'fan-near' : 'fan-far');
      series.push(edge('fan-edge'), edge('fan-edge'));
      bands.push({ series: [series.length - 1, series.length - 2], fill });
    });
    series.push(edge('trail-edge'), edge('trail-edge'));
    bands.push({ series: [series.length - 1, series.length - 2], fill: () => colour('trail') });
    series.push({ stroke: () => colour('fan-line'), width: 2, dash: [6, 4], points: { show: false } });
    series.push({ stroke: () => colour('truth'), width: 1.75, points: { show: false } });
    series.push({
      paths: () => null,
      points: { show: true, size: 8, width: 2, stroke: () => colour('missed'), fill: () => colour('panel') },
    });
    const axis = { stroke: () => colour('quiet'), font: '12px system-ui, sans-serif', ticks: { show: false }, gap: 6 };
    const grid = { stroke: () => colour('grid'), width: 1 };
    this.#chart = new uPlot({
      ...this.#size(),
      legend: { show: false },
      padding: [10, 8, 0, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => this.#steady(low, high) } },
      series,
      bands,
      axes: [
        { ...axis, grid, size: 30, splits: (u) => this.#marks(u), values: (_, marks) => marks.map((at) => this.#label(at)) },
        { ...axis, grid, size: 56, values: (_, marks) => marks.map((at) => format.value(at, 2)) },
      ],
      cursor: { points: { show: false }, drag: { x: false, y: false } },
      hooks: {
        drawAxes: [(u) => this.#now(u)],
        setCursor: [(u) => {
          this.#cursor = u.cursor.idx ?? null;
          this.#readout();
        }],
      },
    }, columns, byId('fan-plot'));
  }

  // A scale that moves only when it must: values that barely differ are not to jump.
  #steady(low, high) {
    if (low === null || high === null) return this.#range ?? [0, 1];
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    const wanted = [low - room, high + room];
    const held = this.#range;
    const fits = held && low >= held[0] && high <= held[1] && wanted[1] - wanted[0] > (held[1] - held[0]) * 0.6;
    if (!fits) this.#range = wanted;
    return this.#range;
  }

  // Marks at round places of what has been, and at round steps ahead.
  #marks(u) {
    const { min, max } = u.scales.x;
    const last = this.#first + this.#observed.times.length - 1;
    const every = [5, 10, 20, 50, 100].find((one) => (max - min) / one <= u.width / 90) ?? 200;
    const marks = [];
    for (let at = Math.ceil(min / every) * every; at < last - every * 0.8; at += every) marks.push(at);
    for (let at = last; at <= max; at += every) marks.push(at);
    return marks;
  }

  #label(place) {
    const observed = this.#observed;
    const ahead = place - this.#first - observed.times.length + 1;
    if (ahead > 0) return `+${ahead}`;
    const at = observed.times[place - this.#first];
    return at === undefined ? '' : format.moment(at, observed.step);
  }

  // Where the future begins.
  #now(u) {
    const at = Math.round(u.valToPos(this.#first + this.#observed.times.length - 1, 'x', true)) + 0.5;
    const { ctx, bbox } = u;
    ctx.save();
    ctx.fillStyle = colour('ahead');
    ctx.fillRect(at, bbox.top, Math.max(0, bbox.left + bbox.width - at), bbox.height);
    ctx.strokeStyle = colour('edge');
    ctx.lineWidth = uPlot.pxRatio;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  // What stands under the pointer, or the next step where there is none.
  #readout() {
    const observed = this.#observed;
    const newest = observed.shown;
    const last = observed.times.length - 1;
    const place = this.#cursor !== null && this.#chart ? this.#chart.data[0][this.#cursor] - this.#first : last + 1;
    const ahead = place - last;
    const rows = [[ahead > 0 ? 'Step' : 'At', this.#label(place + this.#first) || format.NONE]];
    if (ahead > 0) {
      const step = newest ? place - observed.index(newest.ts) - 1 : 0;
      rows.push([newest?.median ? 'Median' : 'Mean', format.value(newest ? centre(newest)[step] : null, PLACES)]);
      for (const { level, lo, hi } of newest?.intervals ?? []) {
        rows.push([`${level} %`, `${format.value(lo[step], PLACES)} … ${format.value(hi[step], PLACES)}`]);
      }
    } else {
      const said = observed.foretold(place);
      rows.push(['Observed', format.value(observed.values[place], PLACES)]);
      rows.push(['Expected', format.value(said?.centre, PLACES)]);
      for (const { level, lo, hi } of said?.bounds ?? []) {
        rows.push([`${level} %`, `${format.value(lo, PLACES)} … ${format.value(hi, PLACES)}`]);
      }
    }
    define(byId('fan-readout'), rows);
    if (this.#cursor === null) return;
    const plot = byId('fan-plot');
    plot.setAttribute('aria-valuemax', String(this.#chart.data[0].length - 1));
    plot.setAttribute('aria-valuenow', String(this.#cursor));
    plot.setAttribute('aria-valuetext', rows.map((row) => row.join(' ')).join(', '));
  }

  // The reading goes where the arrows take it; Escape gives it back to what is newest.
  #step(event) {
    const chart = this.#chart;
    if (!chart) return;
    const len = chart.data[0].length;
    const last = this.#first + this.#observed.times.length - 1 - chart.data[0][0];
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -len, End: len };
    if (event.key === 'Escape') {
      chart.setCursor({ left: -10, top: -10 });
      byId('fan-plot').setAttribute('aria-valuetext', 'live');
    } else if (event.key in moves) {
      const next = Math.min(len - 1, Math.max(0, (this.#cursor ?? last) + moves[event.key]));
      chart.setCursor({ left: chart.valToPos(chart.data[0][next], 'x'), top: chart.over.clientHeight / 2 });
      event.preventDefault();
    }
  }

  #facts(newest) {
    const observed = this.#observed;
    const at = observed.times.length - 1;
    const rows = [['Observed', `${format.value(observed.values[at], PLACES)} at ${format.moment(observed.times[at], observed.step)}`]];
    if (newest) {
      rows.push(
        ['Next step', format.value(centre(newest)[0], PLACES)],
        [`Step ${newest.horizon}`, format.value(centre(newest).at(-1), PLACES)],
        ['Made in', format.millis(newest.made_at - newest.accepted_at), 'From the acceptance of the tick to its prediction'],
        ['By', `${newest.backend}, version ${newest.model_version}`],
        ['Number', `${format.whole(newest.seq)}`],
      );
    }
    define(byId('fan-facts'), rows);
    const small = innerWidth < 640 ? PAST_LEN_SMALL : PAST_LEN;
    const tally = observed.tally(at + 1 - small);
    const seen = [['One-step error', format.number(tally.error)]];
    for (const [level, held] of tally.levels) {
      const share = tally.count > 0 ? (held / tally.count) * 100 : null;
      seen.push([`Within ${level} %`, share === null ? format.NONE : `${share.toFixed(0)} % of ${tally.count}`]);
    }
    define(byId('fan-seen'), seen);
    if (newest) say(byId('fan-words'), this.#words(newest, at));
  }

  #words(newest, at) {
    const observed = this.#observed;
    const span = (step) => (newest.intervals ?? [])
      .map(({ level, lo, hi }) => `${level} % between ${format.value(lo.at(step), PLACES)} and ${format.value(hi.at(step), PLACES)}`)
      .join(', ');
    const middles = centre(newest);
    const first = `${format.value(middles[0], PLACES)}${span(0) ? ` (${span(0)})` : ''}`;
    const last = `${format.value(middles.at(-1), PLACES)}${span(-1) ? ` (${span(-1)})` : ''}`;
    return `${this.#series} by ${this.#model}: observed ${format.value(observed.values[at], PLACES)} at ${format.moment(observed.times[at], observed.step)}. `
      + `Expected next ${first}; in ${middles.length} steps ${last}.`;
  }

  #size() {
    const box = byId('fan-plot').getBoundingClientRect();
    return { width: Math.max(200, Math.floor(box.width)), height: Math.max(160, Math.floor(box.height)) };
  }

  #fit() {
    this.#chart?.setSize(this.#size());
  }
}

const address = (series) => `v1/series/${series.split('/').map(encodeURIComponent).join('/')}`;

// Coverage that is far from its level says that the intervals are wrong.
const fits = (level, held) => (held === null ? null : Math.abs(held - level) <= 12 ? 'good' : 'fair');

const offer = (select, names, chosen) => {
  select.replaceChildren(...names.map((name) => make('option', { value: name }, name)));
  if (chosen) select.value = chosen;
};
