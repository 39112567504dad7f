"use strict";
// The slider: a range input over the whole picture moves the cut. Keyboard and screen readers get it for free.
for (const stage of document.querySelectorAll("[data-stage]")) {
  const cut = stage.querySelector(".cut");
  const left = stage.querySelector(".tag.left");
  const right = stage.querySelector(".tag.right");
  const move = () => {
    stage.parentNode.style.setProperty("--cut", cut.value + "%");
    const at = stage.clientWidth * cut.value / 100;
    left.style.visibility = at < left.offsetWidth + 16 ? "hidden" : "";
    right.style.visibility = stage.clientWidth - at < right.offsetWidth + 16 ? "hidden" : "";
    cut.setAttribute("aria-valuetext", cut.value + " percent clean");
  };
  cut.addEventListener("input", move);
  addEventListener("resize", move);
  move();
}
// A page printed shows every table.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
// Layers of a picture: masks, ground truth, amplified difference.
for (const box of document.querySelectorAll("[data-layer]")) {
  const stage = box.closest("figure").querySelector("[data-stage]");
  const layer = box.dataset.layer;
  const draw = () => stage.classList.toggle(layer === "masks" ? "hide-masks" : "show-" + layer, box.checked !== (layer === "masks"));
  box.addEventListener("change", draw);
  draw();
}
// Sorting: numbers by their full value, text by its letters; what was not measured stays at the end.
for (const table of document.querySelectorAll("[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const numeric = head.classList.contains("num");
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        return (numeric ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
