// Dialogs: create, scale, confirm. A rejected change shows its error in the dialog and keeps the input.
import { byId } from "/static/common/dom.js";

async function send(method, path, body) {
  const answer = await fetch(path, {
    method, redirect: "manual", cache: "no-store",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.type === "opaqueredirect") throw new Error("Another server leads now; this page moves there in a moment. Try again then.");
  if (answer.ok) return;
  const problem = await answer.json().catch(() => ({}));
  const details = (problem.details ?? []).map((item) => `${item.path}: ${item.errors.join(", ")}`);
  throw new Error([problem.message ?? `HTTP ${answer.status}`, ...details].join("\n"));
}

/** Open a dialog; `act` is given its form's fields when it is submitted, and may throw what the form then shows. */
function ask(name, act) {
  const dialog = byId(name);
  const form = dialog.querySelector("form");
  const problem = form.querySelector(".problem");
  const submit = form.querySelector("[type=submit]");
  problem.hidden = true;
  form.onsubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await act(Object.fromEntries(new FormData(form)));
      dialog.close();
      form.reset();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    submit.disabled = false;
  };
  dialog.showModal();
  return dialog;
}

export function create(done) {
  ask("create", async ({ id, cmd, cpus, mem, instances }) => {
    await send("POST", "/v2/apps", { id, cmd, cpus: Number(cpus), mem: Number(mem), instances: Number(instances) });
    done();
  });
}

export function scale(app, done) {
  const dialog = ask("scale", async ({ instances }) => {
    await send("PUT", `/v2/apps${app.id}`, { instances: Number(instances) });
    done();
  });
  dialog.querySelector(".of").textContent = app.id;
  const input = dialog.querySelector("input");
  input.value = app.instances;
  input.select();
}

/** Ask before `method path` is sent. */
export function confirmed(question, what, word, [method, path, body], done) {
  const dialog = ask("sure", async () => {
    await send(method, path, body);
    done();
  });
  dialog.querySelector(".of").textContent = question;
  dialog.querySelector(".what").textContent = what;
  dialog.querySelector("[type=submit]").textContent = word;
}

export { send };
