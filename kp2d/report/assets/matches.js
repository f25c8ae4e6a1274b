"use strict";
// The match browser. KP2D comes from matches/index.js; each pair's matches from a script of their own, as a page
// opened from the file system may not fetch anything. One match: [x0, y0, x1, y1, distance, error or null], px.

(() => {
  const { pairs, methods, top_k: topKs, size: [height, width] } = KP2D;
  const GAP = 12; // px of a picture between both
  const element = (id) => document.getElementById(id);
  const narrow = window.matchMedia("(max-width: 640px)");
  const state = {
    pair: (pairs.filter((pair) => pair.subset === "viewpoint")[1] ?? pairs[0]).name,
    method: methods[methods.length - 1].name,
    k: topKs[Math.floor(topKs.length / 2)],
    px: KP2D.threshold,
    distance: null, // none filters nothing
    lines: "100",
  };

  // State and the address

  const readAddress = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    const take = (name, accepts, convert = String) => {
      const value = convert(given.get(name));
      if (given.has(name) && accepts(value)) state[name] = value;
    };
    take("pair", (value) => pairs.some((pair) => pair.name === value));
    take("method", (value) => methods.some((method) => method.name === value));
    take("k", (value) => topKs.includes(value), Number);
    take("px", (value) => value >= 0.5 && value <= 10, Number);
    take("lines", (value) => [...element("lines").options].some((option) => option.value === value));
    state.distance = null;
    take("distance", (value) => value >= 0, Number);
  };

  const writeAddress = () => {
    const told = Object.entries(state).filter(([, value]) => value !== null);
    history.replaceState(null, "", `#${new URLSearchParams(told)}`);
  };

  // Data

  const pairOf = () => pairs.find((pair) => pair.name === state.pair);
  const found = (method = state.method) => KP2D.matches[pairOf().id]?.[method]?.[state.k];
  const loading = new Map();

  const load = (pair) => {
    if (!loading.has(pair.id)) {
      loading.set(pair.id, new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = pair.script;
        script.onload = script.onerror = resolve; // `show` says what did not come
        document.head.append(script);
      }));
    }
    return loading.get(pair.id);
  };

  const distances = () => {
    const all = Object.values(KP2D.matches[pairOf().id][state.method]).flatMap((each) => each.matches);
    const values = all.map((match) => match[4]);
    return [Math.min(...values), Math.max(0, ...values)];
  };

  const isCorrect = (match) => match[5] !== null && match[5] <= state.px;
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
  const pixels = (value, reason) => (value === null ? reason : `${value.toFixed(1)} px`);

  // Drawing

  const svg = (name, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  const place = () => (narrow.matches ? [0, height + GAP] : [width + GAP, 0]);

  const outline = (corners, kind) => {
    if (!corners) return [];
    const [dx, dy] = place();
    const points = corners.map(([x, y]) => `${x + 0.5 + dx},${y + 0.5 + dy}`).join(" ");
    return ["halo", kind].map((name) => svg("polygon", { points, class: `frame ${name}`, "clip-path": "url(#right)" }));
  };

  // Half a pixel more: the centre of the first pixel is (0, 0), its corner is where the picture begins.
  const ends = ([x0, y0, x1, y1]) => {
    const [dx, dy] = place();
    return [x0 + 0.5, y0 + 0.5, x1 + 0.5 + dx, y1 + 0.5 + dy];
  };

  const strokes = (matches, kind) => {
    const at = matches.map(ends);
    const lines = at.map(([x0, y0, x1, y1]) => `M${x0} ${y0}L${x1} ${y1}`).join("");
    const dots = at.map(([x0, y0, x1, y1]) => `M${x0} ${y0}h0M${x1} ${y1}h0`).join("");
    // Below dashes, a halo would fill the gaps.
    const halo = kind === "correct" ? [svg("path", { d: lines, class: "line halo" })] : [];
    return [
      ...halo,
      svg("path", { d: lines, class: `line ${kind}` }),
      svg("path", { d: dots, class: "dot halo" }),
      svg("path", { d: dots, class: `dot ${kind}` }),
    ];
  };

  let drawnPair = null;

  const drawPictures = () => {
    const [dx, dy] = place();
    const pair = pairOf();
    const size = { width, height, preserveAspectRatio: "none" };
    const stage = element("stage");
    drawnPair = pair.name + narrow.matches;
    stage.setAttribute("viewBox", `0 0 ${width + dx} ${height + dy}`);
    stage.replaceChildren(
      svg("clipPath", { id: "right" }, svg("rect", { x: dx, y: dy, width, height })),
      svg("image", { href: pair.image0, x: 0, y: 0, ...size }),
      svg("image", { href: pair.image1, x: dx, y: dy, ...size }),
      svg("g", { id: "drawn" }),
    );
  };

  const draw = (matches, result) => {
    if (drawnPair !== pairOf().name + narrow.matches) drawPictures();
    const shown = state.lines === "all" ? matches : matches.slice(0, Number(state.lines));
    element("drawn").replaceChildren(
      ...outline(pairOf().frame, "true"),
      ...outline(result.frame, "estimated"),
      ...strokes(shown.filter((match) => !isCorrect(match)), "wrong"),
      ...strokes(shown.filter(isCorrect), "correct"),
    );
  };

  // The page

  const showControls = () => {
    const bits = methods.find((method) => method.name === state.method).bits;
    const [nearest, farthest] = distances();
    const unit = bits ? 1 : 0.01;
    const least = Math.floor(Math.min(nearest, farthest) / unit) * unit;
    const most = Math.ceil(farthest / unit) * unit;
    Object.assign(element("distance"), { min: least.toFixed(2), max: most.toFixed(2), step: unit });
    element("distance").value = state.distance ?? most;
    for (const name of ["pair", "method", "px", "lines"]) element(name).value = state[name];
    for (const radio of element("top_k").querySelectorAll("input")) radio.checked = Number(radio.value) === state.k;
    element("px_text").value = `${state.px} px`;
    element("distance_kind").textContent = bits ? "Hamming distance, bits" : "L2 distance";
    element("distance_text").value = state.distance === null ? "any" : `at most ${state.distance}`;
  };

  const showCounts = (matches, result) => {
    const correct = matches.filter(isCorrect).length;
    element("count_matches").textContent = matches.length;
    element("count_correct").textContent = correct;
    element("count_wrong").textContent = matches.length - correct;
    element("count_precision").textContent = percent(correct, matches.length);
    element("count_error").textContent = pixels(result.error, result.reason);
    const label = methods.find((method) => method.name === state.method).label;
    const words = `${state.pair}, ${label}, ${state.k} keypoints: ${matches.length} matches, ${correct} correct`
      + ` within ${state.px} px, ${percent(correct, matches.length)}`;
    element("status").textContent = words;
    element("stage").setAttribute("aria-label", `Two pictures and lines between matched keypoints. ${words}.`);
  };

  const showMethods = () => {
    for (const row of element("methods").tBodies[0].rows) {
      const result = found(row.dataset.method);
      const correct = result.matches.filter(isCorrect).length;
      const texts = [result.matches.length, correct, percent(correct, result.matches.length),
        result.error === null ? "–" : result.error.toFixed(1)];
      texts.forEach((text, index) => { row.cells[index + 1].textContent = text; });
      row.classList.toggle("chosen", row.dataset.method === state.method);
      row.querySelector("button").setAttribute("aria-pressed", row.dataset.method === state.method);
    }
  };

  const show = async () => {
    const pair = pairOf();
    element("stage").setAttribute("aria-busy", "true");
    await load(pair);
    if (pair !== pairOf()) return; // another was chosen meanwhile
    const result = found();
    element("stage").setAttribute("aria-busy", "false");
    element("failure").hidden = Boolean(result);
    if (!result) {
      element("failure").textContent = `The file ${pair.script} is missing or damaged. Make the report again.`;
      return;
    }
    const matches = result.matches.filter((match) => state.distance === null || match[4] <= state.distance);
    showControls();
    showCounts(matches, result);
    showMethods();
    draw(matches, result);
  };

  const choose = (changes) => {
    Object.assign(state, changes);
    writeAddress();
    show();
  };

  const chooseMethod = (method) => choose({ method, distance: null }); // distances of methods do not compare
  const step = (list, now, by) => {
    const position = list.findIndex((each) => each.name === now) + by;
    return list[(position + list.length) % list.length].name;
  };
  const turn = (by) => choose({ pair: step(pairs, state.pair, by) });

  const fill = () => {
    for (const subset of new Set(pairs.map((pair) => pair.subset))) {
      const group = document.createElement("optgroup");
      group.label = subset;
      group.append(...pairs.filter((pair) => pair.subset === subset).map((pair) => new Option(pair.name)));
      element("pair").append(group);
    }
    for (const method of methods) {
      element("method").append(new Option(method.label, method.name));
      const row = element("methods").tBodies[0].insertRow();
      const heading = document.createElement("th");
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: method.label, onclick: () => chooseMethod(method.name) });
      heading.scope = "row";
      heading.append(button);
      row.append(heading);
      row.dataset.method = method.name;
      for (let column = 0; column < 4; column += 1) row.insertCell().className = "number";
    }
    for (const k of topKs) {
      const label = document.createElement("label");
      const radio = document.createElement("input");
      Object.assign(radio, { type: "radio", name: "top_k", value: k, onchange: () => choose({ k }) });
      label.append(radio, ` ${k}`);
      element("top_k").append(label);
    }
  };

  const listen = () => {
    element("controls").addEventListener("submit", (event) => event.preventDefault());
    element("pair").addEventListener("change", (event) => choose({ pair: event.target.value }));
    element("method").addEventListener("change", (event) => chooseMethod(event.target.value));
    element("lines").addEventListener("change", (event) => choose({ lines: event.target.value }));
    element("px").addEventListener("input", (event) => choose({ px: Number(event.target.value) }));
    element("distance").addEventListener("input", (event) => {
      const { value, max } = event.target;
      choose({ distance: Number(value) >= Number(max) ? null : Number(value) });
    });
    element("previous").addEventListener("click", () => turn(-1));
    element("next").addEventListener("click", () => turn(1));
    narrow.addEventListener("change", show);
    window.addEventListener("hashchange", () => { readAddress(); show(); });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("select, input, textarea, .scroll");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "ArrowLeft") turn(-1);
      if (event.key === "ArrowRight") turn(1);
      if (event.key === "m") chooseMethod(step(methods, state.method, 1));
    });
  };

  fill();
  listen();
  readAddress();
  show();
})();
