// Throughput and latency over the last quarter of an hour.

import uPlot from './uplot.js';
import { byId, make, say } from './dom.js';
import * as format from './format.js';
import { colour, onTheme } from './theme.js';

const SPAN_SECONDS = 900;
const POINTS_MAX = 1800;
// Between marks of the time.
const STEPS_SECONDS = [5, 10, 15, 30, 60, 120, 180, 300];

/** One chart of some measures over time; `measures` are { title, colour, dash, of(frame), past } each. */
class Timeline {
  #name;
  #measures;
  #print;
  #units;
  #columns;
  #chart = null;

  constructor(name, measures, print, units) {
    this.#name = name;
    this.#measures = measures;
    this.#print = print;
    this.#units = units;
    this.clear();
    byId(`${name}-keys`).replaceChildren(...measures.map((one) =>
      make('li', {}, make('span', { class: `swatch ${one.colour}`, 'aria-hidden': 'true' }), make('span', {}, one.title), ' ', make('b', {}, format.NONE))));
    new ResizeObserver(() => this.#chart?.setSize(this.#size())).observe(byId(`${name}-plot`));
    onTheme(() => this.#chart?.redraw(true, true));
  }

  clear() {
    this.#columns = [[], ...this.#measures.map(() => [])];
  }

  /** Takes the past as the node tells it, before what was seen here. */
  past(history) {
    const seen = this.#columns[0][0] ?? Infinity;
    const at = history.at.map((ms) => ms / 1000);
    const len = at.filter((second) => second < seen).length;
    this.#columns[0].unshift(...at.slice(0, len));
    this.#measures.forEach((one, index) => {
      const past = history[one.past] ?? [];
      this.#columns[index + 1].unshift(...Array.from({ length: len }, (_, place) => past[place] ?? null));
    });
  }

  /** Takes one more moment. */
  push(frame) {
    const [times] = this.#columns;
    const at = frame.at / 1000;
    // A clock that was set back says times again: what it has not reached is no past.
    const ahead = times.findIndex((second) => second >= at);
    if (ahead >= 0) this.#columns.forEach((column) => column.splice(ahead));
    times.push(at);
    this.#measures.forEach((one, index) => this.#columns[index + 1].push(one.of(frame) ?? null));
    const old = times.findIndex((second) => second >= at - SPAN_SECONDS);
    const surplus = Math.max(old, times.length - POINTS_MAX);
    if (surplus > 0) this.#columns.forEach((column) => column.splice(0, surplus));
  }

  show() {
    const keys = byId(`${this.#name}-keys`);
    const told = this.#measures.map((one, index) => {
      const text = this.#print(this.#columns[index + 1].at(-1));
      say(keys.children[index].lastChild, text);
      return `${one.title} ${text}`;
    });
    const known = this.#columns.slice(1).some((column) => column.some((one) => one !== null));
    const words = byId(`${this.#name}-words`);
    // For those who see the keys they would be said twice.
    words.classList.toggle('unseen', known);
    say(words, known ? `Now: ${told.join(', ')}.` : 'No forecast was asked for in the last quarter of an hour.');
    if (!this.#chart) this.#build();
    else this.#chart.setData(this.#columns, true);
  }

  #build() {
    const axis = { stroke: () => colour('quiet'), font: '12px system-ui, sans-serif', ticks: { show: false }, gap: 6 };
    const grid = { stroke: () => colour('grid'), width: 1 };
    const last = () => this.#columns[0].at(-1) ?? Date.now() / 1000;
    this.#chart = new uPlot({
      ...this.#size(),
      legend: { show: false },
      padding: [8, 8, 0, 0],
      scales: {
        x: { time: true, range: () => [last() - Math.max(60, Math.min(SPAN_SECONDS, last() - (this.#columns[0][0] ?? last()))), last()] },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.12 : 1] },
      },
      series: [{}, ...this.#measures.map((one) => ({
        stroke: () => colour(one.colour), width: 1.75, dash: one.dash, points: { show: false }, spanGaps: false,
      }))],
      axes: [
        { ...axis, grid, size: 28, space: 70, incrs: STEPS_SECONDS, values: (_, marks) => marks.map((second) => format.clock(second * 1000)) },
        { ...axis, grid, size: 62, values: (u, marks, at, room, step) => format.scale(marks, step, this.#units) },
      ],
      cursor: { points: { show: false }, drag: { x: false, y: false } },
    }, this.#columns, byId(`${this.#name}-plot`));
  }

  #size() {
    const box = byId(`${this.#name}-plot`).getBoundingClientRect();
    return { width: Math.max(160, Math.floor(box.width)), height: Math.max(100, Math.floor(box.height)) };
  }
}

const rates = new Timeline('rate', [
  { title: 'Forecasts asked /s', colour: 'first', of: ({ requests }) => requests.rate, past: 'rate' },
  { title: 'Ticks /s', colour: 'second', dash: [6, 4], of: ({ streams }) => streams.ticks_rate, past: 'ticks_rate' },
  { title: 'Predicted on ticks /s', colour: 'third', dash: [2, 3], of: ({ streams }) => streams.predictions_rate, past: 'predictions_rate' },
], format.rate, format.PLAIN);

const latencies = new Timeline('latency', [
  { title: 'Median', colour: 'first', of: ({ requests }) => requests.p50_ms, past: 'p50_ms' },
  { title: '95th percentile', colour: 'second', dash: [6, 4], of: ({ requests }) => requests.p95_ms, past: 'p95_ms' },
  { title: '99th percentile', colour: 'third', dash: [2, 3], of: ({ requests }) => requests.p99_ms, past: 'p99_ms' },
], format.millis, format.TIMES);

/** Takes a frame of the overview; the first of a connection has the past with it. */
export const observe = (frame) => {
  for (const chart of [rates, latencies]) {
    if (frame.history) {
      chart.clear();
      chart.past(frame.history);
    }
    chart.push(frame);
  }
};

/** Forgets what was seen: another node is looked at. */
export const clear = () => [rates, latencies].forEach((chart) => chart.clear());

export const show = () => [rates, latencies].forEach((chart) => chart.show());
