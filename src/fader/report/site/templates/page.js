"use strict";
// Sorting, filters, sliders and the enlarged view. The page can be read without any of it.
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Colours: as the system, light, dark.
  const schemes = ["", "light", "dark"];
  const words = { "": "as the system", light: "light", dark: "dark" };
  const toggle = document.getElementById("scheme");
  const remember = (value) => {
    try {
      return value === undefined ? localStorage.getItem("scheme") : localStorage.setItem("scheme", value);
    } catch {
      return null; // a browser may keep nothing for a file
    }
  };
  const colour = (scheme) => {
    if (scheme) root.dataset.scheme = scheme;
    else delete root.dataset.scheme;
    toggle.textContent = `Colours: ${words[scheme]}`;
  };
  colour(schemes.includes(remember()) ? remember() : "");
  toggle.addEventListener("click", () => {
    const next = schemes[(schemes.indexOf(root.dataset.scheme ?? "") + 1) % schemes.length];
    colour(next);
    remember(next);
  });

  // Tables: a header sorts its column up, down, and back; averages stay below.
  const directions = { none: "ascending", ascending: "descending", descending: "none" };
  const key = (row, column) => {
    let at = 0;
    for (const cell of row.cells) {
      if (column < at + cell.colSpan) {
        const value = cell.dataset.value;
        return value === undefined ? cell.textContent.trim() : Number(value);
      }
      at += cell.colSpan;
    }
    return "";
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const sign = direction === "descending" ? -1 : 1;
    const numeric = (value) => typeof value === "number";
    const rows = [...table.rowsAsMade];
    if (direction !== "none") {
      rows.sort((a, b) => {
        const averages = a.classList.contains("average") - b.classList.contains("average");
        if (averages) return averages;
        const [x, y] = [key(a, column), key(b, column)];
        if (numeric(x) !== numeric(y)) return numeric(x) ? -1 : 1; // what has no number is last
        return sign * compare(x, y);
      });
    }
    body.append(...rows);
  };
  for (const table of all("table.sheet")) {
    table.rowsAsMade = [...table.tBodies[0].rows];
    const heads = all("th[data-column]", table.tHead);
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = directions[head.getAttribute("aria-sort")];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", direction);
        sort(table, Number(head.dataset.column), direction);
      });
    }
  }

  // Views: a slider fades from the input over the anomaly map and the reconstruction to the truth.
  const show = (within, value) => {
    for (const views of all(".views", within)) {
      all(".view", views).forEach((view, number) => {
        // Each lies over the one before; where it is wholly there, that one need not be drawn.
        const opacity = number === 0 ? 1 : Math.min(1, Math.max(0, value - number + 1));
        view.style.opacity = opacity;
        view.style.visibility = opacity > 0 && value < number + 1 ? "visible" : "hidden";
      });
    }
  };
  const slide = (slider, within) => {
    const names = all(".ticks span", slider.parentElement).map((tick) => tick.textContent);
    const update = () => {
      slider.setAttribute("aria-valuetext", names[Math.round(slider.value)]);
      show(within, Number(slider.value));
    };
    slider.addEventListener("input", update);
    update();
  };

  // Galleries: filters by defect and verdict, one slider for all, and an enlarged view.
  const viewer = document.getElementById("viewer");
  let open = null;
  const enlarge = (item) => {
    open = item;
    const title = viewer.querySelector("h2");
    title.textContent = item.querySelector(".name").textContent;
    viewer.querySelector(".views").replaceChildren(
      ...[...item.querySelector(".views").children].map((view) => view.cloneNode(true)),
    );
    viewer.querySelector(".verdict-line").replaceChildren(
      item.querySelector(".outcome").cloneNode(true), " ", item.querySelector(".score").textContent,
    );
    show(viewer, Number(viewer.querySelector("input").value));
  };
  const shown = (item) => all(".case", item.parentElement).filter((each) => !each.hidden);
  for (const gallery of all(".gallery")) {
    const cases = all(".case", gallery);
    const filters = all("[data-filter]", gallery);
    const output = gallery.querySelector("output");
    const slider = gallery.querySelector("input[type=range]");
    const filter = () => {
      for (const each of cases) {
        each.hidden = !filters.every((f) => !f.value || each.dataset[f.dataset.filter] === f.value);
      }
      const number = cases.filter((each) => !each.hidden).length;
      output.textContent = `${number} of ${cases.length} shown`;
    };
    for (const each of filters) each.addEventListener("change", filter);
    slide(slider, gallery.querySelector(".cases"));
    for (const each of cases) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "enlarge";
      button.textContent = "Enlarge";
      button.setAttribute("aria-label", `Enlarge ${each.querySelector(".name").textContent}`);
      button.addEventListener("click", () => {
        viewer.querySelector("input").value = slider.value;
        enlarge(each);
        viewer.querySelector("input").dispatchEvent(new Event("input"));
        viewer.showModal();
      });
      each.append(button);
    }
  }
  const first = document.querySelector(".gallery .slider");
  if (first) {
    const copy = first.cloneNode(true);
    copy.querySelector("input").removeAttribute("list");
    viewer.querySelector(".views").after(copy);
    slide(copy.querySelector("input"), viewer);
  }
  for (const step of all("[data-step]", viewer)) {
    step.addEventListener("click", () => {
      const cases = shown(open);
      enlarge(cases[(cases.indexOf(open) + Number(step.dataset.step) + cases.length) % cases.length]);
    });
  }

  // On paper nothing is folded.
  addEventListener("beforeprint", () => all("details").forEach((each) => (each.open = true)));
})();
