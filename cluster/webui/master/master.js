// The engine's page: /state and /metrics/snapshot of the leading master, drawn every two seconds.
import { bar, byId, facts, fill, h, link, num, paint, state, sub, tight, tile } from "/static/common/dom.js";
import { duration, mib, mibOf, moment, plural, round, short } from "/static/common/format.js";
import { follow, now, peersOf, read } from "/static/common/live.js";

const SHOWN = 200; // rows of tasks; a filter finds the others
const PORT = 5050;
const FATE = { TASK_RUNNING: "good", TASK_FINISHED: "good", TASK_STAGING: "busy", TASK_STARTING: "busy", TASK_KILLING: "busy", TASK_KILLED: "", TASK_GONE_BY_OPERATOR: "" };
const ORDER = ["TASK_RUNNING", "TASK_KILLING", "TASK_STARTING", "TASK_STAGING"];
const MACHINE = ["instance_id", "instance_type", "zone", "pool", "lifecycle"];

let latest = null;
let peers = [];
const seen = new Map(); // offers by id, with when this page first saw them: the engine does not tell how old they are

const id = (text) => h("span", { class: "id", title: text }, short(text));
const sum = (list, value) => list.reduce((total, item) => total + (value(item) ?? 0), 0);
const code = (text) => h("code", {}, text);

/** The services page on this host, when a framework says that it has one; only the port is taken from what it says. */
function servicesOrigin(frameworks) {
  const services = frameworks.find((item) => item.name === "marathon" && item.webui_url);
  if (!services || !URL.canParse(services.webui_url)) return null;
  return `${location.protocol}//${location.hostname}:${new URL(services.webui_url).port || 80}`;
}

function sandbox(view, query, text) {
  return view.services ? link(`${view.services}/static/sandbox.html?${new URLSearchParams(query)}`, text) : h("span", { class: "quiet" }, "–");
}

function agentState(agent) {
  if (agent.drain_info) return state(agent.drain_info.state.toLowerCase(), "busy", "no offers; tasks are ended");
  if (!agent.registered_time) return state("not back yet", "busy", "known from before this master was elected; it has not come back");
  if (agent.deactivated) return state("deactivated", "busy", "no new offers; tasks go on");
  return agent.active ? state("active", "good") : state("disconnected", "bad", "its tasks are kept until it is given up");
}

function usage(name, agent, unit) {
  const [total, used, offered] = [agent.resources, agent.used_resources, agent.offered_resources].map((item) => item?.[name] ?? 0);
  const words = `${unit(used)} used, ${unit(offered)} offered, of ${unit(total)}`;
  return [h("span", { class: "tight", title: words }, `${unit(used)} / ${unit(total)}`), bar(used, offered, total)];
}

function agentRow(view, agent) {
  const has = agent.attributes ?? {};
  const others = Object.entries(has).filter(([name]) => !MACHINE.includes(name)).map(([name, value]) => `${name}=${value}`);
  const pool = [has.pool, has.lifecycle === "spot" ? "spot" : null].filter(Boolean).join(" · ");
  const measured = agent.resources !== undefined;
  return {
    key: agent.id,
    cells: [
      [agent.hostname, sub(id(agent.id))],
      has.instance_type || has.instance_id ? [has.instance_type ?? "", sub(h("span", { class: "id" }, has.instance_id ?? ""))] : h("span", { class: "quiet" }, "–"),
      tight(has.zone ?? h("span", { class: "quiet" }, "–")),
      [pool, others.length ? sub(others.join(" ")) : null],
      agentState(agent),
      measured ? usage("cpus", agent, round) : "",
      measured ? usage("mem", agent, mib) : "",
      num(view.tasksOn.get(agent.id) ?? 0),
      tight(sandbox(view, { agent: agent.id }, "files")),
    ],
  };
}

function frameworkState(framework) {
  if (framework.connected) return framework.active ? state("active", "good") : state("inactive", "busy", "connected, and not to be offered anything");
  const left = `kept for ${duration(framework.failover_timeout)} from when it left`;
  return state(framework.recovered ? "not back yet" : "disconnected", "bad", left);
}

function wish(view, framework) {
  const quiet = framework.roles.filter((role) => view.suppressed.has(`${framework.id} ${role}`));
  if (!quiet.length) return "yes";
  return h("span", { class: "quiet" }, quiet.length === framework.roles.length ? "suppressed" : `not for ${quiet.join(", ")}`);
}

function frameworkRow(view, framework) {
  const page = framework.webui_url && URL.canParse(framework.webui_url) ? link(framework.webui_url, framework.name) : framework.name;
  return {
    key: framework.id,
    cells: [
      [page, sub(id(framework.id))], framework.roles.join(", "), frameworkState(framework), wish(view, framework), num(framework.tasks.length),
      num(round(framework.used_resources.cpus)), num(mib(framework.used_resources.mem)), num(framework.offers.length),
      num(duration(now - (framework.reregistered_time ?? framework.registered_time))),
    ],
  };
}

function taskRow(view, { task, framework, host, at }) {
  const where = host ?? id(task.slave_id);
  const word = task.state.replace("TASK_", "").toLowerCase().replaceAll("_", " ");
  const query = { agent: task.slave_id, framework: framework.id, task: task.id };
  return {
    key: `${framework.id} ${task.id}`,
    cells: [
      [task.name, task.name === task.id ? null : sub(h("span", { class: "id" }, task.id))], framework.name, where, state(word, FATE[task.state] ?? "bad"),
      num(round(task.resources.cpus)), num(mib(task.resources.mem)), num(at ? h("span", { title: moment(at) }, duration(now - at)) : "–"),
      tight(view.services ? [sandbox(view, { ...query, file: "stdout" }, "stdout"), " ", sandbox(view, { ...query, file: "stderr" }, "stderr")] : "–"),
    ],
  };
}

function offerRow(view, { offer, framework }) {
  return {
    key: offer.id,
    cells: [
      framework.name, offer.allocation_info.role, view.hosts.get(offer.slave_id) ?? id(offer.slave_id), num(round(offer.resources.cpus)),
      num(mib(offer.resources.mem)), num(mib(offer.resources.disk)), num(`≥ ${duration(now - seen.get(offer.id))}`), id(offer.id),
    ],
  };
}

function matches(words, { task, framework, host }) {
  const text = `${task.name} ${task.id} ${framework.name} ${host ?? ""} ${task.slave_id} ${task.state.replace("TASK_", "")}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function drawTasks(view) {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const [name, all, nothing] of [["tasks", view.live, view.idle], ["ended", view.ended, "No task has ended since this master was elected."]]) {
    const matching = all.filter((item) => matches(words, item));
    fill(byId(name), matching.slice(0, SHOWN).map((item) => taskRow(view, item)), all.length ? `None of ${plural(all.length, "task")} matches the filter.` : nothing);
    byId(`n-${name}`).textContent = words.length ? `${matching.length} of ${all.length}` : all.length || "";
    byId(`more-${name}`).hidden = matching.length <= SHOWN;
    byId(`more-${name}`).textContent = `${matching.length - SHOWN} more: narrow them down with the filter.`;
  }
}

/** `<framework id> <role>` of whoever does not want offers now; only the metrics tell. */
function suppressedIn(metrics) {
  const suppressed = Object.entries(metrics).filter(([key, value]) => value > 0 && key.endsWith("/suppressed"));
  return new Set(suppressed.map(([key]) => /\/([^/]+)\/roles\/(.+)\/suppressed$/.exec(key)).filter(Boolean).map(([, id, role]) => `${id} ${role}`));
}

/** The same facts in the order the page needs them. */
function viewOf(cluster, metrics) {
  const hosts = new Map([...cluster.slaves, ...cluster.recovered_slaves].map((agent) => [agent.id, agent.hostname]));
  const everybody = [...cluster.frameworks, ...cluster.completed_frameworks];
  const entry = (framework) => (task) => {
    const first = task.statuses.find((status) => status.state === task.state);
    return { task, framework, host: hosts.get(task.slave_id), at: first?.timestamp ?? null };
  };
  const rank = (item) => (ORDER.indexOf(item.task.state) + ORDER.length + 1) % (ORDER.length + 1);
  const live = everybody.flatMap((item) => [...item.tasks, ...item.unreachable_tasks].map(entry(item)));
  live.sort((left, right) => rank(left) - rank(right) || (right.at ?? 0) - (left.at ?? 0));
  const ended = everybody.flatMap((item) => item.completed_tasks.map(entry(item))).sort((left, right) => (right.at ?? 0) - (left.at ?? 0));
  const offers = cluster.frameworks.flatMap((framework) => framework.offers.map((offer) => ({ offer, framework })));
  const tasksOn = new Map();
  for (const { task } of live) tasksOn.set(task.slave_id, (tasksOn.get(task.slave_id) ?? 0) + 1);
  for (const key of seen.keys()) if (!offers.some(({ offer }) => offer.id === key)) seen.delete(key);
  for (const { offer } of offers) if (!seen.has(offer.id)) seen.set(offer.id, now);
  const idle = ["Nothing runs. Run something from the operator's machine:", h("br"), code("mesaform run --name hello -- echo hi"), " or create an app on the services page."];
  return { cluster, suppressed: suppressedIn(metrics), hosts, live, ended, offers, tasksOn, idle, services: servicesOrigin(cluster.frameworks) };
}

function tiles(view) {
  const { cluster, live, offers } = view;
  const agents = cluster.slaves;
  const counted = (name) => live.filter(({ task }) => task.state === name).length;
  const away = [
    [cluster.recovered_slaves.length, "not back yet"], [cluster.unreachable_slaves, "unreachable"],
    [agents.filter((item) => item.deactivated && !item.drain_info).length, "deactivated"], [agents.filter((item) => item.drain_info).length, "draining"],
  ].filter(([count]) => count).map(([count, word]) => `${count} ${word}`);
  const resource = (label, name, unit, pair) => {
    const [total, used, offered] = ["resources", "used_resources", "offered_resources"].map((part) => sum(agents, (item) => item[part][name]));
    const share = total ? `${Math.round((100 * used) / total)} % used` : "no agent, nothing to use";
    return tile(label, ...pair(used, total), offered ? `${share}, ${unit(offered)} offered` : share, bar(used, offered, total));
  };
  const waiting = counted("TASK_STAGING") + counted("TASK_STARTING");
  const holders = new Set(offers.map(({ framework }) => framework.id)).size;
  return [
    tile("Agents", agents.filter((item) => item.active).length, `of ${agents.length + cluster.recovered_slaves.length} active`, away.join(", ") || "all in service"),
    tile("Frameworks", cluster.frameworks.filter((item) => item.active).length, "active", `${cluster.completed_frameworks.length} completed`),
    tile("Tasks running", counted("TASK_RUNNING"), "", `${waiting} starting, ${view.ended.length} ended`),
    resource("CPUs", "cpus", (value) => round(value), (used, total) => [round(used, 1), `of ${round(total, 1)}`]),
    resource("Memory", "mem", mib, mibOf),
    tile("Offers outstanding", offers.length, "", offers.length ? `held by ${plural(holders, "framework")}` : "none is being considered"),
  ];
}

function draw(cluster, metrics) {
  const view = (latest = viewOf(cluster, metrics));
  const name = cluster.cluster || "Mesos cluster";
  document.title = `${name} · engine`;
  byId("cluster").textContent = name;
  byId("to-services").hidden = !view.services;
  if (view.services) byId("to-services").href = `${view.services}/`;
  const embedded = cluster.git_branch === "mesaform";
  facts(byId("facts"), [
    ["Leader", cluster.leader.replace("master@", "")],
    ["Leading for", duration(now - cluster.elected_time)],
    ["Engine", embedded ? `embedded, speaks Mesos ${cluster.version}` : `Mesos ${cluster.version}`],
    ["Up", duration(now - cluster.start_time)],
  ]);
  paint(byId("tiles"), tiles(view));
  const agents = [...cluster.slaves, ...cluster.recovered_slaves].sort((left, right) => left.hostname.localeCompare(right.hostname, [], { numeric: true }));
  fill(byId("agents"), agents.map((item) => agentRow(view, item)), ["No agent has registered yet. Agents find this master through ZooKeeper; see which machines are on their way with ", code("mesaform status"), "."]);
  fill(byId("frameworks"), cluster.frameworks.map((item) => frameworkRow(view, item)), "No framework is subscribed. Services subscribe by themselves within seconds; yours subscribe at /api/v1/scheduler.");
  fill(byId("offers"), view.offers.map((item) => offerRow(view, item)), cluster.slaves.length ? "No offer is outstanding: frameworks hold none, and get offers again when their filters end." : "No offer is outstanding: there is no agent to offer.");
  for (const [table, count] of [["agents", agents.length], ["frameworks", cluster.frameworks.length], ["offers", view.offers.length]]) byId(`n-${table}`).textContent = count || "";
  drawTasks(view);
}

async function look() {
  const [cluster, metrics] = await Promise.all([read("/state"), read("/metrics/snapshot")]);
  peers = peersOf(cluster.flags?.zk ?? "", PORT);
  draw(cluster, metrics);
}

byId("to-autoscaler").href = `${location.protocol}//${location.hostname}:9550/`;
byId("filter").addEventListener("input", () => latest && drawTasks(latest));
follow(look, "the master", () => peers);
