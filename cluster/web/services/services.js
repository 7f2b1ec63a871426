"use strict";
// Reads the same REST API as everybody else. All text goes in through textContent, so nothing that a user named can become markup.

const REFRESH_MS = 2000;

async function read(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = text;
  if (kind) td.className = kind;
  return td;
}

function fill(id, rows, nothing) {
  const body = document.querySelector(`#${id} tbody`);
  const made = rows.map((cells) => {
    const tr = document.createElement("tr");
    tr.append(...cells);
    return tr;
  });
  if (!made.length) {
    const tr = document.createElement("tr");
    const td = cell(nothing, "empty");
    td.colSpan = document.querySelectorAll(`#${id} th`).length;
    tr.append(td);
    made.push(tr);
  }
  body.replaceChildren(...made);
}

function stateOf(app, waiting) {
  if (app.deployments.length) return ["deploying", "busy"];
  if (waiting.has(app.id)) return ["waiting", "busy"];
  if (app.instances === 0) return ["suspended", "empty"];
  return app.tasksRunning >= app.instances ? ["running", "good"] : ["degraded", "bad"];
}

function appRow(app, waiting) {
  const [state, kind] = stateOf(app, waiting);
  const failure = app.lastTaskFailure;
  return [
    cell(app.id), cell(app.tasksRunning, "number"), cell(app.instances, "number"), cell(app.tasksStaged, "number"),
    cell(app.cpus, "number"), cell(app.mem, "number"), cell(state, kind),
    cell(failure ? `${failure.state} ${failure.message}`.trim() : "", "bad"),
  ];
}

function why(summary) {
  const rejected = summary.rejectSummaryLastOffers.filter((row) => row.declined > 0);
  if (rejected.length) return rejected.map((row) => `${row.reason} on ${row.declined}`).join(", ");
  return summary.processedOffersCount ? "" : "no offer yet";
}

function queueRow(entry) {
  const summary = entry.processedOffersSummary;
  return [
    cell(entry.app.id), cell(entry.count, "number"), cell(new Date(entry.since).toLocaleTimeString()),
    cell(entry.delay.overdue ? "" : `${entry.delay.timeLeftSeconds} s`, "busy"),
    cell(summary.processedOffersCount, "number"), cell(why(summary)),
  ];
}

function deploymentRow(deployment) {
  const actions = deployment.currentActions.map((action) => action.action).join(", ");
  return [cell(deployment.id), cell(deployment.affectedApps.join(", ")), cell(actions), cell(deployment.version)];
}

async function refresh() {
  const standing = document.getElementById("standing");
  try {
    const [apps, queue, deployments, leader] = await Promise.all([
      read("/v2/apps?embed=apps.failures"), read("/v2/queue"), read("/v2/deployments"), read("/v2/leader"),
    ]);
    const waiting = new Set(queue.queue.map((entry) => entry.app.id));
    fill("apps", apps.apps.map((app) => appRow(app, waiting)), "No apps. Create one: POST /v2/apps");
    fill("queue", queue.queue.map(queueRow), "Nothing waits for offers.");
    fill("deployments", deployments.map(deploymentRow), "Nothing is being deployed.");
    standing.textContent = `led by ${leader.leader}`;
    standing.className = "";
  } catch (error) {
    standing.textContent = `cannot read: ${error.message}`;
    standing.className = "bad";
  }
  setTimeout(refresh, REFRESH_MS);
}

refresh();
