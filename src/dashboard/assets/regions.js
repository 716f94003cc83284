// Where regions are, and where there is land: for a map that is drawn without asking anybody.

// Longitude and latitude of regions of Fly, in degrees.
export const PLACES = {
  ams: [4.8, 52.4], arn: [17.9, 59.6], atl: [-84.4, 33.6], bog: [-74.1, 4.7], bom: [72.9, 19.1], bos: [-71.0, 42.4],
  cdg: [2.5, 49.0], den: [-104.7, 39.9], dfw: [-97.0, 32.9], ewr: [-74.2, 40.7], eze: [-58.5, -34.8], fra: [8.6, 50.0],
  gdl: [-103.3, 20.5], gig: [-43.2, -22.8], gru: [-46.5, -23.4], hkg: [113.9, 22.3], iad: [-77.5, 38.9],
  jnb: [28.2, -26.1], lax: [-118.4, 33.9], lhr: [-0.5, 51.5], mad: [-3.6, 40.5], mia: [-80.3, 25.8], nrt: [140.4, 35.8],
  ord: [-87.9, 42.0], otp: [26.1, 44.6], phx: [-112.0, 33.4], qro: [-100.2, 20.6], scl: [-70.8, -33.4],
  sea: [-122.3, 47.4], sin: [104.0, 1.4], sjc: [-121.9, 37.4], syd: [151.2, -33.9], waw: [21.0, 52.2],
  yul: [-73.7, 45.5], yyz: [-79.6, 43.7],
};

// Cells of three degrees, a bit each, from 180° W and 75° N on, row by row; by the public-domain outlines of Natural Earth.
export const CELL_DEGREES = 3;
export const CELLS_A_ROW = 120;
export const NORTH_DEGREES = 75;
export const SOUTH_DEGREES = -57;
const LAND =
  'AAAYvsB/+AAAAgH/9BAAA8ADy/g/4AAMADf///+Af/////////+AMAgAAAAAA////7wcBgDv///////+B///+DAMAAPf//////9cAIP/+DoAACLP' +
  '/////+BAAAD//j8AACCf/////4DAAAB//7+AAF////////CAAAAf//wAAB////////AAAAAf//wAAB/9e////9AAAAAf//gAAF34d////5AAAAAf' +
  '/+AAAHBz+///9gAAAAAf/+AAAHCX+///+iAAAAAP/8AAAD4A////8MAAAAAH/4AAAH+Y////+QAAAAAB8IAAAP/+9///+AAAAAAA8AAAAf//+P//' +
  '8AAAAAAAYEAAAf//fx/fwAAAAAAAcggAAf//Pg8egAAAAAAAHgAAA///vA4fCAAAAAAAAwAAA///8AYHAAAAAAAAAR0AAf//+AYBAAAAAAAAAD8A' +
  'AP//+AAABAAAAAAAAD/gAEP/8AAIMAAAAAAAAD/gAAH/4AAG4AAAAAAAAH/4AAH/wAACaIAAAAAAAH/+AAD/gAACAHAAAAAAAH//AAD/gAAAwDgA' +
  'AAAAAD//AAD/gAAAAAAAAAAAAB/+AAD/yAAAAZAAAAAAAA/+AAD/mAAAB9gAAAAAAAf+AAD/EAAAD/gAAAAAAAf8AAB/MAAAP/wAAAAAAA/wAAB+' +
  'AAAAP/4AAAAAAA/wAAB+AAAAP/4AAAAAAA/gAAA8AAAAH/4AAAAAAA/AAAAgAAAAEDwAAAAAAB+AAAAAAAAAABwCAAAAAB4AAAAAAAAAAAACAAAA' +
  'AAwAAAAAAAAAAAAEAAAAABwAAAAAAAAAAAAIAAAAABgAAAAAAAAAAAAAAAAAABgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' +
  'AAAA';

/** Calls back with the middle of each cell that is land, in degrees. */
export const eachLandCell = (visit) => {
  const bytes = atob(LAND);
  for (let at = 0; at < bytes.length * 8; at += 1) {
    if ((bytes.charCodeAt(at >> 3) >> (7 - (at & 7))) & 1) {
      const column = at % CELLS_A_ROW;
      const row = Math.floor(at / CELLS_A_ROW);
      visit((column + 0.5) * CELL_DEGREES - 180, NORTH_DEGREES - (row + 0.5) * CELL_DEGREES);
    }
  }
};
