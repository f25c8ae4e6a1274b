"use strict";
// Owns the camera: one at a time, its frames on demand.

(() => {
  const REASONS = {
    NotAllowedError: "The browser was not allowed to use the camera. Allow it beside the address, or choose a picture.",
    NotFoundError: "There is no camera here. Choose a picture instead.",
    NotReadableError: "The camera is in use by another program. Close that, or choose a picture.",
  };
  const NOWHERE = "This browser gives no camera to pages without https. Choose a picture: a phone offers its camera there.";
  let running = null;

  const stop = () => {
    for (const track of running?.srcObject?.getTracks() ?? []) track.stop();
    running = null;
  };

  /** Starts the camera; throws an error that says what is in the way. */
  const start = async () => {
    stop();
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(NOWHERE);
    try {
      const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: { ideal: "environment" } };
      const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
      await video.play();
      running = video;
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The camera does not start: ${error.message}`);
    }
  };

  /** The picture that the camera shows now, as `kp2d.picture.read` returns one; null while it is off. */
  const frame = () => (running ? kp2d.picture.frame(running) : null);

  window.addEventListener("pagehide", stop);
  globalThis.kp2d ??= {};
  kp2d.camera = { start, stop, frame };
})();
