// Orbit viewer for the point clouds of a report: drag turns, wheel (after a click) or pinch zooms, double click resets.
// Points are drawn into the pixels of a 2D canvas with a depth buffer: no library, no WebGL needed.
for (const cloud of document.querySelectorAll(".cloud")) {
  const bytes = (name) => Uint8Array.from(atob(cloud.querySelector(`[data-${name}]`).textContent), (c) => c.charCodeAt(0));
  const points = new Float32Array(bytes("points").buffer), colours = bytes("colours");
  const canvas = cloud.querySelector("canvas"), context = canvas.getContext("2d");
  if (!context) continue;
  cloud.classList.add("live");
  const start = { turn: 0.22, tilt: 0.12, zoom: 1 };
  let view = { ...start }, asked = false, held = new Map();

  function draw() {
    asked = false;
    const scale = Math.min(devicePixelRatio || 1, 2);
    const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = canvas.height = Math.round(width * 0.6);
    const picture = context.createImageData(width, height), pixels = new Uint32Array(picture.data.buffer);
    const nearest = new Float32Array(width * height).fill(Infinity);
    const [ct, st, ci, si] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
    const focal = height * 1.7 * view.zoom;
    const gap = Math.sqrt((0.5 * width * height * view.zoom) / (points.length / 3)); // so that surfaces look closed
    const dot = Math.max(1, Math.round(Math.min(gap, 4 * scale)));
    for (let i = 0, n = points.length / 3; i < n; i++) {
      const px = points[3 * i], py = points[3 * i + 1], pz = points[3 * i + 2];
      const x = ct * px + st * pz, back = -st * px + ct * pz;
      const y = ci * py - si * back, z = 4 - (si * py + ci * back);
      if (z < 0.1) continue;
      const u = Math.round(width / 2 + (focal * x) / z), v = Math.round(height / 2 - (focal * y) / z);
      const colour = 0xff000000 | (colours[3 * i + 2] << 16) | (colours[3 * i + 1] << 8) | colours[3 * i];
      for (let b = Math.max(v, 0); b < Math.min(v + dot, height); b++)
        for (let a = Math.max(u, 0); a < Math.min(u + dot, width); a++)
          if (z < nearest[b * width + a]) { nearest[b * width + a] = z; pixels[b * width + a] = colour; }
    }
    context.putImageData(picture, 0, 0);
  }
  const ask = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };
  const zoomBy = (factor) => { view.zoom = Math.min(8, Math.max(0.4, view.zoom * factor)); ask(); };
  const spread = () => { const [a, b] = [...held.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };

  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); held.set(e.pointerId, { x: e.clientX, y: e.clientY }); });
  canvas.addEventListener("pointermove", (e) => {
    const last = held.get(e.pointerId);
    if (!last) return;
    const before = held.size === 2 ? spread() : 0;
    held.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (held.size === 2) return zoomBy(before ? spread() / before : 1);
    view.turn += (e.clientX - last.x) * 0.008;
    view.tilt = Math.max(-1.5, Math.min(1.5, view.tilt + (e.clientY - last.y) * 0.008));
    ask();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => held.delete(e.pointerId));
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas && !e.ctrlKey) return; // else the page could not be scrolled past it
    e.preventDefault();
    zoomBy(Math.exp(-e.deltaY * 0.0012));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { view = { ...start }; ask(); });
  new ResizeObserver(ask).observe(canvas);
}
