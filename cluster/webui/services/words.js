// Texts for the state of an app and for the reasons why its instances wait.
import { mib, plural, round } from "/static/common/format.js";

const NEEDS = {
  UnfulfilledRole: () => "nothing is offered for a role that it accepts",
  UnfulfilledConstraint: (app) => `its constraints exclude them: ${app.constraints.map((item) => item.join(" ")).join(", ")}`,
  NoCorrespondingReservationFound: () => "nothing is reserved for it",
  AgentMaintenance: () => "they are being drained",
  InsufficientCpus: (app) => `an instance wants ${round(app.cpus)} CPUs, more than is free`,
  InsufficientMemory: (app) => `an instance wants ${mib(app.mem)} of memory, more than is free`,
  InsufficientDisk: (app) => `an instance wants ${mib(app.disk)} of disk, more than is free`,
  InsufficientGpus: (app) => `an instance wants ${plural(app.gpus, "GPU")}, more than are free`,
  InsufficientPorts: () => "the host ports that it wants are taken",
  DeclinedScarceResources: () => "their GPUs are reserved for apps that ask for GPUs",
};

/** Reject reasons of the latest offers, [{where, because}], most frequent first; empty without rejects. */
export function reasons(entry) {
  const rows = entry.processedOffersSummary.rejectSummaryLastOffers;
  const agents = rows.length ? rows[0].processed : 0;
  return rows.filter((row) => row.declined > 0).sort((left, right) => right.declined - left.declined).map((row) => ({
    where: `${row.reason} on ${row.declined} of ${plural(agents, "agent")}`,
    because: NEEDS[row.reason]?.(entry.app) ?? "",
  }));
}

/** Why an app waits without reject reasons. */
export function explainWait(entry) {
  if (!entry.delay.overdue) return "its instances ended; the next launch is delayed";
  return entry.processedOffersSummary.processedOffersCount ? "an offer was accepted" : "no offer received yet: all agents may be in use";
}

/** State of an app: [text, kind, explanation]. */
export function appState(app, entry) {
  if (entry && !entry.delay.overdue) return ["delayed", "bad", "its instances end; the next launch is delayed"];
  if (entry && reasons(entry).length) return ["unschedulable", "bad", "no agent has the resources; see the queue"];
  if (app.deployments.length) return ["deploying", "busy", "a change is in progress"];
  if (entry) return ["waiting", "busy", "for offers that fit"];
  if (app.instances === 0) return ["suspended", "", "no instance is wanted"];
  if (app.tasksUnhealthy > 0) return ["unhealthy", "bad", "health checks fail"];
  return app.tasksRunning >= app.instances ? ["running", "good", null] : ["degraded", "bad", "fewer run than wanted"];
}
