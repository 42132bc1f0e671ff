"use strict";
// Draws the page's charts as SVG from the data block, and sorts and filters its tables.
// Texts enter as text nodes only; colours that follow light and dark stand in the style sheet.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A51A3",
    "#8C564B", "#637939", "#B8860B", "#3B6E8F", "#843C39"];
  const SPACE = (() => { // the page names no address, not even that of SVG
    const template = document.createElement("template");
    template.innerHTML = "<svg></svg>";
    return template.content.firstChild.namespaceURI;
  })();
  const MARGIN = {left: 50, right: 12, top: 10, bottom: 22};
  const LANE = 17;

  function svg(name, attributes, text) {
    const element = document.createElementNS(SPACE, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function html(name, className, text) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function told(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (value !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
    return String(+value.toPrecision(4));
  }
  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) {
      found.push(Math.abs(t) < step * 1e-9 ? 0 : t);
    }
    return found;
  }
  function smoothed(x, values, switches) { // moving average without a start-up bias, phase by phase
    const keep = 1 - 2 / (Math.floor(values.length / 20) + 3);
    let total = 0, weight = 0;
    return values.map((v, i) => {
      if (switches.some((s) => i && x[i - 1] <= s && x[i] > s)) total = weight = 0;
      if (v !== null) { total = keep * total + v; weight = keep * weight + 1; }
      return v === null ? null : total / weight;
    });
  }
  function stacked(series) { // each line becomes the sum of those before it and itself
    let below = null;
    return series.map((s) => {
      const floor = below || s.y.map(() => 0);
      below = s.y.map((v, i) => (v || 0) + floor[i]);
      return {...s, floor, top: below};
    });
  }
  function path(x, y, sx, sy) {
    let text = "", open = false;
    for (let i = 0; i < x.length; i++) {
      if (y[i] === null) { open = false; continue; }
      text += (open ? "L" : "M") + sx(x[i]).toFixed(1) + " " + sy(y[i]).toFixed(1);
      open = true;
    }
    return text;
  }

  function chart(figure, spec) {
    spec.series.forEach((s, i) => { s.colour = s.colour || COLOURS[i % COLOURS.length]; });
    const hidden = new Set();
    let zoom = null, holder = null, width = 0;
    const tip = html("div", "tip");
    tip.hidden = true;
    if (spec.series.length > 1 || spec.legend) figure.append(legend());
    figure.append(tip);

    function legend() {
      const row = html("div", "legend");
      for (const s of spec.series) {
        const button = html("button", "", s.name), key = html("span", "key");
        key.style.background = s.colour;
        button.prepend(key);
        button.setAttribute("aria-pressed", "true");
        button.addEventListener("click", () => {
          if (!hidden.delete(s.name)) hidden.add(s.name);
          button.setAttribute("aria-pressed", String(!hidden.has(s.name)));
          draw();
        });
        row.append(button);
      }
      return row;
    }

    function range(lines) {
      const xs = lines.flatMap((s) => s.x);
      let [x0, x1] = zoom || [Math.min(...xs), Math.max(...xs)];
      if (!zoom && spec.bands) {
        x0 = Math.min(x0, ...spec.bands.map((b) => b[1]));
        x1 = Math.max(x1, ...spec.bands.map((b) => b[2]));
      }
      if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
      if (!zoom && lines.some((s) => s.dots)) [x0, x1] = [x0 - (x1 - x0) * 0.06, x1 + (x1 - x0) * 0.06];
      if (spec.labels) { x0 = -0.5; x1 = spec.labels.length - 0.5; }
      if (spec.stack) return [x0, x1, 0, 1];
      const ys = lines.flatMap((s) => s.y.filter((v, i) => v !== null && s.x[i] >= x0 && s.x[i] <= x1));
      let y0 = Math.min(...ys), y1 = Math.max(...ys);
      if (!ys.length) [y0, y1] = [0, 1];
      if (spec.zero) { y0 = Math.min(0, y0); y1 = Math.max(0, y1); }
      const room = y1 > y0 ? (y1 - y0) * 0.06 : Math.max(Math.abs(y0) * 0.05, 1e-6);
      return [x0, x1, spec.zero && y0 === 0 ? 0 : y0 - room, y1 + room];
    }

    function draw() {
      width = Math.max(260, Math.round(figure.clientWidth));
      const lanes = spec.lanes || [];
      const plot = spec.height || 170;
      const height = MARGIN.top + plot + MARGIN.bottom + lanes.length * LANE;
      const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img"});
      root.setAttribute("aria-label", spec.title);
      const left = lanes.length ? Math.max(MARGIN.left, 92) : MARGIN.left;
      let lines = spec.series.filter((s) => !hidden.has(s.name));
      if (spec.stack) lines = stacked(lines);
      const [x0, x1, y0, y1] = lines.length ? range(lines) : [0, 1, 0, 1];
      const sx = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - MARGIN.right);
      const sy = (y) => MARGIN.top + (1 - (y - y0) / (y1 - y0)) * plot;
      const back = (px) => x0 + ((px - left) / (width - left - MARGIN.right)) * (x1 - x0);
      axes(root, sx, sy, [x0, x1, y0, y1], left, plot);
      const name = `clip-${figure.dataset.chart}`;
      const clip = svg("clipPath", {id: name});
      clip.append(svg("rect", {x: left, y: 0, width: width - left - MARGIN.right, height}));
      const inside = svg("g", {"clip-path": `url(#${name})`});
      root.append(clip, inside);
      bands(inside, sx, plot);
      for (const s of lines) line(inside, s, sx, sy);
      for (const step of spec.switch || []) {
        if (step > x0 && step < x1) {
          inside.append(svg("line", {class: "switch", x1: sx(step), x2: sx(step), y1: MARGIN.top, y2: MARGIN.top + plot}));
        }
      }
      laneRows(root, inside, lanes, sx, plot, left);
      hover(root, lines, sx, sy, back, plot, left);
      if (holder) holder.replaceWith(root); else figure.querySelector("figcaption").after(root);
      holder = root;
    }

    function axes(root, sx, sy, [x0, x1, y0, y1], left, plot) {
      for (const t of ticks(y0, y1, 4)) {
        root.append(svg("line", {class: "axis", x1: left, x2: width - MARGIN.right, y1: sy(t), y2: sy(t)}));
        root.append(svg("text", {x: left - 6, y: sy(t) + 4, "text-anchor": "end"}, spec.stack ? `${Math.round(t * 100)} %` : told(t)));
      }
      const marks = spec.labels ? spec.labels.map((_, i) => i) : ticks(x0, x1, Math.max(2, width / 110));
      for (const t of marks) {
        const text = spec.labels ? spec.labels[t] : told(t);
        root.append(svg("text", {x: sx(t), y: MARGIN.top + plot + 15, "text-anchor": "middle"}, text));
      }
    }

    function bands(inside, sx, plot) {
      for (const [name, start, stop] of spec.bands || []) {
        const text = svg("text", {x: (sx(start) + sx(stop)) / 2, y: MARGIN.top + 14, "text-anchor": "middle"}, name);
        text.style.fill = "#fff"; text.style.fontWeight = "600";
        queueMicrotask(() => inside.append(text)); // above the areas
        text.style.paintOrder = "stroke"; text.style.stroke = "#0008"; text.style.strokeWidth = "3px";
      }
    }

    function line(inside, s, sx, sy) {
      if (s.dots) {
        s.x.forEach((x, i) => {
          if (s.y[i] === null) return;
          const dot = svg("circle", {cx: sx(x), cy: sy(s.y[i]), r: 4.5, fill: s.colour, "fill-opacity": 0.85});
          inside.append(dot);
        });
        return;
      }
      if (spec.stack) {
        const down = s.x.map((x, i) => [x, s.floor[i]]).reverse();
        const area = path(s.x, s.top, sx, sy) + down.map(([x, y]) => `L${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`).join("") + "Z";
        inside.append(svg("path", {d: area, fill: s.colour, "fill-opacity": 0.8}));
        return;
      }
      const noisy = spec.smooth && s.y.length > 30;
      const style = {fill: "none", stroke: s.colour, "stroke-width": 1.8, "stroke-linejoin": "round"};
      if (noisy) inside.append(svg("path", {...style, d: path(s.x, s.y, sx, sy), "stroke-width": 1, "stroke-opacity": 0.28}));
      inside.append(svg("path", {...style, d: path(s.x, noisy ? smoothed(s.x, s.y, spec.switch || []) : s.y, sx, sy)}));
      if (s.x.length <= 40 && !spec.smooth) {
        s.x.forEach((x, i) => {
          if (s.y[i] !== null) inside.append(svg("circle", {cx: sx(x), cy: sy(s.y[i]), r: 2.2, fill: s.colour}));
        });
      }
    }

    function laneRows(root, inside, lanes, sx, plot, left) {
      lanes.forEach((lane, i) => {
        const y = MARGIN.top + plot + MARGIN.bottom + i * LANE;
        root.append(svg("text", {x: left - 6, y: y + 11, "text-anchor": "end"}, lane.name));
        for (const [from, to] of lane.spans) {
          inside.append(svg("rect", {x: sx(from), y: y + 3, width: Math.max(2, sx(to) - sx(from)), height: LANE - 7, rx: 2, fill: lane.colour}));
        }
        for (const at of lane.at) {
          inside.append(svg("rect", {x: sx(at) - 1, y: y + 2, width: 2, height: LANE - 5, fill: lane.colour}));
        }
      });
    }

    function hover(root, lines, sx, sy, back, plot, left) {
      const cross = svg("line", {class: "cross", y1: MARGIN.top, y2: MARGIN.top + plot, visibility: "hidden"});
      const shade = svg("rect", {y: MARGIN.top, height: plot, fill: "#8886", visibility: "hidden"});
      root.append(cross, shade);
      let from = null;
      const at = (event) => ((event.clientX - root.getBoundingClientRect().left) / root.getBoundingClientRect().width) * width;
      root.addEventListener("pointermove", (event) => {
        const px = at(event);
        if (from !== null && Math.abs(px - from) > 4) {
          shade.setAttribute("x", Math.min(px, from));
          shade.setAttribute("width", Math.abs(px - from));
          shade.setAttribute("visibility", "visible");
        }
        const py = ((event.clientY - root.getBoundingClientRect().top) / root.getBoundingClientRect().width) * width;
        show(lines, back(px), px, py, sx, sy, cross);
      });
      root.addEventListener("pointerleave", () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); });
      root.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse") from = at(event); });
      root.addEventListener("pointerup", (event) => {
        const to = at(event);
        if (from !== null && Math.abs(to - from) > 8 && !spec.labels) {
          zoom = [back(Math.max(left, Math.min(from, to))), back(Math.max(from, to))];
          tip.hidden = true;
          draw();
        }
        from = null;
      });
      root.addEventListener("dblclick", () => { zoom = null; draw(); });
    }

    function show(lines, x, px, py, sx, sy, cross) {
      const rows = [];
      let place = null, best = Infinity;
      for (const s of lines) {
        s.x.forEach((value, i) => {
          const distance = s.dots ? Math.hypot(sx(value) - px, sy(s.y[i] || 0) - py) : Math.abs(value - x);
          if (s.y[i] !== null && distance < best) { best = distance; place = value; rows[0] = [s, i]; }
        });
      }
      if (place === null) return;
      tip.replaceChildren(html("small", "", rows[0][0].dots ? rows[0][0].labels[rows[0][1]] : `step ${told(place)}`));
      const shown = rows[0][0].dots ? [rows[0]] : lines.map((s) => [s, nearest(s.x, place)]);
      for (const [s, i] of shown) {
        if (!s.dots && Math.abs(s.x[i] - place) > Math.abs(s.x[s.x.length - 1] - s.x[0]) / 20 + 1e-9) continue;
        const row = html("div"), key = html("span", "key");
        key.style.background = s.colour;
        const value = s.y[i];
        row.append(key, html("span", "", s.name), html("b", "", spec.stack ? `${(value * 100).toFixed(1)} %` : told(value)));
        tip.append(row);
      }
      cross.setAttribute("x1", sx(place)); cross.setAttribute("x2", sx(place));
      cross.setAttribute("visibility", "visible");
      tip.hidden = false;
      const scale = figure.clientWidth / width, x1 = sx(place) * scale;
      const wide = tip.offsetWidth;
      tip.style.left = `${Math.max(0, x1 + 14 + wide > figure.clientWidth ? x1 - wide - 14 : x1 + 14)}px`;
      tip.style.top = `${figure.querySelector("svg").offsetTop + 6}px`;
    }
    new ResizeObserver(() => { if (Math.abs(figure.clientWidth - width) > 2) draw(); }).observe(figure);
    draw();
  }
  function nearest(xs, x) {
    let best = 0;
    xs.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = i; });
    return best;
  }

  function sortable(table) {
    table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column], number = parseFloat(cell.dataset.key || cell.textContent);
        return Number.isNaN(number) ? cell.textContent : number;
      };
      const body = table.tBodies[0];
      [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const order = typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? 1 : -1;
        return falls ? -order : order;
      }).forEach((row) => body.append(row));
    }));
  }

  document.querySelectorAll("[data-chart]").forEach((figure) => {
    const spec = specs[figure.dataset.chart];
    const folded = figure.closest("details:not([open])"); // it has no width yet
    if (folded) folded.addEventListener("toggle", () => chart(figure, spec), {once: true});
    else chart(figure, spec);
  });
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("input[data-filters]").forEach((input) => input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll(`#${input.dataset.filters} tbody tr`).forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
  }));
})();
