// Texts for numbers, sizes and times.

export const round = (value, digits = 2) => String(Number((value ?? 0).toFixed(digits)));

const STEPS = ["MiB", "GiB", "TiB", "PiB"];
const stepOf = (value) => Math.min(STEPS.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value ?? 0)) / 10)));

/** Two amounts in the unit of the second: ["1.5", "of 15 GiB"]. */
export function mibOf(part, whole) {
  const step = stepOf(whole);
  const [some, all] = [part, whole].map((value) => (value ?? 0) / 1024 ** step);
  const text = (amount) => round(amount, all >= 100 || step === 0 ? 0 : 1);
  return [text(some), `of ${text(all)} ${STEPS[step]}`];
}

export function mib(value) {
  const [amount] = mibOf(value, value);
  return `${amount} ${STEPS[stepOf(value)]}`;
}

export function bytes(value) {
  return value < 1024 ? `${value} B` : value < 1048576 ? `${round(value / 1024, 1)} KiB` : mib(value / 1048576);
}

/** 75 s is "1 min 15 s", 26 h is "1 d 2 h": two units at most, and no seconds beyond ten minutes, so that it changes rarely. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export const moment = (seconds) => new Date(seconds * 1000).toLocaleString();
export const clock = (date) => date.toLocaleTimeString([], { hourCycle: "h23" });
export const plural = (count, singular, many = `${singular}s`) => `${count} ${count === 1 ? singular : many}`;

/** The telling end of a long id, such as `…-S3`; the whole is for the title. */
export const short = (id) => (id.length > 14 ? `…${/-[A-Z]?\d{1,6}$/.exec(id)?.[0] ?? id.slice(-8)}` : id);
