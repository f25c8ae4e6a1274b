"use strict";
// Owns the homography that explains matches: RANSAC with local optimization, and what may be believed of it.
//
// Points are arrays [2 K] of x, y in px; a homography is an array of 9, row by row, picture 0 to picture 1.

(() => {
  const MIN_INLIERS = 12; // fewer can agree by chance, as in kp2d.methods.registration
  const CONFIDENCE = 0.999;
  const ROUNDS = [3, 2, 1.5, 1, 1, 1]; // thresholds of fitting again to those that agree, in multiples of the last
  const SURE = 1000; // samples after which they come from all matches, and not from the most similar ones only

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

  /**
   * Fits a homography to chosen matches by least squares, each with a weight (1 without any); null if they do not
   * determine one.
   */
  const fit = (points0, points1, chosen, weights = null) => {
    const [[s0, x0, y0], [s1, x1, y1]] = [normalizer(points0, chosen), normalizer(points1, chosen)];
    // Sums over the matches of p pᵀ with p = (x, y, 1), by itself and times u, v, u² + v²: six numbers each.
    const sums = new Float64Array(24);
    chosen.forEach((at, index) => {
      const weight = weights ? weights[index] : 1;
      const [x, y] = [s0 * (points0[2 * at] - x0), s0 * (points0[2 * at + 1] - y0)];
      const [u, v] = [s1 * (points1[2 * at] - x1), s1 * (points1[2 * at + 1] - y1)];
      const [wx, wy] = [weight * x, weight * y];
      const products = [wx * x, wx * y, wx, wy * y, wy, weight];
      for (let entry = 0; entry < 6; entry += 1) {
        sums[entry] += products[entry];
        sums[entry + 6] += u * products[entry];
        sums[entry + 12] += v * products[entry];
        sums[entry + 18] += (u * u + v * v) * products[entry];
      }
    });
    const of = (which, row, column) => sums[6 * which + [[0, 1, 2], [1, 3, 4], [2, 4, 5]][row][column]];
    // The normal equations of u (g x + h y + 1) = a x + b y + c, and of v likewise, for a, b, c, d, e, f, g, h.
    const rows = [0, 1, 2, 3, 4, 5, 6, 7].map((row) => {
      const [part, inner] = [Math.floor(row / 3), row % 3];
      const values = new Float64Array(9);
      for (let column = 0; column < 3; column += 1) {
        const sign = column === 2 ? 1 : -1;
        if (part < 2) {
          values[3 * part + column] = of(0, inner, column);
          values[6 + column] = sign * of(part + 1, inner, column);
        } else {
          if (column < 2) values[6 + column] = of(3, inner, column);
          else values[8] = -of(3, inner, 2);
          values[column] = -of(1, inner, column);
          values[3 + column] = -of(2, inner, column);
        }
      }
      return values;
    });
    const solution = solve(rows);
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

  // Fits again and again, to fewer and fewer matches. Divided by the depth of before, the errors are px; those near the
  // threshold count less.
  const optimized = (first, points0, points1, threshold) => {
    let best = first;
    let { h } = first;
    for (const factor of ROUNDS) {
      const limit = factor * threshold;
      const { inliers } = judge(h, points0, points1, limit);
      if (inliers.length < 4) break;
      const weights = inliers.map((at) => {
        const [x, y] = [points0[2 * at], points0[2 * at + 1]];
        const [u, v] = warp(h, x, y);
        const error = ((u - points1[2 * at]) ** 2 + (v - points1[2 * at + 1]) ** 2) / limit ** 2;
        return (1 - error) / (h[6] * x + h[7] * y + h[8]) ** 2;
      });
      h = fit(points0, points1, inliers, weights);
      if (!h) break;
      const next = judge(h, points0, points1, threshold);
      if (next.cost < best.cost) best = next;
    }
    return best;
  };

  /**
   * Estimates the homography of matches, of which many may be wrong.
   * order: matches by likeness, the most similar first, from which samples come first (PROSAC); as they are without it.
   * Returns it (null if there is none), which matches agree within the threshold (Uint8Array [K]), and whether more
   * do than RANSAC finds among matches of noise.
   */
  const estimate = (points0, points1, { threshold, order = null, iterations = 6000, seed = 2463534242 } = {}) => {
    const count = points0.length / 2;
    const draw = random(seed);
    let best = null;
    let wanted = count < 4 ? 0 : iterations;
    for (let step = 0; step < wanted; step += 1) {
      const sample = new Set();
      const pool = Math.min(count, Math.max(12, Math.ceil(count * (0.1 + (0.9 * step) / SURE))));
      while (sample.size < 4) sample.add(draw(pool));
      const chosen = order ? Array.from(sample, (at) => order[at]) : [...sample];
      if (!consistent(points0, points1, chosen)) continue;
      const h = fit(points0, points1, chosen);
      const tried = h && judge(h, points0, points1, threshold);
      if (!tried || tried.inliers.length < 4 || (best && tried.cost >= best.cost)) continue;
      best = optimized(tried, points0, points1, threshold);
      const right = (best.inliers.length / count) ** 4;
      wanted = Math.min(iterations, Math.max(200, Math.log(1 - CONFIDENCE) / Math.log(1 - Math.min(right, 1 - 1e-9))));
    }
    const inliers = new Uint8Array(count);
    for (const at of best?.inliers ?? []) inliers[at] = 1;
    const agreeing = best?.inliers.length ?? 0;
    return { homography: best?.h ?? null, inliers, trustworthy: agreeing >= MIN_INLIERS + count / 20 };
  };

  globalThis.kp2d ??= {};
  kp2d.homography = { warp, multiply, fit, estimate };
})();
