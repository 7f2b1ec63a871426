// The page of services, read from the public REST API every two seconds. Dialogs: forms.js; texts: words.js.
import { bar, byId, facts, fill, h, link, num, paint, state, sub, tight, tile } from "/static/common/dom.js";
import { duration, mib, moment, plural, round, short } from "/static/common/format.js";
import { follow, now, peersOf, read } from "/static/common/live.js";
import { confirmed, create, scale, send } from "/static/forms.js";
import { appState, explainWait, reasons } from "/static/words.js";

const ENGINE = `${location.protocol}//${location.hostname}:5050/`;
const FATE = { TASK_RUNNING: "good", TASK_STAGING: "busy", TASK_STARTING: "busy", TASK_KILLING: "busy" };
const SHOWN = 200; // instances of an app
const COLUMNS = ["Instance", "Host", "Ports", "State", "Since", "Output"];

let latest = { apps: [], queue: new Map(), details: new Map(), deployments: [] };
let zk = "";
let framework = null;
const open = new Set(new URLSearchParams(location.hash.slice(1)).getAll("app")); // in the address, so that it outlives a change of leader

const ago = (iso) => duration(now - Date.parse(iso) / 1000);
const since = (iso) => h("span", { title: moment(Date.parse(iso) / 1000) }, ago(iso));
const button = (what, app, text, kind = "", more = {}) => h("button", { type: "button", "data-do": what, "data-app": app, class: kind, ...more }, text);

function output(instance) {
  const place = { agent: instance.slaveId, framework: framework ?? "", task: instance.id };
  const to = (file) => link(`/static/sandbox.html?${new URLSearchParams({ ...place, file })}`, file);
  return [to("stdout"), " ", to("stderr")];
}

function instanceRow(instance) {
  const word = instance.state.replace("TASK_", "").toLowerCase();
  const cells = [
    h("span", { class: "id" }, instance.id), instance.host, instance.ports.join(", ") || "–",
    state(word, FATE[instance.state] ?? "bad"), since(instance.startedAt ?? instance.stagedAt), output(instance),
  ];
  return h("tr", {}, cells.map((cell) => h("td", {}, cell)));
}

function detail(app, tasks) {
  const failure = app.lastTaskFailure;
  const rows = [...tasks].sort((left, right) => left.stagedAt.localeCompare(right.stagedAt)).slice(0, SHOWN).map(instanceRow);
  return [
    h("div", { class: "spec" },
      h("code", {}, app.cmd ?? (app.args ?? []).join(" ")),
      app.constraints.length ? h("span", {}, h("span", { class: "label" }, "constraints "), app.constraints.map((item) => item.join(" ")).join(", ")) : null,
      h("span", {}, h("span", { class: "label" }, "version "), h("span", { title: app.version }, `${ago(app.version)} old`)),
      h("span", { class: "right" }, button("scale", app.id, "Scale…"), button("restart", app.id, "Restart…"), button("delete", app.id, "Delete…", "danger"))),
    failure ? h("p", { class: "bad" }, `Last failure ${ago(failure.timestamp)} ago on ${failure.host}: ${failure.state.replace("TASK_", "").toLowerCase()} ${failure.message} `, output({ slaveId: failure.slaveId, id: failure.taskId })) : null,
    rows.length
      ? h("table", { "aria-label": `Instances of ${app.id}` }, h("thead", {}, h("tr", {}, COLUMNS.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))
      : h("span", { class: "quiet" }, app.instances ? "No instance runs now. The queue below says what it waits for." : "Suspended: scale it to run it again."),
    tasks.length > SHOWN ? h("p", { class: "quiet" }, `${tasks.length - SHOWN} more instances: GET /v2/apps${app.id}/tasks has all of them.`) : null,
  ];
}

function appRows(view, app) {
  const [word, kind, title] = appState(app, view.queue.get(app.id));
  const shown = view.details.get(app.id);
  const row = {
    key: app.id,
    cells: [
      button("open", app.id, app.id, "link", { "aria-expanded": String(open.has(app.id)) }), state(word, kind, title),
      [`${app.tasksRunning} of ${app.instances}`, bar(app.tasksRunning, app.tasksStaged, Math.max(app.instances, app.tasksRunning))],
      num(app.tasksStaged), num(app.tasksUnhealthy), num(round(app.cpus)), num(mib(app.mem)), num([since(app.version), " ago"]),
    ],
  };
  return shown ? [row, { key: `detail ${app.id}`, kind: "detail", cells: [detail({ ...app, ...shown.app }, shown.app.tasks ?? [])] }] : [row];
}

function queueRow(entry) {
  const why = reasons(entry);
  const text = why.length ? why.map((item) => h("div", {}, item.where, sub(item.because))) : h("span", { class: "quiet" }, explainWait(entry));
  const left = entry.delay.overdue
    ? h("span", { class: "quiet" }, "no")
    : [`${duration(entry.delay.timeLeftSeconds)} more `, button("retry", entry.app.id, "Try now")];
  return {
    key: entry.app.id,
    cells: [entry.app.id, num(entry.count), num(since(entry.since)), text, left, num(entry.processedOffersSummary.processedOffersCount)],
  };
}

function deploymentRow(item) {
  const actions = item.currentActions.map((action) => action.action.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase());
  return {
    key: item.id,
    cells: [
      item.affectedApps.join(", "), [...new Set(actions)].join(", "), num(since(item.version)), h("span", { class: "id", title: item.id }, short(item.id)),
      tight(button("back", item.id, "Roll back…")),
    ],
  };
}

function tiles({ apps, queue, deployments }) {
  const sum = (value) => apps.reduce((total, app) => total + value(app), 0);
  const [running, wanted] = [sum((app) => app.tasksRunning), sum((app) => app.instances)];
  const waiting = [...queue.values()].reduce((total, entry) => total + entry.count, 0);
  const stuck = [...queue.values()].filter((entry) => reasons(entry).length).length;
  return [
    tile("Apps", apps.length, "", `${plural(apps.filter((app) => app.instances && app.tasksRunning >= app.instances).length, "app")} complete`),
    tile("Instances running", running, `of ${wanted}`, `${sum((app) => app.tasksStaged)} starting`, bar(running, sum((app) => app.tasksStaged), Math.max(wanted, running))),
    tile("Waiting", waiting, waiting === 1 ? "instance" : "instances", stuck ? `${plural(stuck, "app")} unschedulable` : "none unschedulable"),
    tile("CPUs wanted", round(sum((app) => app.cpus * app.instances), 1), "", `${round(sum((app) => app.cpus * app.tasksRunning), 1)} in use`),
    tile("Memory wanted", mib(sum((app) => app.mem * app.instances)), "", `${mib(sum((app) => app.mem * app.tasksRunning))} in use`),
    tile("Deployments", deployments.length, "", deployments.length ? "in progress" : "none in progress"),
  ];
}

function none(view) {
  if (view.apps.length) return "No app matches the filter.";
  const sample = `curl -X POST ${location.origin}/v2/apps -H 'Content-Type: application/json' -d '{"id": "/web", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32}'`;
  return ["There are no apps yet. ", button("create", "", "Create one"), " here, or by the API, which is Marathon's:", h("br"), h("code", {}, sample)];
}

function draw() {
  const view = latest;
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = view.apps.filter((app) => words.every((word) => `${app.id} ${app.cmd ?? ""}`.toLowerCase().includes(word)));
  paint(byId("tiles"), tiles(view));
  fill(byId("apps"), matching.flatMap((app) => appRows(view, app)), none(view));
  fill(byId("queue"), [...view.queue.values()].map(queueRow), "Nothing waits: every wanted instance has a place.");
  fill(byId("deployments"), view.deployments.map(deploymentRow), "Nothing is being deployed.");
  byId("n-apps").textContent = words.length ? `${matching.length} of ${view.apps.length}` : view.apps.length || "";
  byId("n-queue").textContent = view.queue.size || "";
  byId("n-deployments").textContent = view.deployments.length || "";
}

async function details(apps) {
  const wanted = apps.filter((app) => open.has(app.id)).map((app) => app.id);
  const answers = await Promise.all(wanted.map((id) => read(`/v2/apps${id}`).catch((error) => (error.message.includes("404") ? null : Promise.reject(error)))));
  return new Map(wanted.map((id, index) => [id, answers[index]]).filter(([, answer]) => answer));
}

async function look() {
  const [apps, queue, deployments, info] = await Promise.all([read("/v2/apps?embed=apps.failures"), read("/v2/queue"), read("/v2/deployments"), read("/v2/info")]);
  [zk, framework] = [info.zookeeper_config.zk, info.frameworkId];
  latest = { apps: apps.apps, queue: new Map(queue.queue.map((entry) => [entry.app.id, entry])), deployments, details: await details(apps.apps) };
  facts(byId("facts"), [["Leader", info.leader], ["API", `Marathon ${info.version}`], ["Framework", info.frameworkId ?? "not subscribed yet"]]);
  draw();
}

function toggle(id) {
  if (!open.delete(id)) open.add(id);
  else latest.details.delete(id);
  const hash = new URLSearchParams([...open].map((item) => ["app", item])).toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
  draw();
  again();
}

const ACTIONS = {
  open: toggle,
  create: () => create(again),
  close: (_, target) => target.closest("dialog").close(),
  scale: (id) => scale(latest.apps.find((app) => app.id === id), again),
  restart: (id) => confirmed(`Restart ${id}?`, "Every instance is replaced by a new one of the same definition.", "Restart", ["POST", `/v2/apps${id}/restart`, {}], again),
  delete: (id) => {
    const count = latest.apps.find((app) => app.id === id)?.tasksRunning ?? 0;
    confirmed(`Delete ${id}?`, `${plural(count, "running instance")} will be killed and the definition is gone.`, "Delete", ["DELETE", `/v2/apps${id}`], again);
  },
  back: (id) => confirmed("Roll this deployment back?", "What it changed is changed back by a new deployment.", "Roll back", ["DELETE", `/v2/deployments/${id}`], again),
  retry: async (id) => {
    await send("DELETE", `/v2/queue${id}/delay`).catch(() => undefined); // it may have left the queue meanwhile: the next pass shows it
    again();
  },
};

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-do]");
  if (target) ACTIONS[target.dataset.do](target.dataset.app, target);
});
byId("filter").addEventListener("input", draw);
byId("to-engine").href = ENGINE;
byId("to-autoscaler").href = `${location.protocol}//${location.hostname}:9550/`;
const again = follow(look, "the server", () => peersOf(zk, location.port));
