"use strict";
// Owns the way from int8 heads to keypoints: the same as kp2d.methods.decode, in float32 like it.
//
// Convention: keypoints are (x, y) px and the centre of the top-left pixel is (0, 0).

(() => {
  const { fround } = Math;
  const BORDER = 1; // cells at the edge whose keypoints never count

  // What each of the 256 levels means: scale · (q − zero).
  const levels = ({ scale, zero }) =>
    Float32Array.from({ length: 256 }, (_, level) => fround(scale) * fround(level - 128 - zero));

  /** Cells whose score is above the least one, best first; equal scores in the order of the cells, as in Python. */
  const ranked = (scores, table, [rows, columns], least) => {
    const values = [...new Set(table)].filter((value) => value > least).sort((a, b) => b - a);
    const rank = Int16Array.from(table, (value) => values.indexOf(value));
    const starts = new Int32Array(values.length + 1);
    const visit = (cell) => {
      for (let row = BORDER; row < rows - BORDER; row += 1) {
        for (let at = row * columns + BORDER; at < (row + 1) * columns - BORDER; at += 1) {
          const place = rank[scores[at] + 128];
          if (place >= 0) cell(at, place);
        }
      }
    };
    visit((_, place) => { starts[place + 1] += 1; });
    for (let place = 1; place < starts.length; place += 1) starts[place] += starts[place - 1];
    const order = new Int32Array(starts[values.length]);
    visit((at, place) => { order[starts[place]++] = at; });
    return order;
  };

  const clipped = (value, most) => Math.min(Math.max(value, 0), most);

  // Reads the map of descriptors at a place between its samples.
  const describe = (map, table, dim, [rows, columns], [fx, fy], to) => {
    const left = clipped(Math.floor(fx), columns - 2);
    const top = clipped(Math.floor(fy), rows - 2);
    const [wx, wy] = [fround(fx - left), fround(fy - top)];
    const [vx, vy] = [fround(1 - wx), fround(1 - wy)];
    const [above, below] = [(top * columns + left) * dim, ((top + 1) * columns + left) * dim];
    let squares = 0;
    for (let index = 0; index < dim; index += 1) {
      const read = (at) => table[map[at + index] + 128];
      const upper = fround(fround(read(above) * vx) + fround(read(above + dim) * wx));
      const lower = fround(fround(read(below) * vx) + fround(read(below + dim) * wx));
      const value = fround(fround(upper * vy) + fround(lower * wy));
      to[index] = value;
      squares += value * value;
    }
    const norm = fround(Math.sqrt(squares + 1e-12));
    for (let index = 0; index < dim; index += 1) to[index] /= norm;
  };

  // To the nearest whole number, halves to the even one, as NumPy does.
  const rounded = (value) => {
    const whole = Math.round(value);
    return whole - value === 0.5 && whole % 2 !== 0 ? whole - 1 : whole;
  };

  /**
   * Turns the heads of one picture into features, best score first: the `k` best above `score`, of those that lie on a
   * pixel of `where` (Uint8Array [height · width]; without it, anywhere).
   *
   * `network` says `cell`, `dim`, `scores` (what each level of a score means) and `offset`, `descriptor` (scale and
   * zero). Returns keypoints [2 N], scores [N] and descriptors [N · dim] of unit length, all Float32Array.
   */
  const decode = (heads, network, [height, width], { k, score, where = null }) => {
    const { cell, dim } = network;
    const grid = [height / cell, width / cell];
    const [rows, columns] = grid;
    // A finer map's corner samples lie on the picture's corner pixels; a coarser one's in the middle of their cells.
    const samples = heads.descriptor.length / dim;
    const fine = Math.sqrt(samples / (rows * columns));
    let coarse = 1;
    while (fine <= 1 && Math.ceil(rows / coarse) * Math.ceil(columns / coarse) > samples) coarse += 1;
    const map = grid.map((side) => (fine > 1 ? side * fine : Math.ceil(side / coarse)));
    const table = Float32Array.from(network.scores);
    const [offsets, values] = [levels(network.offset), levels(network.descriptor)];
    const [reach, centre] = [cell - 1, (cell - 1) / 2]; // px that an offset of 1 moves a keypoint
    const step = [fround((map[1] - 1) / (width - 1)), fround((map[0] - 1) / (height - 1))];
    const place = (at) => {
      const column = at % columns;
      const moved = [0, 1].map((axis) => fround(offsets[heads.offset[2 * at + axis] + 128] * reach));
      const x = clipped(fround(cell * column + centre + moved[0]), width - 1);
      const y = clipped(fround(cell * ((at - column) / columns) + centre + moved[1]), height - 1);
      return [x, y];
    };
    const kept = [];
    const places = [];
    for (const at of ranked(heads.score, table, grid, score)) {
      if (kept.length >= k) break;
      const [x, y] = place(at);
      if (where && !where[rounded(y) * width + rounded(x)]) continue;
      kept.push(at);
      places.push(x, y);
    }
    const keypoints = Float32Array.from(places);
    const descriptors = new Float32Array(kept.length * dim);
    kept.forEach((_, index) => {
      const [x, y] = keypoints.subarray(2 * index, 2 * index + 2);
      const at = [x, y].map((value, axis) => clipped(fine > 1
        ? fround(value * step[axis])
        : fround(fround(value - (cell * coarse - 1) / 2) / (cell * coarse)), map[1 - axis] - 1));
      describe(heads.descriptor, values, dim, map, at, descriptors.subarray(index * dim, (index + 1) * dim));
    });
    return { keypoints, scores: Float32Array.from(kept, (at) => table[heads.score[at] + 128]), descriptors };
  };

  globalThis.kp2d ??= {};
  kp2d.decode = { decode, ranked };
})();
