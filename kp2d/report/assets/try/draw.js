"use strict";
// Owns what is drawn: the two pictures, the lines between them and the outline; on screen as in the picture that is saved.

(() => {
  const GAP = 12;
  const corners = ([height, width]) => [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]];

  /**
   * Where two pictures of sizes (height, width) go: equally high side by side, or equally wide one below the other.
   * Returns `boxes`, and the `width` and `height` of all; no box is higher than `most`.
   */
  const layout = (sizes, width, { stacked = false, most = Infinity } = {}) => {
    if (stacked) {
      let y = 0;
      const boxes = sizes.map(([height, own]) => {
        const tall = Math.min(width * (height / own), most);
        const wide = tall * (own / height);
        const box = { x: (width - wide) / 2, y, width: wide, height: tall };
        y += tall + GAP;
        return box;
      });
      return { boxes, width, height: y - GAP };
    }
    const aspects = sizes.map(([height, own]) => own / height);
    const height = Math.min((width - GAP) / (aspects[0] + aspects[1]), most);
    let x = (width - GAP - height * (aspects[0] + aspects[1])) / 2;
    const boxes = aspects.map((aspect) => {
      const box = { x, y: 0, width: height * aspect, height };
      x += box.width + GAP;
      return box;
    });
    return { boxes, width, height };
  };

  // From px of a picture as a network sees it to a box: half a pixel more, as the first pixel's centre is (0, 0).
  const into = (box, [height, width]) => ([x, y]) =>
    [box.x + ((x + 0.5) / width) * box.width, box.y + ((y + 0.5) / height) * box.height];

  /** The ends of every match, in px of the drawing: [[x0, y0], [x1, y1]]. */
  const ends = ({ boxes }, { sizes, keypoints, matches }) => {
    const [place0, place1] = boxes.map((box, which) => into(box, sizes[which]));
    return Array.from({ length: matches.length / 2 }, (_, at) => [
      place0(keypoints[0].subarray(2 * matches[2 * at], 2 * matches[2 * at] + 2)),
      place1(keypoints[1].subarray(2 * matches[2 * at + 1], 2 * matches[2 * at + 1] + 2)),
    ]);
  };

  /** The corners of picture 0 in picture 1, in px of the drawing; null if one is behind the horizon. */
  const outline = ({ boxes }, { sizes, homography }) => {
    if (!homography) return null;
    const places = corners(sizes[0]).map(([x, y]) => kp2d.homography.warp(homography, x, y)).map(into(boxes[1], sizes[1]));
    return places.flat().every(Number.isFinite) ? places : null;
  };

  /** The match of the first `lines` that has an end nearest to a point, px of the drawing; null if none is near. */
  const nearest = (layout, result, lines, [x, y], within = 14) => {
    let [chosen, least] = [null, within];
    ends(layout, result).slice(0, lines).forEach((pair, at) => {
      for (const [endX, endY] of pair) {
        const distance = Math.hypot(endX - x, endY - y);
        if (distance < least) [chosen, least] = [at, distance];
      }
    });
    return chosen;
  };

  const strokeLines = (context, lines, colour, width, dash = []) => {
    context.beginPath();
    for (const [[x0, y0], [x1, y1]] of lines) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    Object.assign(context, { strokeStyle: colour, lineWidth: width });
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  };

  const dots = (context, points, colour, radius) => {
    context.beginPath();
    for (const [x, y] of points) {
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.fillStyle = colour;
    context.fill();
  };

  const drawMatches = (context, lines, colour, dash) => {
    if (!dash) strokeLines(context, lines, "rgb(0 0 0 / 28%)", 2.4); // below dashes, it would fill the gaps
    strokeLines(context, lines, colour, 1.3, dash);
    dots(context, lines.flat(), "rgb(16 16 16 / 70%)", 3.4);
    dots(context, lines.flat(), colour, 2.4);
  };

  const drawOutline = (context, box, places, colour) => {
    context.save();
    context.beginPath();
    context.rect(box.x, box.y, box.width, box.height);
    context.clip();
    const sides = places.map((place, at) => [place, places[(at + 1) % places.length]]);
    strokeLines(context, sides, "rgb(16 16 16 / 55%)", 5);
    strokeLines(context, sides, colour, 2.5, [9, 5]);
    context.restore();
  };

  /**
   * Draws all. `scene`: canvases, layout, result (null while there is none), lines (at most), points (whether every
   * keypoint is drawn), colours (agrees, differs, outline), chosen (a match that stands out, or null).
   */
  const paint = (context, { canvases, layout: { boxes }, result, lines, points, colours, chosen = null }) => {
    context.imageSmoothingQuality = "high";
    boxes.forEach((box, which) => context.drawImage(canvases[which], box.x, box.y, box.width, box.height));
    if (!result) return;
    if (points) {
      boxes.forEach((box, which) => {
        const place = into(box, result.sizes[which]);
        const { [which]: flat } = result.keypoints;
        const every = Array.from({ length: flat.length / 2 }, (_, at) => place(flat.subarray(2 * at, 2 * at + 2)));
        dots(context, every, "rgb(16 16 16 / 60%)", 2);
        dots(context, every, "#fff", 1.2);
      });
    }
    const best = ends({ boxes }, result).slice(0, lines);
    const agrees = (at) => result.trustworthy && result.inliers[at];
    drawMatches(context, best.filter((_, at) => !agrees(at)), colours.differs, [6, 4]);
    drawMatches(context, best.filter((_, at) => agrees(at)), colours.agrees);
    const places = result.trustworthy ? outline({ boxes }, result) : null;
    if (places) drawOutline(context, boxes[1], places, colours.outline);
    if (chosen === null) return;
    strokeLines(context, [best[chosen]], "rgb(16 16 16 / 80%)", 6);
    strokeLines(context, [best[chosen]], "#fff", 3);
    dots(context, best[chosen], "rgb(16 16 16 / 80%)", 7.5);
    dots(context, best[chosen], agrees(chosen) ? colours.agrees : colours.differs, 5.5);
  };

  /** A picture to keep, with a line of words below; promises a PNG, a Blob. */
  const save = (scene, words) => {
    const STRIP = 44;
    const { width, height } = scene.layout;
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: Math.round(width), height: Math.round(height) + STRIP });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    paint(context, scene);
    context.fillStyle = "#1a2129";
    context.font = "16px system-ui, sans-serif";
    context.fillText(words, 8, height + 28, width - 16);
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  };

  globalThis.kp2d ??= {};
  kp2d.draw = { layout, ends, outline, nearest, paint, save };
})();
