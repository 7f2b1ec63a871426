// The master's page: reads /state every two seconds and draws it. Text goes in as text nodes only, never as markup.
"use strict";

const EVERY_MS = 2000;
const ENDED_SHOWN = 50;
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const round = (value) => Number(value.toFixed(2));
const mib = (value) => (value >= 1024 ? `${round(value / 1024)} GiB` : `${round(value)} MiB`);

function element(tag, content, className) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const part of [].concat(content ?? [])) made.append(part instanceof Node ? part : String(part));
  return made;
}

const id = (text) => element("span", text, "id");

function bar(name, agent, unit) {
  const total = agent.resources[name] || 0;
  const used = agent.used_resources[name] || 0;
  const offered = agent.offered_resources[name] || 0;
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 100 1");
  drawing.setAttribute("preserveAspectRatio", "none");
  let at = 0;
  for (const [kind, amount] of [["used", used], ["offered", offered]]) {
    const piece = document.createElementNS(SVG, "rect");
    const width = total ? (100 * amount) / total : 0;
    piece.setAttribute("class", kind);
    piece.setAttribute("x", at);
    piece.setAttribute("width", width);
    piece.setAttribute("height", 1);
    drawing.append(piece);
    at += width;
  }
  const holder = element("span", drawing, "bar");
  holder.title = `${unit(used)} used, ${unit(offered)} offered, of ${unit(total)}`;
  return [`${unit(used)} / ${unit(total)}`, holder];
}

function fill(name, rows, nothing) {
  const body = byId(name).tBodies[0];
  const made = rows.map((cells) => element("tr", cells.map((cell) => element("td", cell))));
  if (!made.length) {
    const cell = element("td", nothing, "none");
    cell.colSpan = byId(name).tHead.rows[0].cells.length;
    made.push(element("tr", cell));
  }
  body.replaceChildren(...made);
  byId(`n-${name}`).textContent = rows.length || "";
}

function agentState(agent) {
  if (agent.drain_info) return agent.drain_info.state.toLowerCase();
  if (agent.deactivated) return "deactivated";
  return agent.active ? element("span", "active", "good") : element("span", "disconnected", "bad");
}

function frameworkState(framework) {
  if (framework.connected) return framework.active ? element("span", "connected", "good") : "inactive";
  return element("span", framework.recovered ? "recovered, not back yet" : "disconnected", "bad");
}

function taskRow(task, framework, hosts) {
  const since = task.statuses.length ? new Date(task.statuses.at(-1).timestamp * 1000).toLocaleTimeString() : "";
  const good = ["TASK_RUNNING", "TASK_FINISHED"].includes(task.state);
  const bad = ["TASK_FAILED", "TASK_LOST", "TASK_ERROR", "TASK_DROPPED", "TASK_UNREACHABLE"].includes(task.state);
  const state = element("span", task.state.replace("TASK_", "").toLowerCase(), good ? "good" : bad ? "bad" : "");
  const { cpus, mem } = task.resources;
  return [id(task.id), task.name, framework.name, hosts.get(task.slave_id) ?? id(task.slave_id), state, round(cpus), mib(mem), since];
}

function draw(state) {
  document.title = `${state.cluster || "Mesaform"} master`;
  byId("cluster").textContent = state.cluster || "Mesos cluster";
  const facts = { Leader: state.leader, Version: state.version, Elected: new Date(state.elected_time * 1000).toLocaleString() };
  if (state.recovered_slaves.length) facts["Agents not back yet"] = state.recovered_slaves.length;
  if (state.unreachable_slaves) facts["Unreachable agents"] = state.unreachable_slaves;
  byId("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => element("div", [element("dt", name), element("dd", value)])));

  const hosts = new Map(state.slaves.map((agent) => [agent.id, agent.hostname]));
  const everybody = [...state.frameworks, ...state.completed_frameworks];
  const running = new Map();
  for (const task of everybody.flatMap((one) => one.tasks)) running.set(task.slave_id, (running.get(task.slave_id) ?? 0) + 1);
  const cpus = (value) => String(round(value));
  fill("nodes", state.slaves.map((agent) => [
    id(agent.id), agent.hostname, agentState(agent), bar("cpus", agent, cpus), bar("mem", agent, mib), bar("disk", agent, mib),
    running.get(agent.id) ?? 0, Object.entries(agent.attributes).map(([name, value]) => `${name}=${value}`).join(" "),
  ]), "No agent has registered yet.");
  fill("frameworks", state.frameworks.map((one) => [
    one.name, id(one.id), one.roles.join(", "), frameworkState(one), one.tasks.length, round(one.used_resources.cpus), mib(one.used_resources.mem), one.offers.length,
  ]), "No framework is subscribed.");
  fill("tasks", everybody.flatMap((one) => [...one.tasks, ...one.unreachable_tasks].map((task) => taskRow(task, one, hosts))), "No task is running.");
  fill("offers", state.frameworks.flatMap((one) => one.offers.map((offer) => [
    id(offer.id), one.name, offer.allocation_info.role, hosts.get(offer.slave_id) ?? "", round(offer.resources.cpus), mib(offer.resources.mem), mib(offer.resources.disk),
  ])), "No offer is outstanding.");
  const ended = everybody.flatMap((one) => one.completed_tasks.map((task) => [task.statuses.at(-1)?.timestamp ?? 0, taskRow(task, one, hosts)]));
  fill("done", ended.sort((left, right) => right[0] - left[0]).slice(0, ENDED_SHOWN).map(([, row]) => row), "No task has ended yet.");
}

async function refresh() {
  const stale = byId("stale");
  try {
    const answer = await fetch("/state", { redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect") {
      location.reload(); // another master leads now: / redirects to it
      return;
    }
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    draw(await answer.json());
    stale.hidden = true;
  } catch (error) {
    stale.textContent = `This page is out of date: the master does not answer (${error.message}).`;
    stale.hidden = false;
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
