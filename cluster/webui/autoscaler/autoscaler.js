// The page of the autoscaler: what it sees, decides and what that costs, read every two seconds. It changes nothing; plots are in plot.js.
import { bar, byId, facts, fill, h, num, paint, state, sub, tight, tile } from "/static/common/dom.js";
import { duration, moment, round } from "/static/common/format.js";
import { follow, now, read } from "/static/common/live.js";
import { bars, lines, stacked } from "/static/plot.js";

const STATES = [["busy", 1, "busy"], ["idle", 2, "idle"], ["starting", 3, "starting"], ["leaving", 4, "leaving"], ["master", 5, "masters"]];
const DEMAND = [["unmet", 2, "no machine for it"], ["buying", 4, "being bought"], ["arriving", 3, "machine on its way"], ["fits_now", 1, "fits now"]];
const UP = new Set(["buy", "reactivate"]);
const DOWN = new Set(["terminate", "give_up"]);
const KINDS = {
  buy: "good", reactivate: "good", terminate: "", drain: "", deactivate: "", drain_timed_out: "busy", give_up: "busy", notice: "busy", instance_terminated: "busy", unschedulable: "busy", anomaly: "busy",
  no_capacity: "busy", launch_failed: "bad", pool_stopped: "bad", pool_resumed: "good", purchases_stopped: "bad", purchases_resumed: "good", framework: "",
};
const WORDS = {
  notice: "announced", instance_terminated: "has ended", self_terminated: "ended itself", no_capacity: "no capacity", launch_failed: "launch failed", give_up: "gave up", reactivate: "reactivated",
  drain_timed_out: "drain timed out", capacity_mismatch: "less capacity", leader_changed: "new leader", expiry: "cluster ends", pool_stopped: "pool stopped", pool_resumed: "pool resumed",
  purchases_stopped: "purchases stopped", purchases_resumed: "purchases resumed", framework: "framework",
};
const PLOT_EVERY_MS = 10_000;

let hours = "1";
let plottedAt = 0;
let peers = [];

const usd = (value, digits = 3) => `$${(value ?? 0).toFixed(digits)}`;
const money = (value) => `$${value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : round(value, 4)}`;
const change = (value) => (value ? `${value > 0 ? "+" : "−"}$${Math.abs(value).toFixed(4)}` : "");
const ago = (at) => h("span", { title: moment(at) }, duration(now - at));
const of = (totals, name) => totals.demand?.[name] ?? 0;
const texts = (reasons) => (reasons ?? []).map((reason) => reason.text).join("; ");

function verdict(unit) {
  const parts = [
    unit.fits_now && state(`${unit.fits_now} fit now`, "good"), unit.arriving && state(`${unit.arriving} wait for a machine on its way`, "busy"),
    unit.buying && state(`${unit.buying} being bought for`, "busy"), unit.unmet && state(`${unit.unmet} get none: ${unit.verdict || "unmet"}`, "bad"),
  ].filter(Boolean);
  return parts.flatMap((part, index) => (index ? [" ", part] : [part]));
}

function demandRow(unit) {
  return { key: `${unit.source} ${unit.name}`, cells: [unit.name, unit.source, num(unit.count), verdict(unit), [texts(unit.reasons), unit.refusal_reasons.length ? sub(texts(unit.refusal_reasons)) : null]] };
}

const FRAMEWORKS = { satisfied: "good", wants_more: "busy", refuses_offers: "bad", suppressed: "", unknown: "" };

function frameworkRow(item) {
  const source = item.adapter ? `${item.adapter}, ${duration(item.age_s)} ago` : "offers";
  return { key: item.id, cells: [item.name, state(item.text, FRAMEWORKS[item.verdict] ?? ""), num(item.pieces || ""), source, texts(item.reasons)] };
}

function poolRow(pool) {
  const mark = pool.overridden ? sub("by override") : null;
  return {
    key: pool.name,
    cells: [
      pool.name, num([pool.min, mark]), num(pool.machines), num([pool.max, mark]), num(pool.machines - pool.registered), num(pool.leaving),
      [`${round(pool.cpus_used, 1)} of ${round(pool.cpus, 1)}`, bar(pool.cpus_used, 0, pool.cpus)], pool.types.join(", "),
    ],
  };
}

function removalRow(item) {
  const cells = [h("span", { class: "id" }, item.instance_id), tight(item.instance_type), state(item.phase, item.phase === "abandoned" ? "busy" : ""), num(ago(item.since)), item.policy, item.reason.text];
  return { key: item.instance_id, cells };
}

function overrideRow(item) {
  return { key: item.id, cells: [item.what, item.by, num(duration(item.until - now)), h("span", { class: "id" }, item.id)] };
}

function decisionRow(item, index) {
  const kind = item.decision;
  const cells = [tight(ago(item.at)), state(WORDS[kind] ?? kind, KINDS[kind] ?? ""), item.what, texts(item.reasons), num(change(item.usd_per_hour))];
  return { key: `${item.at} ${kind} ${item.what} ${item.machines?.join() ?? ""} ${index}`, cells };
}

function tiles(view) {
  const { totals, plan, status } = view;
  const machines = Object.entries(totals.states).filter(([name]) => name !== "master");
  const count = machines.reduce((sum, [, some]) => sum + some, 0);
  const waiting = DEMAND.reduce((sum, [name]) => sum + of(totals, name), 0);
  const cap = view.cap_usd_per_hour;
  const planned = plan.after_usd_per_hour - plan.usd_per_hour;
  return [
    tile("Dollars an hour", usd(plan.usd_per_hour), "", cap ? `at most ${usd(cap, 2)}` : `${money(plan.usd_per_hour * 730)} a month at this rate`),
    tile("With the last plan", usd(plan.after_usd_per_hour), "", planned ? `${change(planned)} an hour` : "no change"),
    tile("Idle", usd(totals.idle_usd), "an hour", plan.usd_per_hour ? `${Math.round((100 * totals.idle_usd) / plan.usd_per_hour)} % of what is paid` : "nothing is paid"),
    tile("Agents' machines", count, "", machines.map(([name, some]) => `${some} ${name}`).join(", ") || "none"),
    tile("Does not run yet", waiting, "", waiting ? `${of(totals, "unmet")} get no machine` : "all demand is served"),
    tile("Tasks running", totals.tasks, "", `last pass ${duration(now - status.last_pass_at)} ago`),
  ];
}

const table = (name, rows, nothing) => {
  fill(byId(name), rows, nothing);
  byId(`n-${name}`).textContent = rows.length || "";
};

function draw(view) {
  const { plan, status } = view;
  document.title = `${view.cluster} · autoscaler`;
  byId("cluster").textContent = view.cluster;
  facts(byId("facts"), [["Leader", view.address], ["Errors", status.errors.join("; ")], ["Last pass", moment(plan.at)]]);
  const labels = [["Frozen", plan.freeze], ["Paused", plan.paused], ["Nothing is removed", plan.removals_blocked], ["Nothing is bought", plan.waiting]];
  const blocked = labels.filter(([, reason]) => reason).map(([label, reason]) => `${label}: ${reason.text}.`);
  byId("blocked").hidden = !blocked.length;
  byId("blocked").textContent = blocked.join(" ");
  paint(byId("tiles"), tiles(view));
  table("demand", plan.demand.map(demandRow), "Nothing waits: all that was asked for runs.");
  table("frameworks", plan.frameworks.map(frameworkRow), "No framework but the services is connected.");
  table("pools", view.pools.map(poolRow), "cluster.yaml names no pool.");
  table("removals", view.removals.map(removalRow), "No machine is on its way out.");
  table("overrides", view.overrides.map(overrideRow), ["No override is in force. ", h("code", {}, "mesaform pause"), ", ", h("code", {}, "set"), ", ", h("code", {}, "hint"), " and ", h("code", {}, "drain"), " set one."]);
  table("decisions", view.decisions.map(decisionRow), "Nothing was decided yet: there was nothing to buy, to remove or to refuse.");
}

function keys(name, entries) {
  paint(byId(`keys-${name}`), entries.map(([colour, text, value]) => h("span", { class: `c${colour}` }, h("i", {}), `${text} `, h("b", {}, value))));
}

function plot({ since, until, points, decisions }) {
  const span = { since, until };
  const along = (value) => points.map((point) => [point.at, value(point)]);
  const last = points.at(-1);
  const count = (value) => round(value, 1);
  const cost = { points: along((point) => point.usd), colour: 1 };
  const idle = { points: along((point) => point.idle_usd), colour: 2 };
  lines(byId("plot-usd"), [cost, idle], { ...span, text: money, label: "dollars an hour over time: all machines, and those without a task" });
  keys("usd", [[1, "all machines", last ? usd(last.usd) : "–"], [2, "without a task", last ? usd(last.idle_usd) : "–"]]);
  const shown = STATES.filter(([name]) => points.some((point) => point.states?.[name]));
  stacked(byId("plot-machines"), shown.map(([name, colour]) => ({ colour, points: along((point) => point.states?.[name] ?? 0) })), { ...span, text: count, label: "machines by state over time" });
  keys("machines", shown.map(([name, colour, text]) => [colour, text, last?.states?.[name] ?? 0]));
  const wanted = DEMAND.filter(([name]) => points.some((point) => of(point, name)));
  stacked(byId("plot-demand"), wanted.map(([name, colour]) => ({ colour, points: along((point) => of(point, name)) })), { ...span, text: count, label: "pieces of demand by verdict over time" });
  keys("demand", wanted.length ? wanted.map(([name, colour, text]) => [colour, text, last ? of(last, name) : 0]) : [[5, "none in this time", ""]]);
  const some = (kinds) => decisions.filter(([, kind]) => kinds.has(kind)).map(([at, , machines]) => [at, machines || 1]);
  const [up, down] = [some(UP), some(DOWN)];
  bars(byId("plot-decisions"), up, down, { ...span, text: count, label: "machines bought or taken back, and given back, over time" });
  const sum = (list) => list.reduce((total, [, machines]) => total + machines, 0);
  keys("decisions", [[3, "bought or taken back", sum(up)], [2, "given back", sum(down)]]);
}

async function look() {
  const plots = Date.now() - plottedAt >= PLOT_EVERY_MS;
  const [view, series] = await Promise.all([read("/view"), plots ? read(`/series?hours=${hours}`) : null]);
  if (!view.plan?.demand) throw new Error("it has not ended its first pass yet");
  peers = view.peers.filter((origin) => origin !== location.origin);
  draw(view);
  if (series) {
    plot(series);
    plottedAt = Date.now();
  }
}

byId("to-engine").href = `${location.protocol}//${location.hostname}:5050/`;
byId("to-services").href = `${location.protocol}//${location.hostname}:8080/`;
const again = follow(look, "the autoscaler", () => peers);
for (const button of document.querySelectorAll("[data-hours]")) {
  button.addEventListener("click", () => {
    hours = button.dataset.hours;
    for (const item of document.querySelectorAll("[data-hours]")) item.setAttribute("aria-pressed", String(item === button));
    plottedAt = 0;
    again();
  });
}
addEventListener("resize", () => { plottedAt = 0; });
