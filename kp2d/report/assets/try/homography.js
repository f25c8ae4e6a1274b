"use strict";
// Owns the homography that explains matches: RANSAC with local optimization, and what may be believed of it.
//
// Points are arrays [2 K] of x, y in px; a homography is an array of 9, row by row, picture 0 to picture 1.

(() => {
  const MIN_INLIERS = 12; // fewer can agree by chance, as in kp2d.methods.registration
  const CONFIDENCE = 0.999;
  const ROUNDS = 4; // of fitting again to those that agree

  /** Where a homography takes a point; NaN behind the horizon. */
  const warp = (h, x, y) => {
    const w = h[6] * x + h[7] * y + h[8];
    return w > 1e-9 ? [(h[0] * x + h[1] * y + h[2]) / w, (h[3] * x + h[4] * y + h[5]) / w] : [NaN, NaN];
  };

  const multiply = (a, b) => Array.from({ length: 9 }, (_, at) => {
    const [row, column] = [3 * Math.floor(at / 3), at % 3];
    return a[row] * b[column] + a[row + 1] * b[column + 3] + a[row + 2] * b[column + 6];
  });

  // Gauss' elimination with pivots, of n rows of n + 1; null if there is no single solution.
  const solve = (rows) => {
    const size = rows.length;
    for (let step = 0; step < size; step += 1) {
      let pivot = step;
      for (let row = step + 1; row < size; row += 1) {
        if (Math.abs(rows[row][step]) > Math.abs(rows[pivot][step])) pivot = row;
      }
      if (Math.abs(rows[pivot][step]) < 1e-10) return null;
      [rows[step], rows[pivot]] = [rows[pivot], rows[step]];
      for (let row = 0; row < size; row += 1) {
        if (row === step) continue;
        const factor = rows[row][step] / rows[step][step];
        for (let column = step; column <= size; column += 1) rows[row][column] -= factor * rows[step][column];
      }
    }
    return rows.map((row, index) => row[size] / row[index]);
  };

  // Moves points around the origin, at a distance of about 1: [scale, x, y].
  const normalizer = (points, chosen) => {
    let [x, y, spread] = [0, 0, 0];
    for (const at of chosen) { x += points[2 * at]; y += points[2 * at + 1]; }
    x /= chosen.length;
    y /= chosen.length;
    for (const at of chosen) spread += Math.hypot(points[2 * at] - x, points[2 * at + 1] - y);
    return [chosen.length / (spread || 1), x, y];
  };

  /** Fits a homography to chosen matches by least squares; null if they do not determine one. */
  const fit = (points0, points1, chosen) => {
    const [[s0, x0, y0], [s1, x1, y1]] = [normalizer(points0, chosen), normalizer(points1, chosen)];
    const sums = Array.from({ length: 8 }, () => new Float64Array(9));
    const add = (row) => {
      for (let a = 0; a < 8; a += 1) {
        if (row[a] !== 0) for (let b = a; b < 9; b += 1) sums[a][b] += row[a] * row[b];
      }
    };
    for (const at of chosen) {
      const [x, y] = [s0 * (points0[2 * at] - x0), s0 * (points0[2 * at + 1] - y0)];
      const [u, v] = [s1 * (points1[2 * at] - x1), s1 * (points1[2 * at + 1] - y1)];
      add([x, y, 1, 0, 0, 0, -u * x, -u * y, u]);
      add([0, 0, 0, x, y, 1, -v * x, -v * y, v]);
    }
    for (let a = 1; a < 8; a += 1) for (let b = 0; b < a; b += 1) sums[a][b] = sums[b][a];
    const solution = solve(sums);
    if (!solution) return null;
    const h = multiply([1 / s1, 0, x1, 0, 1 / s1, y1, 0, 0, 1],
      multiply([...solution, 1], [s0, 0, -s0 * x0, 0, s0, -s0 * y0, 0, 0, 1]));
    return h.every(Number.isFinite) ? h : null;
  };

  // Cost of a homography, each match at most 1 (MSAC), and which matches agree.
  const judge = (h, points0, points1, threshold) => {
    const inliers = [];
    const limit = threshold * threshold;
    let cost = 0;
    for (let at = 0; 2 * at < points0.length; at += 1) {
      const [x, y] = [points0[2 * at], points0[2 * at + 1]];
      const w = h[6] * x + h[7] * y + h[8];
      const dx = (h[0] * x + h[1] * y + h[2]) / w - points1[2 * at];
      const dy = (h[3] * x + h[4] * y + h[5]) / w - points1[2 * at + 1];
      const error = w > 1e-9 ? dx * dx + dy * dy : limit;
      cost += Math.min(error / limit, 1);
      if (error < limit) inliers.push(at);
    }
    return { h, cost, inliers };
  };

  // Three points of a sample must turn the same way in both pictures: a homography of a view mirrors nothing.
  const consistent = (points0, points1, sample) => {
    const side = (points, a, b, c) => (points[2 * b] - points[2 * a]) * (points[2 * c + 1] - points[2 * a + 1])
      - (points[2 * b + 1] - points[2 * a + 1]) * (points[2 * c] - points[2 * a]);
    return [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]].every((triple) => {
      const [a, b, c] = triple.map((index) => sample[index]);
      return side(points0, a, b, c) * side(points1, a, b, c) > 0;
    });
  };

  // The same numbers each time: a picture that is matched twice gives the same outline.
  const random = (seed) => {
    let state = seed;
    return (below) => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % below;
    };
  };

  const optimized = (first, points0, points1, threshold) => {
    let best = first;
    for (let round = 0; round < ROUNDS && best.inliers.length >= 4; round += 1) {
      const h = fit(points0, points1, best.inliers);
      const next = h && judge(h, points0, points1, threshold);
      if (!next || next.cost >= best.cost) break;
      best = next;
    }
    return best;
  };

  /**
   * Estimates the homography of matches, of which many may be wrong.
   * Returns it (null if there is none), which matches agree within the threshold (Uint8Array [K]), and whether more
   * do than RANSAC finds among matches of noise.
   */
  const estimate = (points0, points1, { threshold, iterations = 3000, seed = 2463534242 } = {}) => {
    const count = points0.length / 2;
    const draw = random(seed);
    let best = null;
    let wanted = count < 4 ? 0 : iterations;
    for (let step = 0; step < wanted; step += 1) {
      const sample = new Set();
      while (sample.size < 4) sample.add(draw(count));
      const chosen = [...sample];
      if (!consistent(points0, points1, chosen)) continue;
      const h = fit(points0, points1, chosen);
      const tried = h && judge(h, points0, points1, threshold);
      if (!tried || tried.inliers.length < 4 || (best && tried.cost >= best.cost)) continue;
      best = optimized(tried, points0, points1, threshold);
      const right = (best.inliers.length / count) ** 4;
      wanted = Math.min(iterations, Math.max(50, Math.log(1 - CONFIDENCE) / Math.log(1 - Math.min(right, 1 - 1e-9))));
    }
    const inliers = new Uint8Array(count);
    for (const at of best?.inliers ?? []) inliers[at] = 1;
    const agreeing = best?.inliers.length ?? 0;
    return { homography: best?.h ?? null, inliers, trustworthy: agreeing >= MIN_INLIERS + count / 20 };
  };

  globalThis.kp2d ??= {};
  kp2d.homography = { warp, multiply, fit, estimate };
})();
