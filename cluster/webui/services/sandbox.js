// Sandboxes of an agent, the files of one sandbox, and the end of a file, read again as it grows.
// ?agent=…                 the agent's sandboxes
// ?agent=…&task=…          the files of a task's sandbox (&path=… a folder in it)
// ?agent=…&task=…&file=…   a file in it
// framework=… helps to find what is left of a task that the agent has forgotten.
import { byId, facts, fill, h, link, num, paint, state, tight } from "/static/common/dom.js";
import { bytes, duration } from "/static/common/format.js";
import { follow, now, read } from "/static/common/live.js";

const TAIL_BYTES = 65536;
const MAX_CHARACTERS = 2_000_000;
const asked = new URLSearchParams(location.search);
const [agent, framework, task, file, folder] = ["agent", "framework", "task", "file", "path"].map((name) => asked.get(name));
const files = (what, query) => `/agents/${encodeURIComponent(agent)}/files/${what}?${new URLSearchParams(query)}`;
const here = (query) => `?${new URLSearchParams({ agent, ...(framework && query.task ? { framework } : {}), ...query })}`;

let sandbox = null;
let offset = null;

async function executors() {
  const agentState = await read(`/agents/${encodeURIComponent(agent)}/state`);
  facts(byId("facts"), [["Agent", agentState.hostname], ["Id", h("span", { class: "id" }, agent)], ["Task", task ? h("span", { class: "id" }, task) : null]]);
  return [...agentState.frameworks, ...(agentState.completed_frameworks ?? [])].flatMap((whose) => [
    ...whose.executors.map((item) => ({ ...item, framework: whose.name, frameworkId: whose.id, over: false })),
    ...whose.completed_executors.map((item) => ({ ...item, framework: whose.name, frameworkId: whose.id, over: true })),
  ]);
}

function table(title, columns, rows, nothing) {
  byId("listing").hidden = false;
  paint(byId("h-list"), title);
  paint(byId("list").tHead.rows[0], columns.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)));
  fill(byId("list"), rows, nothing);
}

async function showAgent() {
  const withSandbox = (await executors()).filter((item) => item.directory);
  const rows = withSandbox.map((item) => ({
    key: item.container,
    cells: [link(here({ task: item.id, framework: item.frameworkId }), item.id), item.framework, item.over ? state("ended") : state("running", "good"), tight(link(here({ task: item.id, framework: item.frameworkId, file: "stdout" }), "stdout")), tight(link(here({ task: item.id, framework: item.frameworkId, file: "stderr" }), "stderr"))],
  }));
  table("Sandboxes", [["Task"], ["Framework"], ["State"], ["Output"], [""]], rows, "This agent keeps no sandbox: nothing ran on it, or what ran was cleared away.");
}

async function showFolder() {
  const at = folder ? `${sandbox}/${folder}` : sandbox;
  const entries = await read(files("browse", { path: at }));
  const inside = (path) => path.slice(sandbox.length + 1);
  const rows = entries.map((item) => {
    const isFolder = item.mode.startsWith("d");
    const name = item.path.split("/").at(-1);
    const to = isFolder ? here({ task, path: inside(item.path) }) : here({ task, file: inside(item.path) });
    return { key: item.path, cells: [link(to, isFolder ? `${name}/` : name), num(isFolder ? "" : bytes(item.size)), num(duration(now - item.mtime)), tight(h("span", { class: "id" }, item.mode)), tight(isFolder ? "" : link(files("download", { path: item.path }), "download"))] };
  });
  const title = [link(here({}), "Sandboxes"), " / ", folder ? link(here({ task }), task) : task, folder ? ` / ${folder}` : ""];
  table(title, [["Name"], ["Size", "num"], ["Changed", "num"], ["Mode"], [""]], rows, "This folder is empty.");
}

async function showFile() {
  const path = `${sandbox}/${file}`;
  byId("reading").hidden = false;
  paint(byId("h-file"), [link(here({ task }), "files"), ` / ${file}`]);
  byId("download").href = files("download", { path });
  const size = (await read(files("read", { path, offset: -1 }))).offset;
  byId("size").textContent = bytes(size);
  const output = byId("output");
  if (offset === null || size < offset) {
    offset = Math.max(0, size - TAIL_BYTES);
    output.textContent = offset ? `… ${bytes(offset)} before this; download the file for all of it\n` : "";
  }
  let grown = false;
  while (offset < size) {
    const { data } = await read(files("read", { path, offset, length: TAIL_BYTES }));
    if (!data) break;
    offset += new TextEncoder().encode(data).length;
    output.append(data);
    grown = true;
  }
  if (output.textContent.length > MAX_CHARACTERS) output.textContent = output.textContent.slice(-MAX_CHARACTERS / 2);
  if (grown && byId("tail").checked) output.scrollTop = output.scrollHeight;
}

/** The folder of the task's latest run: as the agent's state has it, else where the embedded engine keeps what has ended. */
async function sandboxOf() {
  const known = (await executors()).find((item) => item.id === task);
  if (known?.directory) return known.directory;
  const runs = framework ? await read(files("browse", { path: `${framework}/${task}` })).catch(() => []) : [];
  const [last] = runs.sort((left, right) => right.mtime - left.mtime);
  if (!last) throw new Error("the agent keeps no sandbox of this task: it has not begun, or was cleared away");
  return last.path;
}

async function look() {
  if (!agent) throw new Error("its address names no agent; come here from the engine's or the services' page");
  document.title = `${file ?? "Sandbox"} · ${task ?? agent}`;
  if (!task) return showAgent();
  sandbox ??= await sandboxOf();
  return file ? showFile() : showFolder();
}

byId("to-engine").href = `${location.protocol}//${location.hostname}:5050/`;
follow(look, "the agent, through the server", () => []);
