// The cluster: its regions on a map where they are known, and the time to each from the node that tells.

import { byId, draw, fill, named, say, state } from './dom.js';
import * as format from './format.js';
import { CELL_DEGREES, eachLandCell, NORTH_DEGREES, PLACES, SOUTH_DEGREES } from './regions.js';

const WIDE = 640;
const NARROW = 360;
const HEIGHT = 300;
const EDGE = 46;
const SPAN_MIN_DEGREES = 110;
const LABEL_MAX = 16;

let drawn = '';
let width = WIDE;

/** Shows the members of a frame. */
export const show = ({ cluster, node }) => {
  const members = cluster.members ?? [];
  const here = members.find((one) => one.here) ?? { node: node.name, region: node.region };
  // Those that went without a word are shown until they are back, or forgotten.
  const lost = (cluster.lost ?? []).filter((one) => members.every(({ node: name }) => name !== one.node));
  const alone = members.length + lost.length <= 1;
  say(byId('map-note'), alone ? 'this node is alone' : `${members.length} of ${cluster.size} nodes${cluster.name ? ` of ${cluster.name}` : ''}${lost.length > 0 ? `, ${lost.length} gone` : ''}`);
  const all = [...members, ...lost.map((one) => ({ ...one, state: 'gone' }))];
  table(all);
  const regions = group(all, here);
  // Drawn to the size of a phone, its words can be read there.
  width = innerWidth < WIDE ? NARROW : WIDE;
  const key = JSON.stringify([width, regions]);
  if (key === drawn) return;
  drawn = key;
  byId('map').replaceChildren(picture(regions, here.region));
};

/** Nodes by region, with the shortest way to each. */
const group = (members, here) => {
  const regions = new Map();
  for (const one of members) {
    const region = regions.get(one.region) ?? { name: one.region, nodes: 0, well: 0, reached: 0, rtt: null };
    region.nodes += 1;
    region.well += mood(one) === 'good' ? 1 : 0;
    region.reached += mood(one) === 'bad' ? 0 : 1;
    // To the tenth of a millisecond below ten: a map that is drawn anew for less would never rest.
    const rtt = typeof one.rtt_ms === 'number' ? Number(one.rtt_ms.toFixed(one.rtt_ms < 10 ? 1 : 0)) : null;
    if (rtt !== null && one.region !== here.region && (region.rtt === null || rtt < region.rtt)) region.rtt = rtt;
    regions.set(one.region, region);
  }
  return [...regions.values()].sort((a, b) => a.name.localeCompare(b.name));
};

const mood = (one) => {
  if (one.connected === false || ['not-ready', 'down', 'gone'].includes(one.state)) return 'bad';
  return one.state === 'draining' || (one.cut_from ?? []).length > 0 ? 'fair' : 'good';
};

const table = (members) => {
  const columns = [['Node'], ['Region'], ['State'], ['Roles', 'wide-only'], ['RTT', 'right'], ['Load', 'right wide-only'], ['Version', 'wide-only']];
  const rows = members.map((one) => [
    named(one.here ? `${one.node} (here)` : one.node),
    named(one.region),
    state(one.connected === false ? 'not reached' : one.state, mood(one)),
    (one.roles ?? []).join(', ') || format.NONE,
    format.millis(one.rtt_ms),
    format.number(one.load),
    one.version ?? format.NONE,
  ]);
  fill(byId('nodes'), 'Nodes of the cluster', columns, rows, 'no node is known');
};

const picture = (regions, home) => {
  const known = regions.filter(({ name }) => PLACES[name]);
  const strange = regions.filter(({ name }) => !PLACES[name]);
  const svg = draw('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': words(regions) });
  const spots = known.length > 0 ? onMap(svg, known, strange) : onRing(svg, strange);
  const from = spots.get(home);
  const fits = room();
  for (const [x, y] of spots.values()) fits(x, y, 20, 20);
  const isHome = ({ name }) => name === home;
  const nearest = [...regions].sort((a, b) => isHome(b) - isHome(a) || (a.rtt ?? Infinity) - (b.rtt ?? Infinity));
  const labelled = nearest.filter((region) => {
    const [x, y] = spots.get(region.name);
    return fits(x, y + radius(region) + 15, short(region.name).length * 8, 14);
  });
  for (const region of nearest) {
    const to = spots.get(region.name);
    if (from && to && !isHome(region)) link(svg, from, to, region, fits);
  }
  for (const region of regions) spot(svg, spots.get(region.name), region, isHome(region), labelled.includes(region));
  return svg;
};

// Where there is no room for a word it is left out: it stands in the table, too.
const room = () => {
  const taken = [];
  return (x, y, wide, high) => {
    const isFree = taken.every((one) => Math.abs(one.x - x) * 2 >= one.wide + wide || Math.abs(one.y - y) * 2 >= one.high + high);
    if (isFree) taken.push({ x, y, wide, high });
    return isFree;
  };
};

// The part of the world in which the regions are, with room around it, in plain degrees.
const onMap = (svg, known, strange) => {
  const points = known.map(({ name }) => PLACES[name]);
  const [west, east] = [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))];
  const [south, north] = [Math.min(...points.map(([, y]) => y)), Math.max(...points.map(([, y]) => y))];
  const scale = Math.min((width - 2 * EDGE) / Math.max(SPAN_MIN_DEGREES, east - west), (HEIGHT - 2 * EDGE) / Math.max(30, north - south));
  // No more of the poles than there is to see.
  const seen = HEIGHT / scale / 2;
  const middle = seen * 2 > NORTH_DEGREES - SOUTH_DEGREES ? (NORTH_DEGREES + SOUTH_DEGREES) / 2
    : Math.min(NORTH_DEGREES - seen, Math.max(SOUTH_DEGREES + seen, (south + north) / 2));
  const [x0, y0] = [width / 2 - ((west + east) / 2) * scale, HEIGHT / 2 + middle * scale];
  const at = ([x, y]) => [x0 + x * scale, y0 - y * scale];
  const size = CELL_DEGREES * scale * 0.3;
  let dots = '';
  eachLandCell((x, y) => {
    const [left, top] = at([x, y]);
    if (left < -4 || left > width + 4 || top < -4 || top > HEIGHT + 4) return;
    dots += `M${(left - size).toFixed(1)} ${top.toFixed(1)}a${size.toFixed(1)} ${size.toFixed(1)} 0 1 0 ${(2 * size).toFixed(1)} 0a${size.toFixed(1)} ${size.toFixed(1)} 0 1 0 ${(-2 * size).toFixed(1)} 0`;
  });
  svg.append(draw('path', { class: 'land', d: dots }));
  const spots = new Map(known.map(({ name }) => [name, at(PLACES[name])]));
  // Regions of which no place is known stand in a row below.
  strange.forEach(({ name }, index) => spots.set(name, [(width * (index + 1)) / (strange.length + 1), HEIGHT - 38]));
  return spots;
};

const onRing = (svg, regions) => {
  const middle = [width / 2, HEIGHT / 2];
  for (const radius of [46, 92, 138]) svg.append(draw('circle', { class: 'ring', cx: middle[0], cy: middle[1], r: radius }));
  if (regions.length === 1) return new Map([[regions[0].name, middle]]);
  return new Map(regions.map(({ name }, index) => {
    const turn = (index / regions.length) * 2 * Math.PI - Math.PI / 2;
    return [name, [middle[0] + Math.cos(turn) * width * 0.31, middle[1] + Math.sin(turn) * 92]];
  }));
};

const link = (svg, [x1, y1], [x2, y2], region, fits) => {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const bend = Math.min(46, Math.hypot(dx, dy) * 0.16);
  const length = Math.hypot(dx, dy) || 1;
  // Bent to the north, as great circles are on such a map.
  const side = dx >= 0 ? 1 : -1;
  const [cx, cy] = [(x1 + x2) / 2 + (side * dy * bend) / length, (y1 + y2) / 2 - (side * dx * bend) / length];
  svg.append(draw('path', { class: region.reached > 0 ? 'way' : 'way lost', d: `M${x1} ${y1}Q${cx} ${cy} ${x2} ${y2}` }));
  const text = region.rtt === null ? 'no way' : format.millis(region.rtt);
  const [tx, ty] = [(x1 + 2 * cx + x2) / 4, (y1 + 2 * cy + y2) / 4];
  const wide = text.length * 7 + 12;
  if (!fits(tx, ty, wide, 20)) return;
  svg.append(
    draw('rect', { class: 'plate', x: tx - wide / 2, y: ty - 10, width: wide, height: 20, rx: 4 }),
    draw('text', { class: 'rtt', x: tx, y: ty + 4 }, text),
  );
};

const radius = (region) => 7 + Math.min(7, Math.sqrt(region.nodes) * 1.5);

const spot = (svg, [x, y], region, isHome, isLabelled) => {
  const fares = region.well === region.nodes ? 'good' : region.reached > 0 ? 'fair' : 'bad';
  const size = radius(region);
  const count = region.nodes === 1 ? '1 node' : `${region.nodes} nodes`;
  if (isHome) svg.append(draw('circle', { class: 'home', cx: x, cy: y, r: size + 5 }));
  if (isLabelled) svg.append(draw('text', { class: 'region', x, y: y + size + 19 }, short(region.name)));
  svg.append(
    draw('circle', { class: 'spot', 'data-mood': fares, cx: x, cy: y, r: size }),
    draw('text', { class: 'count', x, y: y + 4 }, String(region.nodes)),
    draw('title', {}, `${region.name}: ${count}`),
  );
};

// A picture wraps no text; its title has all of it.
const short = (name) => (name.length > LABEL_MAX ? `${name.slice(0, LABEL_MAX - 1)}…` : name);

const words = (regions) => `Map of ${regions.length === 1 ? 'one region' : `${regions.length} regions`}: ${regions
  .map(({ name, nodes, rtt }) => `${name} with ${nodes === 1 ? 'one node' : `${nodes} nodes`}${rtt === null ? '' : `, ${format.millis(rtt)} away`}`)
  .join('; ')}.`;
