// Bring pixels to the size that a classifier reads, as `sightline_runtime.decoding.resizing` does with Pillow 11 to 12:
// bicubic with antialiasing, each pass rounded to 8 bits, after an average of whole blocks where the image is much larger.
// Given the same RGB pixels the result is the same to the bit; tests/test_browser_example.py holds that.

const GAP = 3; // blocks are averaged until the image is this many times as large as wanted
const BITS = 22; // after the point, of the weights
const SUPPORT = 2; // pixels on each side that bicubic reads

/** @typedef {{ data: Uint8Array | Uint8ClampedArray, height: number, width: number }} Pixels RGB, row by row */

/**
 * @param {Pixels} image
 * @param {number} height wanted
 * @param {number} width wanted
 * @param {"crop" | "squash" | "pad"} fit
 * @returns {Pixels}
 */
export function resize(image, height, width, fit) {
  if (image.height === height && image.width === width) return image;
  if (fit === "pad") {
    const scale = Math.min(height / image.height, width / image.width);
    const innerHeight = Math.max(1, roundHalfEven(image.height * scale));
    const innerWidth = Math.max(1, roundHalfEven(image.width * scale));
    const inner = resizeBox(image, innerHeight, innerWidth, [0, 0, image.width, image.height]);
    return pasted(inner, height, width, Math.floor((height - innerHeight) / 2), Math.floor((width - innerWidth) / 2));
  }
  if (fit === "squash") return resizeBox(image, height, width, [0, 0, image.width, image.height]);
  const scale = Math.max(height / image.height, width / image.width);
  const boxHeight = height / scale;
  const boxWidth = width / scale;
  const top = Math.max(0, (image.height - boxHeight) / 2);
  const left = Math.max(0, (image.width - boxWidth) / 2);
  const right = Math.min(left + boxWidth, image.width);
  const bottom = Math.min(top + boxHeight, image.height);
  return resizeBox(image, height, width, [left, top, right, bottom]);
}

function resizeBox(image, height, width, box) {
  const whole = box[0] === 0 && box[1] === 0 && box[2] === image.width && box[3] === image.height;
  if (whole && image.height === height && image.width === width) return image;
  const across = Math.trunc((box[2] - box[0]) / width / GAP) || 1;
  const down = Math.trunc((box[3] - box[1]) / height / GAP) || 1;
  if (across > 1 || down > 1) {
    const supportAcross = ((SUPPORT - 0.5) * (box[2] - box[0])) / width;
    const supportDown = ((SUPPORT - 0.5) * (box[3] - box[1])) / height;
    const read = [
      Math.max(0, Math.trunc(box[0] - supportAcross)),
      Math.max(0, Math.trunc(box[1] - supportDown)),
      Math.min(image.width, Math.ceil(box[2] + supportAcross)),
      Math.min(image.height, Math.ceil(box[3] + supportDown)),
    ];
    image = reduced(image, across, down, read);
    box = [
      (box[0] - read[0]) / across,
      (box[1] - read[1]) / down,
      (box[2] - read[0]) / across,
      (box[3] - read[1]) / down,
    ];
  }
  box = box.map(Math.fround); // as Pillow takes it
  if (width !== image.width || box[0] !== 0 || box[2] !== width) image = pass(image, box[0], box[2], width, true);
  if (height !== image.height || box[1] !== 0 || box[3] !== height) image = pass(image, box[1], box[3], height, false);
  return image;
}

/** Average blocks of pixels within a box; those at its right and lower border may be smaller. */
function reduced(image, across, down, [left, top, right, bottom]) {
  const width = Math.ceil((right - left) / across);
  const height = Math.ceil((bottom - top) / down);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const firstRow = top + y * down;
    const lastRow = Math.min(firstRow + down, bottom);
    for (let x = 0; x < width; x++) {
      const firstColumn = left + x * across;
      const lastColumn = Math.min(firstColumn + across, right);
      const count = (lastRow - firstRow) * (lastColumn - firstColumn);
      const factor = Math.trunc(Math.fround(2 ** 32 / (256 * count)));
      for (let channel = 0; channel < 3; channel++) {
        let sum = Math.trunc(count / 2);
        for (let row = firstRow; row < lastRow; row++) {
          for (let column = firstColumn; column < lastColumn; column++) {
            sum += image.data[(row * image.width + column) * 3 + channel];
          }
        }
        data[(y * width + x) * 3 + channel] = Math.floor((sum * factor) / 2 ** 24);
      }
    }
  }
  return { data, height, width };
}

/** Resample one direction, and round to 8 bits. */
function pass(image, begin, end, size, horizontal) {
  const length = horizontal ? image.width : image.height;
  const height = horizontal ? image.height : size;
  const width = horizontal ? size : image.width;
  const step = (horizontal ? 1 : image.width) * 3; // from a pixel to the next along the direction
  const data = new Uint8Array(width * height * 3);
  for (let place = 0; place < size; place++) {
    const { first, weights } = weightsOf(place, begin, end, size, length);
    const lines = horizontal ? height : width;
    for (let line = 0; line < lines; line++) {
      const start = (horizontal ? line * image.width + first : first * image.width + line) * 3;
      const target = (horizontal ? line * width + place : place * width + line) * 3;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** (BITS - 1);
        for (let k = 0; k < weights.length; k++) sum += image.data[start + k * step + channel] * weights[k];
        data[target + channel] = Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));
      }
    }
  }
  return { data, height, width };
}

/** Weights of the pixels that one wanted pixel is made of, as whole numbers. */
function weightsOf(place, begin, end, size, length) {
  const scale = Math.fround(end - begin) / size;
  const wide = Math.max(1, scale);
  const center = begin + (place + 0.5) * scale;
  const first = Math.max(0, Math.trunc(center - SUPPORT * wide + 0.5));
  const last = Math.min(length, Math.trunc(center + SUPPORT * wide + 0.5));
  const weights = [];
  let total = 0;
  for (let x = first; x < last; x++) {
    const weight = bicubic((x - center + 0.5) * (1 / wide));
    weights.push(weight);
    total += weight;
  }
  return { first, weights: weights.map((weight) => roundAway((weight / total) * 2 ** BITS)) };
}

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

function roundAway(value) {
  return Math.trunc(value + (value < 0 ? -0.5 : 0.5));
}

function roundHalfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

function pasted(inner, height, width, top, left) {
  const data = new Uint8Array(height * width * 3); // black
  for (let row = 0; row < inner.height; row++) {
    const line = inner.data.subarray(row * inner.width * 3, (row + 1) * inner.width * 3);
    data.set(line, ((top + row) * width + left) * 3);
  }
  return { data, height, width };
}
