// What an app waits for and how it fares, in plain words.
import { mib, plural, round } from "/static/common/format.js";

const NEEDS = {
  UnfulfilledRole: () => "nothing is offered for a role that it accepts",
  UnfulfilledConstraint: (app) => `its constraints rule them out: ${app.constraints.map((one) => one.join(" ")).join(", ")}`,
  NoCorrespondingReservationFound: () => "nothing is reserved for it",
  AgentMaintenance: () => "they are being drained",
  InsufficientCpus: (app) => `an instance wants ${round(app.cpus)} CPUs, more than is free there`,
  InsufficientMemory: (app) => `an instance wants ${mib(app.mem)} of memory, more than is free there`,
  InsufficientDisk: (app) => `an instance wants ${mib(app.disk)} of disk, more than is free there`,
  InsufficientGpus: (app) => `an instance wants ${plural(app.gpus, "GPU")}, more than are free there`,
  InsufficientPorts: () => "the host ports that it wants are taken",
  DeclinedScarceResources: () => "they have GPUs, which are kept for those who want them",
};

/** Why nothing was launched on the agents looked at last: [{reason, where, because}], commonest first; empty when it may still be launched. */
export function reasons(entry) {
  const rows = entry.processedOffersSummary.rejectSummaryLastOffers;
  const agents = rows.length ? rows[0].processed : 0;
  return rows.filter((row) => row.declined > 0).sort((left, right) => right.declined - left.declined).map((row) => ({
    where: `${row.reason} on ${row.declined} of ${plural(agents, "agent")}`,
    because: NEEDS[row.reason]?.(entry.app) ?? "",
  }));
}

/** Why there are no reasons. */
export function undecided(entry) {
  if (!entry.delay.overdue) return "its instances ended by themselves; it is tried again after a pause";
  return entry.processedOffersSummary.processedOffersCount ? "found a place a moment ago" : "no offer has come yet: every agent may be full or in use";
}

/** [word, kind, explanation] */
export function standing(app, entry) {
  if (entry && !entry.delay.overdue) return ["held back", "bad", "its instances end by themselves"];
  if (entry && reasons(entry).length) return ["no place", "bad", "no agent has room; the queue says why"];
  if (app.deployments.length) return ["deploying", "busy", "a change is under way"];
  if (entry) return ["waiting", "busy", "for offers that fit"];
  if (app.instances === 0) return ["suspended", "", "no instance is wanted"];
  if (app.tasksUnhealthy > 0) return ["unhealthy", "bad", "health checks fail"];
  return app.tasksRunning >= app.instances ? ["running", "good", null] : ["degraded", "bad", "fewer run than wanted"];
}
