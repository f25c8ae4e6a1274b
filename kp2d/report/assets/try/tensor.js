"use strict";
// Owns the network: LiteRT.js, its memory, and the way from pixels to the three int8 heads.
//
// The public interface of LiteRT.js refuses int8, so its Emscripten module is driven directly. Its names are internal:
// they hold for the version that package.json pins.

(() => {
  const KEPT = 4; // compiled sizes that stay in memory

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  const inflate = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // A module with one instruction of relaxed SIMD, which the faster build needs and Safari lacks.
  const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2,
    253, 15, 253, 128, 2, 11];
  const hasRelaxedSimd = () => WebAssembly.validate(new Uint8Array(RELAXED));

  /** Starts LiteRT.js. `factory` makes its module, `wasm` is its program as base64 of gzip. */
  const start = async (factory, wasm) => {
    const told = [];
    const module = await factory({
      wasmBinary: await inflate(bytesOf(wasm)),
      print: () => {},
      printErr: (line) => { told.push(line); told.splice(0, told.length - 5); }, // it also logs what is no error
    });
    return { module, environment: module.LiteRtEnvironment.create(null), told, open: new Map() };
  };

  /**
   * Gives every tensor of a model the shape it has at another size of picture: a .tflite file holds the shapes of one.
   * `shapes` says where a height stands, its width being next to it, and by how much that map is smaller.
   */
  const resized = (file, shapes, [height, width]) => {
    const copy = file.slice();
    const view = new DataView(copy.buffer);
    for (const [at, shrink] of shapes) {
      view.setInt32(at, height / shrink, true);
      view.setInt32(at + 4, width / shrink, true);
    }
    return copy;
  };

  const compile = async ({ module, environment }, network, size) => {
    network.file ??= bytesOf(network.data);
    const file = resized(network.file, network.shapes, size);
    const memory = module._malloc(file.length);
    module.HEAPU8.set(file, memory);
    const model = module.loadModel(environment, memory, file.length);
    const compiled = await module.compileModel(environment, model, {
      environment: { liteRtEnvironment: environment }, accelerator: "wasm", cpuOptions: { numThreads: 1 },
      gpuOptions: {}, webNNOptions: {},
    });
    const type = model.getInputTensorType(0, 0);
    const input = module.LiteRtTensorBuffer.createManaged(
      environment, module.LiteRtTensorBufferType.HOST_MEMORY, type, type.bytes());
    const signature = model.getSignature(0);
    const outputs = signature.outputNames();
    const names = Array.from({ length: outputs.size() }, (_, index) => outputs.get(index));
    for (const done of [outputs, signature, type]) done.delete();
    const close = () => {
      for (const object of [input, compiled, model]) object.delete();
      module._free(memory);
    };
    return { compiled, input, names, close };
  };

  /** Opens a network for pictures of a size (height, width), or takes it as it was opened before. */
  const open = async (runtime, network, size) => {
    const key = [network.name, ...size].join(" ");
    const opened = runtime.open.get(key) ?? await compile(runtime, network, size);
    runtime.open.delete(key);
    runtime.open.set(key, opened); // the last one used is the last to go
    for (const [old, { close }] of runtime.open) {
      if (runtime.open.size <= KEPT) break;
      close();
      runtime.open.delete(old);
    }
    return opened;
  };

  /** Runs a network on RGB pixels, bytes [height · width · 3]; returns its heads, an Int8Array each. */
  const run = async ({ module }, { compiled, input, names }, pixels) => {
    const { READ, WRITE } = module.LiteRtTensorBufferLockMode;
    const at = input.lock(WRITE);
    const memory = module.HEAPU8;
    for (let index = 0; index < pixels.length; index += 1) memory[at + index] = pixels[index] ^ 128; // p − 128 as int8
    input.unlock();
    const outputs = await compiled.run(0, [input]);
    const heads = {};
    outputs.forEach((output, index) => {
      const start = output.lock(READ);
      heads[names[index]] = new Int8Array(module.HEAPU8.slice(start, start + output.packedSize()).buffer);
      output.unlock();
      output.delete();
    });
    return heads;
  };

  globalThis.kp2d ??= {};
  kp2d.tensor = { hasRelaxedSimd, resized, start, open, run };
})();
