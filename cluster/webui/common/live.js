// Reads the page's data every two seconds, marks old data, and follows a change of leader.
import { byId, paint } from "/static/common/dom.js";
import { clock } from "/static/common/format.js";

const EVERY_MS = 2000;
const GENTLE = 4; // a cluster so large that reading it takes long is read less often
const TIMEOUT_MS = 6000;
const PEERS_AFTER_MS = 5000;
const RELOAD_AFTER = 5; // answers that point elsewhere before we go there without having seen it answer

class Moved extends Error {}

/** The server's clock at the latest answer, in seconds: durations do not suffer from the reader's own clock. */
export let now = Date.now() / 1000;

/** JSON from this server. Throws Moved when another one leads, else an Error that says what happened. */
export async function read(path) {
  let answer;
  try {
    answer = await fetch(path, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "it is too slow" : "it cannot be reached");
  }
  if (answer.type === "opaqueredirect") throw new Moved("another server leads now");
  if (answer.status === 503) throw new Error("it waits for an election of a leader");
  if (!answer.ok) throw new Error(`${path.split("?")[0]} gave HTTP ${answer.status}`);
  now = Date.parse(answer.headers.get("Date")) / 1000 || Date.now() / 1000;
  return answer.json();
}

/** Whether something answers there, also after redirects; what it answers stays unknown. */
async function alive(url) {
  try {
    await fetch(url, { mode: "no-cors", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    return true;
  } catch {
    return false;
  }
}

/** The origins of the servers beside a `zk://` URL's ensemble; the page's policy lets it ask these, and no others. */
export function peersOf(zk, port) {
  const hosts = zk.replace("zk://", "").split("/")[0].split(",").map((item) => item.replace(/:\d+$/, ""));
  return hosts.map((host) => `${location.protocol}//${host}:${port}`).filter((origin) => origin !== location.origin);
}

/**
 * Read and draw for ever.
 * @param look reads and draws once; throws what `read` throws
 * @param who what the notice calls the server
 * @param peers gives the origins to try when this server is gone
 */
export function follow(look, who, peers) {
  const opened = Date.now();
  let fresh = opened;
  let moved = 0;
  let timer = null;
  let busy = false;

  function notice(error) {
    const never = `Nothing to show yet: ${who} at ${location.host} does not tell, ${error.message}. Trying on; this page goes where the leader goes.`;
    const old =
      `Out of date since ${clock(new Date(fresh))}: ${who} at ${location.host} does not tell more, ${error.message}. ` +
      "What is below was true then. Trying on; this page goes where the leader goes.";
    paint(byId("notice"), fresh === opened ? never : old); // untouched while it says the same: it is read out when it changes
    byId("notice").hidden = false;
    document.body.classList.add("stale");
  }

  async function elsewhere(error) {
    if (error instanceof Moved) {
      moved += 1;
      if (moved >= RELOAD_AFTER || (await alive("/"))) location.reload();
      return;
    }
    if (Date.now() - fresh < PEERS_AFTER_MS) return;
    for (const origin of peers()) {
      if (await alive(`${origin}/`)) {
        location.replace(`${origin}${location.pathname}${location.search}${location.hash}`);
        return;
      }
    }
  }

  async function pass() {
    if (busy) return;
    busy = true;
    clearTimeout(timer);
    const began = Date.now();
    try {
      await look();
      fresh = Date.now();
      moved = 0;
      byId("notice").hidden = true;
      document.body.classList.remove("stale");
      byId("pulse").textContent = `live · ${clock(new Date())}`;
    } catch (error) {
      notice(error);
      await elsewhere(error);
    }
    busy = false;
    timer = setTimeout(pass, Math.max(document.hidden ? 10 * EVERY_MS : EVERY_MS, GENTLE * (Date.now() - began)));
  }

  document.addEventListener("visibilitychange", () => document.hidden || pass());
  pass();
  return pass;
}
