// A page that uploads the chosen file with Uppy. `begin` is called by the test.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

window.begin = (endpoint, options) => {
  const uppy = new Uppy();
  window.events = [];
  uppy.use(Tus, {
    endpoint,
    retryDelays: [0, 100, 300, 1000, 2000],
    onAfterResponse: (request, response) => {
      window.events.push(`${request.getMethod()} ${response.getStatus()}`);
      window.link = response.getHeader("Link");
      window.expires = response.getHeader("Upload-Expires") ?? window.expires;
    },
    ...options,
  });
  uppy.on("upload-progress", (file, progress) => {
    document.title = `${progress.bytesUploaded}`;
  });
  uppy.on("upload-success", (file, response) => {
    document.title = `done ${response.uploadURL}`;
  });
  uppy.on("upload-error", (file, error) => {
    document.title = `failed ${error}`;
  });
  const [data] = document.querySelector("#file").files;
  uppy.addFile({ name: data.name, type: data.type, data });
  uppy.upload();
};
