"use strict";
// Owns the page: what is chosen on it, and what it says. The work is done by worker.js, one request at a time.

(() => {
  const element = (id) => document.getElementById(id);
  const trial = JSON.parse(element("trial").textContent);
  const narrow = window.matchMedia("(max-width: 640px)");
  const state = {
    network: trial.networks[0].name, side: 320, k: 1000, score: 0, ratio: 1, vote: true, lines: "100", points: false,
    threshold: trial.threshold, texture: trial.texture,
  };
  const slots = [null, null]; // { canvas, size, name }
  const changed = [false, false]; // what the worker does not have yet
  let shown = 0; // counts what was put into the slots
  let live = null; // the slot that the camera fills
  let result = null;
  let pointed = null; // the match that is pointed at
  let drawn = null; // the layout of what is on screen

  const news = () => slots.map(({ canvas }, which) => {
    if (!changed[which]) return null;
    changed[which] = false;
    return { rgba: kp2d.picture.pixelsOf(canvas), size: [canvas.height, canvas.width] };
  });

  const ask = () => {
    if (!slots[0] || !slots[1]) return;
    element("stage").setAttribute("aria-busy", "true");
    kp2d.engine.ask({ id: shown, settings: { ...state }, pictures: news }, hear);
  };

  const hear = ({ id, failure, result: found }, more) => {
    element("stage").setAttribute("aria-busy", String(more));
    if (failure) {
      fail(failure);
    } else if (id === shown) { // else of pictures that are gone
      element("failure").hidden = true;
      result = found;
      pointed = null; // its number means another match now
      show();
      if (live !== null && !more) window.requestAnimationFrame(nextFrame);
    }
  };

  // What is said

  const fail = (words) => {
    element("failure").textContent = words;
    element("failure").hidden = false;
    element("stage").setAttribute("aria-busy", "false");
  };

  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(0)} %` : "–");
  const milliseconds = (value) => (value < 9.95 ? `${value.toFixed(1)} ms` : `${value.toFixed(0)} ms`);
  const agreeing = () => result.inliers.reduce((sum, value) => sum + value, 0);

  const verdict = () => {
    const [right, all] = [agreeing(), result.inliers.length];
    const turned = result.turn ? ` The pictures are a turn of ${90 * result.turn}° apart.` : "";
    if (result.trustworthy) return `${right} of ${all} matches agree on one homography: the outline shows where the first picture lies in the second.${turned}`;
    return `No homography can be trusted: ${right} of ${all} matches agree. The pictures show different or curved things, or too little of the same.`;
  };

  const showCounts = () => {
    const { keypoints, inliers, times } = result;
    const counts = {
      keypoints: keypoints.map((all) => all.length / 2).join(" · "),
      matches: inliers.length,
      agree: `${agreeing()} · ${percent(agreeing(), inliers.length)}`,
      network: times.network.map((value) => value.toFixed(0)).join(" + ") + " ms",
      decoding: milliseconds(times.decoding),
      matching: milliseconds(times.matching),
      estimating: milliseconds(times.estimating),
    };
    for (const [name, text] of Object.entries(counts)) element(`count_${name}`).textContent = text;
    const words = verdict();
    element("stage").setAttribute("aria-label", `Two pictures and lines between matched keypoints. ${words}`);
    element("verdict").textContent = words;
    element("verdict").classList.toggle("good", result.trustworthy);
    if (live === null) element("status").textContent = words; // a camera would never stop talking
  };

  // What is drawn

  const mostLines = () => (state.lines === "all" ? Infinity : Number(state.lines));

  const scene = (layout) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    return {
      canvases: slots.map(({ canvas }) => canvas),
      layout,
      result,
      lines: mostLines(),
      points: state.points,
      colours: { agrees: colour("--correct"), differs: colour("--wrong"), outline: colour("--estimated") },
    };
  };

  const draw = () => {
    if (!slots[0] || !slots[1]) return;
    const canvas = element("stage");
    const width = canvas.parentElement.clientWidth;
    const sizes = slots.map(({ size }) => size);
    const most = Math.max(280, window.innerHeight * (narrow.matches ? 0.6 : 0.78));
    drawn = kp2d.draw.layout(sizes, width, { stacked: narrow.matches, most });
    const density = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(width * density), height: Math.round(drawn.height * density) });
    const context = canvas.getContext("2d");
    context.scale(density, density);
    kp2d.draw.paint(context, { ...scene(drawn), chosen: result ? pointed : null });
  };

  // One match stands out of many while the pointer is at one of its ends.
  const point = ({ clientX, clientY, type }) => {
    const box = element("stage").getBoundingClientRect();
    const at = [clientX - box.left, clientY - box.top];
    const before = pointed;
    pointed = result && type === "pointermove" ? kp2d.draw.nearest(drawn, result, mostLines(), at) : null;
    if (pointed !== before) draw();
  };

  const show = () => {
    showCounts();
    draw();
    for (const name of ["save_picture", "save_matches"]) element(name).disabled = false;
  };

  const showControls = () => {
    const network = trial.networks.find(({ name }) => name === state.network);
    element("k_text").value = state.k;
    element("score_text").value = state.score === 0 ? "any" : `above ${state.score.toFixed(2)}`;
    element("ratio_text").value = state.ratio === 1 ? "off" : `below ${state.ratio.toFixed(2)}`;
    element("network_text").value = network.size;
    element("vote_control").hidden = !network.steered;
    for (const which of [0, 1]) {
      element(`name${which}`).textContent = slots[which]?.name ?? "–";
      element(`camera${which}`).setAttribute("aria-pressed", live === which);
      element(`camera${which}`).textContent = live === which ? "Freeze" : "Camera";
    }
  };

  // Pictures

  const put = (which, picture) => {
    slots[which] = picture;
    changed[which] = true;
    shown += 1;
    result = null;
  };

  const refresh = () => {
    showControls();
    if (live === null) draw(); // the next frame draws itself
    ask();
  };

  const stopCamera = (which = live) => {
    if (live === null || which !== live) return;
    kp2d.camera.stop();
    live = null;
  };

  const nextFrame = () => {
    const picture = live === null ? null : kp2d.camera.frame();
    if (!picture) return;
    put(live, { ...picture, name: "camera" });
    ask();
  };

  const chosenBySample = (name) => {
    for (const button of document.querySelectorAll(".sample")) {
      button.setAttribute("aria-pressed", button.dataset.sample === name);
    }
  };

  // Pictures come in the order in which they were asked for, also when a large one takes its time.
  let taking = Promise.resolve();

  /** Shows what `read` promises, [{ canvas, size, name }, …] from slot `from` on; if that fails, all stays as it is. */
  const take = (from, words, read, sample = null) => {
    taking = taking.then(async () => {
      element("stage").setAttribute("aria-busy", "true");
      for (const place of ["verdict", "status"]) element(place).textContent = words;
      try {
        const pictures = await read();
        pictures.forEach((picture, step) => {
          stopCamera(from + step);
          put(from + step, picture);
        });
        chosenBySample(sample);
        element("failure").hidden = true;
        refresh();
      } catch (error) {
        fail(error.message);
        if (result) element("verdict").textContent = verdict();
      }
    });
  };

  const readFiles = (which, files) => {
    const [from, list] = files.length > 1 ? [0, files.slice(0, 2)] : [which, files];
    const read = async (file) => {
      try {
        return { ...await kp2d.picture.read(file), name: file.name || "pasted picture" };
      } catch (error) {
        throw new Error(`${file.name || "What was pasted"} cannot be shown: ${error.message}.`);
      }
    };
    take(from, `Reading ${list.map(({ name }) => name || "what was pasted").join(" and ")} …`, () => Promise.all(list.map(read)));
  };

  const blobOf = (base64) =>
    new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });

  const takeSample = ({ name, title }) => take(0, "Loading …", async () => {
    const pair = await kp2d.engine.fetched("samples", name, `sample_${name}`);
    return Promise.all(pair.map(async (data, which) =>
      ({ ...await kp2d.picture.read(blobOf(data)), name: `${title}, ${["first", "second"][which]} view` })));
  }, name);

  const toggleCamera = async (which) => {
    const starting = live !== which;
    stopCamera();
    if (starting) {
      try {
        await kp2d.camera.start();
        live = which;
        chosenBySample(null);
        nextFrame();
      } catch (error) {
        fail(error.message);
      }
    }
    showControls();
  };

  const swap = () => {
    stopCamera();
    slots.reverse();
    changed.fill(true);
    shown += 1;
    result = null;
    refresh();
  };

  // What is saved

  const keep = (blob, name) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const savePicture = async () => {
    const layout = kp2d.draw.layout(slots.map(({ size }) => size), 1600);
    const words = `${state.network} int8 · ${agreeing()} of ${result.inliers.length} matches agree · kp2d`;
    keep(await kp2d.draw.save(scene(layout), words), "kp2d-matches.png");
  };

  /** All that was found, in px of the pictures' own sizes. */
  const record = () => {
    const scales = slots.map(({ size }, which) => size.map((length, axis) => length / result.sizes[which][axis]));
    const own = (which, at) => [1, 0].map((axis, xy) =>
      Number(((result.keypoints[which][2 * at + xy] + 0.5) * scales[which][axis] - 0.5).toFixed(3)));
    const to = ([down, across]) => [across, 0, 0.5 * across - 0.5, 0, down, 0.5 * down - 0.5, 0, 0, 1];
    const from = ([down, across]) => to([1 / down, 1 / across]);
    const carried = result.homography
      && kp2d.homography.multiply(to(scales[1]), kp2d.homography.multiply(result.homography, from(scales[0])));
    return {
      made_by: `kp2d ${trial.version}, ${state.network} int8, LiteRT.js ${trial.litert}`,
      convention: "x, y in px of each picture's own size; the centre of the first pixel is (0, 0); homography: 0 to 1",
      settings: { ...state, seen: result.sizes },
      pictures: slots.map(({ name, size: [height, width] }) => ({ name, width, height })),
      trustworthy: result.trustworthy,
      homography: carried && [0, 3, 6].map((row) => carried.slice(row, row + 3).map((value) => value / carried[8])),
      matches: Array.from(result.inliers, (inlier, at) => {
        const [first, second] = [result.matches[2 * at], result.matches[2 * at + 1]];
        return {
          point0: own(0, first), point1: own(1, second),
          score0: result.scores[0][first], score1: result.scores[1][second],
          distance: result.distances[at], inlier: Boolean(inlier),
        };
      }),
    };
  };

  const saveMatches = () =>
    keep(new Blob([JSON.stringify(record(), null, 1)], { type: "application/json" }), "kp2d-matches.json");

  // Listening

  const choose = (changes) => {
    Object.assign(state, changes);
    refresh();
  };

  const listenToFiles = () => {
    for (const which of [0, 1]) {
      element(`file${which}`).addEventListener("change", ({ target }) => {
        readFiles(which, [...target.files]);
        target.value = ""; // so that the same file may be chosen again
      });
      element(`camera${which}`).addEventListener("click", () => toggleCamera(which));
    }
    const stage = element("drop");
    const whichHalf = ({ clientX, clientY, target }) => {
      const slot = target.closest("[data-slot]");
      if (slot) return Number(slot.dataset.slot);
      const box = stage.getBoundingClientRect();
      return Number(narrow.matches ? clientY > box.top + box.height / 2 : clientX > box.left + box.width / 2);
    };
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      stage.dataset.over = whichHalf(event);
    });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete stage.dataset.over; });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      delete stage.dataset.over;
      if (event.dataTransfer.files.length) readFiles(whichHalf(event), [...event.dataTransfer.files]);
    });
    document.addEventListener("paste", ({ clipboardData }) => {
      if (clipboardData.files.length) readFiles(1, [...clipboardData.files]);
    });
  };

  const listen = () => {
    element("controls").addEventListener("submit", (event) => event.preventDefault());
    for (const name of ["k", "score", "ratio"]) {
      element(name).addEventListener("input", ({ target }) => choose({ [name]: Number(target.value) }));
    }
    for (const name of ["network", "side"]) {
      element(`${name}s`).addEventListener("change", ({ target }) =>
        choose({ [name]: name === "side" ? Number(target.value) : target.value }));
    }
    element("vote").addEventListener("change", ({ target }) => choose({ vote: target.checked }));
    element("lines").addEventListener("change", ({ target }) => { state.lines = target.value; pointed = null; draw(); });
    element("points").addEventListener("change", ({ target }) => { state.points = target.checked; draw(); });
    element("swap").addEventListener("click", swap);
    element("save_picture").addEventListener("click", () => { if (result) savePicture(); });
    element("save_matches").addEventListener("click", () => { if (result) saveMatches(); });
    for (const button of document.querySelectorAll(".sample")) {
      const sample = trial.samples.find(({ name }) => name === button.dataset.sample);
      button.addEventListener("click", () => takeSample(sample));
    }
    for (const kind of ["pointermove", "pointerleave"]) element("stage").addEventListener(kind, point);
    new ResizeObserver(draw).observe(element("drop"));
  };

  element("controls").reset();
  listen();
  listenToFiles();
  showControls();
  if (trial.samples.length) takeSample(trial.samples[0]);
})();
