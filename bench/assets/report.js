// The interactive charts of a report. They read the JSON in this page, and nothing else.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = 7;
  const DASHES = [[], [7, 3], [2, 3]];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Formatting: three significant digits, as in the tables.
  const significant = (x) => {
    if (x === 0) return "0";
    const r = Number(x.toPrecision(3));
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(r))));
    return decimals > 8 ? r.toExponential(2) : r.toFixed(decimals);
  };
  const duration = (ns) => {
    const r = Number(ns.toPrecision(3));
    const [factor, unit] = r >= 1e9 ? [1e9, "s"] : r >= 1e6 ? [1e6, "ms"] : r >= 1e3 ? [1e3, "µs"] : [1, "ns"];
    return `${significant(ns / factor)} ${unit}`;
  };
  const shortDuration = (ns) => {
    const [factor, unit] = ns >= 1e9 ? [1e9, "s"] : ns >= 1e6 ? [1e6, "ms"] : ns >= 1e3 ? [1e3, "µs"] : [1, "ns"];
    return `${Number((ns / factor).toPrecision(3))} ${unit}`;
  };
  const nines = (q) => -Math.log10(1 - q);
  const percentile = (n) => {
    const q = 100 * (1 - 10 ** -n);
    return `p${n < 1 ? q.toFixed(0) : Number(q.toFixed(Math.ceil(n) - 1 + (Number.isInteger(n) ? 0 : 1)))}`;
  };

  // Ticks of a logarithmic axis: 1, 2 and 5 of each decade, or fewer when there are many decades.
  const logTicks = (u, axis, min, max) => {
    const steps = max / min > 1e4 ? [1] : max / min > 60 ? [1, 3] : max / min > 3 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
    const ticks = [];
    for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power++) {
      for (const step of steps) {
        const tick = step * 10 ** power;
        if (tick >= min && tick <= max) ticks.push(tick);
      }
    }
    return ticks;
  };
  const range = (u, min, max) => {
    if (min == null) return [1, 10];
    return u.scales.y.distr === 3 ? [min * 0.92, max * 1.09] : [Math.min(0, min * 1.05), Math.max(0, max * 1.05) || 1];
  };

  // The metric that says what a percentile was bought for.
  const COST = "extra_requests_ratio";
  const QUANTITIES = { latency: "Latency", service: "Service time", schedule_lag: "Schedule lag" };
  // What stands behind a number: nothing for a count, and a time says its unit itself.
  const unitBehind = (unit) => unit && unit !== "count" && unit !== "ns" ? unit : "";
  // A figure at an axis, where there is no room for many digits.
  const shortFigure = (value, unit) => {
    if (unit === "ns") return shortDuration(value);
    const r = Math.abs(value);
    const [factor, prefix] = r >= 1e9 ? [1e9, " G"] : r >= 1e6 ? [1e6, " M"] : r >= 1e5 ? [1e3, " k"] : [1, ""];
    return `${Number((value / factor).toPrecision(4))}${prefix}`;
  };
  // A metric's name as words, without its unit, which stands at the axis.
  const words = (name) => name.replaceAll("_", " ");
  const withUnit = (value, unit) => unit === "ns" ? duration(value) : [significant(value), unitBehind(unit)].filter(Boolean).join(" ");
  const isLoadAxis = (axis) => /rate|load|per_sec|rps|offered/.test(axis);

  const element = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // The last point at or before x of ascending points.
  const before = (points, x) => {
    let low = 0, high = points.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle + 1; else high = middle;
    }
    return low > 0 ? points[low - 1] : null;
  };

  // Points that belong to several lines, as the columns that uPlot wants.
  const columns = (lines) => uPlot.join(lines.map((points) => [points.map((p) => p[0]), points.map((p) => p[1])]));

  class Chart {
    constructor(host, experiment, backends) {
      this.host = host;
      this.experiment = experiment;
      // One colour per back end in the whole report.
      this.names = [...new Set([...backends, ...experiment.cells.map((cell) => cell.backend)])];
      this.points = [];
      for (const cell of experiment.cells) {
        const name = Object.entries(cell.axis).map(([axis, value]) => `${axis} ${value}`).join(", ");
        cell.point = name;
        if (!this.points.includes(name)) this.points.push(name);
      }
      this.quantities = Object.keys(QUANTITIES).filter((q) => experiment.cells.some((cell) => cell[q]));
      // An axis of numbers: with a published figure beside it, one value is enough to compare.
      this.paper = experiment.paper || [];
      this.sweeps = experiment.axes.filter((axis) => {
        const values = new Set(experiment.cells.map((cell) => cell.axis[axis]));
        const wanted = this.paper.some((figure) => figure.axis === axis) ? 1 : 2;
        return values.size >= wanted && [...values].every((value) => value !== undefined && isFinite(Number(value)));
      });
      const metrics = new Set(experiment.cells.flatMap((cell) => Object.keys(cell.metrics)));
      const published = this.paper.map((figure) => figure.metric).filter((name) => metrics.has(name));
      // What papers say comes first, then what a run of endless flows or of questions is told by.
      const first = [...published, "long_goodput_mbit_per_sec", "goodput_mbit_per_sec", "query_ms_mean"];
      const rank = (name) => first.includes(name) ? first.indexOf(name) : first.length;
      this.metrics = [...metrics].filter((name) => !name.startsWith("paper_")).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
      const isVirtual = experiment.cells.every((cell) => cell.mode === "simulated");
      const figures = this.sweeps.length > 0 && this.metrics.length > 0 && (isVirtual || this.quantities.length === 0);
      this.hasSeries = experiment.cells.some((cell) => cell.series.length > 0);
      const load = this.sweeps.find(isLoadAxis);
      this.state = {
        view: figures ? `of ${this.sweeps[0]}` : load ? `by ${load}` : "percentiles",
        metric: this.metrics[0],
        point: this.points[0],
        quantity: this.quantities[0],
        log: !figures,
        round: null,
        hidden: new Set(),
      };
    }

    cells() {
      return this.experiment.cells.filter((cell) => cell.point === this.state.point && cell[this.state.quantity]);
    }

    label(cell) {
      return cell.backend + (cell.mode === "native" ? "" : ` (${cell.mode})`) + (cell.valid ? "" : " INVALID");
    }

    // Each view: lines, and how their axes look.
    percentiles() {
      const lines = this.cells().map((cell) => ({
        cell, label: this.label(cell), points: cell[this.state.quantity].curve.map(([q, ns]) => [nines(q), ns]),
      }));
      const most = Math.max(1, ...lines.map((line) => (line.points.at(-1) || [0])[0]));
      return {
        lines, y: "time", at: percentile, value: duration,
        x: { splits: [nines(0.5), 1, 2, 3, 4, 5, 6, 7].filter((n) => n <= most), values: percentile, range: [0, most] },
        hint: "A line that ends early ends where requests were lost.",
      };
    }

    cdf() {
      const lines = this.cells().map((cell) => ({ cell, label: this.label(cell), points: cell[this.state.quantity].cdf }));
      return {
        lines, y: "share", at: (ns) => `within ${duration(ns)}`, value: (share) => `${significant(share * 100)} %`,
        x: { time: true }, hint: "Share of requests answered within a time; lost requests keep a line below 100 %.",
      };
    }

    time() {
      const rounds = [...new Set(this.cells().flatMap((cell) => cell.series.map((row) => row.round)))].sort((a, b) => a - b);
      if (!rounds.includes(this.state.round)) this.state.round = rounds[0];
      const lines = [];
      for (const cell of this.cells()) {
        const row = cell.series.find((row) => row.round === this.state.round);
        if (!row) continue;
        const at = (index) => row.points.map((p) => [p[0] / 1000, p[index]]);
        lines.push({ cell, label: this.label(cell), points: at(3), lost: row.points.filter((p) => p[2] > 0).map((p) => p[0] / 1000) });
        lines.push({ cell, label: this.label(cell), points: at(4), second: true });
      }
      return {
        lines, y: "time", at: (s) => `${significant(s)} s after the start, in round ${this.state.round + 1}`, value: duration, rounds,
        x: { values: (s) => `${Number(s.toFixed(3))} s` },
        hint: "Solid: median of the requests meant for each moment. Thin: the slowest of them. ×: requests were lost.",
      };
    }

    sweep(axis) {
      const rest = (cell) => JSON.stringify(Object.entries(cell.axis).filter(([name]) => name !== axis));
      const anchor = this.experiment.cells.find((cell) => cell.point === this.state.point);
      const lines = new Map();
      for (const cell of this.experiment.cells) {
        const pooled = cell[this.state.quantity];
        if (!pooled || rest(cell) !== rest(anchor)) continue;
        for (const q of [0.5, 0.99]) {
          const found = pooled.quantiles.find((quantile) => quantile.q === q);
          const key = `${this.label(cell)} ${q}`;
          if (!lines.has(key)) lines.set(key, { cell, label: this.label(cell), points: [], second: q !== 0.5, dots: true });
          const ns = found && typeof found.ns === "number" ? found.ns : null;
          lines.get(key).points.push([Number(cell.axis[axis]), ns]);
        }
      }
      // What the percentiles cost, on an axis of its own at the right.
      for (const cell of this.experiment.cells) {
        const cost = cell.metrics[COST];
        if (!cost || rest(cell) !== rest(anchor)) continue;
        const key = `${this.label(cell)} ${COST}`;
        const label = `${this.label(cell)}: ${words(COST)} (right)`;
        if (!lines.has(key)) lines.set(key, { cell, label, points: [], cost: true, dots: true, value: (y) => `${significant(y)} %` });
        lines.get(key).points.push([Number(cell.axis[axis]), cost.median * 100]);
      }
      const all = [...lines.values()];
      all.forEach((line) => line.points.sort((a, b) => a[0] - b[0]));
      const hasCost = all.some((line) => line.cost);
      const xs = all.flatMap((line) => line.points.map((p) => p[0]));
      const [least, most] = [Math.min(...xs), Math.max(...xs)];
      const log = least > 0 && most / least > 8;
      const number = (x) => x >= 1000 ? `${Number((x / 1000).toPrecision(3))}k` : `${x}`;
      return {
        lines: all, y: "time", at: (x) => `${axis} ${Number(x.toPrecision(3))}`, value: duration, nearest: true,
        x: { log, values: number, range: log ? [least / 1.1, most * 1.1] : [least - (most - least) * 0.03, most + (most - least) * 0.03] },
        hint: "Solid: p50. Dashed: p99. A line that stops: that percentile falls among lost requests."
          + (hasCost ? " Dotted, on the right axis: requests beyond those that a call needs, in percent." : ""),
        cost: hasCost,
      };
    }

    // A metric over an axis of numbers: a line for each combination of the others, and what papers say as marks.
    figure(axis) {
      const { metric } = this.state;
      const lines = new Map();
      let unit = "";
      for (const cell of this.experiment.cells) {
        const found = cell.metrics[metric];
        if (!found) continue;
        unit = found.unit;
        const others = Object.entries(cell.axis).filter(([name]) => name !== axis).map(([, value]) => value);
        const label = [...others, ...(cell.backend === "sim" ? [] : [this.label(cell)])].join(", ") || words(metric);
        if (!lines.has(label)) lines.set(label, { cell, label, points: [], dots: true });
        lines.get(label).points.push([Number(cell.axis[axis]), found.median]);
      }
      const all = [...lines.values()];
      all.forEach((line, index) => { line.index = index; line.points.sort((a, b) => a[0] - b[0]); });
      const measured = all.flatMap((line) => line.points.map((p) => p[0]));
      for (const figure of this.paper.filter((one) => one.metric === metric && (one.axis === axis || one.axis == null))) {
        const line = all.find((one) => one.label === figure.arm || one.label.split(", ").includes(figure.arm));
        const at = figure.at == null ? [...new Set(measured)] : [figure.at];
        const label = `published${figure.arm ? `, ${figure.arm}` : ""}`;
        let marks = all.find((one) => one.paper && one.label === label);
        if (!marks) {
          marks = { cell: (line || all[0] || {}).cell, label, points: [], index: line ? line.index : null, paper: [] };
          all.push(marks);
        }
        for (const x of at) {
          marks.points.push([x, figure.value]);
          marks.paper.push({ ...figure, at: x });
        }
        marks.points.sort((a, b) => a[0] - b[0]);
      }
      const drawn = all.filter((line) => line.cell);
      const xs = drawn.flatMap((line) => line.points.map((p) => p[0]));
      const [least, most] = [Math.min(...xs), Math.max(...xs)];
      const log = least > 0 && most / least > 8;
      const number = (x) => x >= 10000 ? `${Number((x / 1000).toPrecision(3))}k` : `${Number(x.toPrecision(4))}`;
      const margin = (most - least || Math.abs(most) || 1) * 0.04;
      const marks = drawn.filter((line) => line.paper);
      const sources = [...new Set(marks.flatMap((line) => line.paper.map((one) => `${one.place}${one.work ? ` (${one.work})` : ""}`)))];
      return {
        lines: drawn, y: "figure", unit, at: (x) => `${words(axis)} ${number(x)}`, value: (y) => withUnit(y, unit), nearest: true,
        x: { log, values: number, range: log ? [least / 1.1, most * 1.1] : [least - margin, most + margin] },
        hint: `${[words(metric), unitBehind(unit)].filter(Boolean).join(", ")}, over ${words(axis)}.`
          + (marks.length > 0 ? ` ◇ published, with its tolerance: ${sources.join("; ")}.` : ""),
      };
    }

    view() {
      const { view } = this.state;
      if (view.startsWith("of ")) return this.figure(view.slice(3));
      return view.startsWith("by ") ? this.sweep(view.slice(3)) : this[view]();
    }

    style(line) {
      if (line.index === null) return { stroke: colour("--ink"), dash: [] };
      if (line.index !== undefined) {
        return { stroke: colour(`--s${line.index % COLOURS}`), dash: line.paper ? [] : DASHES[Math.floor(line.index / COLOURS) % DASHES.length] };
      }
      const index = this.names.indexOf(line.cell.backend);
      const dash = line.cell.valid ? DASHES[Math.floor(index / COLOURS) % DASHES.length] : [1, 4];
      return { stroke: colour(`--s${index % COLOURS}`), dash };
    }

    isHidden(line) {
      // What is not judged is drawn only when asked for.
      const asked = this.state.hidden.has(line.label);
      return line.cell.valid ? asked : !asked;
    }

    // Controls, made once per state: their set depends on the view.
    controls(view) {
      const bar = element("div", { class: "controls" });
      const set = (change) => { Object.assign(this.state, change); this.draw(); };
      const views = this.quantities.length > 0 ? [["percentiles", "Percentiles"], ["cdf", "Distribution"]] : [];
      if (this.hasSeries) views.push(["time", "Over time"]);
      if (this.quantities.length > 0) {
        for (const axis of this.sweeps) views.push([`by ${axis}`, isLoadAxis(axis) ? "Against load" : `By ${axis}`]);
      }
      if (this.metrics.length > 0) {
        for (const axis of this.sweeps) views.push([`of ${axis}`, `Figures by ${words(axis)}`]);
      }
      bar.append(this.buttons("view", "View", views, (view) => set({ view })));
      const moving = this.state.view.startsWith("by ") && this.experiment.axes.length === 1;
      const isFigure = this.state.view.startsWith("of ");
      if (isFigure) {
        bar.append(this.select("metric", "of", this.metrics.map((name) => [name, words(name)]), (metric) => set({ metric })));
      }
      if (this.points.length > 1 && !moving && !isFigure) {
        bar.append(this.select("point", "at", this.points.map((p) => [p, p]), (point) => set({ point })));
      }
      if (this.quantities.length > 1 && this.state.view !== "time" && !isFigure) {
        bar.append(this.select("quantity", "of", this.quantities.map((q) => [q, QUANTITIES[q]]), (quantity) => set({ quantity })));
      }
      if (view.rounds && view.rounds.length > 1) {
        bar.append(this.select("round", "round", view.rounds.map((r) => [r, r + 1]), (round) => set({ round: Number(round) })));
      }
      bar.append(this.buttons("log", "Scale", [[true, "log"], [false, "linear"]], (log) => set({ log })));
      return bar;
    }

    buttons(key, name, options, choose) {
      const group = element("div", { class: "group", role: "group", "aria-label": name });
      for (const [value, text] of options) {
        const button = element("button", { type: "button", "aria-pressed": this.state[key] === value, "data-focus": `${key}${value}` }, text);
        button.addEventListener("click", () => choose(value));
        group.append(button);
      }
      return group;
    }

    select(key, name, options, choose) {
      const select = element("select", { "data-focus": key });
      for (const [value, text] of options) {
        const option = element("option", { value }, String(text));
        option.selected = String(this.state[key]) === String(value);
        select.append(option);
      }
      select.addEventListener("change", () => choose(select.value));
      return element("label", {}, name, select);
    }

    legend(view) {
      const bar = element("div", { class: "legend", role: "group", "aria-label": "Back ends, to show and hide" });
      this.outputs = [];
      for (const line of view.lines.filter((line) => !line.second)) {
        const style = this.style(line), { stroke } = style, dash = line.cost ? [1, 4] : style.dash;
        const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        key.setAttribute("width", 22); key.setAttribute("height", 8); key.setAttribute("aria-hidden", "true");
        const stripe = document.createElementNS("http://www.w3.org/2000/svg", "line");
        for (const [name, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, stroke, "stroke-width": 3, "stroke-dasharray": dash.join(" ") })) stripe.setAttribute(name, value);
        if (line.paper) {
          const diamond = document.createElementNS("http://www.w3.org/2000/svg", "path");
          for (const [name, value] of Object.entries({ d: "M11 -1 L16 4 L11 9 L6 4 Z", stroke, fill: "none", "stroke-width": 2 })) diamond.setAttribute(name, value);
          key.append(diamond);
        } else {
          key.append(stripe);
        }
        const output = element("output", {});
        const button = element("button", { type: "button", "aria-pressed": !this.isHidden(line), "data-focus": `line${line.label}` }, key, line.label, output);
        if (line.paper) button.title = [...new Set(line.paper.map((one) => `${one.place}${one.work ? `, ${one.work}` : ""}`))].join("\n");
        button.addEventListener("click", () => {
          const { hidden } = this.state;
          if (!hidden.delete(line.label)) hidden.add(line.label);
          this.draw();
        });
        this.outputs.push({ line, output });
        bar.append(button);
      }
      return bar;
    }

    // Values under the cursor: each line's own last point, so that lines with other points are exact too.
    read(u, view) {
      const left = u.cursor.left;
      const inside = left != null && left >= 0;
      let x = inside ? u.posToVal(left, "x") : null;
      if (inside && view.nearest && u.cursor.idx != null) x = u.data[0][u.cursor.idx];
      for (const { line, output } of this.outputs) {
        const point = !inside ? null : line.paper ? line.points.find((p) => p[0] === x) : before(line.points, x);
        output.textContent = point && point[1] != null ? (line.value || view.value)(point[1]) : inside ? "–" : "";
      }
      const said = !inside ? [] : view.lines.filter((line) => line.paper && !this.isHidden(line)).flatMap((line) => line.paper.filter((one) => one.at === x));
      const tell = (one) => ` ◇ ${withUnit(one.value, view.unit)} ± ${Number((one.tolerance * 100).toPrecision(3))} % published${one.arm ? ` for ${one.arm}` : ""}: ${one.place}${one.work ? `, ${one.work}` : ""}.`;
      this.readout.textContent = inside ? `At ${view.at(x)}.${said.map(tell).join("")}` : view.hint;
    }

    options(view, width) {
      const [soft, rule] = [colour("--soft"), colour("--rule")];
      const axis = { stroke: soft, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, size: 5 }, font: "12px system-ui, sans-serif" };
      const all = (u, splits) => splits;
      const logX = view.x.log || (view.x.time && this.state.log);
      const timeX = view.x.time;
      const isFigure = view.y === "figure";
      const isPositive = !isFigure || view.lines.every((line) => line.points.every((p) => p[1] == null || p[1] > 0));
      const logY = (view.y === "time" || isFigure) && this.state.log && isPositive;
      const x = { ...axis, size: 34, filter: all, values: (u, ticks) => ticks.map(timeX ? shortDuration : view.x.values) };
      if (view.x.splits) x.splits = () => view.x.splits;
      else if (logX) x.splits = logTicks;
      x.space = 60;
      const y = { ...axis, size: 64, filter: all, values: (u, ticks) => ticks.map(isFigure ? (value) => shortFigure(value, view.unit) : view.y === "time" ? shortDuration : (share) => `${Math.round(share * 100)} %`) };
      if (isFigure && unitBehind(view.unit)) Object.assign(y, { label: view.unit, labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 54 });
      if (logY) y.splits = logTicks;
      const cost = {
        ...axis, scale: "cost", side: 1, grid: { show: false }, size: 54, filter: all, label: "more requests, %", labelSize: 18,
        labelFont: "12px system-ui, sans-serif", values: (u, ticks) => ticks.map((value) => `${Number(value.toPrecision(3))}`),
      };
      const xScale = { time: false, distr: logX ? 3 : 1 };
      if (view.x.range) xScale.range = view.x.range;
      else if (logX) xScale.range = (u, min, max) => [min / 1.05, max * 1.05];
      const series = view.lines.map((line) => {
        const { stroke, dash } = this.style(line);
        const thin = line.second && !line.dots;
        return {
          label: line.label, show: !this.isHidden(line), stroke, scale: line.cost ? "cost" : "y", spanGaps: view.y === "share" || this.state.view === "percentiles",
          width: thin ? 1 : 2, dash: line.cost ? [1, 4] : line.second && line.dots ? [5, 4] : dash, alpha: thin ? 0.55 : 1,
          points: { show: Boolean(line.dots), size: 6, fill: stroke },
          // Marks are drawn by `marks`; the series is there for its range and for the cursor.
          ...(line.paper ? { paths: () => null, points: { show: false } } : {}),
        };
      });
      return {
        width, height: width < 560 ? 260 : 340, legend: { show: false },
        scales: {
          x: xScale, y: { distr: logY ? 3 : 1, range: view.y === "time" || isFigure ? range : [0, 1.02] },
          cost: { range: (u, min, max) => [0, Math.max(1, (max || 0) * 1.05)] },
        },
        axes: view.cost ? [x, y, cost] : [x, y], series: [{}, ...series], padding: [10, 28, 0, 0],
        cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
        hooks: { setCursor: [(u) => this.read(u, view)], draw: [(u) => this.marks(u, view)] },
      };
    }

    // A cross at the top wherever requests were lost.
    marks(u, view) {
      const { ctx } = u, ratio = devicePixelRatio, size = 4 * ratio;
      for (const line of view.lines) {
        if (!line.paper || this.isHidden(line)) continue;
        ctx.save();
        ctx.strokeStyle = this.style(line).stroke;
        ctx.lineWidth = 2 * ratio;
        for (const { at, value, tolerance } of line.paper) {
          const x = u.valToPos(at, "x", true), y = u.valToPos(value, "y", true), half = 6 * ratio;
          const low = value * (1 - tolerance), isLog = u.scales.y.distr === 3;
          const bottom = isLog && low <= 0 ? u.bbox.top + u.bbox.height : u.valToPos(low, "y", true);
          const top = u.valToPos(value * (1 + tolerance), "y", true);
          ctx.beginPath();
          ctx.moveTo(x, y - half); ctx.lineTo(x + half, y); ctx.lineTo(x, y + half); ctx.lineTo(x - half, y); ctx.closePath();
          // The whisker leaves the diamond open, so that a measured point inside is seen.
          if (y - top > half) { ctx.moveTo(x, y - half); ctx.lineTo(x, Math.max(top, u.bbox.top)); }
          if (bottom - y > half) { ctx.moveTo(x, y + half); ctx.lineTo(x, Math.min(bottom, u.bbox.top + u.bbox.height)); }
          ctx.stroke();
        }
        ctx.restore();
      }
      for (const line of view.lines) {
        if (!line.lost || this.isHidden(line)) continue;
        ctx.save();
        ctx.strokeStyle = this.style(line).stroke;
        ctx.lineWidth = 1.5 * ratio;
        ctx.beginPath();
        for (const at of line.lost) {
          const x = u.valToPos(at, "x", true), y = u.bbox.top + size + 2 * ratio;
          ctx.moveTo(x - size, y - size); ctx.lineTo(x + size, y + size);
          ctx.moveTo(x + size, y - size); ctx.lineTo(x - size, y + size);
        }
        ctx.stroke();
        ctx.restore();
      }
    }

    draw() {
      const focused = this.host.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
      if (this.plot) this.plot.destroy();
      const view = this.view();
      this.readout = element("p", { class: "readout", "aria-live": "polite" }, view.hint);
      const frame = element("div", {
        class: "plot", tabindex: 0, role: "img", "data-focus": "plot",
        "aria-label": `${view.y === "figure" ? words(this.state.metric) : QUANTITIES[this.state.quantity]}, ${this.state.view}, ${this.state.point}. Arrow keys read values; the table below has them all.`,
      });
      this.host.replaceChildren(this.controls(view), frame, this.readout, this.legend(view));
      if (view.lines.length === 0) {
        frame.textContent = "Nothing was measured here.";
      } else {
        const clamp = (points) => this.state.log && view.y === "time" ? points.map(([x, y]) => [x, y === 0 ? 1 : y]) : points;
        this.plot = new uPlot(this.options(view, this.host.clientWidth), columns(view.lines.map((line) => clamp(line.points))), frame);
        this.read(this.plot, view);
        this.keys(frame);
      }
      if (focused) this.host.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
    }

    keys(frame) {
      frame.addEventListener("keydown", (event) => {
        const width = this.plot.over.clientWidth;
        const at = this.plot.cursor.left >= 0 ? this.plot.cursor.left : 0;
        const step = width / 60;
        const to = { ArrowLeft: at - step, ArrowRight: at + step, Home: 0, End: width - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        this.plot.setCursor({ left: Math.min(width - 1, Math.max(0, to)), top: 1 }, true);
      });
    }

    resize() {
      const width = this.host.clientWidth;
      if (this.plot && width > 0) this.plot.setSize({ width, height: width < 560 ? 260 : 340 });
    }
  }

  const charts = [];
  for (const host of document.querySelectorAll(".chart")) {
    const run = data.runs[Number(host.dataset.run)];
    const experiment = run.experiments.find((one) => one.id === host.dataset.experiment);
    const chart = new Chart(host, experiment, run.backends);
    if (chart.quantities.length === 0 && (chart.metrics.length === 0 || chart.sweeps.length === 0)) { host.remove(); continue; }
    chart.draw();
    charts.push(chart);
    new ResizeObserver(() => chart.resize()).observe(host);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.draw()));
})();
