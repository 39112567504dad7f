// A click is a point, a drag is a box; both in the photograph's own pixels.
const place = (event, stage) => {
  const r = stage.getBoundingClientRect();
  const w = Number(stage.dataset.w), h = Number(stage.dataset.h);
  const clamp = (v, most) => Math.min(Math.max(v, 0), most);
  return [clamp((event.clientX - r.left) / r.width * w, w - 1), clamp((event.clientY - r.top) / r.height * h, h - 1)];
};
let start = null;
element.addEventListener("pointerdown", (event) => {
  const stage = event.target.closest(".rs-stage");
  if (!stage || event.button) return;
  event.preventDefault();
  start = { stage, at: place(event, stage), x: event.clientX, y: event.clientY, far: false };
  stage.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!start) return;
  start.far = start.far || Math.hypot(event.clientX - start.x, event.clientY - start.y) > 8;
  if (!start.far) return;
  const [x, y] = place(event, start.stage), [a, b] = start.at;
  start.stage.querySelector(".rs-marks").innerHTML =
    `<rect x="${Math.min(a, x)}" y="${Math.min(b, y)}" width="${Math.abs(x - a)}" height="${Math.abs(y - b)}"/>`;
});
const finish = (event) => {
  if (!start) return;
  const { stage, at, far } = start;
  start = null;
  const [x, y] = place(event, stage);
  trigger("select", far ? { x0: at[0], y0: at[1], x1: x, y1: y } : { x: at[0], y: at[1] });
};
element.addEventListener("pointerup", finish);
element.addEventListener("pointercancel", () => { start = null; });
element.addEventListener("click", (event) => {
  const thumb = event.target.closest(".rs-thumb");
  if (thumb) trigger("select", { photo: thumb.dataset.photo });
});
