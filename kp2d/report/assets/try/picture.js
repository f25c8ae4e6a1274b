"use strict";
// Owns pictures: files and frames become pixels, and pixels the size at which a network sees them.

(() => {
  const { fround } = Math;
  const MOST = 1600; // px of the longer side that are kept: more is neither seen by a network nor by a reader
  const LEAST = 32;

  const canvasOf = (source, width, height) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(context, { imageSmoothingQuality: "high", fillStyle: "#fff" }); // what is transparent becomes white
    context.fillRect(0, 0, width, height);
    context.drawImage(source, 0, 0, width, height);
    return canvas;
  };

  const fitted = (source, width, height) => {
    if (Math.min(width, height) < LEAST) throw new Error(`it is smaller than ${LEAST} pixels`);
    const scale = Math.min(1, MOST / Math.max(width, height));
    const canvas = canvasOf(source, Math.round(width * scale), Math.round(height * scale));
    return { canvas, size: [height, width] };
  };

  /** Decodes a picture file, upright, its colours as they stand in the file: a canvas and its own (height, width). */
  const read = async (blob) => {
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", imageOrientation: "from-image" });
    } catch {
      throw new Error("it is no picture that this browser can read");
    }
    try {
      return fitted(bitmap, bitmap.width, bitmap.height);
    } finally {
      bitmap.close();
    }
  };

  const frame = (video) => fitted(video, video.videoWidth, video.videoHeight);

  const pixelsOf = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;

  /** The size (height, width) at which a picture is seen: at most `side` long, not enlarged, whole cells. */
  const seenSize = ([height, width], side, cell) => {
    const scale = Math.min(1, side / Math.max(height, width));
    return [height, width].map((length) => Math.max(3, Math.floor(length * scale / cell + 1e-9)) * cell);
  };

  // Which pixels a smaller one covers, and how much of each: [first, last, weights] a pixel.
  const covers = (length, wanted) => {
    const step = length / wanted;
    return Array.from({ length: wanted }, (_, index) => {
      const [start, end] = [index * step, Math.min((index + 1) * step, length)];
      const first = Math.min(Math.floor(start + 1e-9), length - 1);
      const last = Math.max(first, Math.ceil(end - 1e-9) - 1);
      const weights = [];
      for (let at = first; at <= last; at += 1) {
        weights.push(fround((Math.min(at + 1, end) - Math.max(at, start)) / (end - start)));
      }
      return { first, weights };
    });
  };

  /** Averages areas of RGBA pixels in float32, as OpenCV does and a canvas does not; returns RGB, Uint8ClampedArray [height · width · 3]. */
  const reduce = (rgba, [ownHeight, ownWidth], [height, width]) => {
    const columns = covers(ownWidth, width);
    const rows = covers(ownHeight, height);
    const narrow = new Float32Array(ownHeight * width * 3);
    for (let y = 0, to = 0; y < ownHeight; y += 1) {
      for (const { first, weights } of columns) {
        let [red, green, blue] = [0, 0, 0];
        for (let step = 0, from = (y * ownWidth + first) * 4; step < weights.length; step += 1, from += 4) {
          red = fround(red + fround(weights[step] * rgba[from]));
          green = fround(green + fround(weights[step] * rgba[from + 1]));
          blue = fround(blue + fround(weights[step] * rgba[from + 2]));
        }
        narrow[to++] = red;
        narrow[to++] = green;
        narrow[to++] = blue;
      }
    }
    const seen = new Uint8ClampedArray(height * width * 3); // which rounds halves to the even number, as OpenCV does
    const length = width * 3;
    rows.forEach(({ first, weights }, y) => {
      for (let x = 0; x < length; x += 1) {
        let sum = 0;
        for (let step = 0; step < weights.length; step += 1) {
          sum = fround(sum + fround(weights[step] * narrow[(first + step) * length + x]));
        }
        seen[y * length + x] = sum;
      }
    });
    return seen;
  };

  // Sums over a window of numbers in rows, mirrored at the edges without repeating the last; from and to [rows · columns].
  const windowSums = (from, rows, columns, window, alongRows) => {
    const [lines, length] = alongRows ? [rows, columns] : [columns, rows];
    const [stride, next] = alongRows ? [columns, 1] : [1, columns];
    const half = (window - 1) / 2;
    const mirrored = (at) => { // also in pictures narrower than the window
      const period = Math.max(2 * (length - 1), 1);
      const folded = ((at % period) + period) % period;
      return Math.min(folded, period - folded);
    };
    const to = new Float64Array(from.length);
    for (let line = 0; line < lines; line += 1) {
      const start = line * stride;
      let sum = 0;
      for (let at = -half; at <= half; at += 1) sum += from[start + mirrored(at) * next];
      for (let at = 0; at < length; at += 1) {
        to[start + at * next] = sum;
        sum += from[start + mirrored(at + half + 1) * next] - from[start + mirrored(at - half) * next];
      }
    }
    return to;
  };

  /** Which pixels have something to describe: contrast in a window around them, as `textured` of kp2d match asks. */
  const textured = (rgb, [height, width], { window, contrast }) => {
    const gray = new Float64Array(height * width);
    for (let at = 0; at < gray.length; at += 1) { // OpenCV's gray, in its integers
      gray[at] = (4899 * rgb[3 * at] + 9617 * rgb[3 * at + 1] + 1868 * rgb[3 * at + 2] + 8192) >> 14;
    }
    const [sums, squares] = [gray, gray.map((value) => value * value)].map((values) =>
      windowSums(windowSums(values, height, width, window, true), height, width, window, false));
    const area = window * window;
    return Uint8Array.from(gray, (_, at) => squares[at] / area - (sums[at] / area) ** 2 >= contrast * contrast);
  };

  globalThis.kp2d ??= {};
  kp2d.picture = { read, frame, pixelsOf, seenSize, reduce, textured };
})();
