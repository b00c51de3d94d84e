// Sends the submit form with progress: a small file in one request, a large one in pieces (tus) that survive a broken
// connection, a reload and a restart of the server. Without this file the form is posted the ordinary way.
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
const singleRequestBytes = Number(form.dataset.singleRequestBytes);
const pieceBytes = 64 * 2 ** 20; // below what proxies refuse, and little to send again
const retryDelaysMs = [0, 1000, 3000, 5000, 10000, 20000, 30000, 30000, 60000];
const checkWaitMs = 30 * 60 * 1000; // large files take minutes, and others may come first
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

const duration = (seconds) => {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
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

const sessionEnded =
  "Your session has ended. Sign in in another tab, load this page again, and submit once more: the upload goes on where it stopped.";

const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null; // an HTML page: the sign-in form or an error page
  }
};

const answer = (xhr) => {
  const body = parsed(xhr.responseText);
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

// Progress and, from what came since `start`, the rate.
const shower = (startBytes) => {
  const started = performance.now();
  return (loaded, total) => {
    bar.max = total;
    bar.value = loaded;
    const perSecond = (loaded - startBytes) / Math.max((performance.now() - started) / 1000, 0.001);
    const rest = perSecond > 0 ? ` · ${duration((total - loaded) / perSecond)} left` : "";
    rate.textContent = `${size(loaded)} of ${size(total)} · ${size(perSecond)}/s${rest}`;
  };
};

const begin = () => {
  status.textContent = "Uploading…";
  rate.textContent = "";
  bar.value = 0;
  setSending(true);
};

const showChecking = () => {
  status.textContent = "Uploaded. Checking the archive…";
  bar.removeAttribute("value");
};

const sendAtOnce = () => {
  request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  const show = shower(0);
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) show(event.loaded, event.total);
  });
  request.upload.addEventListener("load", showChecking);
  const current = request;
  request.addEventListener("load", () => answer(current));
  request.addEventListener("error", () =>
    fail("The connection broke before the upload was complete. Nothing was handed in; your choice is still here.")
  );
  request.addEventListener("abort", () => fail("The upload was stopped. Nothing was handed in."));
  begin();
  request.send(new FormData(form));
};

// Asks what became of the complete file until the server has looked at it.
const waitForCheck = async (place) => {
  showChecking();
  const deadline = performance.now() + checkWaitMs;
  for (let misses = 0; misses < retryDelaysMs.length; ) {
    if (performance.now() > deadline) {
      fail(
        "The server has the whole file, but has not checked it yet. Nothing has to be sent again: load this page again " +
          "later, and hand the file in under Unfinished uploads, or look under My submissions. If it stays so, tell the organisers."
      );
      return;
    }
    const response = await fetch(place, { headers: { Accept: "application/json" } }).catch(() => null);
    const body = response && parsed(await response.text());
    if (body?.state === "accepted") {
      window.location.assign(body.path);
      return;
    }
    if (response?.status === 401) {
      fail(sessionEnded);
      return;
    }
    if (body && body.state !== "checking" && body.state !== "receiving") {
      fail(body.detail || "The server refused the file.");
      return;
    }
    if (!body) misses += 1;
    await new Promise((resolve) => setTimeout(resolve, body ? 400 : retryDelaysMs[Math.min(misses, 5)]));
  }
  fail("The server has the whole file, but does not answer. Look under My submissions in a few minutes.");
};

const sendInPieces = async (file) => {
  const track = form.querySelector("input[name=track]:checked").value;
  const { competition } = form.dataset;
  let show = null;
  const upload = new window.tus.Upload(file, {
    endpoint: form.dataset.uploads,
    chunkSize: pieceBytes,
    retryDelays: retryDelaysMs,
    removeFingerprintOnSuccess: true,
    metadata: { competition, track, filename: file.name },
    fingerprint: async () => ["tiltyard", competition, track, file.name, file.size, file.lastModified].join("|"),
    onShouldRetry: (error) => {
      const code = error.originalResponse?.getStatus() ?? 0;
      const willRetry = code === 0 || code === 408 || code === 409 || code === 423 || code >= 500;
      if (willRetry) status.textContent = "The connection broke. Going on in a moment…";
      return willRetry;
    },
    onProgress: (loaded, total) => {
      show ??= shower(loaded);
      status.textContent = "Uploading…";
      show(loaded, total);
    },
    onSuccess: () => {
      request = null;
      waitForCheck(upload.url);
    },
    onError: (error) => {
      const response = error.originalResponse;
      if (response?.getStatus() === 401) fail(sessionEnded);
      else
        fail(
          parsed(response?.getBody() ?? "")?.detail ??
            "The connection broke, and the server cannot be reached. Submit the same file again: the upload goes on where it stopped."
        );
    },
  });
  request = {
    abort: async () => {
      await upload.abort();
      fail("The upload was stopped. Submit the same file again to go on where it stopped.");
    },
  };
  begin();
  const [earlier] = await upload.findPreviousUploads();
  if (earlier) {
    status.textContent = "Going on with the upload…";
    upload.resumeFromPreviousUpload(earlier);
  }
  upload.start();
};

const send = () => {
  const file = input.files[0];
  if (file.size > singleRequestBytes) sendInPieces(file);
  else sendAtOnce();
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
