"use strict";
// Owns the worker as the page sees it: it is started with what the browser can run, and asked one thing at a time.
//
// A page that was opened as a file may neither fetch anything nor start a worker from a file. So programs and data come
// by scripts, and the worker is made of their texts.

(() => {
  const base = new URL("try/", document.baseURI).href;
  const sent = new Set(); // names of networks that the worker has
  let worker = null; // promised
  let asked = null; // { question, answer } that the worker is busy with
  let next = null; // what is asked meanwhile: the last question only

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

  const start = async () => {
    const build = kp2d.tensor.hasRelaxedSimd() ? "litert" : "litert_compat";
    const [{ script, wasm }, program] = await Promise.all([fetched("litert", build), fetched("programs", "worker")]);
    delete kp2d.litert; // some megabytes
    const started = new Worker(URL.createObjectURL(new Blob([script, program], { type: "text/javascript" })));
    started.onmessage = ({ data }) => settle(data);
    started.onerror = (event) => {
      event.preventDefault();
      settle({ failure: `The worker of this page stopped: ${event.message}` });
    };
    started.postMessage({ wasm });
    return started;
  };

  const post = async ({ id, settings, pictures }) => {
    worker ??= start().catch((error) => {
      worker = null; // what is missing may be there the next time
      throw error;
    });
    const started = await worker;
    const { network: name } = settings;
    const network = sent.has(name) ? null : await fetched("networks", name);
    const changed = pictures();
    started.postMessage({ id, settings, network, changed }, changed.filter(Boolean).map(({ rgba }) => rgba.buffer));
    sent.add(name);
  };

  const begin = () => {
    [asked, next] = [next, null];
    post(asked.question).catch((error) => settle({ failure: error.message }));
  };

  const settle = (data) => {
    const { answer } = asked;
    asked = null;
    if (next) begin();
    answer(data, asked !== null);
  };

  /**
   * Asks for keypoints, matches and homography. While an answer is awaited, only the last question is kept.
   *
   * question: `id`, which comes back with the answer; `settings`; and `pictures`, a function that returns what is new in
   * either slot. answer: a function of { id, result } or { id, failure }, and of whether a further answer will come.
   */
  const ask = (question, answer) => {
    next = { question, answer };
    if (!asked) begin();
  };

  globalThis.kp2d ??= {};
  kp2d.engine = { fetched, ask };
})();
