// Sends the submit form with progress. Without this file the form is posted the ordinary way.
const form = document.getElementById("submit-form");
const input = document.getElementById("file");
const drop = document.getElementById("drop");
const chosen = document.getElementById("chosen-file");
const alertBox = document.getElementById("submit-error");
const alertText = document.getElementById("submit-error-text");
const panel = document.getElementById("upload-progress");
const bar = panel.querySelector("progress");
const status = document.getElementById("upload-status");
const rate = document.getElementById("upload-rate");
const sendButton = document.getElementById("send");
const stopButton = document.getElementById("stop-upload");
const limitBytes = Number(form.dataset.limitBytes);
const emptyText = chosen.textContent;
let request = null;

const size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
};

const showError = (text) => {
  alertText.textContent = text;
  alertBox.hidden = false;
  alertBox.scrollIntoView({ block: "nearest" });
};

const tooLarge = (file) =>
  `${file.name} has ${size(file.size)}, and at most ${size(limitBytes)} may be uploaded here. ` +
  "Leave out what the server does not need at run time: caches, optimiser states, other checkpoints.";

// True when the chosen file may be sent; says why not otherwise.
const check = () => {
  const file = input.files[0];
  alertBox.hidden = true;
  chosen.textContent = file ? `${file.name} – ${size(file.size)}` : emptyText;
  if (file && file.size > limitBytes) {
    showError(tooLarge(file));
    return false;
  }
  return Boolean(file);
};

const setSending = (isSending) => {
  panel.hidden = !isSending;
  sendButton.disabled = isSending;
  stopButton.hidden = !isSending;
};

const fail = (text) => {
  request = null;
  setSending(false);
  showError(text);
};

const answer = (xhr) => {
  let body = null;
  try {
    body = JSON.parse(xhr.responseText);
  } catch {
    // an HTML page: the sign-in form or an error page
  }
  if (xhr.status === 201 && body?.url) {
    window.location.assign(body.url);
  } else if (body?.detail) {
    fail(body.detail);
  } else if (xhr.status === 200 || xhr.status === 403) {
    fail("Your session has ended. Sign in in another tab, load this page again, and submit once more.");
  } else {
    fail(`The server answered with status ${xhr.status}. Nothing was handed in; try again in a minute.`);
  }
};

const send = () => {
  const started = performance.now();
  request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.upload.addEventListener("progress", (event) => {
    if (!event.lengthComputable) return;
    bar.max = event.total;
    bar.value = event.loaded;
    const perSecond = event.loaded / Math.max((performance.now() - started) / 1000, 0.001);
    rate.textContent = `${size(event.loaded)} of ${size(event.total)} · ${size(perSecond)}/s`;
  });
  request.upload.addEventListener("load", () => {
    status.textContent = "Uploaded. Checking the archive…";
    bar.removeAttribute("value");
  });
  const current = request;
  request.addEventListener("load", () => answer(current));
  request.addEventListener("error", () =>
    fail("The connection broke before the upload was complete. Nothing was handed in; your choice is still here.")
  );
  request.addEventListener("abort", () => fail("The upload was stopped. Nothing was handed in."));
  status.textContent = "Uploading…";
  rate.textContent = "";
  bar.value = 0;
  setSending(true);
  request.send(new FormData(form));
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (request) return;
  if (check()) send();
  else if (!input.files[0]) showError("Choose a file to upload: a .zip, .tar or .tar.gz archive.");
});
input.addEventListener("change", check);
stopButton.addEventListener("click", () => request?.abort());
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, () => drop.classList.add("over"));
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
window.addEventListener("beforeunload", (event) => {
  if (request && request.readyState !== XMLHttpRequest.DONE) event.preventDefault();
});
// Back from a run's page the browser may still show the file of last time.
check();
