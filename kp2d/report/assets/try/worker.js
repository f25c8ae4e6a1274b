"use strict";
// Owns the order of work behind the page: network, decoding, matching and homography, away from what is on screen.
//
// It runs in a worker whose program is LiteRT.js, the modules named here below and this one, one after the other. First it
// is told LiteRT.js' wasm; a request holds the settings, a network when it is new, and what is new of the two pictures.
// Heads are kept while they stay true.

(() => {
  const pictures = [null, null]; // { rgba, size, seen, heads, key }
  const networks = {};
  let runtime = null; // promised

  const timed = async (work) => {
    const begun = performance.now();
    const result = await work();
    return [result, performance.now() - begun];
  };

  // The heads of a picture, computed unless they were before: its network, its size and what it shows are the same.
  const see = async (picture, network, side, texture) => {
    const key = `${network.name} ${side}`;
    if (picture.key !== key) {
      const size = kp2d.picture.seenSize(picture.size, side, network.cell);
      if (String(picture.seen?.size) !== String(size)) {
        const pixels = kp2d.picture.reduce(picture.rgba, picture.size, size);
        picture.seen = { size, pixels, where: kp2d.picture.textured(pixels, size, texture) };
      }
      const running = await runtime;
      const opened = await kp2d.tensor.open(running, network, size);
      [picture.heads, picture.milliseconds] = await timed(() => kp2d.tensor.run(running, opened, picture.seen.pixels));
      picture.key = key;
    }
    return picture;
  };

  const points = (keypoints, matches, which) => {
    const chosen = new Float64Array(matches.length);
    for (let at = 0; at < matches.length; at += 2) {
      chosen[at] = keypoints[2 * matches[at + which]];
      chosen[at + 1] = keypoints[2 * matches[at + which] + 1];
    }
    return chosen;
  };

  const compute = async ({ network: name, side, k, score, ratio, vote, threshold, texture }) => {
    const network = networks[name];
    const seen = [];
    for (const picture of pictures) seen.push(await see(picture, network, side, texture));
    const [features, decoding] = await timed(() =>
      seen.map(({ heads, seen: { size, where } }) => kp2d.decode.decode(heads, network, size, { k, score, where })));
    const [[turn, matched], matching] = await timed(() => {
      const [first, second] = features.map(({ descriptors }) => descriptors);
      const quarters = vote && network.steered ? kp2d.match.bestTurn(first, second, network.dim) : 0;
      const turned = quarters ? kp2d.match.turned(first, network.dim, quarters) : first;
      return [quarters, kp2d.match.mutual(turned, second, network.dim, ratio)];
    });
    const [found, estimating] = await timed(() => {
      const ends = [0, 1].map((which) => points(features[which].keypoints, matched.matches, which));
      const order = Array.from(matched.distances.keys()).sort((a, b) => matched.distances[a] - matched.distances[b]);
      return kp2d.homography.estimate(...ends, { threshold, order });
    });
    return {
      sizes: seen.map(({ seen: { size } }) => size),
      keypoints: features.map(({ keypoints }) => keypoints),
      scores: features.map(({ scores }) => scores),
      ...matched,
      ...found,
      turn,
      times: { network: seen.map(({ milliseconds }) => milliseconds), decoding, matching, estimating },
    };
  };

  let before = Promise.resolve(); // one request after the other

  self.onmessage = ({ data: { wasm, id, settings, network, changed } }) => {
    if (wasm) {
      runtime = kp2d.tensor.start(self.ModuleFactory, wasm);
      runtime.catch(() => {}); // the first request tells
      return;
    }
    before = before.then(async () => {
      try {
        if (network) networks[network.name] = network;
        changed.forEach((picture, which) => { if (picture) pictures[which] = picture; });
        self.postMessage({ id, result: await compute(settings) });
      } catch (error) {
        self.postMessage({ id, failure: `The network cannot run here: ${error.message || error}` });
      }
    });
  };
})();
