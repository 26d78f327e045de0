// The state of the gateway as a text that people can send: it has no secrets, which none of its sources tells.

/** Return the text, in English: it is for those who help. */
export function supportText(facts, snapshot, doctor) {
  const lines = [
    `Upload Gateway ${facts.version}`,
    `time ${new Date().toISOString()}, started ${facts.started}`,
    `processes ${facts.processes}, silent ${facts.silent_processes.join(" ") || "none"}`,
    `storage ${facts.storage}, events ${facts.events}, authorization ${facts.authorization}`,
    `disk ${JSON.stringify(facts.disk ?? null)}`,
    `uploads ${JSON.stringify(facts.uploads)}`,
    `deliveries ${JSON.stringify(facts.deliveries ?? null)}`,
    `paused ${JSON.stringify(facts.paused ?? null)}`,
    `plugins ${JSON.stringify(facts.plugins ?? null)}`,
    `upstreams down ${JSON.stringify(facts.upstreams_down)}`,
    `unknown ${JSON.stringify(facts.unknown)}`,
    `rates ${JSON.stringify(snapshot?.rates ?? null)}`,
    `browser ${navigator.userAgent}`,
    "",
    doctor ? `doctor at ${doctor.time}, complete ${doctor.complete}` : "doctor: not known yet",
    ...(doctor?.findings ?? []).map(({ level, text, advice }) => `${level.padEnd(4)}  ${text}${advice ? `  (${advice})` : ""}`),
  ];
  return lines.join("\n");
}
