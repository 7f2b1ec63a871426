// Plots as SVG, drawn anew with each look: steps over time, stacked areas, bars up and down. No library; text only ever becomes text nodes.
const SPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 176;
const LEFT = 52;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const STEPS = [60, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200];
const GAP_S = 300; // points further apart are not joined: nobody looked in between

function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Round ticks from 0 to at least `high`. */
export function ticks(high, whole) {
  if (!(high > 0)) return [0, 1];
  const raw = high / 4;
  const size = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((item) => item >= raw * 0.999);
  if (whole) step = Math.max(1, Math.ceil(step));
  return Array.from({ length: Math.ceil(high / step - 1e-9) + 1 }, (_, index) => index * step);
}

/** A frame of one plot: places values, and has its axes in it. */
function frame(holder, since, until, low, high, text, whole) {
  const width = Math.max(280, holder.clientWidth || 600);
  const root = el("svg", { class: "plot", viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const up = ticks(high, whole);
  const top = up.at(-1);
  const x = (at) => LEFT + ((at - since) / (until - since)) * (width - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (top - low || 1)) * (HEIGHT - BOTTOM - TOP);
  for (const tick of low < 0 ? [...up.slice(1).map((item) => -item).filter((item) => item >= low), ...up] : up) {
    root.append(el("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
    root.append(el("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, text(Math.abs(tick))));
  }
  const step = STEPS.find((item) => (until - since) / item <= 8) ?? STEPS.at(-1);
  const zone = new Date(until * 1000).getTimezoneOffset() * 60;
  for (let at = Math.ceil((since - zone) / step) * step + zone; at <= until; at += step) {
    const label = new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const place = x(at);
    if (place > LEFT + 8 && place < width - 14) root.append(el("text", { x: place, y: HEIGHT - 5, "text-anchor": "middle" }, label));
  }
  return { root, x, y, width };
}

/** Runs of points without a gap between them. */
function runs(points) {
  const segments = [];
  for (const point of points) {
    const last = segments.at(-1);
    if (!last || point[0] - last.at(-1)[0] > GAP_S) segments.push([point]);
    else last.push(point);
  }
  return segments;
}

const steps = (places) => places.map(([px, py], index) => (index ? `H${px.toFixed(1)}V${py.toFixed(1)}` : `M${px.toFixed(1)} ${py.toFixed(1)}`)).join("");

function show(holder, root, label) {
  root.setAttribute("aria-label", label);
  holder.replaceChildren(root);
}

/** Lines that keep a value until the next; the first is filled. `series` is [{name, colour (1 to 5), points: [[at, value]]}]. */
export function lines(holder, series, { since, until, text, label, whole = false, least = 0 }) {
  const high = Math.max(least, ...series.flatMap((item) => item.points.map((point) => point[1])));
  const { root, x, y } = frame(holder, since, until, 0, high, text, whole);
  series.forEach((item, index) => {
    for (const run of runs(item.points)) {
      const path = steps(run.map(([at, value]) => [x(at), y(value)]));
      if (!index) root.append(el("path", { class: `area c${item.colour}`, d: `${path}V${y(0)}H${x(run[0][0])}Z` }));
      root.append(el("path", { class: `line c${item.colour}`, d: path }));
    }
  });
  show(holder, root, label);
}

/** Areas on top of each other, in the order given, the first at the bottom. All have the same times. */
export function stacked(holder, series, { since, until, text, label }) {
  const times = series[0]?.points.map(([at]) => at) ?? [];
  const base = times.map(() => 0);
  const sums = series.map((item) => item.points.map(([, value], index) => (base[index] += value)));
  const { root, x, y } = frame(holder, since, until, 0, Math.max(1, ...base), text, true);
  series.forEach((item, level) => {
    const above = runs(times.map((at, index) => [at, sums[level][index], level ? sums[level - 1][index] : 0]));
    for (const run of above) {
      const up = steps(run.map(([at, value]) => [x(at), y(value)]));
      const down = run.map(([at, , value], index) => [x(run[index + 1]?.[0] ?? at), y(value)]).reverse();
      root.append(el("path", { class: `stack c${item.colour}`, d: `${up}${down.map(([px, py]) => `V${py.toFixed(1)}`).map((part, index) => `${part}H${x(run[run.length - 1 - index][0]).toFixed(1)}`).join("")}Z` }));
    }
  });
  show(holder, root, label);
}

/** Counts above and below a line, in equal parts of the time. `up` and `down` are [[at, count]]. */
export function bars(holder, up, down, { since, until, text, label, parts = 60 }) {
  const wide = (until - since) / parts;
  const sums = [up, down].map((points) => {
    const counts = Array(parts).fill(0);
    for (const [at, count] of points) counts[Math.min(parts - 1, Math.max(0, Math.floor((at - since) / wide)))] += count;
    return counts;
  });
  const high = Math.max(1, ...sums.flat());
  const { root, x, y } = frame(holder, since, until, -ticks(high, true).at(-1), high, text, true);
  sums.forEach((counts, side) => {
    counts.forEach((count, index) => {
      if (!count) return;
      const [top, bottom] = side ? [y(0), y(-count)] : [y(count), y(0)];
      const left = x(since + index * wide);
      const part = el("rect", { class: `stack c${side ? 2 : 3}`, x: left, y: top, width: Math.max(2, x(since + (index + 1) * wide) - left - 1), height: Math.max(1, bottom - top) });
      part.append(el("title", {}, `${count} ${side ? "given back" : "bought or taken back"}`));
      root.append(part);
    });
  });
  show(holder, root, label);
}
