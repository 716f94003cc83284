// The forecast of one series, live: what was observed, what is expected of it, and what was expected before.

import uPlot from './uplot.js';
import { byId, define, make, mark, say, visible } from './dom.js';
import * as format from './format.js';
import { ask, Refusal, Socket } from './net.js';
import { centre, Observed } from './observed.js';
import { colour, onTheme } from './theme.js';

const PAST_LEN = 96;
const PAST_LEN_SMALL = 40;
const RESUMED_LEN = 96;
const READ_EVERY_MS = 250;
const SCORE_EVERY_MS = 5000;
const LIST_EVERY_MS = 2000;
const READ_MAX = 1024;
const SILENCE_MS = 25_000;
const LEVELS_MAX = 3;
const DIGITS = 1000;

/** Follows one series by one model, both as the reader chooses. */
export class Fan {
  #told;
  #socket;
  #models = [];
  #model = null;
  #series = null;
  #id = 0;
  #subscribed = 0;
  #listing = '';
  #observed = new Observed();
  #seq = 0;
  #reading = false;
  #readAgain = false;
  #frame = 0;
  #paused = false;
  #isLive = false;
  #chart = null;
  #followed = '';
  #short = null;
  #listed = -LIST_EVERY_MS;
  #soon = 0;
  #levels = '';
  #range = null;
  #span = 1;
  #first = 0;
  #cursor = null;

  /** `told`: `refused(refusal)`, when another key is wanted; `isLive()`, whether the node is heard otherwise. */
  constructor(told) {
    this.#told = told;
    this.#socket = new Socket('v1/stream', SILENCE_MS, {
      open: () => {
        [this.#followed, this.#subscribed] = ['', 0];
        this.#list();
      },
      message: (message) => this.#hear(message),
      state: (name, detail) => this.#heard(name, detail),
    });
    byId('fan-model').addEventListener('change', (event) => this.#choose(event.target.value, this.#series));
    byId('fan-series-box').addEventListener('change', (event) => this.#name(event.target.value.trim()));
    for (const box of [byId('fan-model'), byId('fan-series-box')]) {
      for (const kind of ['pointerenter', 'focusin']) box.addEventListener(kind, () => this.#again());
    }
    byId('fan-plot').addEventListener('keydown', (event) => this.#step(event));
    new ResizeObserver(() => this.#fit()).observe(byId('fan-plot'));
    onTheme(() => this.#chart?.redraw(true, true));
    setInterval(() => this.#turn(), SCORE_EVERY_MS);
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
    this.#note(this.#observed.times.length > 0 ? 'connection lost: this is the last that was heard' : 'not connected', 'fair');
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

  // What came since is offered to whoever is about to choose, and shown where nothing was.
  #again() {
    // Where there are too many to be listed, nothing is offered.
    if (this.#soon || byId('fan-series').localName !== 'select') return;
    this.#soon = setTimeout(() => {
      this.#soon = 0;
      if (this.#isLive) this.#list();
    }, Math.max(0, this.#listed + LIST_EVERY_MS - performance.now()));
  }

  #turn() {
    if (!this.#isLive || document.hidden || this.#paused) return;
    if (this.#observed.times.length === 0) this.#again();
    else if (!this.#observed.newest) this.#read();
    this.#score();
  }

  async #list() {
    this.#listed = performance.now();
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
    this.#listing = `list ${performance.now()}`;
    this.#socket.send({ op: 'subscribe', id: this.#listing, model: this.#model, series: ['*'], conflate: true });
  }

  #hear(message) {
    switch (message.op) {
      case 'subscribed':
        if (typeof message.id === 'string') this.#named(message);
        else if (message.id === this.#id) this.#lacks(message.missing?.[this.#series]);
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
        if ([undefined, this.#id, this.#listing].includes(message.id)) this.#note(message.detail, 'bad');
        break;
      default:
    }
  }

  #named(message) {
    this.#socket.send({ op: 'unsubscribe', id: message.id });
    if (message.id !== this.#listing) return; // another model was chosen meanwhile
    const names = Object.keys(message.next ?? {}).sort();
    // One that was wished for is not given up because nothing is known of it yet.
    this.#series ||= names[0] ?? null;
    const box = byId('fan-series-box');
    // Too many to be listed: the reader says which.
    const kind = names.length > 0 || message.matched === 0 ? 'select' : 'input';
    if (box.firstElementChild.localName !== kind) box.replaceChildren(make(kind, { id: 'fan-series' }));
    const field = box.firstElementChild;
    if (kind === 'select') offer(field, !this.#series || names.includes(this.#series) ? names : [this.#series, ...names], this.#series);
    else if (document.activeElement !== field) field.value = this.#series ?? '';
    if (this.#series) {
      const hasCome = this.#observed.times.length === 0 && names.includes(this.#series);
      if (hasCome || this.#followed !== this.#wanted) this.#follow();
    } else {
      this.#note(message.matched === 0 ? 'no series is as long as the model’s window yet: feed ticks to /v1/ticks'
        : `${format.whole(message.matched)} series are as long as the model’s window, too many to be listed: name one`);
    }
  }

  get #wanted() {
    return JSON.stringify([this.#model, this.#series]);
  }

  // By how many observations the series is shorter than the model's window, when it was last said.
  #lacks(missing) {
    this.#short = missing ? { missing, at: this.#observed.times.length } : null;
    this.#wait();
  }

  #wait() {
    if (!this.#short || this.#observed.newest) return;
    const left = Math.max(1, this.#short.missing - (this.#observed.times.length - this.#short.at));
    this.#note(`no prediction yet: the series is ${left === 1 ? 'one observation' : `${format.whole(left)} observations`} short of the model’s window`, 'fair');
  }

  #name(series) {
    if (series.includes('*')) this.#note('a pattern stands for many series: name one', 'fair');
    else this.#choose(this.#model, series);
  }

  #choose(model, series) {
    const isModel = model !== this.#model;
    [this.#model, this.#series] = [model, series];
    this.#leave();
    history.replaceState(null, '', `#${new URLSearchParams({ model, series: series ?? '' })}`);
    if (isModel) this.#names();
    else if (series) this.#follow();
  }

  #leave() {
    if (this.#subscribed) this.#socket.send({ op: 'unsubscribe', id: this.#subscribed });
    [this.#followed, this.#subscribed] = ['', 0];
  }

  async #follow() {
    this.#leave();
    this.#id += 1;
    const id = this.#id;
    this.#followed = this.#wanted;
    this.#observed = new Observed();
    [this.#seq, this.#range, this.#cursor, this.#short] = [0, null, null, null];
    define(byId('fan-score'), []);
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
    this.#subscribed = id;
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
    const missing = observed.newest ? observed.newest.seq - this.#seq : READ_MAX;
    try {
      const log = await ask(`${address(this.#series)}?last=${Math.min(READ_MAX, Math.max(2, missing + 1))}`);
      if (observed === this.#observed) {
        observed.observe(log.ticks);
        this.#seq = log.seq;
        this.#wait();
        this.#draw();
      }
    } catch (error) {
      if (observed.newest || error.status !== 404) this.#refused(error);
    }
    setTimeout(() => {
      this.#reading = false;
      if (this.#readAgain) this.#read();
    }, READ_EVERY_MS);
  }

  async #score() {
    if (!this.#series) return;
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
    const data = this.#data();
    this.#facts(this.#observed.shown);
    if (!data) {
      this.#clear();
      return;
    }
    if (!this.#chart || data.levels.join() !== this.#levels) this.#build(data);
    else this.#chart.setData(data.columns, true);
    this.#readout();
  }

  // Nothing of another series stays on screen.
  #clear() {
    this.#chart?.destroy();
    [this.#chart, this.#levels] = [null, ''];
    define(byId('fan-readout'), []);
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
    const drawn = [...bounds.flat(), ...trail, middle, truth, missed];
    const values = drawn.flat().filter((one) => one !== null);
    const [low, high] = values.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [Infinity, -Infinity]);
    this.#span = high - low > 0 ? high - low : Math.abs(high) || 1;
    const places = Array.from({ length: len }, (_, at) => this.#first + start + at);
    return { levels, columns: [places, ...drawn] };
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
      padding: [10, 16, 0, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => this.#steady(low, high) } },
      series,
      bands,
      axes: [
        { ...axis, grid, size: 30, splits: (u) => this.#marks(u), values: (_, marks) => marks.map((at) => this.#label(at)) },
        { ...axis, grid, size: (_, marks) => wide(marks), values: (u, marks, axis, room, step) => format.scale(marks, step) },
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

  // To a thousandth of what there is to see; by the scale, which rests, unless it is of less than that yet.
  #value(one) {
    const [low, high] = this.#range ?? [0, 0];
    return format.value(one, Math.max(this.#span, high - low) / DIGITS);
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
    const place = this.#cursor !== null && this.#chart ? this.#chart.data[0][this.#cursor] - this.#first : newest ? last + 1 : last;
    const ahead = place - last;
    const rows = [[ahead > 0 ? 'Step' : 'At', this.#label(place + this.#first) || format.NONE]];
    if (ahead > 0) {
      const step = newest ? place - observed.index(newest.ts) - 1 : 0;
      rows.push([newest?.median ? 'Median' : 'Mean', this.#value(newest ? centre(newest)[step] : null)]);
      for (const { level, lo, hi } of newest?.intervals ?? []) {
        rows.push([`${level} %`, `${this.#value(lo[step])} … ${this.#value(hi[step])}`]);
      }
    } else {
      const said = observed.foretold(place);
      rows.push(['Observed', this.#value(observed.values[place])]);
      rows.push(['Expected', this.#value(said?.centre)]);
      for (const { level, lo, hi } of said?.bounds ?? []) {
        rows.push([`${level} %`, `${this.#value(lo)} … ${this.#value(hi)}`]);
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
    const rows = [['Observed', at < 0 ? 'nothing yet' : `${this.#value(observed.values[at])} at ${format.moment(observed.times[at], observed.step)}`]];
    if (newest) {
      rows.push(
        ['Next step', this.#value(centre(newest)[0])],
        [`Step ${newest.horizon}`, this.#value(centre(newest).at(-1))],
        ['Made in', newest.made_at > newest.accepted_at ? format.millis(newest.made_at - newest.accepted_at) : format.NONE, 'From the acceptance of the tick to its prediction'],
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
    say(byId('fan-words'), this.#words(newest, at));
  }

  #words(newest, at) {
    const observed = this.#observed;
    const what = `${visible(this.#series)} by ${this.#model}: `;
    if (at < 0) return `${what}nothing observed yet.`;
    const seen = `${what}observed ${this.#value(observed.values[at])} at ${format.moment(observed.times[at], observed.step)}. `;
    if (!newest) return `${seen}No prediction yet.`;
    const span = (step) => (newest.intervals ?? [])
      .map(({ level, lo, hi }) => `${level} % between ${this.#value(lo.at(step))} and ${this.#value(hi.at(step))}`)
      .join(', ');
    const middles = centre(newest);
    const first = `${this.#value(middles[0])}${span(0) ? ` (${span(0)})` : ''}`;
    const last = `${this.#value(middles.at(-1))}${span(-1) ? ` (${span(-1)})` : ''}`;
    return `${seen}Expected next ${first}; in ${middles.length} steps ${last}.`;
  }

  #size() {
    const box = byId('fan-plot').getBoundingClientRect();
    return { width: Math.max(200, Math.floor(box.width)), height: Math.max(160, Math.floor(box.height)) };
  }

  #fit() {
    this.#chart?.setSize(this.#size());
  }
}

// As one segment: a browser takes `..` between slashes for the folder above.
const address = (series) => `v1/series/${encodeURIComponent(series)}`;

// Coverage that is far from its level says that the intervals are wrong.
const fits = (level, held) => (held === null ? null : Math.abs(held - level) <= 12 ? 'good' : 'fair');

// As wide as the longest of its marks.
const wide = (marks) => Math.max(56, 14 + 7 * Math.max(0, ...(marks ?? []).map((one) => one.length)));

const offer = (select, names, chosen) => {
  const offered = [...select.options].map((option) => option.value);
  if (JSON.stringify(offered) !== JSON.stringify(names)) select.replaceChildren(...names.map((name) => make('option', { value: name }, visible(name))));
  if (chosen) select.value = chosen;
};
