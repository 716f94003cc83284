// Numbers and times as people read them. What is not known is a dash, never zero.

export const NONE = '–';

const isKnown = (value) => typeof value === 'number' && Number.isFinite(value);

/** Three significant digits, grouped. */
export const number = (value, digits = 3) => {
  if (!isKnown(value)) return NONE;
  const size = Math.abs(value);
  if (size >= LARGE || (size > 0 && size < 1e-4)) return powers(value, digits - 1);
  const decimals = size === 0 || size >= 1000 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toLocaleString('en-GB', { minimumFractionDigits: Math.min(decimals, 6), maximumFractionDigits: Math.min(decimals, 6) });
};

export const whole = (value) => (isKnown(value) ? Math.round(value).toLocaleString('en-GB') : NONE);

const LARGE = 1e9;
const PLACES_MAX = 8;

/** A value of a series, to as many places as tell a difference of `step`. */
export const value = (one, step = 0.001) => {
  if (!isKnown(one)) return NONE;
  const places = -Math.floor(Math.log10(step) + 1e-9);
  const isLong = Math.abs(one) >= LARGE || (places > PLACES_MAX && one !== 0);
  if (isLong) return powers(one, Math.min(9, Math.max(0, Math.floor(Math.log10(Math.abs(one))) + places)));
  const fixed = Math.min(PLACES_MAX, Math.max(0, places));
  return minus(one.toLocaleString('en-GB', { minimumFractionDigits: fixed, maximumFractionDigits: fixed }));
};

// Marks 2.5 apart need a place more than those 2 apart.
const finest = (step) => (Number((step / 10 ** Math.floor(Math.log10(step))).toPrecision(6)) % 1 === 0 ? step : step / 10);

export const PLAIN = [[1, '']];
/** Of times in milliseconds. */
export const TIMES = [[1e-3, ' µs'], [1, ' ms'], [1000, ' s']];

/** Marks of a scale that are `step` apart, in one unit and to as many places as tell them apart. */
export const scale = (marks, step, units = PLAIN) => {
  const largest = Math.max(...marks);
  const [size, unit] = units.findLast(([least]) => largest >= least) ?? units[0];
  return marks.map((one) => `${value(one / size, finest(step / size))}${unit}`);
};

/** A number by itself, of which nothing else is known. */
export const plain = (one, digits = 6) => (isKnown(one) ? minus(String(Number(one.toPrecision(digits)))) : NONE);

const minus = (text) => text.replaceAll('-', '−');

const powers = (one, digits) => minus(one.toExponential(digits)).replace('e+', 'e');

export const rate = (one) => {
  if (!isKnown(one)) return NONE;
  if (one === 0) return '0';
  return one < 10 ? one.toFixed(1) : whole(one);
};

export const millis = (one) => {
  if (!isKnown(one)) return NONE;
  if (one > 0 && one < 0.1) return `${(one * 1000).toFixed(one < 0.01 ? 1 : 0)} µs`;
  if (one < 1) return `${one.toFixed(2)} ms`;
  if (one < 100) return `${one.toFixed(1)} ms`;
  return one < 10_000 ? `${Math.round(one)} ms` : `${(one / 1000).toFixed(1)} s`;
};

export const percent = (share, places = 0) => (isKnown(share) ? `${(share * 100).toFixed(places)} %` : NONE);

export const bytes = (count) => {
  if (!isKnown(count)) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let left = count;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${left.toFixed(left < 10 && at > 0 ? 1 : 0)} ${units[at]}`;
};

export const money = (one, currency) => (isKnown(one) ? `${one.toFixed(one < 1 ? 4 : 2)}${currency ? ` ${currency}` : ''}` : NONE);

/** How long, in its two largest units. */
export const lasting = (seconds) => {
  if (!isKnown(seconds)) return NONE;
  const all = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes, rest] = [Math.floor(all / 86_400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${rest} s` : `${rest} s`;
};

/** How long ago, or until when, by two times in milliseconds. */
export const ago = (then, now) => (isKnown(then) && isKnown(now) ? `${lasting((now - then) / 1000)} ago` : NONE);

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = (one) => String(one).padStart(2, '0');

/** A moment, in UTC, as precise as the steps of its series. */
export const moment = (at, stepMillis) => {
  if (!isKnown(at)) return NONE;
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return NONE;
  const day = `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
  if (stepMillis >= 43_200_000) return `${day} ${date.getUTCFullYear()}`;
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
  return stepMillis >= 60_000 ? `${day} ${time}` : `${time}:${two(date.getUTCSeconds())}`;
};

/** A moment of a machine's life, in the reader's own time. */
export const clock = (at) => {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? NONE : `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
};
