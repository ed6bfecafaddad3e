// Plots of the reports: uPlot on the numbers that stand in the page.
"use strict";

const source = document.getElementById("island");
if (source) {
  const data = JSON.parse(source.textContent);
  const made = [];
  const token = (name) => {
    const probe = document.createElement("span");
    probe.hidden = true;
    document.body.append(probe);
    probe.style.color = `var(--${name})`;
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  };
  const counts = new Intl.NumberFormat(data.language);
  const hours = [...Array(24).keys()];
  const LINE_TOKENS = ["accent", "info", "warn", "bad", "good", "soft"];

  // Bars stand on each other: what is drawn is the sum so far, the tallest first; the legend tells each by itself.
  const stacked = (columns) => {
    const sums = columns[0].map(() => 0);
    return columns.map((column) => column.map((value, place) => (sums[place] += value)));
  };
  const axes = (labels) => {
    const grid = { stroke: token("line"), width: 1 }, ticks = { stroke: token("line"), width: 1, size: 4 };
    return [
      { stroke: token("soft"), grid: { show: false }, ticks, gap: 6, values: (_plot, splits) => splits.map((at) => (Number.isInteger(at) ? labels[at] ?? "" : "")), splits: (plot) => spread(labels.length, plot.width) },
      { stroke: token("soft"), grid, ticks: { show: false }, size: 46, values: (_plot, splits) => splits.map((value) => (Number.isInteger(value) ? counts.format(value) : "")) },
    ];
  };
  const spread = (length, width) => {
    const step = Math.max(1, Math.ceil(length / Math.max(2, Math.floor(width / 62))));
    return [...Array(Math.ceil(length / step)).keys()].map((place) => place * step);
  };

  function bars(home, labels, series, title) {
    const columns = stacked(series.map((one) => one.values));
    const options = {
      ...size(home),
      padding: [10, 8, 0, 0],
      cursor: { points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: false, range: [-0.6, labels.length - 0.4] }, y: { range: (_plot, _min, max) => [0, Math.max(4, max * 1.08)] } },
      axes: axes(labels),
      series: [
        { label: title, value: (_plot, at) => (at === null ? "" : labels[at]) },
        ...series.map((one, place) => ({ ...one, place })).reverse().map((one) => ({
          label: one.name, fill: one.colour, stroke: one.colour, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.72, 64], radius: 0.12 }),
          value: (_plot, _value, _series, at) => (at === null ? "" : counts.format(one.values[at])),
        })),
      ],
    };
    made.push([home, new uPlot(options, [labels.map((_label, at) => at), ...columns.reverse()], home)]);
  }

  function curves(home, labels, series, title) {
    const options = {
      ...size(home),
      padding: [10, 8, 0, 0],
      cursor: { drag: { x: false, y: false } },
      scales: { x: { time: false, range: [-0.3, labels.length - 0.7] }, y: { range: (_plot, _min, max) => [0, Math.max(4, max * 1.08)] } },
      axes: axes(labels),
      series: [
        { label: title, value: (_plot, at) => (at === null ? "" : labels[at]) },
        ...series.map((one) => ({ label: one.name, stroke: one.colour, width: 2, points: { show: false }, paths: uPlot.paths.spline(), value: (_plot, value) => (value === null ? "" : counts.format(value)) })),
      ],
    };
    made.push([home, new uPlot(options, [labels.map((_label, at) => at), ...series.map((one) => one.values)], home)]);
  }

  const size = (home) => ({ width: Math.max(240, home.clientWidth), height: home.classList.contains("low") ? 170 : 250 });
  const colours = () => ({ answered: token("accent"), missed: token("bad"), outgoing: token("info") });
  const series = (from) => Object.keys(data.series).map((name) => ({ name: data.series[name], values: from[name], colour: colours()[name] }));
  const dayName = new Intl.DateTimeFormat(data.language, { day: "numeric", month: "short", timeZone: "UTC" });
  const shortDay = (local) => dayName.format(new Date(`${local.slice(0, 10)}T00:00:00Z`));
  const pointName = (local) => (data.step === "hour" ? (local.endsWith("00:00") ? shortDay(local) : local.slice(11)) : shortDay(local));
  const hourName = (hour) => `${String(hour).padStart(2, "0")}:00`;

  const draw = {
    timeline: (home) => bars(home, data.timeline.labels.map(pointName), series(data.timeline), data.step === "hour" ? data.words.hour : data.words.day),
    hours: (home) => bars(home, hours.map(hourName), series(data.hours), data.words.hour),
    lines: (home) => curves(home, hours.map(hourName), data.lines.map((line, place) => ({ name: line.name, values: line.calls, colour: token(LINE_TOKENS[place]) })), data.words.hour),
    failures: (home) => bars(home, data.failures.labels.map(shortDay), [
      { name: data.words.failed, values: data.failures.failed, colour: token("bad") },
      { name: data.words.attempts, values: data.failures.attempts.map((all, at) => all - data.failures.failed[at]), colour: token("accent") },
    ], data.words.day),
  };
  const all = () => {
    made.splice(0).forEach(([, plot]) => plot.destroy());
    document.querySelectorAll("[data-plot]").forEach((home) => draw[home.dataset.plot](home));
  };
  all();
  new ResizeObserver(() => made.forEach(([home, plot]) => plot.width !== size(home).width && plot.setSize(size(home)))).observe(document.getElementById("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
}
