"use strict";
// Owns matching: cross-checked nearest neighbours, Lowe's ratio, and the vote on a quarter turn.
//
// Descriptors are Float32Array [N · dim] of unit length, best keypoint first.

(() => {
  const TURNS = 4;
  const VOTERS = [1000, 1000]; // best keypoints of pictures 0 and 1 that vote on a turn
  const FEW = [125, 500]; // likewise, that vote first
  const CLEAR = 0.04; // lead in mean likeness by which few decide

  /** For each of N descriptors its nearest one of the other side, likenesses, and for each of M likewise. */
  const nearest = (descriptors0, descriptors1, dim) => {
    const [count0, count1] = [descriptors0.length / dim, descriptors1.length / dim];
    const forth = new Int32Array(count0).fill(-1);
    const best = new Float32Array(count0).fill(-Infinity);
    const second = new Float32Array(count0).fill(-Infinity);
    const back = new Int32Array(count1).fill(-1);
    const bestBack = new Float32Array(count1).fill(-Infinity);
    for (let row = 0; row < count0; row += 1) {
      const from = row * dim;
      for (let column = 0, at = 0; column < count1; column += 1) {
        let likeness = 0;
        for (let index = 0; index < dim; index += 4, at += 4) { // dim is a multiple of 4
          likeness += descriptors0[from + index] * descriptors1[at]
            + descriptors0[from + index + 1] * descriptors1[at + 1]
            + descriptors0[from + index + 2] * descriptors1[at + 2]
            + descriptors0[from + index + 3] * descriptors1[at + 3];
        }
        likeness = Math.fround(likeness);
        if (likeness >= best[row]) { // of several equally near ones the weakest, as KP2D does
          second[row] = best[row];
          best[row] = likeness;
          forth[row] = column;
        } else if (likeness > second[row]) {
          second[row] = likeness;
        }
        if (likeness >= bestBack[column]) {
          bestBack[column] = likeness;
          back[column] = row;
        }
      }
    }
    return { forth, best, second, back };
  };

  const distance = (likeness) => Math.sqrt(Math.max(0, 2 - 2 * likeness));

  /**
   * Matches that are each other's nearest, and nearer than `ratio` times the second nearest; a ratio of 1 takes all.
   * Returns matches [2 K], (index of 0, index of 1), best score of picture 0 first, and distances [K].
   */
  const mutual = (descriptors0, descriptors1, dim, ratio = 1) => {
    const { forth, best, second, back } = nearest(descriptors0, descriptors1, dim);
    const matches = [];
    const distances = [];
    forth.forEach((column, row) => {
      if (column < 0 || back[column] !== row) return;
      if (ratio < 1 && distance(best[row]) >= ratio * distance(second[row])) return;
      matches.push(row, column);
      distances.push(distance(best[row]));
    });
    return { matches: Int32Array.from(matches), distances: Float32Array.from(distances) };
  };

  /** Turns steerable descriptors by quarters, x towards y: each quarter moves the four blocks on by one. */
  const turned = (descriptors, dim, quarters) => {
    const shift = ((quarters % TURNS) * dim) / TURNS;
    const result = new Float32Array(descriptors.length);
    for (let at = 0; at < descriptors.length; at += dim) {
      for (let index = 0; index < dim; index += 1) result[at + ((index + shift) % dim)] = descriptors[at + index];
    }
    return result;
  };

  /** The mean likeness of the most similar fifth of matches, for each turn of the first descriptors. */
  const likenessOfTurns = (descriptors0, descriptors1, dim) => {
    const most = Math.max(1, Math.floor(Math.min(descriptors0.length, descriptors1.length) / dim / 5));
    return Array.from({ length: TURNS }, (_, quarters) => {
      const { distances } = mutual(turned(descriptors0, dim, quarters), descriptors1, dim);
      const likenesses = distances.map((value) => 1 - (value * value) / 2).sort().reverse().subarray(0, most);
      return likenesses.length ? likenesses.reduce((sum, value) => sum + value, 0) / likenesses.length : 0;
    });
  };

  /** By how many quarters picture 0 must be turned for its most similar matches to be the most similar. */
  const bestTurn = (descriptors0, descriptors1, dim) => {
    const all = [descriptors0, descriptors1];
    const voters = (counts) => all.map((descriptors, side) => descriptors.subarray(0, counts[side] * dim));
    const few = voters(FEW);
    let votes = likenessOfTurns(...few, dim);
    const [first, second] = Float64Array.from(votes).sort().reverse();
    const more = few.some((descriptors, side) => descriptors.length < all[side].length);
    if (more && first - second < CLEAR) votes = likenessOfTurns(...voters(VOTERS), dim);
    return votes.indexOf(Math.max(...votes));
  };

  globalThis.kp2d ??= {};
  kp2d.match = { mutual, turned, bestTurn };
})();
