// Uploads one file with tus-js-client in node. The argument is JSON:
// {modules, client, file, source, storage, die_after, options}. The output is JSON too.
import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const job = JSON.parse(process.argv[2]);
const require = createRequire(`${job.modules}/package.json`);
const tus = require(job.client);
const requests = [];
let latest = null;

// tus-js-client never says that a file stream has ended where the length is told at the end.
const sources = {
  whole: () => readFileSync(job.file),
  file: () => createReadStream(job.file),
  pipe: () => createReadStream(job.file).pipe(new PassThrough()),
};
const source = sources[job.source ?? "whole"]();
const options = {
  ...job.options,
  onBeforeRequest: (request) => {
    latest = { method: request.getMethod(), url: request.getURL(), status: null };
    requests.push(latest);
  },
  onAfterResponse: (request, response) => {
    requests.findLast((one) => one.url === request.getURL() && one.status === null).status = response.getStatus();
  },
  onProgress: (sent, total) => {
    if (job.die_after && sent >= job.die_after && sent < total) process.exit(3);
  },
};
if (options.chunkSize === undefined && job.source === "file") options.chunkSize = 1 << 20;
if (job.storage) {
  const { FileUrlStorage } = job.client.endsWith("-5") ? require(`${job.client}/node/FileUrlStorage`) : tus;
  options.urlStorage = new FileUrlStorage(job.storage);
  options.fingerprint = async () => "the-file";
}

const outcome = await new Promise((resolve) => {
  options.onSuccess = () => resolve({ ok: true });
  options.onError = (error) => resolve({ ok: false, error: String(error) });
  const upload = new tus.Upload(source, options);
  const start = async () => {
    const previous = job.storage ? await upload.findPreviousUploads() : [];
    if (previous.length) upload.resumeFromPreviousUpload(previous[0]);
    upload.start();
  };
  start().catch(options.onError);
  globalThis.upload = upload;
});
console.log(JSON.stringify({ ...outcome, url: globalThis.upload.url, requests }));
