"use strict";
// Owns the worker as the page sees it: it is started with what the browser can run, and asked one thing at a time.
//
// A page that was opened as a file may neither fetch anything nor start a worker from a file. So programs and data come
// by scripts, and the worker is made of their texts.

(() => {
  const base = new URL("try/", document.baseURI).href;
  const sent = new Set(); // names of networks that the worker has
  let worker = null; // promised
  let busy = false;
  let next = null; // what is asked while the worker is busy: the last question only

  const load = (file) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = base + file;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`try/${file} is missing or damaged. Make the report again.`));
    document.head.append(script);
  });

  /** A value that try/FILE.js puts into a table of ours. */
  const fetched = async (table, name, file = name) => {
    if (!kp2d[table]?.[name]) await load(`${file}.js`);
    return kp2d[table][name];
  };

  const start = async (answer) => {
    const build = kp2d.tensor.hasRelaxedSimd() ? "litert" : "litert_compat";
    const [{ script, wasm }, program] = await Promise.all([fetched("litert", build), fetched("programs", "worker")]);
    delete kp2d.litert; // some megabytes
    const text = new Blob([script, program], { type: "text/javascript" });
    const started = new Worker(URL.createObjectURL(text));
    started.onmessage = ({ data }) => answer(data);
    started.onerror = (event) => {
      event.preventDefault();
      answer({ failure: `The worker of this page stopped: ${event.message}` });
    };
    started.postMessage({ wasm });
    return started;
  };

  const post = async ({ id, settings, pictures }, answer) => {
    try {
      worker ??= start(answer);
      const started = await worker;
      const network = sent.has(settings.network) ? null : await fetched("networks", settings.network);
      sent.add(settings.network);
      const changed = pictures();
      const moved = changed.filter(Boolean).map(({ rgba }) => rgba.buffer);
      started.postMessage({ id, settings, network, changed }, moved);
    } catch (error) {
      worker = null;
      answer({ failure: error.message });
    }
  };

  /**
   * Asks for keypoints, matches and homography. While an answer is awaited, only the last question is kept.
   *
   * question: `id`, which comes back with the answer; `settings`; and `pictures`, a function that returns what is new in
   * either slot. answer: a function of { id, result } or { id, failure }, and of whether a further answer will come.
   */
  const ask = (question, answer) => {
    if (busy) {
      next = [question, answer];
      return;
    }
    busy = true;
    post(question, (data) => {
      busy = false;
      const waiting = next;
      next = null;
      if (waiting) ask(...waiting);
      answer(data, busy);
    });
  };

  globalThis.kp2d ??= {};
  kp2d.engine = { fetched, ask };
})();
