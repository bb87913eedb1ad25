"use strict";

(function sortableTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value;
    };
    headers.forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        const ascending = header.getAttribute("aria-sort") !== "ascending";
        for (const other of headers) other.setAttribute("aria-sort", "none");
        header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...body.rows];
        const numeric = rows.every((row) => !Number.isNaN(Number(key(row, column))));
        rows.sort((one, other) => {
          const [a, b] = [key(one, column), key(other, column)];
          // A value that does not exist stays at the end in both directions.
          if (a === "" || b === "") return (a === "") - (b === "");
          const order = numeric ? Number(a) - Number(b) : a.localeCompare(b);
          return ascending ? order : -order;
        });
        body.append(...rows);
      });
    });
  }
})();

(function measureChoice() {
  for (const input of document.querySelectorAll('input[name="measure"]')) {
    input.addEventListener("change", () => {
      for (const panel of document.querySelectorAll("[data-measure]")) {
        panel.hidden = panel.dataset.measure !== input.value;
      }
    });
  }
})();

(function tooltips() {
  // The titles work without a script; with one, they appear at once and under the pointer.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  const texts = new Map();
  for (const title of document.querySelectorAll("svg title")) {
    texts.set(title.parentElement, title.textContent);
    title.remove();
  }
  const move = (event) => {
    const place = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, window.innerWidth - place.width - 8);
    const y = event.clientY + place.height + 26 > window.innerHeight ? event.clientY - place.height - 12 : event.clientY + 16;
    tip.style.transform = `translate(${x}px, ${y}px)`;
  };
  for (const [element, text] of texts) {
    element.addEventListener("pointerenter", (event) => {
      tip.textContent = text;
      tip.hidden = false;
      move(event);
    });
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerleave", () => {
      tip.hidden = true;
    });
  }
})();

(function theme() {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();

(function sliceViewer() {
  const source = document.getElementById("slice-data");
  if (!source) return;
  const { sets } = JSON.parse(source.textContent);
  const viewer = document.getElementById("viewer");
  const [choice, slider, opacity, label] = ["case", "slice", "opacity", "slice-label"].map((id) =>
    document.getElementById(id),
  );
  const panels = [...viewer.querySelectorAll("figure")];
  const png = (content) => `data:image/png;base64,${content}`;

  function show() {
    const shown = sets[Number(choice.value)];
    const slice = shown.slices[Number(slider.value)];
    const errors = viewer.querySelector('input[name="overlay"]:checked').value === "errors";
    const where = `${slice.number} of ${shown.depth}`;
    label.textContent = where;
    slider.setAttribute("aria-valuetext", `slice ${where}`);
    for (const panel of panels) {
      const anatomy = panel.querySelector(".anatomy");
      anatomy.src = png(slice.image);
      anatomy.alt = `${panel.dataset.name}, case ${shown.case}, axial slice ${where}`;
      panel.querySelector(".picture").style.aspectRatio = shown.aspect;
      if (panel.dataset.layer === "") continue;
      const layer = Number(panel.dataset.layer);
      const overlay = panel.querySelector(".overlay");
      const wrong = errors && layer > 0;
      overlay.src = png(wrong ? slice.errors[layer - 1] : slice.classes[layer]);
      overlay.style.opacity = opacity.value / 100;
      overlay.hidden = errors && layer === 0;
      if (layer > 0) panel.querySelector(".score").textContent = shown.scores[layer - 1].join(" · ");
    }
  }

  choice.addEventListener("change", () => {
    const last = sets[Number(choice.value)].slices.length - 1;
    slider.max = last;
    slider.value = Math.min(Number(slider.value), last);
    show();
  });
  slider.addEventListener("input", show);
  opacity.addEventListener("input", show);
  for (const input of viewer.querySelectorAll('input[name="overlay"]')) input.addEventListener("change", show);
  show();
})();
